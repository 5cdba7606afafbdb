//! Hosts, classes, merging, backends and annotations.

use serde_json::{Value, json};

use super::world::{World, answer, host, ingress, one_host, path, problems, route, rule};
use crate::model::{BackendProtocol, ProblemKind};

const NGINX: &str = "nginx.ingress.kubernetes.io";

fn world() -> World {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.simple_service(name);
    }
    world
}

fn everything(service: &str) -> Value {
    json!([path("Prefix", "/", service)])
}

fn default_backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 80}}})
}

#[test]
fn ingress_i5_i6_hosts() {
    let mut world = world();
    world.ingress(
        "exact",
        0,
        json!({}),
        one_host("Bar.Foo.com", json!([path("Prefix", "/x", "a")])),
    );
    world.ingress("wild", 1, json!({}), one_host("*.foo.com", everything("b")));
    world.ingress(
        "any",
        2,
        json!({}),
        json!({"rules": [{"http": {"paths": everything("c")}}]}),
    );
    world.ingress("bad", 3, json!({}), one_host("10.0.0.1", everything("a")));
    let snapshot = world.build();
    for (name, want) in [
        ("bar.foo.com", "a:80"),
        ("qux.foo.com", "b:80"),
        ("a.qux.foo.com", "c:80"),
        ("foo.com", "c:80"),
        ("10.0.0.1", "c:80"),
        ("", "c:80"),
    ] {
        assert_eq!(route(&snapshot, name, "/x"), want, "{name}");
    }
    assert_eq!(
        route(&snapshot, "bar.foo.com", "/y"),
        "404",
        "no fall through to other hosts"
    );
    let found = problems(&snapshot, ProblemKind::BadField);
    assert_eq!(found[0].field, "spec.rules[0].host");
}

#[test]
fn ingress_i7_default_backends() {
    let mut world = world();
    let mut spec = one_host("host", json!([path("Prefix", "/x", "a")]));
    spec["defaultBackend"] = default_backend("b");
    spec["rules"]
        .as_array_mut()
        .unwrap()
        .push(json!({"host": "bare"}));
    world.ingress("with-rules", 0, json!({}), spec);
    world.ingress(
        "young",
        2,
        json!({}),
        json!({"defaultBackend": default_backend("a")}),
    );
    world.ingress(
        "old",
        1,
        json!({}),
        json!({"defaultBackend": default_backend("c")}),
    );
    let snapshot = world.build();
    for name in ["host", "bare"] {
        let fallback = host(&snapshot, name).fallback.as_ref().unwrap();
        assert_eq!(answer(fallback), "b:80", "{name}");
    }
    assert!(snapshot.routes.host("other").is_none());
    let default = |snapshot: &crate::Snapshot| snapshot.routes.default_rule.as_deref().map(answer);
    assert_eq!(default(&snapshot).unwrap(), "c:80");
    let conflicts = problems(&snapshot, ProblemKind::Conflict);
    assert_eq!(&*conflicts[0].object.name, "young");
    assert!(conflicts[0].message.contains("shop/old"));
    world.delete_ingress("old");
    let snapshot = world.build();
    assert_eq!(default(&snapshot).unwrap(), "a:80");
    assert!(problems(&snapshot, ProblemKind::Conflict).is_empty());
    world.delete_ingress("young");
    assert!(default(&world.build()).is_none());
}

#[test]
fn ingress_i9_only_our_class_is_served() {
    let legacy = |class: &str| json!({"kubernetes.io/ingress.class": class});
    let cases = [
        ("ours", json!({}), json!("ours"), true),
        ("foreign", json!({}), json!("theirs"), false),
        ("missing class", json!({}), json!("nobody"), false),
        ("no class", json!({}), json!(null), false),
        ("legacy ours", legacy("ours"), json!(null), true),
        (
            "legacy foreign is read first",
            legacy("theirs"),
            json!("ours"),
            false,
        ),
    ];
    for (name, annotations, class, want) in cases {
        let mut world = world();
        world.class("theirs", json!({"controller": "k8s.io/ingress-nginx"}));
        let mut spec = one_host("host", json!([path("Prefix", "/", "missing")]));
        spec["ingressClassName"] = class;
        world.ingress_object(ingress("it", 0, annotations, spec));
        let snapshot = world.build();
        assert_eq!(rule(&snapshot, "host", "/").is_some(), want, "{name}");
        assert_eq!(
            !snapshot.problems.is_empty(),
            want,
            "{name}: problems of ours only"
        );
    }
    let mut world = World::with(|options| options.classes.without_class = true);
    world.simple_service("a");
    world.ingress_object(ingress(
        "it",
        0,
        json!({}),
        one_host("host", everything("a")),
    ));
    assert_eq!(route(&world.build(), "host", "/"), "a:80", "if asked for");
}

#[test]
fn ingress_i10_i11_class_changes_move_their_ingresses() {
    let mut world = world();
    world.delete_class("ours");
    world.ingress("it", 0, json!({}), one_host("host", everything("a")));
    let is_served = |world: &mut World| rule(&world.build(), "host", "/").is_some();
    assert!(!is_served(&mut world));
    world.class("ours", json!({"controller": "sealane.dev/ingress"}));
    assert!(is_served(&mut world));
    world.class("ours", json!({"controller": "someone.else/ingress"}));
    assert!(!is_served(&mut world));
    world.class(
        "ours",
        json!({"controller": "sealane.dev/ingress",
        "parameters": {"kind": "Unknown", "name": "x"}}),
    );
    assert!(!is_served(&mut world));
    let snapshot = world.build();
    assert_eq!(
        problems(&snapshot, ProblemKind::BadField)[0].object.kind,
        "IngressClass"
    );
    world.class("ours", json!({"controller": "sealane.dev/ingress"}));
    assert!(is_served(&mut world));
}

#[test]
fn ingress_i12_the_oldest_wins_a_path() {
    let mut world = world();
    world.ingress("b-young", 5, json!({}), one_host("host", everything("b")));
    world.ingress("z-old", 1, json!({}), one_host("host", everything("a")));
    world.ingress(
        "a-tie",
        5,
        json!({}),
        one_host(
            "host",
            json!([
                path("ImplementationSpecific", "/", "c"),
                path("Exact", "/", "c"),
                path("Prefix", "/c", "c")
            ]),
        ),
    );
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "host", "/x"), "a:80");
    assert_eq!(
        route(&snapshot, "host", "/"),
        "c:80",
        "another path type is another path"
    );
    assert_eq!(route(&snapshot, "host", "/c"), "c:80");
    let losers: Vec<(&str, bool)> = problems(&snapshot, ProblemKind::Conflict)
        .iter()
        .map(|p| (&*p.object.name, p.message.contains("shop/z-old")))
        .collect();
    assert_eq!(losers, [("a-tie", true), ("b-young", true)]);
    world.delete_ingress("z-old");
    assert_eq!(
        route(&world.build(), "host", "/x"),
        "c:80",
        "a tie goes by name"
    );
}

#[test]
fn ingress_i13_i14_backends_follow_their_services() {
    let mut world = world();
    let named = json!({"path": "/named", "pathType": "Prefix",
        "backend": {"service": {"name": "late", "port": {"name": "web"}}}});
    world.ingress(
        "it",
        0,
        json!({}),
        one_host(
            "host",
            json!([
                path("Prefix", "/number", "late"),
                named,
                path("Prefix", "/a", "a")
            ]),
        ),
    );
    let ask = |world: &mut World| {
        let snapshot = world.build();
        let all = ["/number", "/named", "/a"].map(|asked| route(&snapshot, "host", asked));
        (all, snapshot.problems.len())
    };
    let missing = "service not found".to_owned();
    assert_eq!(
        ask(&mut world),
        ([missing.clone(), missing, "a:80".into()], 2)
    );
    world.service("late", json!({"ports": [{"name": "web", "port": 8000}]}));
    let no_port = "service has no such port".to_owned();
    assert_eq!(
        ask(&mut world),
        ([no_port.clone(), "late:8000".into(), "a:80".into()], 1)
    );
    world.service(
        "late",
        json!({"ports": [{"name": "web", "port": 8001}, {"name": "x", "port": 80}]}),
    );
    assert_eq!(
        ask(&mut world),
        (["late:80".into(), "late:8001".into(), "a:80".into()], 0)
    );
    world.service(
        "late",
        json!({"ports": [{"name": "web", "port": 80, "protocol": "UDP"}]}),
    );
    assert_eq!(
        ask(&mut world),
        ([no_port.clone(), no_port, "a:80".into()], 2)
    );
    world.service(
        "late",
        json!({"type": "ExternalName", "externalName": "metadata.internal"}),
    );
    let external = "ExternalName service".to_owned();
    assert_eq!(
        ask(&mut world),
        ([external.clone(), external, "a:80".into()], 2)
    );
}

#[test]
fn ingress_i16_resource_backends_are_not_served() {
    let mut world = world();
    let resource = json!({"path": "/", "pathType": "Prefix",
        "backend": {"resource": {"kind": "Bucket", "name": "static"}}});
    world.ingress(
        "it",
        0,
        json!({}),
        one_host("host", json!([resource, path("Prefix", "/a", "a")])),
    );
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "host", "/"), "resource backend");
    assert_eq!(route(&snapshot, "host", "/a"), "a:80");
    assert_eq!(problems(&snapshot, ProblemKind::BadField).len(), 1);
}

#[test]
fn ingress_a2_redirect_switches() {
    let cases = [
        ("unset", json!({}), (true, false), 0),
        (
            "off",
            json!({format!("{NGINX}/ssl-redirect"): "false"}),
            (false, false),
            0,
        ),
        (
            "forced",
            json!({format!("{NGINX}/force-ssl-redirect"): "true"}),
            (true, true),
            0,
        ),
        (
            "nonsense",
            json!({format!("{NGINX}/ssl-redirect"): "maybe"}),
            (true, false),
            1,
        ),
    ];
    for (name, annotations, want, bad) in cases {
        let mut world = world();
        world.ingress("it", 0, annotations, one_host("host", everything("a")));
        let snapshot = world.build();
        let filters = &rule(&snapshot, "host", "/").unwrap().filters;
        assert_eq!(
            (filters.ssl_redirect, filters.force_ssl_redirect),
            want,
            "{name}"
        );
        assert!(!host(&snapshot, "host").has_certificate, "{name}");
        assert_eq!(
            problems(&snapshot, ProblemKind::BadAnnotation).len(),
            bad,
            "{name}"
        );
    }
}

#[test]
fn ingress_a5_backend_protocols() {
    let cases = [
        ("https", BackendProtocol::Https, 0, None),
        ("GRPC", BackendProtocol::Grpc, 0, None),
        ("GRPCS", BackendProtocol::Grpcs, 0, None),
        ("auto_http", BackendProtocol::Auto, 0, None),
        ("SPDY", BackendProtocol::Http, 1, None),
        (
            "FCGI",
            BackendProtocol::Http,
            1,
            Some("unsupported backend protocol"),
        ),
    ];
    for (value, want, bad, refused) in cases {
        let mut world = world();
        let annotations = json!({format!("{NGINX}/backend-protocol"): value});
        world.ingress("it", 0, annotations, one_host("host", everything("a")));
        let snapshot = world.build();
        let rule = rule(&snapshot, "host", "/").unwrap();
        assert_eq!(
            (rule.filters.backend_protocol, rule.invalid),
            (want, refused),
            "{value}"
        );
        let kind = match refused {
            Some(_) => ProblemKind::RefusedAnnotation,
            None => ProblemKind::BadAnnotation,
        };
        assert_eq!(problems(&snapshot, kind).len(), bad, "{value}");
    }
}

#[test]
fn ingress_a19_what_would_open_a_door_is_refused() {
    for (annotation, want) in [
        ("server-snippet", "snippet annotation"),
        ("configuration-snippet", "snippet annotation"),
        ("enable-modsecurity", "unsupported access control"),
        ("whitelist-source-range", "bad annotation"),
        ("denylist-source-range", "bad annotation"),
        ("permanent-redirect", "bad annotation"),
        ("cors-allow-origin", "bad annotation"),
    ] {
        let mut world = world();
        let mut spec = one_host("host", json!([path("Prefix", "/shut", "a")]));
        spec["defaultBackend"] = default_backend("a");
        world.ingress("it", 0, json!({format!("{NGINX}/{annotation}"): "x"}), spec);
        world.ingress("other", 1, json!({}), one_host("host", everything("b")));
        let snapshot = world.build();
        assert_eq!(route(&snapshot, "host", "/shut/x"), want, "{annotation}");
        assert_eq!(route(&snapshot, "host", "/open"), "b:80", "{annotation}");
        let fallback = host(&snapshot, "host").fallback.as_ref().unwrap();
        assert_eq!(answer(fallback), want, "{annotation}");
        assert_eq!(snapshot.problems.len(), 1, "{annotation}");
        assert!(snapshot.problems[0].field.contains(annotation));
    }
}

#[test]
fn ingress_a20_unknown_annotations_are_listed_once() {
    let mut world = world();
    let annotations = json!({format!("{NGINX}/enable-rewrite-log"): "true",
        format!("{NGINX}/made-up"): "any", "example.com/other": "fine"});
    world.ingress("it", 0, annotations, one_host("host", everything("a")));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "host", "/"), "a:80");
    assert_eq!(snapshot.problems.len(), 1);
    let problem = &snapshot.problems[0];
    assert_eq!(problem.kind, ProblemKind::UnknownAnnotation);
    assert!(problem.message.contains("rewrite-log") && problem.message.contains("made-up"));
    assert!(!problem.message.contains("example.com"));
}

#[test]
fn ingress_a18_what_does_not_exist_here_is_accepted_and_said_once() {
    let mut world = world();
    let annotations = json!({format!("{NGINX}/proxy-buffering"): "on",
        format!("{NGINX}/proxy-buffer-size"): "8k", format!("{NGINX}/enable-rewrite-log"): "true"});
    world.ingress("it", 0, annotations, one_host("host", everything("a")));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "host", "/"), "a:80");
    let found = problems(&snapshot, ProblemKind::UnknownAnnotation);
    let [missing, needless] = found[..] else {
        panic!("{found:?}");
    };
    assert!(missing.message.contains("enable-rewrite-log"));
    assert!(!missing.message.contains("buffer"));
    assert!(needless.message.contains("proxy-buffering"));
    assert!(needless.message.contains("proxy-buffer-size"));
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_good_version() {
    let mut world = world();
    world.ingress("it", 0, json!({}), one_host("host", everything("a")));
    world.build();
    world.undecodable_ingress("it");
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "host", "/"), "a:80");
    assert_eq!(snapshot.problems.len(), 1);
    world.ingress("it", 0, json!({}), one_host("host", everything("a")));
    assert!(world.build().problems.is_empty());
    world.undecodable_ingress("it");
    world.delete_ingress("it");
    let snapshot = world.build();
    assert!(snapshot.problems.is_empty());
    assert!(snapshot.routes.host("host").is_none());
}
