//! Canaries, from the Ingress to the wire.

use metrics_exporter_prometheus::PrometheusBuilder;
use sealane_proxy::testing::{Origin, RawClient, RawResponse};

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

const HOST: &str = "shop.test";

/// A gateway with an Ingress and its canary.
pub(crate) struct Pair {
    pub(crate) edge: Edge,
    pub(crate) main: Origin,
    pub(crate) canary: Origin,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        Self {
            edge: Edge::new().await,
            main: Origin::named("main").await,
            canary: Origin::named("canary").await,
        }
    }

    /// The annotations of the main Ingress, and those of the canary besides `canary`.
    pub(crate) fn annotate(&mut self, main: &[(&str, &str)], canary: &[(&str, &str)]) {
        let mut manifests = Manifests::new();
        manifests.service("main", self.main.addr);
        manifests.service("canary", self.canary.addr);
        let canary = [&[("canary", "true")], canary].concat();
        manifests.ingress("canary", &canary, HOST, &[("Prefix", "/", "canary")]);
        manifests.ingress("main", main, HOST, &[("Prefix", "/", "main")]);
        manifests.publish(&mut self.edge);
    }

    pub(crate) async fn ask(&self, fields: &str) -> RawResponse {
        let mut client = RawClient::connect(self.edge.http).await;
        let head = format!("GET / HTTP/1.1\nHost: {HOST}\n{fields}");
        let head = head.trim_end().replace('\n', "\r\n");
        client.send(head + "\r\n\r\n").await;
        client.response().await
    }

    /// Requests that each of the two has got.
    pub(crate) fn hits(&self) -> (usize, usize) {
        (self.main.hits(), self.canary.hits())
    }

    /// Whether the canary answers a request with these fields.
    pub(crate) async fn takes(&self, fields: &str) -> bool {
        let (_, before) = self.hits();
        assert_eq!(Box::pin(self.ask(fields)).await.status, 200, "{fields}");
        self.hits().1 > before
    }
}

type Said = (&'static str, &'static str);

const HEADER: Said = ("canary-by-header", "X-Canary");
const VALUE: Said = ("canary-by-header-value", "on");
const PATTERN: Said = ("canary-by-header-pattern", "^beta-\\d+$");
const BAD: Said = ("canary-by-header-pattern", "(");
/// One that takes more steps than a match may.
const ENDLESS: Said = ("canary-by-header-pattern", "^(a|aa)+\\1b");
const COOKIE: Said = ("canary-by-cookie", "canary");
const ALL: Said = ("canary-weight", "100");

/// What the canary asks for, a request, and whether the canary takes it.
const CASES: &[(&[Said], &str, bool)] = &[
    (&[], "", false),
    (&[ALL], "", true),
    (&[("canary-weight", "0")], "", false),
    (&[HEADER], "", false),
    (&[HEADER], "X-Canary: always", true),
    (&[HEADER], "x-canary: Always", false),
    (&[HEADER, ALL], "X-Canary: never", false),
    (&[HEADER, ALL], "X-Canary: other", true),
    (&[HEADER, ALL, VALUE], "X-Canary: never", true),
    (&[HEADER, VALUE], "X-Canary: always", false),
    (&[HEADER, VALUE], "X-Canary: on", true),
    (&[HEADER, VALUE], "X-Canary: on\nX-Canary: on", false),
    (&[HEADER, VALUE, PATTERN], "X-Canary: beta-1", false),
    (&[HEADER, PATTERN], "X-Canary: beta-1", true),
    (&[HEADER, PATTERN], "X-Canary: BETA-1", false),
    (&[HEADER, PATTERN], "X-Canary: always", false),
    (&[HEADER, BAD], "X-Canary: (", false),
    (&[HEADER, ENDLESS], "X-Canary: aaab", true),
    (
        &[HEADER, ENDLESS],
        "X-Canary: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        false,
    ),
    (&[COOKIE], "Cookie: canary=always", true),
    (&[COOKIE], "Cookie: a=b; canary=always", true),
    (&[COOKIE, ALL], "Cookie: canary=never", false),
    (&[COOKIE, ALL], "Cookie: canary=x", true),
    (&[COOKIE], "Cookie: xcanary=always", false),
    (
        &[HEADER, COOKIE],
        "X-Canary: never\nCookie: canary=always",
        false,
    ),
    (
        &[HEADER, COOKIE],
        "X-Canary: always\nCookie: canary=never",
        true,
    ),
    (
        &[HEADER, COOKIE],
        "X-Canary: x\nCookie: canary=always",
        true,
    ),
];

#[tokio::test]
async fn ingress_a10_header_then_cookie_then_weight_decide() {
    on_worker(async {
        let mut pair = Pair::new().await;
        for (annotations, fields, taken) in CASES {
            pair.annotate(&[], annotations);
            assert_eq!(pair.takes(fields).await, *taken, "{annotations:?} {fields}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a10_a_weight_is_a_share_of_the_total() {
    on_worker(async {
        let mut pair = Pair::new().await;
        for (annotations, least, most) in [
            (&[("canary-weight", "30")][..], 50, 160),
            (
                &[("canary-weight", "300"), ("canary-weight-total", "1000")],
                50,
                160,
            ),
            // Below a hundred a total does not count.
            (
                &[("canary-weight", "5"), ("canary-weight-total", "10")],
                0,
                50,
            ),
            (
                &[("canary-weight", "300"), ("canary-weight-total", "200")],
                300,
                300,
            ),
        ] {
            pair.annotate(&[], annotations);
            let (_, before) = pair.hits();
            let mut client = RawClient::connect(pair.edge.http).await;
            for _ in 0..300 {
                assert_eq!(client.get(HOST, "/").await.status, 200);
            }
            let taken = pair.hits().1 - before;
            assert!((least..=most).contains(&taken), "{annotations:?}: {taken}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a10_a_canary_without_endpoints_takes_nothing() {
    on_worker(async {
        let mut pair = Pair::new().await;
        let mut manifests = Manifests::new();
        manifests.service("main", pair.main.addr);
        let weight = [("canary", "true"), ("canary-weight", "100")];
        manifests.ingress("canary", &weight, HOST, &[("Prefix", "/", "canary")]);
        manifests.ingress("main", &[], HOST, &[("Prefix", "/", "main")]);
        manifests.publish(&mut pair.edge);
        assert_eq!(pair.ask("").await.status, 200, "no such Service");
        manifests.bare_service("canary");
        manifests.publish(&mut pair.edge);
        assert_eq!(pair.ask("").await.status, 200, "no endpoint");
        manifests.service("canary", pair.canary.addr);
        manifests.publish(&mut pair.edge);
        assert_eq!(pair.ask("").await.status, 200);
        assert_eq!(pair.hits(), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn ingress_a10_requests_are_counted_for_the_ingress_that_took_them() {
    on_worker(async {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let mut pair = Pair::new().await;
        pair.annotate(&[], &[("canary-by-header", "X-Canary")]);
        for fields in ["", "X-Canary: always", "X-Canary: never"] {
            pair.ask(fields).await;
        }
        let text = metrics.render();
        for (ingress, requests) in [("main", 2), ("canary", 1)] {
            let labels = format!(r#"{{namespace="default",ingress="{ingress}",code="2xx"}}"#);
            let line = format!("sealane_gateway_requests_total{labels} {requests}");
            assert!(text.contains(&line), "{line} is not in:\n{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a10_access_and_redirects_are_those_of_the_main_ingress() {
    on_worker(async {
        let mut pair = Pair::new().await;
        let always = ("canary-weight", "100");
        for (main, canary, status) in [
            (("denylist-source-range", "127.0.0.1"), always, 403),
            (("temporal-redirect", "https://x.test"), always, 302),
        ] {
            pair.annotate(&[main], &[canary]);
            assert_eq!(pair.ask("").await.status, status, "{main:?}");
        }
        let deny = ("denylist-source-range", "127.0.0.1");
        pair.annotate(&[], &[always, deny]);
        assert_eq!(pair.ask("").await.status, 200);
        assert_eq!(pair.hits(), (0, 1));
    })
    .await;
}
