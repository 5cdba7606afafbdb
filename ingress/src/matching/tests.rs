use std::cmp::Reverse;

use sealane_config::model::{Filters, HostMatch, HostTls, ObjectRef};

use super::*;

fn rule(path: PathMatch, name: &str) -> Arc<RouteRule> {
    Arc::new(RouteRule {
        source: ObjectRef {
            kind: "Ingress",
            namespace: Arc::from("default"),
            name: Arc::from(name),
        },
        field: Arc::from("spec.rules[0].http.paths[0]"),
        path,
        filters: Filters::default(),
        backends: Vec::new(),
        invalid: None,
        canary: None,
    })
}

fn exact(path: &str) -> Arc<RouteRule> {
    rule(PathMatch::Exact(Arc::from(path)), path)
}

/// Named after the path as it was written, slash and all.
fn prefix(path: &str) -> Arc<RouteRule> {
    rule(
        PathMatch::Prefix(Arc::from(path.trim_end_matches('/'))),
        path,
    )
}

/// In the order that the table promises: longest first, Exact before Prefix.
fn host(host: HostMatch, mut rules: Vec<Arc<RouteRule>>, fallback: bool) -> Arc<HostRoutes> {
    rules.sort_by_key(|rule| {
        let is_prefix = matches!(rule.path, PathMatch::Prefix(_));
        (Reverse(rule.source.name.len()), is_prefix)
    });
    Arc::new(HostRoutes {
        host,
        rules,
        fallback: fallback.then(|| rule(PathMatch::Prefix(Arc::from("")), "fallback")),
        has_certificate: false,
        tls: HostTls::default(),
    })
}

fn any(rules: Vec<Arc<RouteRule>>) -> RouteTable {
    RouteTable {
        any: Some(host(HostMatch::Any, rules, false)),
        ..RouteTable::default()
    }
}

/// The name of the rule that takes a request.
fn taken(table: &RouteTable, host: &str, path: &str) -> Option<String> {
    match find(table, &host_name(host), path) {
        Ok(matched) => Some(matched.rule.source.name.to_string()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoRoute);
            None
        }
    }
}

#[test]
fn ingress_i1_exact_is_exact() {
    for (rule, path, takes) in [
        ("/foo", "/foo", true),
        ("/foo", "/bar", false),
        ("/foo", "/foo/", false),
        ("/foo", "/FOO", false),
        ("/foo/", "/foo/", true),
        ("/foo/", "/foo", false),
    ] {
        let found = taken(&any(vec![exact(rule)]), "a.test", path);
        assert_eq!(found.is_some(), takes, "{rule} {path}");
    }
}

#[test]
fn ingress_i2_prefix_is_by_element() {
    for (rule, path, takes) in [
        ("/", "/", true),
        ("/", "/foo/bar", true),
        ("/foo", "/foo", true),
        ("/foo", "/foo/", true),
        ("/foo/", "/foo", true),
        ("/foo/", "/foo/", true),
        ("/foo", "/foobar", false),
        ("/foo", "/FOO", false),
        ("/aaa/bb", "/aaa/bbb", false),
        ("/aaa/bbb", "/aaa/bbb", true),
        ("/aaa/bbb", "/aaa/bbb/", true),
        ("/aaa/bbb", "/aaa/bbb/ccc", true),
        ("/aaa/bbb", "/aaa/bbbxyz", false),
        ("/aaa/bbb/", "/aaa/bbb", true),
    ] {
        let found = taken(&any(vec![prefix(rule)]), "a.test", path);
        assert_eq!(found.is_some(), takes, "{rule} {path}");
    }
}

#[test]
fn ingress_i3_the_longest_match_wins() {
    let three = || vec![prefix("/"), prefix("/aaa"), prefix("/aaa/bbb")];
    let both = || vec![prefix("/foo"), exact("/foo")];
    for (rules, path, winner) in [
        (three(), "/aaa/ccc", Some("/aaa")),
        (three(), "/aaa/bbb", Some("/aaa/bbb")),
        (three(), "/ccc", Some("/")),
        (vec![prefix("/aaa")], "/ccc", None),
    ] {
        assert_eq!(
            taken(&any(rules), "a.test", path).as_deref(),
            winner,
            "{path}"
        );
    }
    let table = any(both());
    let found = |path| find(&table, "", path).unwrap().rule.path.clone();
    assert!(matches!(found("/foo"), PathMatch::Exact(_)));
    assert!(matches!(found("/foo/"), PathMatch::Prefix(_)));
}

/// Rules for `a.test`, `*.foo.com` and no host, and a catch-all.
fn hosts(default_rule: bool) -> RouteTable {
    let mut table = any(vec![prefix("/any")]);
    let exact_host = HostMatch::Exact(Arc::from("bar.foo.com"));
    table.exact.insert_mut(
        Arc::from("bar.foo.com"),
        host(exact_host, vec![prefix("/exact")], false),
    );
    table.exact.insert_mut(
        Arc::from("fallback.test"),
        host(
            HostMatch::Exact(Arc::from("fallback.test")),
            vec![prefix("/x")],
            true,
        ),
    );
    table.wildcard.insert_mut(
        Arc::from("foo.com"),
        host(
            HostMatch::Wildcard(Arc::from("foo.com")),
            vec![prefix("/wild")],
            false,
        ),
    );
    table.default_rule = default_rule.then(|| rule(PathMatch::Prefix(Arc::from("")), "default"));
    table
}

#[test]
fn ingress_i5_the_host_is_chosen_first() {
    for (host, path, winner) in [
        ("bar.foo.com", "/exact", Some("/exact")),
        ("BAR.foo.com", "/exact", Some("/exact")),
        ("bar.foo.com:8080", "/exact", Some("/exact")),
        ("bar.foo.com.", "/exact", Some("/exact")),
        ("bar.foo.com.:80", "/exact", Some("/exact")),
        ("other.foo.com", "/wild", Some("/wild")),
        ("baz.bar.foo.com", "/wild", None),
        ("foo.com", "/wild", None),
        (".foo.com", "/wild", None),
        // Never another host's paths.
        ("bar.foo.com", "/wild", None),
        ("bar.foo.com", "/any", None),
        ("other.foo.com", "/any", None),
    ] {
        assert_eq!(
            taken(&hosts(false), host, path).as_deref(),
            winner,
            "{host}{path}"
        );
    }
}

#[test]
fn ingress_i6_rules_without_a_host_take_any_other() {
    for host in [
        "unknown.test",
        "192.0.2.1",
        "192.0.2.1:80",
        "[::1]:80",
        "[2001:db8::1]",
        "",
    ] {
        assert_eq!(
            taken(&hosts(false), host, "/any").as_deref(),
            Some("/any"),
            "{host}"
        );
    }
}

#[test]
fn ingress_i7_default_backends_take_what_no_rule_took() {
    for (host, path, winner) in [
        ("fallback.test", "/x", "/x"),
        ("fallback.test", "/y", "fallback"),
        ("bar.foo.com", "/y", "default"),
        ("unknown.test", "/any", "/any"),
        ("unknown.test", "/y", "default"),
    ] {
        assert_eq!(
            taken(&hosts(true), host, path).as_deref(),
            Some(winner),
            "{host}{path}"
        );
    }
}

#[test]
fn ingress_a1_patterns_are_anchored_and_limited() {
    let pattern = |text: &str| {
        let regex = fancy_regex::RegexBuilder::new(text)
            .backtrack_limit(10_000)
            .build()
            .unwrap();
        any(vec![rule(PathMatch::Regex(Arc::new(regex)), text)])
    };
    let table = pattern("(?i)^/something(/|$)(.*)");
    assert!(taken(&table, "", "/SOMETHING/new").is_some());
    assert!(taken(&table, "", "/x/something").is_none());
    let endless = pattern(r"^/(a|a)*(?=b)c");
    let refused = find(&endless, "", &format!("/{}", "a".repeat(64)));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidRoute);
}
