//! Which rule of a host takes a path: the order of rules is the compiler's.

use serde_json::{Value, json};

use super::world::{World, one_host, path, problems, route, rule};
use crate::model::{PathMatch, ProblemKind, Rewrite};

/// A world with Services `a` to `e` and one Ingress for `host`.
fn with_paths(annotations: Value, paths: Value) -> World {
    let mut world = World::new();
    for name in ["a", "b", "c", "d", "e"] {
        world.simple_service(name);
    }
    world.ingress("main", 0, annotations, one_host("host", paths));
    world
}

#[test]
fn ingress_i1_exact_counts_case_and_slash() {
    let cases = [
        ("/foo", "/foo", true),
        ("/foo", "/bar", false),
        ("/foo", "/foo/", false),
        ("/foo", "/FOO", false),
        ("/foo/", "/foo", false),
        ("/foo/", "/foo/", true),
    ];
    for (written, asked, want) in cases {
        let mut world = with_paths(json!({}), json!([path("Exact", written, "a")]));
        let found = rule(&world.build(), "host", asked).is_some();
        assert_eq!(found, want, "{written} for {asked}");
    }
}

#[test]
fn ingress_i2_i4_prefix_is_by_element() {
    let cases = [
        ("/", "/", true),
        ("/", "/any/thing", true),
        ("/foo", "/foo", true),
        ("/foo", "/foo/", true),
        ("/foo/", "/foo", true),
        ("/foo/", "/foo/", true),
        ("/foo", "/FOO", false),
        ("/aaa/bb", "/aaa/bbb", false),
        ("/aaa/bbb", "/aaa/bbb/ccc", true),
        ("/aaa/bbb", "/aaa/bbbxyz", false),
        ("/aaa/bbb/", "/aaa/bbb", true),
        ("", "/", true),
    ];
    for kind in ["Prefix", "ImplementationSpecific"] {
        for (written, asked, want) in cases {
            let mut world = with_paths(json!({}), json!([path(kind, written, "a")]));
            let found = rule(&world.build(), "host", asked).is_some();
            assert_eq!(found, want, "{kind} {written} for {asked}");
        }
    }
}

#[test]
fn ingress_i3_longest_wins_then_exact_whatever_the_order() {
    let paths = [
        path("Prefix", "/", "a"),
        path("Prefix", "/aaa", "b"),
        path("Prefix", "/aaa/bbb", "c"),
        path("Exact", "/aaa", "d"),
        path("Prefix", "/aaa/", "e"),
    ];
    let cases = [
        ("/ccc", "a:80"),
        ("/aaa", "d:80"),
        ("/aaa/", "e:80"),
        ("/aaa/ccc", "e:80"),
        ("/aaa/bbb", "c:80"),
        ("/aaa/bbb/x", "c:80"),
    ];
    for turn in 0..paths.len() {
        let mut paths = paths.to_vec();
        paths.rotate_left(turn);
        let mut world = with_paths(json!({}), Value::Array(paths));
        let snapshot = world.build();
        for (asked, want) in cases {
            assert_eq!(
                route(&snapshot, "host", asked),
                want,
                "{asked}, turn {turn}"
            );
        }
    }
}

#[test]
fn ingress_i22_hostile_paths_do_no_harm() {
    let paths = json!([
        path("ImplementationSpecific", "relative", "a"),
        path("ImplementationSpecific", "/a b", "a"),
        path("ImplementationSpecific", "/nul\u{0}", "a"),
        path("ImplementationSpecific", "/..//%2f/{}()[", "b"),
        path("Regexp", "/x", "a"),
        path("Prefix", "/good", "c"),
    ]);
    let mut world = with_paths(json!({}), paths);
    let snapshot = world.build();
    assert_eq!(route(&snapshot, "host", "/good/x"), "c:80");
    assert_eq!(route(&snapshot, "host", "/x"), "404");
    assert_eq!(problems(&snapshot, ProblemKind::BadField).len(), 4);
}

#[test]
fn ingress_a1_regular_expressions_of_a_host() {
    let rewrite = json!({"nginx.ingress.kubernetes.io/rewrite-target": "/$2"});
    let mut world = with_paths(
        rewrite,
        json!([path("ImplementationSpecific", "/something(/|$)(.*)", "a")]),
    );
    world.ingress(
        "other",
        1,
        json!({}),
        one_host(
            "host",
            json!([path("Exact", "/Some", "b"), path("Prefix", "/api", "c")]),
        ),
    );
    world.ingress(
        "elsewhere",
        2,
        json!({}),
        one_host("plain", json!([path("Exact", "/x", "d")])),
    );
    let snapshot = world.build();
    for (asked, want) in [
        ("/something", "a:80"),
        ("/something/new", "a:80"),
        ("/SOMETHING/new", "a:80"),
        ("/somethingelse", "b:80"),
        ("/some/more", "b:80"),
        ("/apiary", "c:80"),
        ("/x/api", "404"),
    ] {
        assert_eq!(route(&snapshot, "host", asked), want, "{asked}");
    }
    let matched = rule(&snapshot, "host", "/something/new").unwrap();
    assert!(matches!(&matched.filters.rewrite, Some(Rewrite::Template(t)) if &**t == "/$2"));
    let PathMatch::Regex(regex) = &matched.path else {
        panic!("not a regular expression")
    };
    let groups = regex.captures("/something/new").unwrap().unwrap();
    assert_eq!(groups.get(2).unwrap().as_str(), "new");
    assert!(
        rule(&snapshot, "host", "/api")
            .unwrap()
            .filters
            .rewrite
            .is_none()
    );
    assert_eq!(
        route(&snapshot, "plain", "/X"),
        "404",
        "other hosts are not touched"
    );

    world.delete_ingress("main");
    let snapshot = world.build();
    assert_eq!(
        route(&snapshot, "host", "/some"),
        "404",
        "plain paths again"
    );
}

#[test]
fn ingress_a1_longest_pattern_first_then_reverse_lexical() {
    let annotations = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    let paths = json!([
        path("ImplementationSpecific", "/[a-z]+", "a"),
        path("ImplementationSpecific", "/[a-z]+/x", "b"),
        path("ImplementationSpecific", "/[b-z]+", "c"),
    ]);
    let mut world = with_paths(annotations, paths);
    let snapshot = world.build();
    for (asked, want) in [("/abc", "a:80"), ("/bcd", "c:80"), ("/abc/x", "b:80")] {
        assert_eq!(route(&snapshot, "host", asked), want, "{asked}");
    }
}

#[test]
fn ingress_a1_bad_pattern_answers_503_and_guards_its_paths() {
    let annotations = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    let paths = json!([
        path("ImplementationSpecific", "/admin/(?P<", "a"),
        path("ImplementationSpecific", "/", "b"),
        path("ImplementationSpecific", "/(?=ok)o(k)\\1", "c"),
    ]);
    let mut world = with_paths(annotations, paths);
    let snapshot = world.build();
    assert_eq!(
        route(&snapshot, "host", "/admin/users"),
        "bad regular expression"
    );
    assert_eq!(route(&snapshot, "host", "/public"), "b:80");
    assert_eq!(
        route(&snapshot, "host", "/okk"),
        "c:80",
        "look-ahead and back-reference"
    );
    let found = problems(&snapshot, ProblemKind::BadField);
    assert_eq!(found[0].field, "spec.rules[0].http.paths[0].path");
}
