//! What there is to tell people about the objects that are ours.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::Snapshot;
use crate::model::{HostRoutes, ObjectRef, Problem, RouteRule};

/// How long a Service has to be without endpoints before that is told: a rollout of a single pod is
/// nothing to worry about.
const ENDPOINTS_SETTLE: Duration = Duration::from_secs(5);

/// Something to tell about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) object: ObjectRef,
    /// The object's `metadata.uid`, where it is known.
    pub(super) uid: Option<Arc<str>>,
    /// One word in CamelCase, for programs.
    pub(super) reason: String,
    /// One sentence, for people.
    pub(super) note: String,
    /// How long it has to last before it is told.
    pub(super) settle: Duration,
}

/// Everything that is to be told about the objects in `snapshot` that are ours.
pub(super) fn of(snapshot: &Snapshot) -> Vec<Notice> {
    let mut ours = Ours {
        snapshot,
        services: None,
    };
    let problems = snapshot.problems.iter().filter(|p| ours.concern(p));
    let mut notices: Vec<Notice> = problems.map(|p| of_problem(snapshot, p)).collect();
    without_endpoints(snapshot, &mut notices);
    notices
}

/// That somebody else keeps changing the status of an Ingress that is ours.
pub(super) fn contested(object: ObjectRef, uid: Arc<str>) -> Notice {
    Notice {
        object,
        uid: Some(uid),
        reason: "StatusContested".into(),
        note: "status.loadBalancer.ingress: another controller keeps changing it; it is written \
               back once a minute at most. Only one controller may serve an IngressClass"
            .into(),
        settle: Duration::ZERO,
    }
}

fn of_problem(snapshot: &Snapshot, problem: &Problem) -> Notice {
    let note = if problem.field.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.field, problem.message)
    };
    Notice {
        uid: uid(snapshot, &problem.object),
        object: problem.object.clone(),
        reason: camel_case(problem.kind.label()),
        note,
        settle: Duration::ZERO,
    }
}

fn uid(snapshot: &Snapshot, object: &ObjectRef) -> Option<Arc<str>> {
    let status = snapshot.ingresses.get(object)?;
    Some(Arc::clone(&status.uid))
}

/// Which objects are ours: Ingresses of our classes, and what they lead to.
struct Ours<'a> {
    snapshot: &'a Snapshot,
    /// Services that Ingresses of ours name, by namespace and name; made when first needed.
    services: Option<HashSet<(Arc<str>, Arc<str>)>>,
}

impl Ours<'_> {
    fn concern(&mut self, problem: &Problem) -> bool {
        let object = &problem.object;
        match object.kind {
            "Ingress" => {
                let status = self.snapshot.ingresses.get(object);
                status.is_some_and(|status| status.is_ours)
            }
            "Service" => {
                let (namespace, name) = (Arc::clone(&object.namespace), Arc::clone(&object.name));
                self.services().contains(&(namespace, name))
            }
            // The default certificate, and the settings of the gateway.
            "Secret" | "ConfigMap" => true,
            "EndpointSlice" | "Namespace" | "Node" => false,
            // Of these only our own are compiled; nobody knows whose one is that cannot be read.
            _ => !problem.field.is_empty(),
        }
    }

    fn services(&mut self) -> &HashSet<(Arc<str>, Arc<str>)> {
        let snapshot = self.snapshot;
        self.services.get_or_insert_with(|| {
            let ours = snapshot.ingresses.iter().filter(|(_, s)| s.is_ours);
            ours.flat_map(|(object, status)| {
                let named = status.services.iter();
                named.map(|name| (Arc::clone(&object.namespace), Arc::clone(name)))
            })
            .collect()
        })
    }
}

/// One notice for each route and Service that nothing stands behind.
fn without_endpoints(snapshot: &Snapshot, notices: &mut Vec<Notice>) {
    let routes = &snapshot.routes;
    let hosts = routes.exact.values().chain(routes.wildcard.values());
    let of_hosts = hosts.chain(&routes.any).flat_map(|host| all_rules(host));
    let mut seen: HashMap<&ObjectRef, HashSet<String>> = HashMap::new();
    for rule in of_hosts.chain(&routes.default_rule) {
        for weighted in &rule.backends {
            let backend = &weighted.backend;
            let port = snapshot.backend(backend);
            if port.is_none_or(|port| !port.endpoints.is_empty()) {
                continue;
            }
            let note = format!(
                "Service {} has no ready endpoints for port {}: requests are answered with 503",
                backend.service, backend.port
            );
            if seen.entry(&rule.source).or_default().insert(note.clone()) {
                notices.push(Notice {
                    object: rule.source.clone(),
                    uid: uid(snapshot, &rule.source),
                    reason: "NoEndpoints".into(),
                    note,
                    settle: ENDPOINTS_SETTLE,
                });
            }
        }
    }
}

fn all_rules(host: &HostRoutes) -> impl Iterator<Item = &Arc<RouteRule>> {
    host.rules.iter().chain(&host.fallback)
}

/// `missing_service` to `MissingService`.
fn camel_case(label: &str) -> String {
    let mut text = String::with_capacity(label.len());
    for word in label.split('_') {
        let mut letters = word.chars();
        text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProblemKind;

    #[test]
    fn reasons_are_one_word_each() {
        for kind in ProblemKind::ALL {
            let reason = camel_case(kind.label());
            assert_eq!(reason, format!("{kind:?}"));
        }
    }

    #[test]
    fn only_of_what_is_ours() {
        let object = |kind: &'static str, name: &str| ObjectRef {
            kind,
            namespace: "shop".into(),
            name: name.into(),
        };
        let status = |is_ours: bool| {
            Arc::new(crate::model::IngressStatus {
                uid: "1".into(),
                class: None,
                is_ours,
                addresses: [].into(),
                writer: crate::model::StatusWriter::Unknown,
                services: ["web".into()].into(),
            })
        };
        let mut snapshot = Snapshot::default();
        let ingresses = &mut snapshot.ingresses;
        ingresses.insert_mut(object("Ingress", "mine"), status(true));
        ingresses.insert_mut(object("Ingress", "left"), status(false));
        // Kind, name, field, whether it is told.
        let cases = [
            ("Ingress", "mine", "spec", true),
            ("Ingress", "left", "", false),
            ("Ingress", "unknown", "", false),
            ("Service", "web", "spec", true),
            ("Service", "other", "spec", false),
            ("IngressClass", "ours", "spec.parameters", true),
            ("IngressClass", "unreadable", "", false),
            ("EndpointSlice", "web-1", "", false),
            ("HTTPRoute", "it", "spec", true),
            ("HTTPRoute", "unreadable", "", false),
        ];
        let problem = |(kind, name, field, _): &(&'static str, &str, &str, bool)| Problem {
            object: object(kind, name),
            field: (*field).into(),
            kind: ProblemKind::BadField,
            message: "m".into(),
        };
        snapshot.problems = cases.iter().map(problem).collect();
        let told: Vec<ObjectRef> = of(&snapshot).into_iter().map(|n| n.object).collect();
        for (kind, name, _, expected) in cases {
            assert_eq!(
                told.contains(&object(kind, name)),
                expected,
                "{kind} {name}"
            );
        }
    }
}
