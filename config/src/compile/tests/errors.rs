//! Who answers in place of errors.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::world::{World, answer, one_host, path, problems, rule};
use crate::compile::ObjectKey;
use crate::ingress_nginx::PREFIX;
use crate::model::{ErrorPages, ProblemKind, RouteRule};

fn annotate(world: &mut World, list: &[(&str, &str)]) {
    let list = list.iter();
    let written: Map<String, Value> = list
        .map(|(name, value)| (format!("{PREFIX}{name}"), Value::from(*value)))
        .collect();
    let paths = json!([path("Prefix", "/", "web"), path("Prefix", "/gone", "gone")]);
    world.ingress("it", 0, written.into(), one_host("it.test", paths));
}

fn pages(rule: &RouteRule) -> Option<ErrorPages> {
    let policy = rule.filters.policy.as_ref()?;
    policy.errors.as_deref().cloned()
}

/// Who answers for which statuses, with `*` for requests without endpoints.
fn shown(pages: &ErrorPages) -> String {
    let codes: Vec<&str> = pages.on.statuses.iter().map(StatusCode::as_str).collect();
    let star = if pages.without_endpoints { "*" } else { "" };
    let own = if pages.on.own_only { " own" } else { "" };
    let name = &pages.backend.service.name;
    format!(
        "{name}:{} {star}{}{own}",
        pages.backend.port,
        codes.join(",")
    )
}

#[test]
fn ingress_a14_annotations_about_errors_are_read_with_the_settings() {
    let backend = ("default-backend", "pages");
    let errors = ("custom-http-errors", "404,503");
    let own_only = ("disable-proxy-intercept-errors", "true");
    for (annotations, settings, expected) in [
        (&[][..], &[][..], ""),
        (&[backend, errors], &[], "pages:80 *404,503"),
        (&[backend], &[], "pages:80 *"),
        (&[errors], &[], "default:80 404,503"),
        (&[own_only], &[], ""),
        (&[backend, errors, own_only], &[], "pages:80 *404,503 own"),
        (&[], &[errors], "default:80 404,503"),
        (&[], &[errors, own_only], "default:80 404,503 own"),
        (&[backend], &[errors], "pages:80 *404,503"),
        (
            &[("custom-http-errors", "418")],
            &[errors],
            "default:80 418",
        ),
        (
            &[("default-backend", "none")],
            &[errors],
            "default:80 404,503",
        ),
    ] {
        let mut world = World::with(|options| {
            options.config_map = Some(ObjectKey::new("shop", "settings"));
            options.default_service = Some(ObjectKey::new("shop", "default"));
        });
        for name in ["web", "pages", "default"] {
            world.simple_service(name);
        }
        annotate(&mut world, annotations);
        world.config_map("settings", settings);
        let snapshot = world.build();
        let found = pages(rule(&snapshot, "it.test", "/").unwrap());
        let found = found.as_ref().map(shown).unwrap_or_default();
        assert_eq!(found, expected, "{annotations:?} {settings:?}");
    }
}

#[test]
fn ingress_a14_a_default_backend_that_comes_and_goes_is_followed() {
    let mut world = World::new();
    world.simple_service("web");
    annotate(&mut world, &[("default-backend", "pages")]);
    let snapshot = world.build();
    assert!(pages(rule(&snapshot, "it.test", "/").unwrap()).is_none());
    assert_eq!(
        answer(rule(&snapshot, "it.test", "/gone").unwrap()),
        "service not found"
    );
    let missing = problems(&snapshot, ProblemKind::MissingService);
    let of_it = |p: &&&crate::model::Problem| p.field.contains("default-backend");
    assert_eq!(missing.iter().filter(of_it).count(), 1, "{missing:?}");
    world.simple_service("pages");
    let snapshot = world.build();
    let gone = rule(&snapshot, "it.test", "/gone").unwrap();
    assert_eq!(gone.invalid, None);
    assert_eq!(gone.backends[0].backend.port, 0);
    assert_eq!(shown(&pages(gone).unwrap()), "pages:80 *");
    world.delete_service("pages");
    let snapshot = world.build();
    assert!(pages(rule(&snapshot, "it.test", "/").unwrap()).is_none());
}

#[test]
fn ingress_a14_errors_that_nobody_could_answer_are_reported() {
    for (name, value) in [
        ("custom-http-errors", "404"),
        ("custom-http-errors", "200"),
        ("custom-http-errors", "404,x"),
        ("custom-http-errors", "600"),
        ("default-backend", "other/pages"),
        ("default-backend", "Pages"),
        ("default-backend", ""),
        ("disable-proxy-intercept-errors", "maybe"),
    ] {
        let mut world = World::new();
        world.simple_service("web");
        annotate(&mut world, &[(name, value)]);
        let snapshot = world.build();
        let bad = problems(&snapshot, ProblemKind::BadAnnotation);
        assert_eq!(bad.len(), 1, "{name}: {value}: {bad:?}");
        assert!(bad[0].field.contains(name), "{bad:?}");
        assert!(pages(rule(&snapshot, "it.test", "/").unwrap()).is_none());
    }
}

#[test]
fn ingress_i8_requests_that_no_rule_takes_are_for_the_default_service() {
    let mut world = World::with(|options| {
        options.default_service = Some(ObjectKey::new("shop", "default"));
    });
    let snapshot = world.build();
    assert!(snapshot.routes.default_rule.is_none());
    let missing = problems(&snapshot, ProblemKind::MissingService);
    assert_eq!(missing.len(), 1, "{missing:?}");
    world.simple_service("default");
    let snapshot = world.build();
    let rule = snapshot.routes.default_rule.as_ref().unwrap();
    assert_eq!(&*rule.backends[0].backend.service.name, "default");
    assert!(rule.filters.policy.is_none(), "it is relayed as ever");
    // An Ingress for all hosts goes first.
    world.simple_service("web");
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let spec = json!({"ingressClassName": "ours", "defaultBackend": backend});
    world.ingress("all", 0, json!({}), spec);
    let rule = world.build().routes.default_rule.unwrap();
    assert_eq!(&*rule.source.name, "all");
    world.delete_ingress("all");
    world.delete_service("default");
    assert!(world.build().routes.default_rule.is_none());
}
