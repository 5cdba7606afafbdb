//! Hostile text in every field of an Ingress that holds text. The fields are found by walking the
//! object, so none is forgotten.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::hostile::{PAYLOADS, breaks_lines};
use super::world::{World, answer, ingress, one_host, path};
use crate::Snapshot;
use crate::compile::ServedClasses;
use crate::defaults::{INGRESS_CONTROLLER, INGRESS_NGINX_CONTROLLER};
use crate::model::{HostRoutes, PathMatch, RouteRule};

/// An Ingress that says something in each field of its spec.
fn everything() -> Value {
    let port = json!({"name": "http"});
    let resource = json!({"apiGroup": "storage.test", "kind": "Bucket", "name": "files"});
    let backend = json!({"service": {"name": "web", "port": port}});
    let spec = json!({
        "ingressClassName": "ours",
        "defaultBackend": backend,
        "tls": [{"hosts": ["it.test", "*.it.test"], "secretName": "certificate"}],
        "rules": [
            {"host": "it.test", "http": {"paths": [
                {"path": "/a", "pathType": "Prefix", "backend": backend},
                {"path": "/b", "pathType": "Exact", "backend": backend},
                {"path": "/c", "pathType": "ImplementationSpecific", "backend": backend},
                {"path": "/d", "pathType": "Prefix", "backend": {"resource": resource}},
            ]}},
            {"host": "*.it.test", "http": {"paths": [
                {"path": "/a", "pathType": "Prefix", "backend": backend},
            ]}},
        ],
    });
    let mut it = ingress("it", 0, json!({}), spec);
    it["metadata"]["labels"] = json!({"app": "it"});
    it
}

/// Where there is text in it, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at.to_owned()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                places(field, &format!("{at}/{name}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A world with this Ingress and somebody else's.
fn compiled(controller: &str, it: Value) -> (Snapshot, bool) {
    let mut world = World::with(|options| options.classes = ServedClasses::with_ingress_nginx());
    world.class("ours", json!({"controller": controller}));
    world.simple_service("web");
    let other = json!([path("Prefix", "/", "web")]);
    world.ingress("other", 1, json!({}), one_host("other.test", other));
    world.ingress_object(it);
    let snapshot = world.build();
    let is_awaited = world.compiler.secrets().next().is_some();
    (snapshot, is_awaited)
}

fn hosts(snapshot: &Snapshot) -> Vec<&HostRoutes> {
    let table = &snapshot.routes;
    let hosts = table.exact.values().chain(table.wildcard.values());
    hosts.chain(&table.any).map(AsRef::as_ref).collect()
}

/// Each rule in a line: which requests it takes, and what becomes of them.
fn rules(snapshot: &Snapshot) -> BTreeSet<String> {
    let line = |host: &HostRoutes, rule: &RouteRule| {
        let path = match &rule.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Start(path) => path,
            PathMatch::Regex(regex) => panic!("{} is no literal: {regex:?}", rule.field),
        };
        assert!(
            rule.filters.policy.is_none(),
            "{}: {:?}",
            rule.field,
            rule.filters
        );
        assert!(rule.canary.is_none(), "{}", rule.field);
        format!("{} {path} {}", host.host, answer(rule))
    };
    let of = |host: &HostRoutes| -> Vec<String> {
        let all = host.rules.iter().chain(&host.fallback);
        all.map(|rule| line(host, rule)).collect()
    };
    hosts(snapshot).into_iter().flat_map(of).collect()
}

#[test]
fn ingress_u4_text_of_an_ingress_is_a_literal_or_a_problem_wherever_it_stands() {
    let mut found = Vec::new();
    places(&everything()["spec"], "/spec", &mut found);
    places(
        &everything()["metadata"]["labels"],
        "/metadata/labels",
        &mut found,
    );
    assert!(found.len() > 25, "{found:?}");
    for controller in [INGRESS_CONTROLLER, INGRESS_NGINX_CONTROLLER] {
        let (good, _) = compiled(controller, everything());
        let as_written = rules(&good);
        for place in &found {
            for payload in PAYLOADS {
                let everything = everything();
                let good = everything.pointer(place).and_then(Value::as_str).unwrap();
                for text in [payload.to_owned(), format!("{good}{payload}")] {
                    let mut it = everything.clone();
                    *it.pointer_mut(place).unwrap() = json!(text);
                    harmless(controller, &it, place, &text, &as_written);
                }
            }
        }
    }
}

/// Whoever else is served is served as before, there is nothing more than before, and what changed
/// says the text as it stands or is not served.
fn harmless(controller: &str, it: &Value, place: &str, text: &str, as_written: &BTreeSet<String>) {
    let what = format!("{controller} {place} {text:?}");
    let (snapshot, is_awaited) = compiled(controller, it.clone());
    let rules = rules(&snapshot);
    assert!(rules.contains("other.test  web:80"), "{what}: {rules:?}");
    assert!(rules.len() <= as_written.len(), "{what}: {rules:?}");
    for rule in rules.difference(as_written) {
        let is_literal = rule.contains(text) || rule.contains(&text.to_lowercase());
        let is_refused = !rule.ends_with("web:80") || place.ends_with("pathType");
        assert!(is_literal || is_refused, "{what}: {rule:?}");
        assert!(!rule.chars().any(char::is_control), "{what}: {rule:?}");
    }
    assert!(snapshot.certificates.exact.is_empty() && snapshot.certificates.default.is_none());
    for problem in snapshot.problems.iter() {
        let said = [&*problem.message, &*problem.field];
        assert!(
            !said.iter().any(|said| breaks_lines(said)),
            "{what}: {problem:?}"
        );
    }
    // A label, and a group of resources that are not served anyway, mean nothing.
    let means_nothing = place.starts_with("/metadata") || place.contains("/resource/");
    let is_ours = !place.ends_with("ingressClassName");
    if breaks_lines(text) && is_ours && !means_nothing {
        let is_told = is_awaited || !snapshot.problems.is_empty();
        assert!(is_told, "{what} is taken without a word");
    }
}
