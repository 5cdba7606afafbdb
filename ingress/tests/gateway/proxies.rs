//! Proxies in front of the gateway: whose word is taken, and by whom; settings of the gateway.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sealane_config::model::{GatewaySettings, HstsByMode, TrustedProxies};
use sealane_proxy::testing::{Origin, RawClient, RawResponse, Seen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};
use crate::tls;

const HOST: &str = "shop.test";

/// Where the proxy is that is trusted.
pub(crate) const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Where somebody is who is not.
pub(crate) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// A gateway in front of one backend.
pub(crate) struct Site {
    pub(crate) edge: Edge,
    pub(crate) origin: Origin,
}

impl Site {
    pub(crate) async fn new(annotations: &[(&str, &str)], settings: GatewaySettings) -> Self {
        Self::of(Manifests::new(), annotations, settings).await
    }

    async fn of(
        mut manifests: Manifests,
        annotations: &[(&str, &str)],
        settings: GatewaySettings,
    ) -> Self {
        let (mut edge, origin) = (Edge::new().await, Origin::named("web").await);
        manifests.service("web", origin.addr);
        manifests.ingress("site", annotations, HOST, &[("Prefix", "/", "web")]);
        manifests.publish(&mut edge);
        let mut site = Self { edge, origin };
        site.set(settings);
        site
    }

    /// Has the gateway work with these settings.
    pub(crate) fn set(&mut self, settings: GatewaySettings) {
        self.edge.world.snapshot.gateway = Arc::new(settings);
        self.edge.world.publish();
    }

    /// Gives the host a certificate.
    fn secure(&mut self) {
        let snapshot = &mut self.edge.world.snapshot;
        let certificate = tls::certificate(HOST);
        snapshot
            .certificates
            .exact
            .insert_mut(HOST.into(), certificate);
        let mut routes = (**snapshot.routes.exact.get(HOST).unwrap()).clone();
        routes.has_certificate = true;
        snapshot
            .routes
            .exact
            .insert_mut(HOST.into(), Arc::new(routes));
        self.edge.world.publish();
    }

    /// What a client from `source` is answered that sends these fields.
    async fn ask(&self, source: IpAddr, fields: &[&str]) -> RawResponse {
        let mut client = RawClient::connect_from(source, self.edge.http).await;
        client.send(request(fields)).await;
        client.response().await
    }

    /// The same over TLS: the whole answer.
    async fn ask_over_tls(&self, source: IpAddr, fields: &[&str]) -> String {
        let client = RawClient::connect_from(source, self.edge.https).await;
        let session = tls::Client::new(&[]).over(client.into_stream(), HOST).await;
        let mut session = session.unwrap();
        let fields = [fields, &["Connection: close"]].concat();
        session
            .write_all(request(&fields).as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        session.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub(crate) fn last(&self) -> Seen {
        self.origin.seen().pop().unwrap()
    }
}

/// A request with these fields.
pub(crate) fn request(fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

/// Settings that trust one proxy.
pub(crate) fn trusting() -> GatewaySettings {
    GatewaySettings {
        proxies: TrustedProxies {
            networks: [TRUSTED.into()].into(),
            forwarded: true,
            ..TrustedProxies::default()
        },
        ..GatewaySettings::default()
    }
}

const ONLY_NEIGHBOURS: &[(&str, &str)] = &[("whitelist-source-range", "192.0.2.0/24")];

#[tokio::test]
async fn ingress_t14_access_lists_look_at_the_client_behind_a_trusted_proxy() {
    on_worker(Box::pin(async {
        let site = Site::new(ONLY_NEIGHBOURS, trusting()).await;
        for (source, fields, status) in [
            (TRUSTED, &["X-Forwarded-For: 192.0.2.7"][..], 200),
            (TRUSTED, &["X-Forwarded-For: 6.6.6.6, 192.0.2.7"], 200),
            (TRUSTED, &["X-Forwarded-For: 192.0.2.7, 127.0.0.2"], 200),
            (TRUSTED, &["X-Forwarded-For: 192.0.2.7, 6.6.6.6"], 403),
            (
                TRUSTED,
                &["X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: 6.6.6.6"],
                403,
            ),
            (TRUSTED, &[], 403),
            (STRANGER, &["X-Forwarded-For: 192.0.2.7"], 403),
        ] {
            let answer = site.ask(source, fields).await;
            assert_eq!(answer.status, status, "{source}: {fields:?}");
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_u9_no_claim_opens_an_allow_list() {
    on_worker(Box::pin(async {
        let mut site = Site::new(ONLY_NEIGHBOURS, GatewaySettings::default()).await;
        let claims = [
            "X-Forwarded-For: 192.0.2.7",
            "x-forwarded-for: 127.0.0.2, 192.0.2.7",
            "X-Forwarded-For: 192.0.2.7, 127.0.0.2",
            "X-Real-IP: 192.0.2.7",
            "Forwarded: for=192.0.2.7",
            "X-Original-Forwarded-For: 192.0.2.7",
            "X-Client-IP: 192.0.2.7",
            "True-Client-IP: 192.0.2.7",
            "CF-Connecting-IP: 192.0.2.7",
        ];
        for (settings, source) in [
            (GatewaySettings::default(), TRUSTED),
            (GatewaySettings::default(), STRANGER),
            (trusting(), STRANGER),
        ] {
            site.set(settings);
            for claim in claims {
                let answer = site.ask(source, &[claim]).await;
                assert_eq!(answer.status, 403, "{source}: {claim}");
                assert_eq!(answer.header("sealane-error"), "access_denied");
            }
        }
        // A proxy that only appends hands on what its client made up.
        site.set(trusting());
        for claim in claims {
            let appended = ["X-Forwarded-For: 6.6.6.6"];
            let answer = site.ask(TRUSTED, &[&[claim][..], &appended].concat()).await;
            assert_eq!(answer.status, 403, "{claim}");
        }
        assert_eq!(site.origin.hits(), 0);
    }))
    .await;
}

#[tokio::test]
async fn ingress_t14_each_request_has_a_client_of_its_own() {
    on_worker(Box::pin(async {
        let mut site = Site::new(ONLY_NEIGHBOURS, GatewaySettings::default()).await;
        let mut client = RawClient::connect_from(TRUSTED, site.edge.http).await;
        let mut status = async |forwarded: &str| {
            let field = format!("X-Forwarded-For: {forwarded}");
            client.send(request(&[&field])).await;
            client.response().await.status
        };
        assert_eq!(status("192.0.2.7").await, 403, "not trusted yet");
        site.set(trusting());
        assert_eq!(status("192.0.2.7").await, 200);
        assert_eq!(status("203.0.113.9").await, 403);
        assert_eq!(status("192.0.2.8").await, 200);
        site.set(GatewaySettings::default());
        assert_eq!(status("192.0.2.7").await, 403, "trusted no more");
    }))
    .await;
}

/// What the backend is told.
fn told(seen: &Seen) -> [&str; 8] {
    [
        "x-forwarded-for",
        "x-real-ip",
        "x-forwarded-proto",
        "x-scheme",
        "x-forwarded-port",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x-original-forwarded-for",
    ]
    .map(|name| seen.header(name))
}

#[tokio::test]
async fn ingress_t14_backends_are_told_of_the_client_behind_a_trusted_proxy() {
    on_worker(Box::pin(async {
        let alone = {
            let mut settings = trusting();
            settings.proxies.appends = false;
            settings
        };
        let mut site = Site::new(&[], trusting()).await;
        let port = site.edge.http.port().to_string();
        let fields = [
            "X-Forwarded-For: 6.6.6.6, 192.0.2.7",
            "X-Forwarded-Proto: HTTPS",
            "X-Forwarded-Port: 443",
            "X-Forwarded-Host: www.shop.test:443",
            "X-Forwarded-Prefix: /behind",
        ];
        site.ask(TRUSTED, &fields).await;
        let list = "6.6.6.6, 192.0.2.7";
        let mut expected = [
            "6.6.6.6, 192.0.2.7, 127.0.0.2",
            "192.0.2.7",
            "https",
            "https",
            "443",
            "www.shop.test:443",
            "/behind",
            list,
        ];
        assert_eq!(told(&site.last()), expected);
        site.set(alone);
        site.ask(TRUSTED, &fields).await;
        expected[0] = "192.0.2.7";
        assert_eq!(told(&site.last()), expected);
        // What is not in order is not taken over.
        let odd = [
            "X-Forwarded-Proto: ftp",
            "X-Forwarded-Port: 65536",
            "X-Forwarded-Host: evil.test/path",
        ];
        site.ask(TRUSTED, &odd).await;
        let own = [
            "127.0.0.2",
            "127.0.0.2",
            "http",
            "http",
            &port,
            HOST,
            "",
            "",
        ];
        assert_eq!(told(&site.last()), own);
        // A stranger's requests are relayed, or not if their path is not canonical.
        for target in ["/", "/a/../b"] {
            let mut client = RawClient::connect_from(STRANGER, site.edge.http).await;
            let head = request(&fields).replacen("GET / ", &format!("GET {target} "), 1);
            client.send(head).await;
            assert_eq!(client.response().await.status, 200);
            let own = [
                "127.0.0.3",
                "127.0.0.3",
                "http",
                "http",
                &port,
                HOST,
                "",
                list,
            ];
            assert_eq!(told(&site.last()), own, "{target}");
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_a2_a_trusted_proxy_says_what_came_over_https() {
    on_worker(Box::pin(async {
        let mut site = Site::new(&[("force-ssl-redirect", "true")], trusting()).await;
        for (source, fields, status) in [
            (TRUSTED, &["X-Forwarded-Proto: https"][..], 200),
            (TRUSTED, &["X-Forwarded-Proto: http"], 308),
            (TRUSTED, &["X-Forwarded-Proto: https, http"], 308),
            (TRUSTED, &[], 308),
            (STRANGER, &["X-Forwarded-Proto: https"], 308),
        ] {
            let answer = site.ask(source, fields).await;
            assert_eq!(answer.status, status, "{source}: {fields:?}");
        }
        let settings = GatewaySettings {
            redirect_status: 301,
            ..trusting()
        };
        site.set(settings);
        assert_eq!(site.ask(STRANGER, &[]).await.status, 301);
    }))
    .await;
}

#[tokio::test]
async fn ingress_a21_strict_transport_security_is_for_https_and_hosts_with_a_certificate() {
    on_worker(Box::pin(async {
        let value = "max-age=31536000; includeSubDomains";
        let field = format!("strict-transport-security: {value}\r\n");
        let [off, by_default, on] = [
            HstsByMode {
                strict: None,
                compat: None,
            },
            HstsByMode::default(),
            HstsByMode {
                strict: Some(value.parse().unwrap()),
                compat: Some(value.parse().unwrap()),
            },
        ];
        for (manifests, hsts, is_sent) in [
            (Manifests::new(), &off, false),
            (Manifests::new(), &by_default, false),
            (Manifests::new(), &on, true),
            (Manifests::compat(), &off, false),
            (Manifests::compat(), &by_default, true),
            (Manifests::compat(), &on, true),
        ] {
            let settings = GatewaySettings {
                hsts: hsts.clone(),
                ..GatewaySettings::default()
            };
            let annotations = &[("ssl-redirect", "false")];
            let mut site = Site::of(manifests, annotations, settings.clone()).await;
            let answer = site.ask_over_tls(STRANGER, &[]).await;
            assert!(!answer.contains("strict-transport"), "{answer}");
            site.secure();
            // With `Forwarded`, requests are none for the relay.
            for standard in [false, true] {
                let mut settings = settings.clone();
                settings.proxies.standard = standard;
                site.set(settings);
                let answer = site.ask_over_tls(STRANGER, &[]).await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                let count = answer.matches("strict-transport").count();
                assert_eq!(count, usize::from(is_sent), "{answer}");
                assert_eq!(answer.contains(&field), is_sent, "{answer}");
            }
            let plain = site.ask(STRANGER, &[]).await;
            assert_eq!(plain.header("strict-transport-security"), "");
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_t8_forwarded_is_replaced_for_strangers_and_appended_to_for_trusted_proxies() {
    on_worker(Box::pin(async {
        let mut settings = trusting();
        settings.proxies.standard = true;
        let mut site = Site::new(&[], settings).await;
        let list = "Forwarded: for=192.0.2.7;proto=https";
        for (source, fields, expected) in [
            (STRANGER, &[][..], "for=127.0.0.3;host=shop.test;proto=http"),
            (STRANGER, &[list], "for=127.0.0.3;host=shop.test;proto=http"),
            (
                TRUSTED,
                &[list],
                "for=192.0.2.7;proto=https, for=127.0.0.2;host=shop.test;proto=http",
            ),
            (
                TRUSTED,
                &[
                    "X-Forwarded-For: 2001:db8::1",
                    "X-Forwarded-Proto: https",
                    "X-Forwarded-Host: a.test:8443",
                ],
                "for=\"[2001:db8::1]\";host=\"a.test:8443\";proto=https, \
                 for=127.0.0.2;host=shop.test;proto=http",
            ),
            (TRUSTED, &[], "for=127.0.0.2;host=shop.test;proto=http"),
        ] {
            assert_eq!(site.ask(source, fields).await.status, 200);
            let got = site.last();
            assert_eq!(got.header("forwarded"), expected, "{source}: {fields:?}");
        }
        // It is off by default.
        site.set(trusting());
        for source in [STRANGER, TRUSTED] {
            site.ask(source, &[list]).await;
            assert_eq!(site.last().header("forwarded"), "", "{source}");
        }
    }))
    .await;
}
