//! Settings of the gateway as a whole, from its ConfigMap.

use std::time::Duration;

use http::header::{SERVER, X_FRAME_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::world::{World, one_host, path, problems, route, rule};
use crate::Snapshot;
use crate::compile::ObjectKey;
use crate::model::{GatewaySettings, HstsByMode, ProblemKind, ProxyProtocol, TlsVersions};

const NGINX: &str = "nginx.ingress.kubernetes.io";

/// A world whose gateway has a ConfigMap, and one Ingress.
fn world() -> World {
    let mut world = World::with(|options| options.config_map = Some(ObjectKey::new("shop", "it")));
    world.simple_service("web");
    let rules = one_host("host", json!([path("Prefix", "/", "web")]));
    world.ingress("web", 0, json!({}), rules);
    world
}

fn built(data: &[(&str, &str)]) -> Snapshot {
    let mut world = world();
    world.config_map("it", data);
    world.build()
}

/// What a ConfigMap comes to, and the field and the message of each problem in it.
fn read(data: &[(&str, &str)]) -> (GatewaySettings, Vec<(String, String)>) {
    let snapshot = built(data);
    let of_map = |p: &&crate::model::Problem| p.object.kind == "ConfigMap";
    let problems = snapshot.problems.iter().filter(of_map);
    let problems = problems.map(|p| (p.field.clone(), p.message.clone()));
    ((*snapshot.gateway).clone(), problems.collect())
}

#[test]
fn ingress_a21_each_key_has_its_setting() {
    type Change = fn(&mut GatewaySettings);
    let cases: [(&[(&str, &str)], Change); 27] = [
        (&[], |_| {}),
        (
            &[
                ("custom-http-errors", "404, 503"),
                ("disable-proxy-intercept-errors", "true"),
            ],
            |settings| {
                let statuses = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
                settings.rules.errors.statuses = statuses.into();
                settings.rules.errors.own_only = true;
            },
        ),
        (
            &[("global-allowed-response-headers", "X-Frame-Options,Server")],
            |settings| {
                settings.rules.allowed_headers = [X_FRAME_OPTIONS, SERVER].into();
            },
        ),
        (
            &[("proxy-real-ip-cidr", "10.0.0.0/8, 192.0.2.7")],
            |settings| {
                let networks = ["10.0.0.0/8", "192.0.2.7/32"];
                settings.proxies.networks = networks.map(|net| net.parse().unwrap()).into();
            },
        ),
        (
            &[
                ("use-forwarded-headers", "true"),
                ("proxy-real-ip-cidr", "::1"),
            ],
            |settings| {
                settings.proxies.networks = ["::1/128".parse().unwrap()].into();
                settings.proxies.forwarded = true;
                settings.proxies.appends = false;
            },
        ),
        (
            &[
                ("compute-full-forwarded-for", "true"),
                ("forwarded-for-header", "CF-Connecting-IP"),
                ("proxy-real-ip-cidr", "::1"),
                ("use-forwarded-headers", "true"),
            ],
            |settings| {
                settings.proxies.networks = ["::1/128".parse().unwrap()].into();
                settings.proxies.forwarded = true;
                settings.proxies.forwarded_for = "cf-connecting-ip".parse().unwrap();
            },
        ),
        (
            &[
                ("use-proxy-protocol", "true"),
                ("proxy-real-ip-cidr", "::1"),
            ],
            |settings| {
                settings.proxies.networks = ["::1/128".parse().unwrap()].into();
                settings.proxy_protocol = ProxyProtocol {
                    http: true,
                    https: true,
                };
            },
        ),
        (&[("hsts", "false"), ("hsts-max-age", "5")], |settings| {
            settings.hsts.compat = None;
        }),
        (&[("hsts-max-age", "5")], |settings| {
            settings.hsts.compat = hsts("max-age=5; includeSubDomains").compat;
        }),
        (&[("hsts", "true")], |settings| {
            settings.hsts = hsts("max-age=31536000; includeSubDomains");
        }),
        (&[("sealane-forwarded", "true")], |settings| {
            settings.proxies.standard = true;
        }),
        (
            &[
                ("hsts", "true"),
                ("hsts-include-subdomains", "false"),
                ("hsts-max-age", "60"),
                ("hsts-preload", "true"),
            ],
            |settings| settings.hsts = hsts("max-age=60; preload"),
        ),
        (&[("ssl-redirect", "false")], |settings| {
            settings.rules.ssl_redirect = false;
        }),
        (&[("force-ssl-redirect", "true")], |settings| {
            settings.rules.force_ssl_redirect = true;
        }),
        (&[("http-redirect-code", "301")], |settings| {
            settings.redirect_status = 301;
        }),
        (&[("proxy-body-size", "8m")], |settings| {
            settings.rules.overrides.body_bytes = Some(8 << 20);
        }),
        (
            &[
                ("proxy-connect-timeout", "7"),
                ("proxy-read-timeout", "600"),
                ("proxy-send-timeout", "30"),
            ],
            |settings| {
                let overrides = &mut settings.rules.overrides;
                overrides.connect_timeout = Some(Duration::from_secs(7));
                overrides.read_timeout = Some(Duration::from_secs(600));
                overrides.send_timeout = Some(Duration::from_secs(30));
            },
        ),
        (
            &[
                ("limit-req-status-code", "429"),
                ("limit-conn-status-code", "420"),
            ],
            |settings| {
                settings.rate_limit_status = 429;
                settings.connection_limit_status = 420;
            },
        ),
        (&[("no-auth-locations", "/health, /open/")], |settings| {
            settings.no_auth_paths = ["/health".into(), "/open/".into()].into();
        }),
        (&[("allow-cross-namespace-resources", "true")], |settings| {
            settings.rules.cross_namespace = true;
        }),
        (&[("worker-shutdown-timeout", "240s")], |settings| {
            settings.grace = Some(Duration::from_secs(240));
        }),
        (
            &[
                ("whitelist-source-range", "10.0.0.0/8"),
                ("denylist-source-range", "10.1.0.0/16"),
                ("block-cidrs", "192.0.2.0/24"),
            ],
            |settings| {
                settings.rules.access.allow = ["10.0.0.0/8".parse().unwrap()].into();
                settings.rules.access.deny = ["10.1.0.0/16".parse().unwrap()].into();
                settings.rules.blocked = ["192.0.2.0/24".parse().unwrap()].into();
            },
        ),
        (&[("ssl-protocols", "TLSv1.3")], |settings| {
            settings.tls.versions = TlsVersions::Only13;
        }),
        (&[("ssl-protocols", " TLSv1.2 ")], |settings| {
            settings.tls.versions = TlsVersions::Only12;
        }),
        (&[("ssl-protocols", "TLSv1.2 TLSv1.3")], |_| {}),
        (&[("ssl-reject-handshake", "true")], |settings| {
            settings.tls.rejects_unknown_names = true;
        }),
        (
            &[("block-cidrs", ""), ("enable-modsecurity", "false")],
            |_| {},
        ),
    ];
    for (data, change) in cases {
        let mut expected = GatewaySettings::default();
        change(&mut expected);
        assert_eq!(read(data), (expected, Vec::new()), "{data:?}");
    }
}

/// The same, whatever the mode.
fn hsts(value: &'static str) -> HstsByMode {
    let value = HeaderValue::from_static(value);
    HstsByMode {
        strict: Some(value.clone()),
        compat: Some(value),
    }
}

#[test]
fn ingress_a21_a_bad_value_is_told_by_its_key_and_the_default_holds() {
    for (key, value) in [
        ("use-forwarded-headers", "yes"),
        ("proxy-real-ip-cidr", "10.0.0.0/8,nowhere"),
        ("proxy-real-ip-cidr", ""),
        ("forwarded-for-header", "X Forwarded For"),
        ("compute-full-forwarded-for", "2"),
        ("use-proxy-protocol", "v2"),
        ("hsts", "on"),
        ("hsts-max-age", "-1"),
        ("hsts-max-age", "315360001"),
        ("hsts-preload", ""),
        ("ssl-redirect", "maybe"),
        ("force-ssl-redirect", "y"),
        ("http-redirect-code", "200"),
        ("proxy-body-size", "8 m"),
        ("proxy-connect-timeout", "0"),
        ("proxy-read-timeout", "1s"),
        ("limit-req-status-code", "200"),
        ("limit-conn-status-code", "600"),
        ("no-auth-locations", "health"),
        ("allow-cross-namespace-resources", "all"),
        ("ssl-protocols", "TLSv1 TLSv1.1"),
        ("ssl-protocols", ""),
        ("ssl-reject-handshake", "on"),
        ("worker-shutdown-timeout", "soon"),
        ("worker-shutdown-timeout", ""),
    ] {
        let (settings, problems) = read(&[(key, value), ("denylist-source-range", "192.0.2.9")]);
        let mut expected = GatewaySettings::default();
        expected.rules.access.deny = ["192.0.2.9/32".parse().unwrap()].into();
        assert_eq!(settings, expected, "{key}: {value}");
        let [(field, message)] = &problems[..] else {
            panic!("{key}: {value}: {problems:?}");
        };
        assert_eq!(field, &format!("data[{key}]"));
        assert!(message.ends_with("; the default is used"), "{message}");
    }
}

#[test]
fn ingress_t6_versions_that_are_not_spoken_are_told() {
    let (settings, problems) = read(&[("ssl-protocols", "TLSv1 TLSv1.1 TLSv1.3 SSLv3")]);
    assert_eq!(settings.tls.versions, TlsVersions::Only13);
    let told = "not spoken: TLSv1, TLSv1.1, SSLv3".to_owned();
    assert_eq!(problems, [("data[ssl-protocols]".to_owned(), told)]);
}

#[test]
fn ingress_a21_keys_that_are_not_supported_are_listed_once() {
    let snapshot = built(&[("log-format-upstream", "x"), ("gzip-level", "3")]);
    let found = problems(&snapshot, ProblemKind::UnsupportedSetting);
    let told: Vec<(&str, &str)> = found.iter().map(|p| (&*p.field, &*p.message)).collect();
    let message = "not supported and without effect: gzip-level, log-format-upstream";
    assert_eq!(told, [("data", message)]);
    assert_eq!(route(&snapshot, "host", "/"), "web:80");
}

#[test]
fn ingress_a21_what_must_not_be_ignored_closes_every_route() {
    let cases = [
        (
            "global-auth-url",
            "https://auth/",
            "unsupported access control",
        ),
        ("enable-modsecurity", "true", "unsupported access control"),
        ("block-user-agents", "~*bot", "unsupported access control"),
        (
            "http-snippet",
            "deny all;",
            "snippet in the gateway's settings",
        ),
        (
            "whitelist-source-range",
            "10.0.0.0/99",
            "bad setting of the gateway",
        ),
        ("block-cidrs", "10.0.0.0/8,x", "bad setting of the gateway"),
    ];
    for (key, value, reason) in cases {
        let mut world = world();
        world.config_map("it", &[(key, value)]);
        let snapshot = world.build();
        assert_eq!(route(&snapshot, "host", "/"), reason, "{key}");
        let found = problems(&snapshot, ProblemKind::UnsupportedSetting);
        assert_eq!(found[0].field, format!("data[{key}]"));
        world.config_map("it", &[]);
        assert_eq!(route(&world.build(), "host", "/"), "web:80", "{key}");
    }
}

#[test]
fn ingress_a21_trusting_nobody_is_told_and_so_is_where_to_say_whom() {
    for key in ["use-forwarded-headers", "use-proxy-protocol"] {
        let (settings, problems) = read(&[(key, "true")]);
        assert!(settings.proxies.networks.is_empty());
        let [(field, message)] = &problems[..] else {
            panic!("{key}: {problems:?}");
        };
        assert_eq!(field, &format!("data[{key}]"));
        assert!(message.contains("proxy-real-ip-cidr"), "{message}");
    }
}

#[test]
fn ingress_a21_annotations_go_before_the_settings_of_all() {
    let annotations = json!({
        format!("{NGINX}/ssl-redirect"): "true",
        format!("{NGINX}/proxy-body-size"): "1m",
        format!("{NGINX}/whitelist-source-range"): "192.0.2.0/24",
    });
    let mut world = world();
    let rules = one_host("own", json!([path("Prefix", "/", "web")]));
    world.ingress("own", 1, annotations, rules);
    world.config_map(
        "it",
        &[
            ("ssl-redirect", "false"),
            ("proxy-body-size", "8m"),
            ("proxy-read-timeout", "9"),
            ("whitelist-source-range", "10.0.0.0/8"),
            ("block-cidrs", "192.0.2.128/25"),
        ],
    );
    let snapshot = world.build();
    let of = |host| {
        let filters = &rule(&snapshot, host, "/").unwrap().filters;
        let policy = filters.policy.as_ref().unwrap();
        let admits = ["10.0.0.1", "192.0.2.1", "192.0.2.129"]
            .map(|client| policy.access.admits(client.parse().unwrap()));
        let overrides = &policy.overrides;
        let read = overrides.read_timeout.unwrap().as_secs();
        (
            filters.ssl_redirect,
            overrides.body_bytes.unwrap() >> 20,
            read,
            admits,
        )
    };
    assert_eq!(of("host"), (false, 8, 9, [true, false, false]));
    assert_eq!(of("own"), (true, 1, 9, [false, true, false]));
}

#[test]
fn ingress_a21_a_change_compiles_the_hosts_that_depend_on_it_and_no_more() {
    let mut world = world();
    world.config_map("it", &[]);
    world.build();
    world.config_map("it", &[("http-redirect-code", "301")]);
    let (snapshot, work) = world.build_counted();
    assert_eq!((snapshot.gateway.redirect_status, work.hosts), (301, 0));
    world.config_map("it", &[("ssl-redirect", "false")]);
    let (snapshot, work) = world.build_counted();
    assert_eq!((snapshot.gateway.redirect_status, work.hosts), (308, 1));
    assert!(!rule(&snapshot, "host", "/").unwrap().filters.ssl_redirect);
    world.config_map("it", &[("ssl-redirect", "false")]);
    assert_eq!(world.build_counted().1.hosts, 0, "nothing new");
}

#[test]
fn ingress_a21_a_config_map_that_is_gone_stays_in_force_and_is_told() {
    let mut world = world();
    assert!(!world.compiler.references_known());
    world.delete_config_map("it");
    assert!(world.compiler.references_known());
    let snapshot = world.build();
    assert_eq!(*snapshot.gateway, GatewaySettings::default());
    let told = |snapshot: &Snapshot| {
        let found = problems(snapshot, ProblemKind::MissingConfigMap);
        found.iter().map(|p| p.message.clone()).collect::<Vec<_>>()
    };
    let message = "the ConfigMap does not exist: the defaults are in force";
    assert_eq!(told(&snapshot), [message]);
    world.config_map("it", &[("http-redirect-code", "301")]);
    let snapshot = world.build();
    assert!(told(&snapshot).is_empty());
    world.delete_config_map("it");
    let snapshot = world.build();
    assert_eq!(snapshot.gateway.redirect_status, 301);
    let message = "the ConfigMap does not exist: what it said last stays in force";
    assert_eq!(told(&snapshot), [message]);
}
