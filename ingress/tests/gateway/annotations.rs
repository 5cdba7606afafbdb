//! Annotations of ingress-nginx, from the Ingress to the wire.

use sealane_proxy::testing::{Origin, RawClient, RawResponse};

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

pub(crate) const HOST: &str = "shop.test";

/// A gateway with one Ingress that has these annotations, in front of one backend.
pub(crate) struct Site {
    pub(crate) edge: Edge,
    pub(crate) origin: Origin,
}

impl Site {
    pub(crate) async fn new(annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> Self {
        let (edge, origin) = (Edge::new().await, Origin::named("web").await);
        let mut site = Self { edge, origin };
        site.annotate(annotations, paths);
        site
    }

    pub(crate) fn annotate(&mut self, annotations: &[(&str, &str)], paths: &[(&str, &str)]) {
        let mut manifests = Manifests::new();
        manifests.service("web", self.origin.addr);
        let paths: Vec<_> = paths
            .iter()
            .map(|(kind, path)| (*kind, *path, "web"))
            .collect();
        manifests.ingress("site", annotations, HOST, &paths);
        manifests.publish(&mut self.edge);
    }

    pub(crate) async fn ask(&self, head: &str) -> RawResponse {
        let mut client = RawClient::connect(self.edge.http).await;
        client.send(head.replace('\n', "\r\n") + "\r\n\r\n").await;
        client.response().await
    }

    pub(crate) async fn get(&self, target: &str) -> RawResponse {
        self.ask(&format!("GET {target} HTTP/1.1\nHost: {HOST}"))
            .await
    }
}

pub(crate) const ALL: &[(&str, &str)] = &[("Prefix", "/")];

#[tokio::test]
async fn ingress_a13_redirects_name_where_to_go() {
    on_worker(async {
        let mut site = Site::new(&[], ALL).await;
        for (annotations, target, status, location) in [
            (
                &[("permanent-redirect", "https://new.test")][..],
                "/a?b=c",
                301,
                "https://new.test",
            ),
            (
                &[
                    ("permanent-redirect", "https://new.test$request_uri"),
                    ("permanent-redirect-code", "308"),
                ],
                "/a?b=c",
                308,
                "https://new.test/a?b=c",
            ),
            (
                &[(
                    "temporal-redirect",
                    "$scheme://$host.new.test/x$is_args$args",
                )],
                "/a?b=c",
                302,
                "http://shop.test.new.test/x?b=c",
            ),
            (
                &[
                    ("permanent-redirect", "https://one.test"),
                    ("temporal-redirect", "https://two.test"),
                    ("temporal-redirect-code", "307"),
                ],
                "/",
                307,
                "https://two.test",
            ),
            (&[("app-root", "/app")], "/", 302, "http://shop.test/app"),
            (&[("app-root", "/app")], "/x", 200, ""),
        ] {
            site.annotate(annotations, ALL);
            let response = site.get(target).await;
            assert_eq!(
                (response.status, response.header("location")),
                (status, location),
                "{annotations:?} {target}"
            );
        }
        assert_eq!(site.origin.hits(), 1);
    })
    .await;
}

#[tokio::test]
async fn ingress_a2_one_trailing_slash_goes_with_the_redirect_unless_it_is_kept() {
    on_worker(async {
        let force = ("force-ssl-redirect", "true");
        let mut site = Site::new(&[force], ALL).await;
        for (annotations, target, location) in [
            (&[force][..], "/a/", "https://shop.test:8443/a"),
            (&[force], "/a//", "https://shop.test:8443/a/"),
            (&[force], "/", "https://shop.test:8443"),
            (&[force], "/a/?b=c", "https://shop.test:8443/a/?b=c"),
            (
                &[force, ("preserve-trailing-slash", "true")],
                "/a/",
                "https://shop.test:8443/a/",
            ),
        ] {
            site.annotate(annotations, ALL);
            let response = site.get(target).await;
            assert_eq!(
                (response.status, response.header("location")),
                (308, location),
                "{annotations:?} {target}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a6_access_lists_close_the_route() {
    on_worker(async {
        let mut site = Site::new(&[], ALL).await;
        for (annotations, status, reason) in [
            (
                &[("whitelist-source-range", "127.0.0.0/8, ::1")][..],
                200,
                "",
            ),
            (&[("allowlist-source-range", "127.0.0.1")], 200, ""),
            (
                &[("whitelist-source-range", "10.0.0.0/8")],
                403,
                "access_denied",
            ),
            (
                &[("denylist-source-range", "127.0.0.1/32")],
                403,
                "access_denied",
            ),
            (
                &[
                    ("whitelist-source-range", "127.0.0.0/8"),
                    ("denylist-source-range", "127.0.0.1"),
                ],
                403,
                "access_denied",
            ),
            (
                &[("whitelist-source-range", "127.0.0.0/33")],
                503,
                "invalid_route",
            ),
            (
                &[("denylist-source-range", "everybody")],
                503,
                "invalid_route",
            ),
        ] {
            site.annotate(annotations, ALL);
            // What a client says about itself counts for nothing.
            let head = format!("GET / HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: 10.1.2.3");
            let response = site.ask(&head).await;
            assert_eq!(
                (response.status, response.header("sealane-error")),
                (status, reason),
                "{annotations:?}"
            );
        }
        assert_eq!(site.origin.hits(), 2);
    })
    .await;
}

#[tokio::test]
async fn ingress_a7_cors_is_answered_for_admitted_origins_only() {
    on_worker(async {
        let on = ("enable-cors", "true");
        let one = ("cors-allow-origin", "https://*.app.test, http://x.test:81");
        let mut site = Site::new(&[on], ALL).await;
        for (annotations, method, origin, status, allowed) in [
            (&[on][..], "OPTIONS", "https://any.test", 204, "*"),
            (&[on], "GET", "https://any.test", 200, "*"),
            (
                &[on, one],
                "OPTIONS",
                "https://a.app.test",
                204,
                "https://a.app.test",
            ),
            (
                &[on, one],
                "GET",
                "http://x.test:81",
                200,
                "http://x.test:81",
            ),
            (&[on, one], "OPTIONS", "https://evil.test", 200, ""),
            (&[on, one], "GET", "https://a.app.test.evil.test", 200, ""),
            (&[one], "GET", "https://a.app.test", 200, ""),
        ] {
            site.annotate(annotations, ALL);
            let hits = site.origin.hits();
            let response = site
                .ask(&format!(
                    "{method} / HTTP/1.1\nHost: {HOST}\nOrigin: {origin}"
                ))
                .await;
            let case = format!("{annotations:?} {method} {origin}");
            let got = response.header("access-control-allow-origin");
            assert_eq!((response.status, got), (status, allowed), "{case}");
            let is_preflight = status == 204;
            assert_eq!(
                site.origin.hits(),
                hits + usize::from(!is_preflight),
                "{case}"
            );
            if is_preflight {
                for (field, value) in [
                    (
                        "access-control-allow-methods",
                        "GET, PUT, POST, DELETE, PATCH, OPTIONS",
                    ),
                    ("access-control-allow-credentials", "true"),
                    ("access-control-max-age", "1728000"),
                    ("access-control-expose-headers", ""),
                ] {
                    assert_eq!(response.header(field), value, "{case}: {field}");
                }
            }
        }
        let own = [
            on,
            ("cors-allow-methods", "GET"),
            ("cors-allow-headers", "X-One"),
            ("cors-expose-headers", "X-Two"),
            ("cors-allow-credentials", "false"),
            ("cors-max-age", "5"),
        ];
        site.annotate(&own, ALL);
        let response = site.get("/").await;
        for (field, value) in [
            ("access-control-allow-methods", "GET"),
            ("access-control-allow-headers", "X-One"),
            ("access-control-expose-headers", "X-Two"),
            ("access-control-allow-credentials", ""),
            ("access-control-max-age", "5"),
        ] {
            assert_eq!(response.header(field), value, "{field}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a3_bodies_are_as_long_as_the_route_allows() {
    on_worker(async {
        let mut site = Site::new(&[("proxy-body-size", "1k")], ALL).await;
        let post = |length: usize| {
            let body = "x".repeat(length);
            format!("POST / HTTP/1.1\nHost: {HOST}\nContent-Length: {length}\n\n{body}")
        };
        let chunked = |length: usize| {
            let body = "x".repeat(length);
            format!(
                "POST / HTTP/1.1\nHost: {HOST}\nTransfer-Encoding: chunked\n\n{length:x}\n{body}\n0"
            )
        };
        for (request, status) in [
            (post(1024), 200),
            (post(1025), 413),
            (chunked(1024), 200),
            (chunked(1025), 413),
        ] {
            let response = site.ask(&request).await;
            let shown = &request[..60];
            assert_eq!(response.status, status, "{shown}");
        }
        site.annotate(&[("proxy-body-size", "0")], ALL);
        assert_eq!(site.ask(&post(100_000)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn ingress_a4_a_backend_that_is_silent_too_long_is_given_up() {
    on_worker(async {
        let slow = Origin::slow(|_| Box::pin(std::future::pending())).await;
        let mut edge = Edge::new().await;
        let mut manifests = Manifests::new();
        manifests.service("slow", slow.addr);
        let annotations = [("proxy-read-timeout", "1"), ("proxy-connect-timeout", "7")];
        manifests.ingress("site", &annotations, HOST, &[("Prefix", "/", "slow")]);
        manifests.publish(&mut edge);
        let response = edge.client().await.get(HOST, "/").await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (504, "response_timeout")
        );
    })
    .await;
}

#[tokio::test]
async fn ingress_a14_the_backend_is_told_what_the_route_says() {
    on_worker(async {
        let annotations = [
            ("upstream-vhost", "inner.test"),
            ("x-forwarded-prefix", "/shop"),
            ("rewrite-target", "/$1"),
        ];
        let mut site = Site::new(&annotations, &[("ImplementationSpecific", "/shop/(.*)")]).await;
        let claim = format!("GET /shop/cart HTTP/1.1\nHost: {HOST}\nX-Forwarded-Prefix: /evil");
        assert_eq!(site.ask(&claim).await.status, 200);
        site.annotate(&annotations[..2], ALL);
        assert_eq!(site.ask(&claim).await.status, 200);
        let seen = site.origin.seen();
        for (seen, path, prefix) in [(&seen[0], "/cart", "/shop"), (&seen[1], "/shop/cart", "")] {
            assert_eq!(seen.target, path);
            for (field, value) in [
                ("host", "inner.test"),
                ("x-forwarded-host", HOST),
                ("x-forwarded-prefix", prefix),
            ] {
                assert_eq!(seen.header(field), value, "{path}: {field}");
            }
        }
    })
    .await;
}
