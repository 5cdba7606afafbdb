//! Who answers in place of errors, looked up among the Services; and the Service for requests that no
//! rule takes.

use std::sync::Arc;

use super::host_backends::BadBackend;
use super::host_routes::HostCompiler;
use super::ingress::IngressRecord;
use super::rank::SourceKey;
use crate::model::{
    Backend, ErrorPages, ErrorStatuses, Filters, PathMatch, Problem, ProblemKind, RoutePolicy,
    RouteRule, WeightedBackend,
};

const ERRORS: &str = "metadata.annotations[nginx.ingress.kubernetes.io/custom-http-errors]";
const BACKEND: &str = "metadata.annotations[nginx.ingress.kubernetes.io/default-backend]";

impl HostCompiler<'_> {
    /// Who answers in place of errors for the paths of an object, if anybody does. An object's own
    /// Service goes before the gateway's.
    pub(super) fn error_pages(
        &self,
        key: &SourceKey,
        record: &IngressRecord,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<ErrorPages>> {
        // Each path of the object says the same.
        let mut problem = |field: &str, kind, message| {
            let problem = Problem {
                object: key.object(),
                field: field.to_owned(),
                kind,
                message,
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        };
        let said = record.policy.errors.as_deref();
        let name = said.and_then(|said| said.backend.as_ref());
        let own = name.and_then(|name| {
            let found = self.first_port(&key.sibling(name));
            let report = |bad: BadBackend| problem(BACKEND, bad.kind, bad.message);
            found.map_err(report).ok()
        });
        let statuses = said.and_then(|said| said.statuses.as_ref());
        let defaults = &self.defaults.errors;
        let on = ErrorStatuses {
            statuses: statuses.unwrap_or(&defaults.statuses).clone(),
            own_only: said
                .and_then(|said| said.own_only)
                .unwrap_or(defaults.own_only),
        };
        let without_endpoints = own.is_some();
        let Some(backend) = own.or_else(|| self.default_backend()) else {
            if statuses.is_some() && name.is_none() {
                let message = "there is nobody to answer these errors: say who with default-backend, or \
                               with --default-backend-service for the whole gateway; they go out as \
                               they are";
                problem(ERRORS, ProblemKind::BadAnnotation, message.to_owned());
            }
            return None;
        };
        pages(backend, on, without_endpoints)
    }

    /// The gateway's default Service.
    fn default_backend(&self) -> Option<Backend> {
        self.first_port(self.default_service?).ok()
    }

    /// The rule of the gateway's default Service, for requests that nothing else takes.
    pub(super) fn default_service_rule(
        &self,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<RouteRule>> {
        let service = self.default_service?;
        let source = service.of_kind("Service");
        let backend = match self.first_port(service) {
            Ok(backend) => backend,
            Err(bad) => {
                problems.push(Problem {
                    object: source,
                    field: "spec.ports".to_owned(),
                    kind: bad.kind,
                    message: format!(
                        "{}: requests that no rule takes are answered 404",
                        bad.message
                    ),
                });
                return None;
            }
        };
        let mut policy = self.policy(None);
        if let Some(pages) = pages(backend.clone(), self.defaults.errors.clone(), false) {
            policy = Some(with_errors(policy.as_deref(), pages));
        }
        let invalid = self.defaults.refused;
        let backend = WeightedBackend { weight: 1, backend };
        Some(Arc::new(RouteRule {
            source,
            field: "spec.ports".into(),
            path: PathMatch::Prefix("".into()),
            filters: Filters {
                policy,
                ..Filters::default()
            },
            backends: invalid.is_none().then_some(backend).into_iter().collect(),
            invalid,
            canary: None,
        }))
    }
}

fn pages(backend: Backend, on: ErrorStatuses, without_endpoints: bool) -> Option<Arc<ErrorPages>> {
    let is_any = without_endpoints || !on.statuses.is_empty();
    is_any.then(|| {
        Arc::new(ErrorPages {
            backend,
            on,
            without_endpoints,
        })
    })
}

/// A policy with these answers in place of errors.
pub(super) fn with_errors(
    policy: Option<&RoutePolicy>,
    pages: Arc<ErrorPages>,
) -> Arc<RoutePolicy> {
    Arc::new(RoutePolicy {
        errors: Some(pages),
        ..policy.cloned().unwrap_or_default()
    })
}
