//! Names that hosts have besides those of their rules.

use serde_json::{Value, json};

use super::certificates::{served, tls};
use super::world::{World, host, one_host, path, problems, route, rule, targets};
use crate::Snapshot;
use crate::model::{Part, ProblemKind, RouteRule};

const NGINX: &str = "nginx.ingress.kubernetes.io";

fn world() -> World {
    let mut world = World::new();
    for service in ["a", "b", "c"] {
        world.simple_service(service);
    }
    world
}

fn to(service: &str) -> Value {
    json!([path("Prefix", "/", service)])
}

fn alias(names: &str) -> Value {
    json!({format!("{NGINX}/server-alias"): names})
}

fn www() -> Value {
    json!({format!("{NGINX}/from-to-www-redirect"): "true"})
}

/// Where a rule sends requests, with the status; empty if it does not.
fn sent(rule: Option<&RouteRule>) -> String {
    let policy = rule.and_then(|rule| rule.filters.policy.as_ref());
    let Some(redirect) = policy.and_then(|policy| policy.redirect.as_ref()) else {
        return String::new();
    };
    let part = |part: &Part| match part {
        Part::Text(text) => text.to_string(),
        Part::Scheme => "$scheme".to_owned(),
        Part::Port => "$port".to_owned(),
        Part::RequestUri => "$request_uri".to_owned(),
        other => panic!("{other:?}"),
    };
    let location: String = redirect.location.0.iter().map(part).collect();
    format!("{} {location}", redirect.status)
}

fn conflicts(snapshot: &Snapshot) -> Vec<(String, String)> {
    let found = problems(snapshot, ProblemKind::Conflict);
    let told = |problem: &&crate::model::Problem| {
        let (_, name) = problem.field.rsplit_once('/').unwrap_or_default();
        (problem.object.name.to_string(), name.to_owned())
    };
    found.iter().map(told).collect()
}

fn told(object: &str, annotation: &str) -> Vec<(String, String)> {
    vec![(object.to_owned(), format!("{annotation}]"))]
}

#[test]
fn ingress_a14_an_alias_is_served_as_its_host_unless_it_has_rules() {
    let mut world = world();
    world.ingress(
        "one",
        0,
        alias("x.test, *.y.test"),
        one_host("a.test", to("a")),
    );
    assert_eq!(route(&world.build(), "x.test", "/b"), "a:80");
    world.ingress(
        "two",
        1,
        json!({}),
        one_host("a.test", json!([path("Prefix", "/b", "b")])),
    );
    let snapshot = world.build();
    for name in ["a.test", "x.test", "w.y.test"] {
        assert_eq!(route(&snapshot, name, "/"), "a:80", "{name}");
        assert_eq!(route(&snapshot, name, "/b"), "b:80", "{name}");
    }
    assert_eq!(snapshot.problems.len(), 0, "{:?}", snapshot.problems);
    // Rules win, however young they are.
    world.ingress("three", 2, json!({}), one_host("x.test", to("c")));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "x.test", "/"), "c:80");
    assert_eq!(route(&snapshot, "x.test", "/b"), "c:80");
    assert_eq!(conflicts(&snapshot), told("one", "server-alias"));
    // The alias is back when they are gone, and follows what changes.
    world.delete_ingress("three");
    world.delete_ingress("two");
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "x.test", "/b"), "a:80");
    assert_eq!(snapshot.problems.len(), 0, "{:?}", snapshot.problems);
    world.ingress("one", 0, alias("z.test"), one_host("a.test", to("a")));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "z.test", "/"), "a:80");
    assert!(snapshot.routes.host("x.test").is_none());
    world.delete_ingress("one");
    assert!(world.build().routes.host("z.test").is_none());
}

#[test]
fn ingress_a14_the_oldest_ingress_of_a_host_says_its_aliases() {
    let mut world = world();
    world.ingress("young", 2, alias("young.test"), one_host("a.test", to("a")));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "young.test", "/"), "a:80");
    let old = one_host("a.test", json!([path("Prefix", "/b", "b")]));
    world.ingress("old", 1, alias("old.test"), old);
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "old.test", "/"), "a:80");
    assert!(snapshot.routes.host("young.test").is_none());
    assert_eq!(conflicts(&snapshot), told("young", "server-alias"));
    // One alias, two hosts.
    world.delete_ingress("young");
    world.ingress("other", 3, alias("old.test"), one_host("c.test", to("c")));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "old.test", "/b"), "b:80");
    assert_eq!(conflicts(&snapshot), told("other", "server-alias"));
    world.delete_ingress("old");
    assert_eq!(route(&world.build(), "old.test", "/"), "c:80");
}

#[test]
fn ingress_a14_what_is_no_alias_is_reported_and_left_out() {
    let mut world = world();
    let names = "good.test, ~^b[0-9]+\\.test$, 192.0.2.1,, a_b.test";
    world.ingress("it", 0, alias(names), one_host("a.test", to("a")));
    let many: Vec<String> = (0..300).map(|number| format!("n{number}.test")).collect();
    world.ingress(
        "many",
        1,
        alias(&many.join(",")),
        one_host("b.test", to("b")),
    );
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "good.test", "/"), "a:80");
    assert_eq!(route(&snapshot, "n255.test", "/"), "b:80");
    assert!(snapshot.routes.host("n256.test").is_none());
    let bad = problems(&snapshot, ProblemKind::BadAnnotation);
    assert_eq!(bad.len(), 4, "{bad:?}");
}

#[test]
fn ingress_a13_the_other_of_two_names_is_sent_to_the_one_with_rules() {
    for (own, other) in [("a.test", "www.a.test"), ("www.a.test", "a.test")] {
        let mut world = world();
        world.ingress("it", 0, www(), one_host(own, to("a")));
        let snapshot = world.build();
        assert_eq!(route(&snapshot, own, "/"), "a:80");
        let redirect = format!("308 $scheme://{own}$port$request_uri");
        assert_eq!(sent(rule(&snapshot, other, "/x")), redirect);
        assert!(snapshot.routes.host("www.www.a.test").is_none());
        assert_eq!(snapshot.problems.len(), 0, "{:?}", snapshot.problems);
        world.ingress("other", 1, json!({}), one_host(other, to("b")));
        let snapshot = world.build();
        assert_eq!(route(&snapshot, other, "/"), "b:80");
        assert_eq!(conflicts(&snapshot), told("it", "from-to-www-redirect"));
        world.delete_ingress("other");
        assert_eq!(sent(rule(&world.build(), other, "/")), redirect);
    }
}

#[test]
fn ingress_a13_a_refused_ingress_redirects_nobody() {
    let mut world = world();
    let annotations = json!({format!("{NGINX}/from-to-www-redirect"): "true",
        format!("{NGINX}/server-snippet"): "deny all;"});
    world.ingress("it", 0, annotations, one_host("a.test", to("a")));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "www.a.test", "/"), "snippet annotation");
}

#[test]
fn ingress_a13_a_further_name_has_the_certificate_of_its_host_if_that_covers_it() {
    for (annotations, name) in [(alias("x.test"), "x.test"), (www(), "www.a.test")] {
        for (names, is_covered) in [(&["a.test", name][..], true), (&["a.test"], false)] {
            let mut world = world();
            let mut spec = one_host("a.test", to("a"));
            spec["tls"] = json!([{"hosts": ["a.test"], "secretName": "s"}]);
            world.ingress("it", 0, annotations.clone(), spec);
            world.secret("s", tls("1", names));
            let snapshot = world.build();
            assert!(served(&snapshot, "a.test").is_some());
            let own = served(&snapshot, "a.test").filter(|_| is_covered);
            assert_eq!(served(&snapshot, name), own, "{name}");
            assert_eq!(host(&snapshot, name).has_certificate, is_covered, "{name}");
            assert_eq!(snapshot.problems.len(), 0, "{:?}", snapshot.problems);
            // What covers it comes later.
            world.secret("s", tls("2", &["a.test", name]));
            let snapshot = world.build();
            assert!(host(&snapshot, name).has_certificate, "{name}");
            assert_eq!(
                served(&snapshot, name),
                served(&snapshot, "a.test"),
                "{name}"
            );
        }
    }
}

#[test]
fn ingress_a14_a_service_upstream_is_the_cluster_ip_and_nothing_else() {
    let mut world = world();
    world.service(
        "own",
        json!({"clusterIP": "10.0.0.9", "ports": [{"name": "http", "port": 80}]}),
    );
    world.slice("own-1", "own", json!([{"addresses": ["10.1.0.1"]}]));
    let annotations = json!({format!("{NGINX}/service-upstream"): "true"});
    world.ingress(
        "it",
        0,
        annotations.clone(),
        one_host("own.test", to("own")),
    );
    world.ingress(
        "headless",
        0,
        annotations,
        one_host("headless.test", to("a")),
    );
    let snapshot = world.build();
    let upstream = |snapshot: &Snapshot, host: &str| {
        let filters = &rule(snapshot, host, "/").unwrap().filters;
        filters.service_upstream.as_ref().map(|port| targets(port))
    };
    assert_eq!(
        upstream(&snapshot, "own.test"),
        Some(vec!["10.0.0.9:80".to_owned()])
    );
    assert_eq!(upstream(&snapshot, "headless.test"), None);
    assert_eq!(route(&snapshot, "headless.test", "/"), "a:80");
    let bad = problems(&snapshot, ProblemKind::BadAnnotation);
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(&*bad[0].object.name, "headless");
    // The Service is made anew.
    world.delete_service("own");
    world.service(
        "own",
        json!({"clusterIP": "10.0.0.8", "ports": [{"name": "http", "port": 80}]}),
    );
    let snapshot = world.build();
    assert_eq!(
        upstream(&snapshot, "own.test"),
        Some(vec!["10.0.0.8:80".to_owned()])
    );
}
