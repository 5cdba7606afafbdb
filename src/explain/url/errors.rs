//! Who answers in place of errors.

use http::StatusCode;
use sealane_config::model::{ErrorPages, RouteRule};

use crate::explain::model::{Mark, Phase, Trail};

pub(super) fn explain(trail: &mut Trail, rule: &RouteRule) {
    let policy = rule.filters.policy.as_ref();
    let Some(pages) = policy.and_then(|policy| policy.errors.as_ref()) else {
        return;
    };
    let backend = &pages.backend;
    let (service, port) = (&backend.service, backend.port);
    let who = format!("Service {}/{} port {port}", service.namespace, service.name);
    for what in answered(pages) {
        let why = format!("{who} answers in their place");
        let step = trail.step(Phase::Filter, Mark::Note, what, why);
        step.of(&rule.source, "");
    }
}

/// What somebody else answers.
fn answered(pages: &ErrorPages) -> Vec<String> {
    let mut what = Vec::new();
    if pages.without_endpoints {
        what.push("requests without endpoints".to_owned());
    }
    if !pages.on.statuses.is_empty() {
        let codes: Vec<&str> = pages.on.statuses.iter().map(StatusCode::as_str).collect();
        let whose = match pages.on.own_only {
            true => "errors of the gateway",
            false => "errors",
        };
        what.push(format!("{whose} {}", codes.join(", ")));
    }
    what
}

#[cfg(test)]
mod tests {
    use sealane_config::model::{Backend, ErrorStatuses, ServiceKey};

    use super::*;

    #[test]
    fn ingress_a14_explain_says_which_errors_somebody_else_answers() {
        let codes = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
        for (statuses, own_only, without_endpoints, expected) in [
            (&codes[..], false, false, &["errors 404, 503"][..]),
            (&codes[..1], true, false, &["errors of the gateway 404"]),
            (&[], false, true, &["requests without endpoints"]),
            (
                &codes,
                false,
                true,
                &["requests without endpoints", "errors 404, 503"],
            ),
        ] {
            let pages = ErrorPages {
                backend: Backend {
                    service: ServiceKey {
                        namespace: "shop".into(),
                        name: "pages".into(),
                    },
                    port: 80,
                },
                on: ErrorStatuses {
                    statuses: statuses.into(),
                    own_only,
                },
                without_endpoints,
            };
            assert_eq!(answered(&pages), expected);
        }
    }
}
