//! Every annotation of ingress-nginx: served, or reported with something to do about it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::world::{World, one_host, path};
use crate::ingress_nginx::{ANNOTATIONS, Annotation, PREFIX, is_without_effect};
use crate::model::{Problem, ProblemKind};

/// Clients are asked for certificates.
const CLIENTS: &[(&str, &str)] = &[("auth-tls-secret", "shop/ca")];

/// What one annotation needs beside it to mean something.
const COMPANIONS: &[(&str, &[(&str, &str)])] = &[
    ("auth-type", &[("auth-secret", "users")]),
    (
        "auth-proxy-set-headers",
        &[("auth-url", "http://a.shop.svc")],
    ),
    ("custom-http-errors", &[("default-backend", "web")]),
    ("auth-tls-error-page", CLIENTS),
    ("auth-tls-match-cn", CLIENTS),
    ("auth-tls-pass-certificate-to-upstream", CLIENTS),
    ("auth-tls-verify-client", CLIENTS),
    ("auth-tls-verify-depth", CLIENTS),
    ("proxy-ssl-verify", &[("proxy-ssl-secret", "shop/ca")]),
    ("mirror-host", &[("mirror-target", "http://a.shop")]),
    ("mirror-request-body", &[("mirror-target", "http://a.shop")]),
];

/// What becomes of an annotation, as `docs/migrate.md` puts it.
fn standing(annotation: &Annotation) -> &'static str {
    let name = annotation.name;
    let companions = COMPANIONS.iter().filter(|(of, _)| *of == name);
    let mut written = Map::new();
    for (name, value) in companions.flat_map(|(_, companions)| *companions) {
        written.insert(format!("{PREFIX}{name}"), Value::from(*value));
    }
    written.insert(format!("{PREFIX}{name}"), Value::from(annotation.sample));
    let problems = problems_of(Value::Object(written));
    let full = format!("{PREFIX}{name}");
    let of_it = |problem: &&Problem| {
        let mut listed = problem.message.split([' ', ',']);
        problem.field == format!("metadata.annotations[{full}]") || listed.any(|word| word == full)
    };
    let kinds: Vec<ProblemKind> = problems.iter().filter(of_it).map(|p| p.kind).collect();
    if kinds.contains(&ProblemKind::RefusedAnnotation) {
        "refused"
    } else if kinds.contains(&ProblemKind::BadAnnotation) {
        panic!("{name}: the sample is bad: {problems:?}")
    } else if is_without_effect(name) {
        "nothing to do"
    } else if kinds.contains(&ProblemKind::UnknownAnnotation) {
        "no effect"
    } else if annotation.differs.is_empty() {
        "as before"
    } else {
        "differs"
    }
}

fn problems_of(annotations: Value) -> Vec<Problem> {
    let mut world = World::new();
    let ports = json!([{"name": "http", "port": 80}]);
    world.service("web", json!({"clusterIP": "10.0.0.9", "ports": ports}));
    let paths = json!([path("Prefix", "/", "web")]);
    world.ingress("it", 0, annotations, one_host("it.test", paths));
    let snapshot = world.build();
    snapshot.problems.iter().cloned().collect()
}

#[test]
fn ingress_a20_every_annotation_is_served_or_reported_with_what_to_do() {
    let names: Vec<&str> = ANNOTATIONS.iter().map(|known| known.name).collect();
    assert!(names.is_sorted(), "in the order of names");
    let once: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(once.len(), names.len());
    for annotation in ANNOTATIONS {
        let standing = standing(annotation);
        assert!(
            matches!(standing, "as before" | "differs") || !annotation.instead.is_empty(),
            "{}, {standing}: nothing is said that could be done instead",
            annotation.name
        );
    }
    let made_up = json!({(format!("{PREFIX}made-up")): "x", "example.com/rewrite-target": "/"});
    let problems = problems_of(made_up);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].kind, ProblemKind::UnknownAnnotation);
    assert!(problems[0].message.contains("made-up"), "{problems:?}");
}

#[test]
fn ingress_u11_the_guide_promises_no_annotation_that_is_not_served() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/migrate.md");
    let guide = std::fs::read_to_string(file).unwrap();
    let (_, table) = guide.split_once("## Annotations").unwrap();
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(rows.len(), ANNOTATIONS.len());
    for (annotation, row) in ANNOTATIONS.iter().zip(rows) {
        let standing = standing(annotation);
        let more = match standing {
            "as before" => "",
            "differs" => annotation.differs,
            _ => annotation.instead,
        };
        let more = more.trim_start_matches("nothing to do: ");
        let name = annotation.name;
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[1], format!("`{name}`"), "in the order of names");
        let is_served = |standing: &str| matches!(standing, "as before" | "differs");
        // One that is served meanwhile is news, and no reason to worry.
        let is_news = is_served(standing) && !is_served(cells[2]);
        assert!(
            is_news || cells[2..4] == [standing, more],
            "docs/migrate.md should say\n| `{name}` | {standing} | {more} |"
        );
    }
}
