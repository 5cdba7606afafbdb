//! Authentication: which users a route has, and what closes it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::world::{EPOCH, World, ingress, one_host, path, problems, route, rule};
use crate::Snapshot;
use crate::compile::{Change, Delta, ObjectKey, SecretRecord};
use crate::model::{
    Auth, AuthPlace, ExternalAuth, KeyPart, Part, PasswordHash, ProblemKind, Template,
};

const HOST: &str = "shop.test";
const BASIC: [(&str, &str); 2] = [("auth-type", "basic"), ("auth-secret", "users")];
const APR1: &str = "$apr1$saltsalt$7cqxt8VIjABxqw00CdZLl.";

fn annotations(list: &[(&str, &str)]) -> Value {
    let named = list
        .iter()
        .map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), json!(value)));
    Value::Object(named.collect())
}

/// A world whose Ingress `it` has these annotations and two paths.
fn world(list: &[(&str, &str)]) -> World {
    let mut world = World::new();
    world.simple_service("a");
    annotate(&mut world, list);
    world
}

fn annotate(world: &mut World, list: &[(&str, &str)]) {
    let paths = json!([path("Prefix", "/", "a"), path("Prefix", "/b", "a")]);
    world.ingress("it", 0, annotations(list), one_host(HOST, paths));
}

fn data(version: &str, data: &[(&str, &str)]) -> Secret {
    let entry = |(name, text): &(&str, &str)| {
        let bytes = ByteString(text.as_bytes().to_vec());
        ((*name).to_owned(), bytes)
    };
    let mut secret = Secret {
        data: Some(data.iter().map(entry).collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    };
    secret.metadata.resource_version = Some(version.to_owned());
    secret
}

fn auth(snapshot: &Snapshot) -> &Auth {
    let policy = rule(snapshot, HOST, "/").unwrap().filters.policy.as_ref();
    policy.unwrap().auth.as_ref().unwrap()
}

fn users(snapshot: &Snapshot, names: &[&str]) -> Vec<bool> {
    let users = &auth(snapshot).basic.as_ref().unwrap().users;
    names.iter().map(|name| users.get(name).is_some()).collect()
}

fn external(list: &[(&str, &str)]) -> ExternalAuth {
    let snapshot = world(list).build();
    assert_eq!(snapshot.problems.len(), 0, "{:?}", snapshot.problems);
    auth(&snapshot).external.clone().unwrap()
}

#[test]
fn ingress_a9_users_come_and_go_with_their_secret_and_without_it_nobody_comes_in() {
    let mut world = world(&BASIC);
    assert_eq!(
        route(&world.build(), HOST, "/"),
        "the Secret with the users is not known yet"
    );
    let file = format!("# people\nalice:{APR1}\n\nbob:{{PLAIN}}x:more\nalice:{{PLAIN}}second\n");
    world.secret("users", data("1", &[("auth", &file)]));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, HOST, "/b"), "a:80");
    assert_eq!(
        users(&snapshot, &["alice", "bob", "carol"]),
        [true, true, false]
    );
    let basic = auth(&snapshot).basic.as_ref().unwrap();
    assert_eq!(&*basic.realm, "Authentication Required");
    let alice = basic.users.get("alice").unwrap();
    assert!(
        matches!(alice, PasswordHash::Md5Crypt { .. }),
        "the first counts"
    );
    assert_eq!(snapshot.problems.len(), 0, "{:?}", snapshot.problems);

    world.secret("users", data("2", &[("auth", "carol:{PLAIN}x")]));
    assert_eq!(users(&world.build(), &["alice", "carol"]), [false, true]);

    world.delete_secret("users");
    let snapshot = world.build();
    for path in ["/", "/b"] {
        assert_eq!(route(&snapshot, HOST, path), "no Secret with the users");
    }
    let missing = problems(&snapshot, ProblemKind::MissingSecret);
    assert_eq!(missing.len(), 1, "one for both paths: {missing:?}");
    assert!(missing[0].field.contains("auth-secret"), "{missing:?}");

    world.secret("users", data("3", &[("auth", "carol:{PLAIN}x")]));
    assert_eq!(route(&world.build(), HOST, "/"), "a:80");
}

#[test]
fn ingress_a9_what_cannot_be_verified_is_left_out_and_a_secret_of_nobody_closes() {
    for (name, secret, usable) in [
        ("no key", data("1", &[("other", "alice:{PLAIN}x")]), false),
        ("empty", data("1", &[("auth", "")]), false),
        ("no hash", data("1", &[("auth", "alice:plain")]), false),
        ("no colon", data("1", &[("auth", "alice")]), false),
        ("des", data("1", &[("auth", "alice:rqXexS6ZhobKA")]), false),
        ("no user", data("1", &[("auth", ":{PLAIN}x")]), false),
        (
            "too costly",
            data("1", &[("auth", "a:$6$rounds=9999999$s$x")]),
            false,
        ),
        (
            "one of two",
            data("1", &[("auth", "a:{PLAIN}x\nsecretive:opensesame")]),
            true,
        ),
    ] {
        let mut world = world(&BASIC);
        world.secret("users", secret);
        let snapshot = world.build();
        let found = route(&snapshot, HOST, "/");
        let expected = if usable {
            "a:80"
        } else {
            "no users in the Secret"
        };
        assert_eq!(found, expected, "{name}");
        let kind = if usable {
            ProblemKind::BadAnnotation
        } else {
            ProblemKind::RefusedAnnotation
        };
        let found = problems(&snapshot, kind);
        assert_eq!(found.len(), 1, "{name}: {:?}", snapshot.problems);
        let message = &found[0].message;
        assert!(!message.contains("opensesame") && !message.contains("secretive"));
    }
}

#[test]
fn ingress_a9_each_key_is_a_user_in_an_auth_map() {
    let map = ("auth-secret-type", "auth-map");
    let realm = ("auth-realm", "Back \"office\"");
    let mut world = world(&[BASIC[0], BASIC[1], map, realm]);
    world.secret(
        "users",
        data("1", &[("alice", APR1), ("bob", "{PLAIN}x\n")]),
    );
    let snapshot = world.build();
    assert_eq!(
        users(&snapshot, &["alice", "bob", "auth"]),
        [true, true, false]
    );
    let basic = auth(&snapshot).basic.as_ref().unwrap();
    assert_eq!(&*basic.realm, "Back \"office\"");
}

#[test]
fn ingress_a9_what_is_said_by_half_or_not_supported_closes_the_route() {
    for list in [
        &[("auth-type", "digest"), BASIC[1]][..],
        &[("auth-type", "basic")],
        &[("auth-secret", "users")],
        &[BASIC[0], ("auth-secret", "Not/A/Name")],
        &[BASIC[0], BASIC[1], ("auth-secret-type", "auth-tree")],
        &[("auth-url", "auth.example.com/x")],
        &[("auth-url", "http://a/x")],
        &[("auth-url", "http://10.0.0.1/x")],
        &[("auth-url", "http://[::1]/x")],
        &[("auth-url", "http://169.254.169.254/latest")],
        &[("auth-url", "http://elsewhere.test:0/x")],
        &[("auth-url", "http://$host:9000/x")],
        &[("auth-url", "http://$remote_user.test/x")],
        &[("auth-url", "http://$request_uri/x")],
        &[("auth-url", "http://user@a.shop.svc/x")],
        &[("auth-url", "http://a.shop.svc/$arg_x")],
        &[
            ("auth-url", "http://a.shop.svc"),
            ("auth-proxy-set-headers", "Not/A/Name"),
        ],
        &[
            ("auth-url", "http://a.shop.svc"),
            ("auth-method", "CONNECT"),
        ],
        &[
            ("auth-url", "http://a.shop.svc"),
            ("auth-signin", "javascript:alert(1)"),
        ],
        &[
            ("auth-url", "http://a.shop.svc"),
            ("auth-signin-redirect-param", "a=b&c"),
        ],
        &[
            ("auth-url", "http://a.shop.svc"),
            ("auth-response-headers", "X-User, Content-Length"),
        ],
        &[
            ("auth-url", "http://a.shop.svc"),
            ("auth-response-headers", "X User"),
        ],
    ] {
        let mut world = world(list);
        world.secret("users", data("1", &[("auth", "alice:{PLAIN}x")]));
        let snapshot = world.build();
        assert_eq!(route(&snapshot, HOST, "/"), "bad annotation", "{list:?}");
        let refused = problems(&snapshot, ProblemKind::RefusedAnnotation);
        assert!(!refused.is_empty(), "{list:?}");
    }
    let snapshot = world(&[("auth-signin", "https://x.test"), ("auth-realm", "x")]).build();
    assert_eq!(route(&snapshot, HOST, "/"), "a:80");
    let unused = problems(&snapshot, ProblemKind::UnknownAnnotation);
    assert_eq!(unused.len(), 1, "{unused:?}");
}

#[test]
fn reliability_b18_users_of_another_namespace_are_refused_and_not_even_read() {
    let mut world = world(&[BASIC[0], ("auth-secret", "vault/users")]);
    let followed: Vec<_> = world.compiler.secrets().collect();
    assert!(followed.is_empty(), "{followed:?}");
    let key = ObjectKey::new("vault", "users");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let secret = data("1", &[("auth", "alice:{PLAIN}x")]);
    let record = SecretRecord::read(&key, secret, &provider);
    world.apply(Change::Secret(
        key.clone(),
        Delta::Set(key, Ok(Some(record))),
    ));
    let snapshot = world.build();
    assert_eq!(route(&snapshot, HOST, "/"), "Secret of another namespace");
    assert_eq!(problems(&snapshot, ProblemKind::RefusedAnnotation).len(), 1);

    annotate(&mut world, &[BASIC[0], ("auth-secret", "shop/users")]);
    world.secret("users", data("1", &[("auth", "alice:{PLAIN}x")]));
    assert_eq!(route(&world.build(), HOST, "/"), "a:80");
}

#[test]
fn ingress_a9_users_of_another_namespace_may_be_allowed_for_the_gateway_as_a_whole() {
    let settings = ObjectKey::new("shop", "settings");
    let mut world = World::with(|options| options.config_map = Some(settings));
    world.simple_service("a");
    annotate(&mut world, &[BASIC[0], ("auth-secret", "vault/users")]);
    let key = ObjectKey::new("vault", "users");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    for allowed in ["true", "false", "true"] {
        let setting = [("allow-cross-namespace-resources", allowed)];
        world.config_map("settings", &setting);
        let is_followed = world.compiler.secrets().any(|(found, _)| *found == key);
        assert_eq!(is_followed, allowed == "true");
        let secret = data("1", &[("auth", "alice:{PLAIN}x")]);
        let record = SecretRecord::read(&key, secret, &provider);
        world.apply(Change::Secret(
            key.clone(),
            Delta::Set(key.clone(), Ok(Some(record))),
        ));
        let expected = match allowed {
            "true" => "a:80",
            _ => "Secret of another namespace",
        };
        assert_eq!(route(&world.build(), HOST, "/"), expected);
    }
}

#[test]
fn ingress_a9_the_default_backend_follows_the_secret_too() {
    let mut world = World::new();
    world.simple_service("a");
    let backend = json!({"service": {"name": "a", "port": {"number": 80}}});
    let spec = json!({"ingressClassName": "ours", "defaultBackend": backend});
    world.ingress_object(ingress("it", EPOCH, annotations(&BASIC), spec));
    world.secret("users", data("1", &[("auth", "alice:{PLAIN}x")]));
    let invalid = |world: &mut World| world.build().routes.default_rule.unwrap().invalid;
    assert_eq!(invalid(&mut world), None);
    world.delete_secret("users");
    assert_eq!(invalid(&mut world), Some("no Secret with the users"));
}

#[test]
fn ingress_a8_a_service_is_found_by_its_name_and_other_hosts_are_taken_as_our_own() {
    for (url, service, port, is_tls, path) in [
        (
            "http://a.shop.svc.cluster.local:4180/ask?x=y",
            "shop/a",
            4180,
            false,
            "/ask?x=y",
        ),
        ("https://a.shop.svc/", "shop/a", 443, true, "/"),
        ("http://a.shop.svc.cluster.local.", "shop/a", 80, false, "/"),
        ("http://a.shop.svc?x", "shop/a", 80, false, "/?x"),
    ] {
        let asked = external(&[("auth-url", url)]);
        let AuthPlace::Service { backend, host, tls } = asked.place else {
            panic!("{url} is a Service");
        };
        let found = backend.service;
        assert_eq!(
            format!("{}/{}", found.namespace, found.name),
            service,
            "{url}"
        );
        assert_eq!((backend.port, tls), (port, is_tls), "{url}");
        assert!(url.contains(&*host), "{url}");
        assert_eq!(
            asked.path,
            Template([Part::Text(path.into())].into()),
            "{url}"
        );
    }
    for url in [
        "https://$host/ask",
        "https://login.test/ask",
        "https://$http_host/ask",
    ] {
        let asked = external(&[("auth-url", url)]);
        assert!(matches!(asked.place, AuthPlace::Host { .. }), "{url}");
    }
}

#[test]
fn ingress_a8_the_way_back_is_added_to_the_sign_in_url_unless_it_is_there() {
    let shown = |template: &Template| -> String {
        let parts = template.0.iter().map(|part| match part {
            Part::Text(text) => text.to_string(),
            other => format!("<{other:?}>"),
        });
        parts.collect()
    };
    let back = "<Scheme>://<HostAndPort><EscapedRequestUri>";
    for (signin, param, expected) in [
        (
            "https://x.test/in",
            None,
            format!("https://x.test/in?rd={back}"),
        ),
        (
            "https://x.test/in?a=b",
            None,
            format!("https://x.test/in?a=b&rd={back}"),
        ),
        (
            "https://x.test/in",
            Some("next"),
            format!("https://x.test/in?next={back}"),
        ),
        (
            "https://x.test/in?rd=/x",
            None,
            "https://x.test/in?rd=/x".to_owned(),
        ),
        (
            "https://$host/in?rd=$escaped_request_uri",
            None,
            "https://<Host>/in?rd=<EscapedRequestUri>".to_owned(),
        ),
    ] {
        let mut list = vec![("auth-url", "http://a.shop.svc"), ("auth-signin", signin)];
        list.extend(param.map(|param| ("auth-signin-redirect-param", param)));
        let asked = external(&list);
        assert_eq!(asked.signin.as_ref().map(shown), Some(expected), "{signin}");
    }
}

#[test]
fn ingress_a8_kept_answers_have_a_key_and_times_by_status() {
    let asked = external(&[
        ("auth-url", "http://a.shop.svc"),
        (
            "auth-cache-key",
            "$remote_user$http_authorization-${cookie_sid}",
        ),
        ("auth-cache-duration", "200 202 10m, 401 30s"),
    ]);
    let cache = asked.cache.unwrap();
    let field = http::header::AUTHORIZATION;
    let key = [
        KeyPart::User,
        KeyPart::Field(field),
        KeyPart::Text("-".into()),
        KeyPart::Cookie("sid".into()),
    ];
    assert_eq!(*cache.key, key);
    let times: Vec<(u16, u64)> = cache
        .durations
        .iter()
        .map(|(status, time)| (status.as_u16(), time.as_secs()))
        .collect();
    assert_eq!(times, [(200, 600), (202, 600), (401, 30)]);
    for (key, durations) in [
        ("$arg_x", "200 5m"),
        ("", "200 5m"),
        ("$host", "5m"),
        ("$host", "200 5y"),
        ("$host", "200 0s"),
        ("$host", "200 2d"),
    ] {
        let list = [
            ("auth-url", "http://a.shop.svc"),
            ("auth-cache-key", key),
            ("auth-cache-duration", durations),
        ];
        let snapshot = world(&list).build();
        let bad = problems(&snapshot, ProblemKind::BadAnnotation);
        assert_eq!(bad.len(), 1, "{key} {durations}: {bad:?}");
    }
}
