//! Sessions, hashes and algorithms: which endpoint takes a request.

use serde_json::{Value, json};

use super::world::{World, one_host, path, rule};
use crate::Snapshot;
use crate::model::{AffinityMode, Algorithm, ProblemKind, RoutePolicy, RouteRule};

const NGINX: &str = "nginx.ingress.kubernetes.io";

fn annotations(named: &[(&str, &str)]) -> Value {
    let named = named.iter();
    let named = named.map(|(name, value)| (format!("{NGINX}/{name}"), json!(value)));
    Value::Object(named.collect())
}

/// An Ingress with these annotations, and perhaps a canary with those.
fn build(main: &[(&str, &str)], canary: Option<&[(&str, &str)]>) -> Snapshot {
    let mut world = World::new();
    world.simple_service("a");
    world.simple_service("b");
    let to = |service: &str| one_host("host", json!([path("Prefix", "/", service)]));
    world.ingress("main", 0, annotations(main), to("a"));
    if let Some(canary) = canary {
        let canary = [&[("canary", "true")], canary].concat();
        world.ingress("canary", 1, annotations(&canary), to("b"));
    }
    world.build()
}

fn policy(rule: &RouteRule) -> RoutePolicy {
    rule.filters.policy.as_deref().cloned().unwrap_or_default()
}

#[test]
fn ingress_a11_what_is_not_a_session_is_reported() {
    let cookie = ("affinity", "cookie");
    for (named, has_affinity, problems) in [
        (&[cookie][..], true, 0),
        (&[("affinity", "ip")], false, 1),
        (&[("session-cookie-name", "c")], false, 1),
        (&[cookie, ("session-cookie-name", "a;b")], true, 1),
        (&[cookie, ("session-cookie-expires", "-3")], true, 1),
        (&[cookie, ("session-cookie-max-age", "soon")], true, 1),
        (&[cookie, ("session-cookie-path", "app")], true, 1),
        (&[cookie, ("session-cookie-domain", "a b")], true, 1),
        (&[cookie, ("session-cookie-samesite", "some")], true, 1),
        (&[cookie, ("session-cookie-hash", "sha1")], true, 1),
        (&[cookie, ("affinity-mode", "random")], true, 1),
        (&[cookie, ("affinity-canary-behavior", "none")], true, 1),
    ] {
        let snapshot = build(named, None);
        let policy = policy(rule(&snapshot, "host", "/").unwrap());
        assert_eq!(policy.affinity.is_some(), has_affinity, "{named:?}");
        assert_eq!(
            snapshot.problems.len(),
            problems,
            "{named:?}: {:?}",
            snapshot.problems
        );
        if let Some(affinity) = policy.affinity {
            assert_eq!(
                (&*affinity.name, affinity.mode),
                ("INGRESSCOOKIE", AffinityMode::Balanced)
            );
            let rest = (
                &affinity.path,
                &affinity.domain,
                affinity.expires,
                affinity.max_age,
            );
            assert_eq!(rest, (&None, &None, None, None), "{named:?}");
        }
    }
}

#[test]
fn ingress_a17_what_cannot_be_balanced_by_is_reported_and_ignored() {
    for (name, value) in [
        ("load-balance", "ip_hash"),
        ("upstream-hash-by", "$upstream_addr"),
        ("upstream-hash-by-subset", "true"),
        ("upstream-hash-by-subset-size", "3"),
        ("proxy-next-upstream", "whenever"),
        ("proxy-next-upstream-tries", "some"),
        ("proxy-next-upstream-timeout", "-1"),
    ] {
        let snapshot = build(&[(name, value)], None);
        let rule = rule(&snapshot, "host", "/").unwrap();
        assert_eq!(
            (policy(rule), rule.invalid),
            (RoutePolicy::default(), None),
            "{name}"
        );
        assert_eq!(snapshot.problems.len(), 1, "{name}");
        let kind = snapshot.problems[0].kind;
        let of_value = [ProblemKind::BadAnnotation, ProblemKind::UnknownAnnotation];
        assert!(of_value.contains(&kind), "{name}: {kind:?}");
    }
}

#[test]
fn ingress_a10_a_canary_chooses_its_endpoints_itself_and_shares_the_sessions() {
    let main = [
        ("affinity", "cookie"),
        ("load-balance", "round_robin"),
        ("upstream-hash-by", "$host"),
        ("proxy-read-timeout", "7"),
    ];
    let of_canary = |named: &[(&str, &str)]| {
        let snapshot = build(&main, Some(named));
        let rule = rule(&snapshot, "host", "/").unwrap();
        (policy(rule), policy(&rule.canary.as_ref().unwrap().rule))
    };
    let (main, canary) = of_canary(&[
        ("load-balance", "ewma"),
        ("session-cookie-name", "mine"),
        ("affinity", "cookie"),
    ]);
    assert_eq!(main.overrides.algorithm, Some(Algorithm::RoundRobin));
    assert_eq!(canary.overrides.algorithm, Some(Algorithm::PeakEwma));
    assert!(main.hash_by.is_some() && canary.hash_by.is_none());
    assert_eq!(canary.affinity, main.affinity);
    assert_eq!(canary.overrides.read_timeout, main.overrides.read_timeout);

    let legacy = ("affinity-canary-behavior", "legacy");
    let (_, canary) = of_canary(&[legacy]);
    assert_eq!(canary.affinity, None);
    let own = [
        legacy,
        ("affinity", "cookie"),
        ("session-cookie-name", "mine"),
    ];
    let (main, canary) = of_canary(&own);
    assert_eq!(&*canary.affinity.unwrap().name, "mine");
    assert_eq!(&*main.affinity.unwrap().name, "INGRESSCOOKIE");
}
