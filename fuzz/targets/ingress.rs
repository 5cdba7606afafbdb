#![no_main]
//! Ingresses: whatever their paths and annotations say, they compile, requests can be compared with
//! what they compile to, and nothing of it reaches another Ingress.
//!
//! An input has a line each for the path's type, the path, a path that is asked for, and annotations
//! of ingress-nginx, `name: value`, in which `\n`, `\r` and `\0` are escaped.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::Ingress;
use libfuzzer_sys::fuzz_target;
use sealane_config::compile::{
    Change, ClassRecord, Compiler, Delta, GatewayOptions, IngressRecord, ObjectKey, ServedClasses,
};
use sealane_config::ingress_nginx::PREFIX;
use sealane_config::model::PathMatch;
use serde_json::{Value, json};
use tokio::time::Instant;

const CONTROLLER: &str = "k8s.io/ingress-nginx";

fn ingress(host: &str, kind: &str, path: &str, annotations: &BTreeMap<String, String>) -> Ingress {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let paths = json!([{"pathType": kind, "path": path, "backend": backend}]);
    let object: Value = json!({
        "metadata": {"namespace": "default", "name": host, "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": paths}}]},
    });
    serde_json::from_value(object).unwrap()
}

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let kind = lines.next().unwrap_or_default();
    let path = lines.next().unwrap_or_default();
    let asked = lines.next().unwrap_or_default();
    let annotations: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| {
            let value = value.replace("\\n", "\n").replace("\\r", "\r");
            (format!("{PREFIX}{name}"), value.replace("\\0", "\0"))
        })
        .collect();
    let now = Instant::now();
    let mut compiler = Compiler::new(
        GatewayOptions {
            classes: ServedClasses::with_ingress_nginx(),
            ..GatewayOptions::default()
        },
        None,
    );
    let class = json!({"metadata": {"name": "nginx"}, "spec": {"controller": CONTROLLER}});
    let class = ClassRecord::read(serde_json::from_value(class).unwrap());
    let set = Delta::Set(ObjectKey::new("", "nginx"), Ok(Some(class)));
    compiler.apply(Change::Classes(set), now);
    for object in [
        ingress("it.test", kind, path, &annotations),
        ingress("other.test", "Prefix", "/", &BTreeMap::new()),
    ] {
        let name = object.metadata.name.clone().unwrap_or_default();
        let key = ObjectKey::new("default", &name);
        let record = IngressRecord::read(&key, object);
        compiler.apply(Change::Ingresses(Delta::Set(key, Ok(Some(record)))), now);
    }
    let snapshot = compiler.build(now, 0).snapshot;
    for problem in snapshot.problems.iter() {
        assert!(!problem.message.contains(char::is_control), "{problem:?}");
    }
    let rules = |host: &str| {
        let host = snapshot.routes.exact.get(host);
        host.map_or(&[][..], |host| &host.rules[..])
    };
    let breaks = |value: &String| value.trim().contains(char::is_control);
    for rule in rules("it.test") {
        assert!(rule.invalid.is_some() || !annotations.values().any(breaks));
        if let PathMatch::Regex(regex) = &rule.path {
            // Too many steps are an error, and soon.
            let _ = regex.is_match(asked);
        }
    }
    assert_eq!(rules("other.test").len(), 1);
    // Its Service is not there, and that is all.
    assert_eq!(rules("other.test")[0].invalid, Some("service not found"));
});
