//! The backends of a rule, their shares of the requests, and what becomes of each.

use sealane_config::Snapshot;
use sealane_config::model::{BackendProtocol, RouteRule, WeightedBackend};
use sealane_ingress::decide;
use sealane_proxy::http::Upstream;
use sealane_proxy::{Error, ErrorKind};

use super::endpoints;
use super::model::{Mark, Outcome, Phase, Trail};
use super::url::End;

/// What becomes of the shares of a rule's backends.
#[derive(Default)]
pub(super) struct Shares {
    total: u64,
    served: Vec<String>,
    endpoints: usize,
    failed: Vec<(u32, Error)>,
}

impl Shares {
    /// Looks at every backend.
    pub(super) fn of(
        trail: &mut Trail,
        snapshot: &Snapshot,
        rule: &RouteRule,
        secure: bool,
    ) -> Self {
        let mut shares = Self {
            total: rule.backends.iter().map(|b| u64::from(b.weight)).sum(),
            ..Self::default()
        };
        for weighted in &rule.backends {
            let name = name(weighted);
            if weighted.weight == 0 {
                let step = trail.step(Phase::Backend, Mark::Rejected, name, "its weight is 0");
                step.of(&rule.source, &rule.backend_field());
                continue;
            }
            match backend(trail, snapshot, rule, weighted, (shares.total, secure)) {
                Ok(count) => {
                    shares.endpoints += count;
                    shares.served.push(name);
                }
                Err(error) => shares.failed.push((weighted.weight, error)),
            }
        }
        shares
    }

    /// What the shares come to.
    pub(super) fn end(self) -> End {
        let served = self.served.join(" or ");
        let Some((_, error)) = self.failed.first() else {
            let endpoints = match self.endpoints {
                1 => "its one endpoint".to_owned(),
                count => format!("one of {count} endpoints: the cheaper of two drawn at random"),
            };
            return End {
                outcome: Outcome::Served,
                status: None,
                summary: format!("goes to {served}, {endpoints}"),
            };
        };
        let end = End::error(error);
        if self.served.is_empty() {
            return end;
        }
        let failed: u64 = self
            .failed
            .iter()
            .map(|(weight, _)| u64::from(*weight))
            .sum();
        let total = self.total;
        End {
            summary: format!(
                "{failed} of {total} requests are {}; the others go to {served}",
                end.summary
            ),
            ..end
        }
    }
}

/// A backend as people name it. One whose port is not known has none.
fn name(weighted: &WeightedBackend) -> String {
    let backend = &weighted.backend;
    match backend.port {
        0 => format!("Service {}", backend.service),
        port => format!("Service {}:{port}", backend.service),
    }
}

/// One backend of a rule and its endpoints; returns how many can be chosen.
fn backend(
    trail: &mut Trail,
    snapshot: &Snapshot,
    rule: &RouteRule,
    weighted: &WeightedBackend,
    (total, secure): (u64, bool),
) -> Result<usize, Error> {
    let what = name(weighted);
    let field = rule.backend_field();
    let target = decide::target(snapshot, rule, weighted, secure).inspect_err(|error| {
        let step = trail.step(Phase::Backend, Mark::Failed, what.clone(), error.detail());
        step.of(&rule.source, &field);
    })?;
    let mut why = spoken(target.upstream, rule.filters.backend_protocol).to_owned();
    if rule.backends.len() > 1 {
        why = format!("{} of {total} requests, {why}", weighted.weight);
    }
    trail
        .step(Phase::Backend, Mark::Chosen, what, why)
        .of(&rule.source, &field);
    if let [own] = target.port.endpoints.as_ref()
        && rule.filters.service_upstream.is_some()
    {
        let why = "the Service's own address in place of its endpoints, by service-upstream";
        trail.step(Phase::Endpoint, Mark::Chosen, own.addr.to_string(), why);
        return Ok(1);
    }
    let service = snapshot.services.get(&weighted.backend.service);
    let usable = service.map_or(0, |service| {
        endpoints::explain(trail, service, &target.port)
    });
    match usable {
        0 => Err(Error::new(
            ErrorKind::NoEndpoints,
            "the Service has no ready endpoint",
        )),
        usable => Ok(usable),
    }
}

fn spoken(upstream: Upstream, asked: BackendProtocol) -> &'static str {
    let by_rule = asked != BackendProtocol::Http;
    match (upstream, by_rule) {
        (Upstream::Http1, true) if asked == BackendProtocol::Auto => {
            "HTTP/1.1, as the client came, by backend-protocol"
        }
        (Upstream::Http1, _) => "HTTP/1.1",
        (Upstream::Http2, true) => "HTTP/2 in plain text, by backend-protocol",
        (Upstream::Http2, false) => "HTTP/2 in plain text, by the port's appProtocol",
        (Upstream::Http1Tls, true) => "HTTP/1.1 over TLS, by backend-protocol",
        (Upstream::Http1Tls, false) => "HTTP/1.1 over TLS, by the port's appProtocol",
        (Upstream::Http2Tls, _) => "HTTP/2 over TLS, by backend-protocol",
    }
}
