//! What is answered to a GET. Nothing here shows a Secret, a header or the environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::metrics::MetricsHandle;
use http::StatusCode;
use sealane_config::model::Service;
use sealane_proxy::admission::Connections;
use serde_json::{Value, json};

use super::debug;
use super::readiness::Readiness;
use crate::explain::Explainer;

/// Media types.
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Who may ask for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything: for a listener that only this machine reaches.
    All,
    /// What a kubelet and a metrics collector need.
    Probes,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Page {
    /// Status code.
    pub(crate) status: StatusCode,
    /// Media type.
    pub(crate) media_type: &'static str,
    /// Body.
    pub(crate) body: String,
}

/// Everything that answers are made of.
#[derive(Clone)]
pub(crate) struct Pages {
    /// The subcommand.
    pub(crate) mode: &'static str,
    /// Whether we are ready.
    pub(crate) readiness: Readiness,
    /// Explains the state of the world.
    pub(crate) explainer: Explainer,
    /// The metrics.
    pub(crate) metrics: MetricsHandle,
    /// The data plane's connections.
    pub(crate) connections: Connections,
}

impl Pages {
    /// The page at a path; the query is for those that take one.
    pub(super) fn get(&self, scope: Scope, path: &str, query: &str) -> Page {
        match (path, scope) {
            ("/livez" | "/live" | "/healthz", _) => text(StatusCode::OK, "ok\n".to_owned()),
            ("/readyz" | "/ready", _) => self.readyz(),
            ("/version", _) => {
                object(&json!({"version": env!("CARGO_PKG_VERSION"), "mode": self.mode}))
            }
            ("/debug/snapshot", Scope::All) => object(&self.snapshot()),
            ("/debug/config", Scope::All) => self.of_services(query, debug::config),
            ("/debug/endpoints", Scope::All) => self.of_services(query, debug::endpoints),
            ("/debug/connections", Scope::All) => object(&debug::connections(&self.connections)),
            ("/debug/explain", Scope::All) => match self.explainer.answer(query) {
                Ok(body) => Page {
                    status: StatusCode::OK,
                    media_type: JSON,
                    body,
                },
                Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, format!("no page {path:?}\n")),
        }
    }

    /// The Services, or the one that `service=NAMESPACE/NAME` names.
    fn of_services(&self, query: &str, show: fn(&Service) -> Value) -> Page {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let only = pairs.find(|(name, _)| name == "service");
        let only = only.map(|(_, value)| value);
        let snapshot = Arc::clone(&self.explainer.reader.load());
        object(&debug::services(&snapshot, only.as_deref(), show))
    }

    /// Kubernetes' own form: `ok`, or what is missing, a line each.
    fn readyz(&self) -> Page {
        let pending = self.readiness.pending();
        if pending.is_empty() {
            return text(StatusCode::OK, "ok\n".to_owned());
        }
        let lines = pending.iter().map(|what| format!("[-] {what}\n"));
        text(StatusCode::SERVICE_UNAVAILABLE, lines.collect())
    }

    /// How much there is of what: counts only.
    fn snapshot(&self) -> Value {
        let snapshot = self.explainer.reader.load();
        let services = snapshot.services.values();
        let endpoints: usize = services.map(|service| service.endpoints.len()).sum();
        let mut problems: BTreeMap<&str, usize> = BTreeMap::new();
        for problem in snapshot.problems.iter() {
            *problems.entry(problem.kind.label()).or_default() += 1;
        }
        let ages = self.explainer.reader.staleness().ages().into_iter();
        let staleness: BTreeMap<&str, f64> =
            ages.map(|(kind, age)| (kind, age.as_secs_f64())).collect();
        let (routes, certificates) = (&snapshot.routes, &snapshot.certificates);
        json!({
            "generation": snapshot.generation,
            "synced": snapshot.synced,
            "changedAt": snapshot.changed_at,
            "services": snapshot.services.size(),
            "endpoints": endpoints,
            "vips": snapshot.vips.size(),
            "nodePorts": snapshot.node_ports.size(),
            "namespaces": snapshot.namespaces.size(),
            "hosts": routes.exact.size() + routes.wildcard.size() + usize::from(routes.any.is_some()),
            "certificates": certificates.exact.size() + certificates.wildcard.size(),
            "defaultCertificate": certificates.default.is_some(),
            "problems": problems,
            "stalenessSeconds": staleness,
        })
    }
}

fn text(status: StatusCode, body: String) -> Page {
    Page {
        status,
        media_type: TEXT,
        body,
    }
}

fn object(value: &Value) -> Page {
    Page {
        status: StatusCode::OK,
        media_type: JSON,
        body: format!("{value}\n"),
    }
}
