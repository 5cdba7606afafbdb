//! Canaries look for the rule that they belong to.
//!
//! The Ingress that a canary belongs to is another one that is no canary and has the same host, path
//! and path type; which of the two comes first makes no difference. It settles everything but who
//! gets which requests: certificate, filters and access. A path has one canary, the oldest. One that
//! belongs to nobody gets nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::host_routes::{HostCompiler, Source};
use super::ingress::{BackendRecord, IngressRecord, PathKind};
use super::rank::SourceKey;
use super::upstream_tls::NO_UPSTREAM_TLS;
use crate::model::{
    Canary, CanaryShare, Filters, HostMatch, Problem, ProblemKind, RoutePolicy, RouteRule,
};

const DEFAULT_BACKEND: &str = "spec.defaultBackend";

/// The canaries of one host that have not found their rule yet.
#[derive(Default)]
pub(super) struct Canaries<'a> {
    paths: BTreeMap<(PathKind, &'a str), Waiting<'a>>,
    default: Option<Waiting<'a>>,
}

/// A path of a canary, or its default backend.
pub(super) struct Waiting<'a> {
    key: &'a SourceKey,
    record: &'a IngressRecord,
    share: &'a Arc<CanaryShare>,
    backend: &'a BackendRecord,
    field: String,
}

/// Canaries, and the Ingresses that they may belong to, each in their order.
pub(super) fn split<'a, 'r>(
    sources: &'a [Source<'r>],
) -> (Vec<&'a Source<'r>>, Vec<&'a Source<'r>>) {
    let is_canary = |(_, record): &&Source<'_>| record.policy.canary.is_some();
    sources.iter().partition(is_canary)
}

impl<'a> Canaries<'a> {
    /// What `sources`, the oldest first, have for a host.
    pub(super) fn claim(
        host: &HostMatch,
        sources: &[&'a Source<'_>],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut claimed = Self::claim_default(sources, problems);
        for (key, record) in sources {
            let Some(share) = &record.policy.canary else {
                continue;
            };
            let rules = record.rules.iter().filter(|rule| &rule.host == host);
            for (rule, path) in rules.flat_map(|rule| rule.paths.iter().map(move |p| (rule, p))) {
                let waiting = Waiting {
                    key,
                    record,
                    share,
                    backend: &path.backend,
                    field: record.path_field(rule, path),
                };
                let claim = (path.kind, &*path.path);
                if let Some(winner) = claimed.paths.get(&claim) {
                    let message = format!(
                        "{} has the canary {}, which is older",
                        path.path, winner.key
                    );
                    problems.push(waiting.problem(ProblemKind::Conflict, message));
                } else {
                    claimed.paths.insert(claim, waiting);
                }
            }
        }
        claimed
    }

    /// Their default backends only.
    pub(super) fn claim_default(sources: &[&'a Source<'_>], problems: &mut Vec<Problem>) -> Self {
        let mut claimed = Self::default();
        for (key, record) in sources {
            let default = record
                .policy
                .canary
                .as_ref()
                .zip(record.default_backend.as_ref());
            let Some((share, backend)) = default else {
                continue;
            };
            let waiting = Waiting {
                key,
                record,
                share,
                backend,
                field: DEFAULT_BACKEND.to_owned(),
            };
            if let Some(winner) = &claimed.default {
                let message = format!(
                    "the default backend has the canary {}, which is older",
                    winner.key
                );
                problems.push(waiting.problem(ProblemKind::Conflict, message));
            } else {
                claimed.default = Some(waiting);
            }
        }
        claimed
    }

    /// The canary of a path.
    pub(super) fn take(&mut self, kind: PathKind, path: &'a str) -> Option<Waiting<'a>> {
        self.paths.remove(&(kind, path))
    }

    /// The canary of the default backend.
    pub(super) fn take_default(&mut self) -> Option<Waiting<'a>> {
        self.default.take()
    }

    /// Reports those that belong to nobody.
    pub(super) fn left_over(self, problems: &mut Vec<Problem>) {
        for waiting in self.paths.into_values().chain(self.default) {
            let message = "no Ingress that is not a canary has this host, path and path type: the \
                           canary gets no traffic";
            problems.push(waiting.problem(ProblemKind::BadField, message.into()));
        }
    }
}

impl Waiting<'_> {
    fn problem(&self, kind: ProblemKind, message: String) -> Problem {
        Problem {
            object: self.key.object(),
            field: self.field.clone(),
            kind,
            message,
        }
    }

    fn backend_field(&self) -> String {
        if self.field == DEFAULT_BACKEND {
            self.field.clone()
        } else {
            self.record.backend_field(&self.field)
        }
    }
}

impl HostCompiler<'_> {
    /// The canary of a rule.
    pub(super) fn canary(
        &self,
        main: &RouteRule,
        found: &Waiting<'_>,
        problems: &mut Vec<Problem>,
    ) -> Arc<Canary> {
        let source = (found.key, found.record);
        let backends = self.backends(source, found.backend, &found.backend_field(), problems);
        let through = main.filters.service_upstream.is_some();
        let through =
            through.then(|| self.service_upstream(found.key, backends.as_deref(), problems));
        let unverified = main.invalid.filter(|why| *why == NO_UPSTREAM_TLS);
        Arc::new(Canary {
            rule: Arc::new(RouteRule {
                source: found.key.object(),
                field: found.field.as_str().into(),
                path: main.path.clone(),
                filters: Filters {
                    service_upstream: through.flatten(),
                    policy: policy(main.filters.policy.as_ref(), found),
                    ..main.filters.clone()
                },
                // What cannot be verified as asked for is not spoken to by way of the canary either.
                invalid: backends.as_ref().err().copied().or(unverified),
                backends: backends.unwrap_or_default(),
                canary: None,
            }),
            share: Arc::clone(found.share),
        })
    }
}

/// The policy of the main Ingress, but for what belongs to the endpoints rather than to the path.
fn policy(main: Option<&Arc<RoutePolicy>>, found: &Waiting<'_>) -> Option<Arc<RoutePolicy>> {
    let own = found.record.policy.route.as_deref().cloned();
    let own = own.unwrap_or_default();
    let before = main.map(|main| (**main).clone()).unwrap_or_default();
    let mut policy = before.clone();
    policy.hash_by = own.hash_by;
    policy.overrides.algorithm = own.overrides.algorithm;
    if found.share.ignores_sessions {
        policy.affinity = own.affinity;
    }
    if policy == before {
        return main.cloned();
    }
    (policy != RoutePolicy::default()).then(|| Arc::new(policy))
}
