//! Canaries and the Ingresses that they belong to.

use serde_json::{Value, json};

use super::world::{World, answer, host, one_host, path, problems, route, rule};
use crate::Snapshot;
use crate::model::{HeaderTest, ProblemKind, RouteRule};

const NGINX: &str = "nginx.ingress.kubernetes.io";

fn world() -> World {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.simple_service(name);
    }
    world
}

fn canary(more: &[(&str, &str)]) -> Value {
    let mut annotations = json!({format!("{NGINX}/canary"): "true"});
    for (name, value) in more {
        annotations[format!("{NGINX}/{name}")] = json!(value);
    }
    annotations
}

fn everything(service: &str) -> Value {
    one_host("host", json!([path("Prefix", "/", service)]))
}

/// Where the canary of a path leads, if there is one.
fn canary_of(snapshot: &Snapshot, path: &str) -> Option<String> {
    rule(snapshot, "host", path).and_then(led_to)
}

fn led_to(rule: &RouteRule) -> Option<String> {
    Some(answer(&rule.canary.as_ref()?.rule))
}

#[test]
fn ingress_a10_a_canary_belongs_to_the_ingress_with_the_same_path_whichever_comes_first() {
    for canary_first in [true, false] {
        let mut world = world();
        let put_canary = |world: &mut World| {
            world.ingress(
                "canary",
                1,
                canary(&[("canary-weight", "10")]),
                everything("b"),
            );
        };
        if canary_first {
            put_canary(&mut world);
            let snapshot = world.build();
            assert!(snapshot.routes.host("host").is_none(), "a canary alone");
            assert_eq!(problems(&snapshot, ProblemKind::BadField).len(), 1);
        }
        world.ingress("main", 2, json!({}), everything("a"));
        if !canary_first {
            world.build();
            put_canary(&mut world);
        }
        let snapshot = world.build();
        assert_eq!(route(&snapshot, "host", "/"), "a:80");
        assert_eq!(canary_of(&snapshot, "/").as_deref(), Some("b:80"));
        assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
        let rule = rule(&snapshot, "host", "/").unwrap();
        let canary = rule.canary.as_ref().unwrap();
        assert_eq!(&*canary.rule.source.name, "canary");
        assert_eq!((canary.share.weight, canary.share.total), (10, 100));

        world.delete_ingress("main");
        let snapshot = world.build();
        assert!(snapshot.routes.host("host").is_none());
        assert_eq!(problems(&snapshot, ProblemKind::BadField).len(), 1);
        world.delete_ingress("canary");
        assert!(world.build().problems.is_empty());
    }
}

#[test]
fn ingress_a10_host_path_and_path_type_have_to_be_the_same() {
    let mut world = world();
    let paths = json!([
        path("Exact", "/exact", "a"),
        path("Prefix", "/prefix", "a"),
        path("Prefix", "/other", "a"),
    ]);
    world.ingress("main", 0, json!({}), one_host("host", paths));
    let paths = json!([
        path("Exact", "/exact", "b"),
        path("Exact", "/prefix", "b"),
        path("Prefix", "/prefix/deeper", "b"),
    ]);
    world.ingress("canary", 1, canary(&[]), one_host("host", paths));
    let other = json!([path("Prefix", "/other", "b")]);
    world.ingress("elsewhere", 1, canary(&[]), one_host("elsewhere", other));
    let snapshot = world.build();
    for (path, want) in [
        ("/exact", Some("b:80")),
        ("/prefix", None),
        ("/other", None),
    ] {
        assert_eq!(canary_of(&snapshot, path).as_deref(), want, "{path}");
    }
    assert_eq!(route(&snapshot, "host", "/prefix/deeper"), "a:80");
    let fields: Vec<&str> = problems(&snapshot, ProblemKind::BadField)
        .iter()
        .map(|problem| &*problem.field)
        .collect();
    let of_path = |index| format!("spec.rules[0].http.paths[{index}]");
    assert_eq!(fields, [of_path(1), of_path(2), of_path(0)]);
}

#[test]
fn ingress_a10_the_oldest_canary_of_a_path_has_it() {
    let mut world = world();
    world.ingress("main", 9, json!({}), everything("a"));
    world.ingress("young", 3, canary(&[]), everything("b"));
    world.ingress("old", 2, canary(&[]), everything("c"));
    let snapshot = world.build();
    assert_eq!(canary_of(&snapshot, "/").as_deref(), Some("c:80"));
    let conflict = problems(&snapshot, ProblemKind::Conflict)[0];
    assert_eq!(&*conflict.object.name, "young");
    assert!(
        conflict.message.contains("Ingress shop/old"),
        "{conflict:?}"
    );
    world.delete_ingress("old");
    let snapshot = world.build();
    assert_eq!(canary_of(&snapshot, "/").as_deref(), Some("b:80"));
    assert!(snapshot.problems.is_empty());
}

#[test]
fn ingress_a10_everything_else_is_as_the_main_ingress_says() {
    let mut world = world();
    let main = json!({format!("{NGINX}/rewrite-target"): "/$1",
        format!("{NGINX}/whitelist-source-range"): "10.0.0.0/8"});
    let written = json!([path("ImplementationSpecific", "/(.*)", "a")]);
    let mut spec = one_host("host", written);
    spec["tls"] = json!([{"hosts": ["host"]}]);
    world.ingress("main", 1, main, spec);
    let said = canary(&[("ssl-redirect", "false"), ("denylist-source-range", "bad")]);
    let written = json!([path("ImplementationSpecific", "/(.*)", "b")]);
    let mut spec = one_host("host", written);
    spec["tls"] = json!([{"hosts": ["host"], "secretName": "of-the-canary"}]);
    world.ingress("canary", 0, said, spec);
    let snapshot = world.build();
    let main = &host(&snapshot, "host").rules[0];
    let canary = &main.canary.as_ref().unwrap().rule;
    assert_eq!(answer(canary), "b:80");
    assert!(canary.filters.rewrite.is_some() && canary.filters.ssl_redirect);
    assert_eq!(canary.filters.policy, main.filters.policy);
    assert!(main.filters.policy.is_some() && host(&snapshot, "host").has_certificate);
    assert_eq!(snapshot.problems.len(), 1, "{:?}", snapshot.problems);
    let problem = &snapshot.problems[0];
    assert_eq!(problem.kind, ProblemKind::UnknownAnnotation);
    for name in ["ssl-redirect", "denylist-source-range"] {
        assert!(problem.message.contains(name), "{}", problem.message);
    }
    assert_eq!(
        world.compiler.secrets().count(),
        0,
        "no Secret of a canary is read"
    );

    // A canary does not make regular expressions of the host's paths.
    world.ingress("main", 1, json!({}), everything("a"));
    world.ingress("canary", 0, canary_with_regex(), everything("b"));
    let snapshot = world.build();
    assert_eq!(canary_of(&snapshot, "/").as_deref(), Some("b:80"));
    assert!(matches!(
        host(&snapshot, "host").rules[0].path,
        crate::model::PathMatch::Prefix(_)
    ));
}

fn canary_with_regex() -> Value {
    canary(&[("use-regex", "true")])
}

#[test]
fn ingress_a10_a_canary_that_cannot_be_served_is_a_problem_of_its_own() {
    let mut world = world();
    world.ingress("main", 0, json!({}), everything("a"));
    for (annotations, service, reason, kind) in [
        (
            canary(&[]),
            "none",
            "service not found",
            ProblemKind::MissingService,
        ),
        (
            canary(&[("server-snippet", "deny all;")]),
            "b",
            "snippet annotation",
            ProblemKind::RefusedAnnotation,
        ),
    ] {
        world.ingress("canary", 1, annotations, everything(service));
        let snapshot = world.build();
        assert_eq!(route(&snapshot, "host", "/"), "a:80");
        assert_eq!(canary_of(&snapshot, "/").as_deref(), Some(reason));
        let found = problems(&snapshot, kind);
        assert_eq!(&*found[0].object.name, "canary", "{reason}");
        assert_eq!(snapshot.problems.len(), 1, "{:?}", snapshot.problems);
    }
    world.ingress("canary", 1, canary(&[]), everything("late"));
    world.build();
    world.simple_service("late");
    let snapshot = world.build();
    assert_eq!(canary_of(&snapshot, "/").as_deref(), Some("late:80"));
    assert!(snapshot.problems.is_empty());
}

#[test]
fn ingress_a10_default_backends_have_canaries_too() {
    let mut world = world();
    let default = |service: &str| {
        json!({"defaultBackend": {"service": {"name": service,
        "port": {"number": 80}}}})
    };
    world.ingress("canary", 0, canary(&[]), default("b"));
    assert_eq!(world.build().problems.len(), 1);
    world.ingress("main", 1, json!({}), default("a"));
    let snapshot = world.build();
    let rule = snapshot.routes.default_rule.as_ref().unwrap();
    assert_eq!(
        (answer(rule), led_to(rule).as_deref()),
        ("a:80".into(), Some("b:80"))
    );
    assert!(snapshot.problems.is_empty());
}

#[test]
fn ingress_a10_what_a_canary_asks_for_is_read_or_reported() {
    let header = |name: &str| ("canary-by-header", name.to_owned());
    let text = |name: &'static str, value: &str| (name, value.to_owned());
    let cases = [
        ("weight", vec![text("canary-weight", "30")], "30/100", 0),
        (
            "larger total",
            vec![
                text("canary-weight", "30"),
                text("canary-weight-total", "1000"),
            ],
            "30/1000",
            0,
        ),
        (
            "small total",
            vec![text("canary-weight-total", "50")],
            "0/100",
            1,
        ),
        ("bad weight", vec![text("canary-weight", "-1")], "0/100", 1),
        (
            "header",
            vec![header("X-Canary")],
            "x-canary always 0/100",
            0,
        ),
        ("bad header", vec![header("x canary")], "0/100", 1),
        (
            "value",
            vec![header("x"), text("canary-by-header-value", "on")],
            "x =on 0/100",
            0,
        ),
        (
            "value beats pattern",
            vec![
                header("x"),
                text("canary-by-header-value", "on"),
                text("canary-by-header-pattern", "^o"),
            ],
            "x =on 0/100",
            0,
        ),
        (
            "pattern",
            vec![header("x"), text("canary-by-header-pattern", "^o(?=n)")],
            "x ~^o(?=n) 0/100",
            0,
        ),
        (
            "bad pattern",
            vec![header("x"), text("canary-by-header-pattern", "(")],
            "x nothing 0/100",
            1,
        ),
        (
            "value alone",
            vec![text("canary-by-header-value", "on")],
            "0/100",
            1,
        ),
        ("cookie", vec![text("canary-by-cookie", "c")], "c 0/100", 0),
        (
            "bad cookie",
            vec![text("canary-by-cookie", "c;d")],
            "0/100",
            1,
        ),
        (
            "unknown",
            vec![text("canary-by-phase-of-moon", "x")],
            "0/100",
            1,
        ),
    ];
    for (name, annotations, want, found) in cases {
        let mut world = world();
        world.ingress("main", 0, json!({}), everything("a"));
        let annotations: Vec<_> = annotations.iter().map(|(n, v)| (*n, &**v)).collect();
        world.ingress("canary", 1, canary(&annotations), everything("b"));
        let snapshot = world.build();
        let rule = rule(&snapshot, "host", "/").unwrap();
        let share = &rule.canary.as_ref().unwrap().share;
        let header = share.header.iter().map(|header| {
            let test = match &header.test {
                HeaderTest::AlwaysOrNever => "always".to_owned(),
                HeaderTest::Value(value) => format!("={value}"),
                HeaderTest::Pattern(pattern) => format!("~{}", pattern.0.as_str()),
                HeaderTest::Never => "nothing".to_owned(),
            };
            format!("{} {test}", header.name)
        });
        let cookie = share.cookie.iter().map(ToString::to_string);
        let weight = format!("{}/{}", share.weight, share.total);
        let parts: Vec<String> = header.chain(cookie).chain([weight]).collect();
        assert_eq!(parts.join(" "), want, "{name}");
        assert_eq!(
            snapshot.problems.len(),
            found,
            "{name}: {:?}",
            snapshot.problems
        );
    }
}

#[test]
fn ingress_a10_words_about_a_canary_that_is_none_are_reported() {
    let mut world = world();
    let annotations = json!({format!("{NGINX}/canary-weight"): "10",
        format!("{NGINX}/canary"): "false"});
    world.ingress("main", 0, annotations, everything("a"));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "host", "/"), "a:80");
    let found = problems(&snapshot, ProblemKind::UnknownAnnotation);
    assert!(found[0].message.contains("canary-weight"), "{found:?}");
}
