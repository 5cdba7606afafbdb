//! Header fields out of ConfigMaps.

use serde_json::{Map, Value, json};

use super::world::{World, answer, one_host, path, problems, rule};
use crate::compile::ObjectKey;
use crate::ingress_nginx::PREFIX;
use crate::model::ProblemKind;

fn annotate(world: &mut World, name: &str, list: &[(&str, &str)]) {
    let list = list.iter();
    let written: Map<String, Value> = list
        .map(|(name, value)| (format!("{PREFIX}{name}"), Value::from(*value)))
        .collect();
    let paths = json!([path("Prefix", "/", "web"), path("Prefix", "/b", "web")]);
    world.ingress(
        name,
        0,
        written.into(),
        one_host(&format!("{name}.test"), paths),
    );
}

fn world() -> World {
    let mut world = World::with(|options| {
        options.config_map = Some(ObjectKey::new("shop", "settings"));
    });
    world.simple_service("web");
    let allowed = [("global-allowed-response-headers", "X-Own, Server")];
    world.config_map("settings", &allowed);
    world
}

fn referred(world: &World) -> Vec<String> {
    let maps = world.compiler.config_maps();
    let mut names: Vec<String> = maps.map(|(key, _)| key.to_string()).collect();
    names.sort();
    names
}

#[test]
fn ingress_a17_config_maps_are_read_as_long_as_an_ingress_names_them() {
    let mut world = world();
    world.build();
    assert_eq!(referred(&world), ["shop/settings"]);
    for name in ["one", "two"] {
        annotate(&mut world, name, &[("custom-headers", "shop/fields")]);
    }
    assert_eq!(referred(&world), ["shop/fields", "shop/settings"]);
    let snapshot = world.build();
    assert!(!world.compiler.references_known());
    let why = answer(rule(&snapshot, "one.test", "/").unwrap());
    assert_eq!(why, "the ConfigMap with header fields is not known yet");
    world.config_map("fields", &[("X-Own", "a")]);
    let snapshot = world.build();
    assert!(world.compiler.references_known());
    for (host, path) in [("one.test", "/"), ("one.test", "/b"), ("two.test", "/")] {
        let rule = rule(&snapshot, host, path).unwrap();
        let policy = rule.filters.policy.as_ref().unwrap();
        assert_eq!(
            (rule.invalid, &policy.headers[0].1),
            (None, &"a".parse().unwrap())
        );
    }
    world.delete_ingress("one");
    assert_eq!(referred(&world).len(), 2);
    annotate(&mut world, "two", &[("custom-headers", "elsewhere/fields")]);
    assert_eq!(referred(&world), ["shop/settings"], "of its own namespace");
    let bad = world.build();
    assert_eq!(problems(&bad, ProblemKind::RefusedAnnotation).len(), 1);
    let allowed = [("allow-cross-namespace-resources", "true")];
    world.config_map("settings", &allowed);
    assert_eq!(referred(&world), ["elsewhere/fields", "shop/settings"]);
    // Settings are read whoever names them.
    annotate(&mut world, "two", &[("custom-headers", "settings")]);
    annotate(&mut world, "two", &[]);
    assert_eq!(referred(&world), ["shop/settings"]);
}

#[test]
fn ingress_a17_fields_that_cannot_be_written_are_named() {
    let many: Vec<String> = (0..65).map(|number| format!("X-{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (&**name, "x")).collect();
    let long = "x".repeat(9000);
    for (data, said) in [
        (&[("X-Other", "a")][..], "global-allowed-response-headers"),
        (
            &[("Transfer-Encoding", "chunked")],
            "belongs to the message",
        ),
        (
            &[("sealane-error", "a")],
            "belongs to the message or the gateway",
        ),
        (
            &[("Set-Cookie", "a=b")],
            "belongs to the message or the gateway",
        ),
        (&[("X-Own", "a\r\nb: c")], "control characters"),
        (&[("X-Own", " ")], "empty"),
        (&[("X-Own", "é")], "not ASCII"),
        (&[("X Own", "a")], "is not the name of a header field"),
        (&[("X-Own", &*long)], "more than 64 fields, or 8192 bytes"),
        (&many, "more than 64 fields"),
    ] {
        let mut world = world();
        annotate(&mut world, "it", &[("custom-headers", "fields")]);
        world.config_map("fields", data);
        let snapshot = world.build();
        let found = problems(&snapshot, ProblemKind::RefusedAnnotation);
        assert_eq!(found.len(), 1, "{said}: {found:?}");
        assert!(found[0].message.contains(said), "{found:?}");
        assert!(found[0].field.contains("custom-headers"), "{found:?}");
        let rule = rule(&snapshot, "it.test", "/").unwrap();
        assert_eq!(rule.invalid, Some("bad header fields in the ConfigMap"));
    }
    let mut world = world();
    annotate(&mut world, "it", &[("custom-headers", "fields")]);
    world.config_map("fields", &[("X-Own", "a")]);
    assert_eq!(rule(&world.build(), "it.test", "/").unwrap().invalid, None);
    world.delete_config_map("fields");
    let snapshot = world.build();
    assert_eq!(problems(&snapshot, ProblemKind::MissingConfigMap).len(), 1);
    let rule = rule(&snapshot, "it.test", "/").unwrap();
    assert_eq!(rule.invalid, Some("no ConfigMap with header fields"));
    assert!(rule.backends.is_empty());
}

#[test]
fn ingress_a21_fields_that_nobody_may_write_are_not_allowed_either() {
    let mut world = world();
    for (value, count) in [("X-A,x-b , ", 2), ("X-A, Content-Length", 0), ("X A", 0)] {
        world.config_map("settings", &[("global-allowed-response-headers", value)]);
        let snapshot = world.build();
        assert_eq!(
            snapshot.gateway.rules.allowed_headers.len(),
            count,
            "{value}"
        );
        let bad = problems(&snapshot, ProblemKind::BadField);
        assert_eq!(bad.len(), usize::from(count == 0), "{value}: {bad:?}");
    }
}
