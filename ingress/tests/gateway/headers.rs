//! Header fields out of ConfigMaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use http::HeaderValue;
use sealane_config::compile::ObjectKey;
use sealane_proxy::testing::{Origin, RawClient, RawResponse, status};

use crate::annotations::HOST;
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

const FIELDS: (&str, &str) = ("custom-headers", "default/fields");
const ALLOWED: (&str, &str) = (
    "global-allowed-response-headers",
    "X-Frame-Options,X-Own, Server",
);

struct Site {
    edge: Edge,
    web: Origin,
    manifests: Manifests,
}

impl Site {
    /// The backend has fields of its own.
    async fn new() -> Self {
        let web = Origin::start(|seen| {
            let code = seen.target.trim_start_matches('/').parse().unwrap_or(200);
            let mut response = status(code);
            for (name, value) in [("x-own", "backend"), ("x-other", "backend")] {
                let value = HeaderValue::from_static(value);
                response.headers_mut().append(name, value);
            }
            response
        })
        .await;
        let mut manifests = Manifests::with(|options| {
            options.config_map = Some(ObjectKey::new("default", "settings"));
        });
        manifests.service("web", web.addr);
        manifests.config_map("settings", Some(&[ALLOWED]));
        Self {
            edge: Edge::new().await,
            web,
            manifests,
        }
    }

    fn annotate(&mut self, annotations: &[(&str, &str)]) {
        let paths = [("Prefix", "/", "web")];
        self.manifests.ingress("site", annotations, HOST, &paths);
    }

    /// With ConfigMap `fields` as it is now.
    fn publish(&mut self, fields: Option<&[(&str, &str)]>) {
        self.manifests.config_map("fields", fields);
        self.manifests.publish(&mut self.edge);
    }

    async fn get(&self, target: &str) -> RawResponse {
        RawClient::connect(self.edge.http)
            .await
            .get(HOST, target)
            .await
    }
}

#[tokio::test]
async fn ingress_a17_answers_have_the_fields_of_a_config_map() {
    on_worker(Box::pin(async {
        let mut site = Site::new().await;
        let fields = [("X-Frame-Options", "DENY"), ("x-own", "gateway\n")];
        site.annotate(&[FIELDS]);
        site.manifests.publish(&mut site.edge);
        let response = site.get("/").await;
        assert_eq!(response.status, 503, "nothing is known of it yet");
        site.publish(Some(&fields));
        let told = |response: &RawResponse| {
            ["x-frame-options", "x-own", "x-other"].map(|name| response.header(name).to_owned())
        };
        for target in ["/", "/404"] {
            let response = site.get(target).await;
            assert_eq!(told(&response), ["DENY", "gateway", "backend"], "{target}");
            let own = response.fields.iter().filter(|(name, _)| name == "x-own");
            assert_eq!(own.count(), 1, "in place of the backend's");
        }
        // The gateway's own answers have them, too.
        site.annotate(&[FIELDS, ("denylist-source-range", "127.0.0.0/8")]);
        site.publish(Some(&fields));
        let response = site.get("/").await;
        assert_eq!(
            (response.status, told(&response)),
            (403, ["DENY", "gateway", ""].map(str::to_owned))
        );
        site.annotate(&[FIELDS, ("temporal-redirect", "https://new.test/")]);
        site.publish(Some(&fields));
        let response = site.get("/").await;
        assert_eq!(
            (response.status, response.header("x-own")),
            (302, "gateway")
        );
    }))
    .await;
}

#[tokio::test]
async fn ingress_a17_fields_that_may_not_be_written_close_the_ingress() {
    on_worker(Box::pin(async {
        let mut site = Site::new().await;
        site.annotate(&[FIELDS]);
        let good = ("X-Own", "yes");
        site.publish(Some(&[good]));
        assert_eq!(site.get("/").await.header("x-own"), "yes");
        for bad in [
            ("X-Else", "not allowed"),
            ("Server", "evil\r\nSet-Cookie: a=b"),
            ("X-Own", ""),
            ("X-Own", "é"),
            ("X Own", "no"),
        ] {
            site.publish(Some(&[bad]));
            let response = site.get("/").await;
            let found = (response.status, response.header("sealane-error"));
            assert_eq!(found, (503, "invalid_route"), "{bad:?}");
        }
        site.publish(None);
        assert_eq!(site.get("/").await.status, 503);
        site.publish(Some(&[good]));
        assert_eq!(site.get("/").await.status, 200);
        assert_eq!(site.web.hits(), 2);
    }))
    .await;
}

#[tokio::test]
async fn ingress_a8_the_question_has_the_fields_of_a_config_map() {
    on_worker(Box::pin(async {
        let says = Arc::new(AtomicU16::new(200));
        let next = Arc::clone(&says);
        let judge = Origin::start(move |_| status(next.load(Relaxed))).await;
        let mut site = Site::new().await;
        site.manifests.service("judge", judge.addr);
        let ask = ("auth-url", "http://judge.default.svc.cluster.local/ask");
        let fields = ("auth-proxy-set-headers", "fields");
        site.annotate(&[ask, fields]);
        site.manifests.publish(&mut site.edge);
        assert_eq!(
            site.get("/").await.status,
            503,
            "nothing is known of it yet"
        );
        site.publish(Some(&[
            ("X-Tenant", "shop"),
            ("X-Place", "$scheme://$host and $request_uri"),
            ("User-Agent", "gateway"),
        ]));
        let mut client = RawClient::connect(site.edge.http).await;
        let claims = "X-Tenant: evil\r\nX-Tenant: evil\r\nUser-Agent: client";
        client
            .send(format!(
                "GET /a?b HTTP/1.1\r\nHost: {HOST}\r\n{claims}\r\n\r\n"
            ))
            .await;
        assert_eq!(client.response().await.status, 200);
        let asked = judge.seen().pop().unwrap();
        for (name, value) in [
            ("x-tenant", "shop"),
            ("x-place", "http://shop.test and /a?b"),
            ("user-agent", "gateway"),
        ] {
            let values: Vec<_> = asked.headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{name}");
        }
        // The backend is told what the client says.
        let seen = site.web.seen().pop().unwrap();
        assert_eq!(seen.header("user-agent"), "client");

        for bad in [
            ("Host", "evil.test"),
            ("Content-Length", "5"),
            ("X-Forwarded-For", "10.1.1.1"),
            ("X-Original-URL", "http://evil.test/"),
            ("X-Own", "$ssl_client_cert"),
            ("X-Own", "a\nb"),
        ] {
            site.publish(Some(&[bad]));
            let response = site.get("/").await;
            assert_eq!(response.header("sealane-error"), "invalid_route", "{bad:?}");
        }
        site.annotate(&[ask, ("auth-proxy-set-headers", "other/fields")]);
        site.publish(Some(&[]));
        assert_eq!(site.get("/").await.status, 503, "of another namespace");
        assert_eq!(judge.hits(), 1);
    }))
    .await;
}
