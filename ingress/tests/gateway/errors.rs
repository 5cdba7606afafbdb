//! Answers of a Service in place of errors.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use sealane_config::compile::ObjectKey;
use sealane_proxy::testing::{Origin, RawClient, RawResponse, full, status};

use crate::annotations::HOST;
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

/// A backend that answers with the status in the path.
async fn web() -> Origin {
    Origin::start(|seen| {
        let code = seen.target.trim_start_matches('/').parse().unwrap_or(200);
        status(code)
    })
    .await
}

/// A Service with pages: its status is what it is told, but for one.
async fn pages() -> Origin {
    Origin::start(|seen| {
        let code = match seen.header("x-code") {
            "418" => 200,
            code => code.parse().unwrap_or(404),
        };
        let mut response = status(code);
        *response.body_mut() = full("page");
        response
    })
    .await
}

struct Site {
    edge: Edge,
    web: Origin,
    pages: Origin,
    manifests: Manifests,
}

impl Site {
    async fn new() -> Self {
        Self::of(Manifests::new()).await
    }

    async fn of(mut manifests: Manifests) -> Self {
        let (web, pages) = (web().await, pages().await);
        manifests.service("web", web.addr);
        manifests.service("pages", pages.addr);
        Self {
            edge: Edge::new().await,
            web,
            pages,
            manifests,
        }
    }

    fn annotate(&mut self, annotations: &[(&str, &str)]) {
        let paths = [("Prefix", "/", "web"), ("Prefix", "/gone", "gone")];
        self.manifests.ingress("site", annotations, HOST, &paths);
        self.manifests.publish(&mut self.edge);
    }

    /// Sends a request; `head` has neither the host nor the empty line.
    async fn ask(&self, head: &str, body: &str) -> RawResponse {
        let mut client = RawClient::connect(self.edge.http).await;
        let head = head.replace('\n', "\r\n");
        client
            .send(format!("{head}\r\nHost: {HOST}\r\n\r\n{body}"))
            .await;
        client.response().await
    }

    async fn get(&self, target: &str) -> RawResponse {
        self.ask(&format!("GET {target} HTTP/1.1"), "").await
    }
}

const PAGES: (&str, &str) = ("default-backend", "pages");
const ERRORS: (&str, &str) = ("custom-http-errors", "401,403,404, 413,418,502,503");

#[tokio::test]
async fn ingress_a14_errors_of_backends_and_of_the_gateway_are_answered_by_another_service() {
    on_worker(Box::pin(async {
        let mut site = Site::new().await;
        let own_only = ("disable-proxy-intercept-errors", "true");
        let denied = ("denylist-source-range", "127.0.0.0/8");
        for (annotations, target, expected, is_page) in [
            (&[PAGES, ERRORS][..], "/200", 200, false),
            (&[PAGES, ERRORS], "/404", 404, true),
            (&[PAGES, ERRORS], "/503", 503, true),
            // Nobody has said anything of this one.
            (&[PAGES, ERRORS], "/500", 500, false),
            // Who writes the page chooses the status.
            (&[PAGES, ERRORS], "/418", 200, true),
            (&[PAGES, ERRORS, own_only], "/404", 404, false),
            (&[PAGES, ERRORS, own_only, denied], "/404", 403, true),
            (&[PAGES, ERRORS, denied], "/200", 403, true),
            (&[PAGES, denied], "/200", 403, false),
            (&[PAGES], "/404", 404, false),
            // Without anybody to answer, it is as it is.
            (&[ERRORS], "/404", 404, false),
            (&[ERRORS, ("default-backend", "none")], "/404", 404, false),
        ] {
            site.annotate(annotations);
            let asked = site.pages.hits();
            let response = site.get(target).await;
            let case = format!("{annotations:?} {target}");
            assert_eq!(response.status, expected, "{case}");
            assert_eq!(response.text() == "page", is_page, "{case}");
            assert_eq!(site.pages.hits(), asked + usize::from(is_page), "{case}");
            let is_own = response.header("sealane-error") == "access_denied";
            assert_eq!(is_own, annotations.contains(&denied), "{case}");
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_a14_the_question_for_a_page_says_what_happened() {
    on_worker(Box::pin(async {
        let mut site = Site::new().await;
        site.annotate(&[PAGES, ERRORS]);
        let claims = "X-Code: 1\nX-Format: evil\nX-Service-Name: evil\nX-Namespace: evil\n\
                      X-Original-URI: /evil\nX-Forwarded-For: 10.1.1.1";
        let head = format!(
            "POST /404 HTTP/1.1\nAccept: application/json\nContent-Length: 4\nCookie: a=b\n\
             If-None-Match: \"x\"\nAuthorization: Bearer secret\n{claims}"
        );
        assert_eq!(site.ask(&head, "body").await.text(), "page");
        let asked = site.pages.seen().remove(0);
        let id = site.web.seen()[0].header("x-request-id").to_owned();
        assert_eq!((asked.method.as_str(), &*asked.target), ("GET", "/"));
        assert_eq!(asked.body.as_deref(), Some(&b""[..]));
        for (name, value) in [
            ("host", HOST),
            ("x-code", "404"),
            ("x-format", "application/json"),
            ("x-original-uri", "/404"),
            ("x-namespace", "default"),
            ("x-ingress-name", "site"),
            ("x-service-name", "web"),
            ("x-service-port", "80"),
            ("x-request-id", &id),
            ("x-forwarded-for", "127.0.0.1"),
            ("cookie", "a=b"),
            ("if-none-match", ""),
            ("authorization", ""),
            ("content-length", ""),
        ] {
            assert_eq!(asked.header(name), value, "{name}");
        }
        assert_eq!(id.len(), 32);

        // Without an Accept field there is no format.
        site.get("/404?a=b").await;
        site.annotate(&[PAGES, ERRORS, ("denylist-source-range", "127.0.0.0/8")]);
        site.get("/x?a=b").await;
        let asked = site.pages.seen().pop().unwrap();
        assert_eq!(&*asked.target, "/?a=b");
        let fields = ["x-code", "x-format", "x-original-uri"].map(|name| asked.header(name));
        assert_eq!(fields, ["403", "", "/x?a=b"]);

        let mut client = RawClient::connect(site.edge.http).await;
        client
            .send(format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await;
        assert_eq!(client.response_to_head().await.status, 403);
        assert_eq!(site.pages.seen().pop().unwrap().method, http::Method::HEAD);
    }))
    .await;
}

#[tokio::test]
async fn ingress_a14_an_answer_in_place_of_the_gateways_own_keeps_what_matters() {
    on_worker(Box::pin(async {
        let mut site = Site::new().await;
        site.annotate(&[PAGES, ERRORS, ("proxy-body-size", "1k")]);
        let head = "POST / HTTP/1.1\nContent-Length: 2000";
        let response = site.ask(head, "").await;
        let found = (response.status, response.text());
        assert_eq!(found, (413, "page"));
        let fields = ["connection", "sealane-error"].map(|name| response.header(name));
        assert_eq!(fields, ["close", "body_too_large"], "the body is unread");

        let basic = [("auth-type", "basic"), ("auth-secret", "users")];
        site.annotate(&[&[PAGES, ERRORS][..], &basic].concat());
        site.manifests
            .secret("users", Some(&[("auth", "alice:{PLAIN}secret")]));
        site.manifests.publish(&mut site.edge);
        let response = site.get("/").await;
        assert_eq!((response.status, response.text()), (401, "page"));
        let challenge = "Basic realm=\"Authentication Required\"";
        assert!(response.header("www-authenticate").starts_with(challenge));
    }))
    .await;
}

#[tokio::test]
async fn ingress_a14_grpc_calls_keep_their_errors() {
    on_worker(Box::pin(async {
        let mut site = Site::new().await;
        site.annotate(&[PAGES, ERRORS]);
        let head = "POST /404 HTTP/1.1\nContent-Type: application/grpc\nContent-Length: 0";
        assert_eq!(site.ask(head, "").await.status, 404);
        let head = head.replace("/404", "/gone");
        let response = site.ask(&head, "").await;
        assert_eq!(response.header("grpc-status"), "14");
        assert_eq!(site.pages.hits(), 0);
    }))
    .await;
}

#[tokio::test]
async fn ingress_a14_pages_that_fail_leave_the_error_as_it_is() {
    on_worker(Box::pin(async {
        let silent = Origin::slow(|_| Box::pin(std::future::pending())).await;
        let breaking = Origin::start(|_| status(500)).await;
        let mut site = Site::new().await;
        let expect = async |site: &Site, addr: SocketAddr, expected: u16| {
            let asked = site.get("/404");
            let response = tokio::time::timeout(Duration::from_secs(60), asked).await;
            let response = response.expect("an answer after ten seconds");
            assert_eq!(response.status, expected, "{addr}");
        };
        for (addr, expected) in [(silent.addr, 404), (breaking.addr, 500)] {
            site.manifests.service("pages", addr);
            site.annotate(&[PAGES, ERRORS]);
            expect(&site, addr, expected).await;
        }
        let addr = breaking.addr;
        breaking.kill().await;
        expect(&site, addr, 404).await;
        site.manifests.bare_service("empty");
        site.annotate(&[("default-backend", "empty"), ERRORS]);
        expect(&site, addr, 404).await;
        assert_eq!(site.get("/gone").await.status, 503);
    }))
    .await;
}

#[tokio::test]
async fn ingress_a14_a_default_backend_takes_the_place_of_a_service_without_endpoints() {
    on_worker(Box::pin(async {
        let mut site = Site::new().await;
        let allowed = ("whitelist-source-range", "10.0.0.0/8");
        for bare in [false, true] {
            if bare {
                site.manifests.bare_service("gone");
            }
            site.annotate(&[PAGES]);
            let asked = site.pages.hits();
            let response = site.get("/gone/logo.png?a=b").await;
            assert_eq!((response.status, response.text()), (503, "page"), "{bare}");
            let seen = site.pages.seen().pop().unwrap();
            assert_eq!(&*seen.target, "/gone/logo.png?a=b");
            assert_eq!(
                (seen.header("x-code"), seen.header("x-service-name")),
                ("503", "gone")
            );
            // Who may not come in does not.
            site.annotate(&[PAGES, allowed]);
            let response = site.get("/gone").await;
            assert_eq!(response.header("sealane-error"), "access_denied");
            // An answer that is 503 for another reason is none of this.
            site.annotate(&[PAGES]);
            assert_eq!(site.get("/503").await.text(), "");
            site.annotate(&[PAGES, ("server-snippet", "return 403;")]);
            let response = site.get("/gone").await;
            assert_eq!(response.header("sealane-error"), "invalid_route");
            assert_eq!(site.pages.hits(), asked + 1);
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_a14_errors_that_no_ingress_speaks_of_are_for_the_gateways_default_service() {
    on_worker(Box::pin(async {
        let default = Origin::start(|seen| {
            let code = seen.header("x-code").parse().unwrap_or(404);
            let mut response = status(code);
            *response.body_mut() = full("default");
            response
        })
        .await;
        let settings = ObjectKey::new("default", "settings");
        let manifests = Manifests::with(|options| {
            options.default_service = Some(ObjectKey::new("default", "fallback"));
            options.config_map = Some(settings);
        });
        let mut site = Site::of(manifests).await;
        site.annotate(&[]);
        let elsewhere = async |site: &Site| {
            let mut client = RawClient::connect(site.edge.http).await;
            let response = client.get("elsewhere.test", "/a").await;
            (response.status, response.text().to_owned())
        };
        let built_in = elsewhere(&site).await;
        assert_eq!(
            built_in.0,
            StatusCode::NOT_FOUND,
            "there is no such Service yet"
        );
        site.manifests.service("fallback", default.addr);
        site.manifests.publish(&mut site.edge);
        assert_eq!(elsewhere(&site).await, (404, "default".to_owned()));
        assert_eq!(site.get("/404").await.text(), "");
        let errors = [("custom-http-errors", "404,403")];
        site.manifests.config_map("settings", Some(&errors));
        site.manifests.publish(&mut site.edge);
        assert_eq!(site.get("/404").await.text(), "default");
        assert_eq!(site.get("/503").await.text(), "");
        // What the Ingress says goes first.
        site.annotate(&[("custom-http-errors", "503")]);
        assert_eq!(site.get("/404").await.text(), "");
        assert_eq!(site.get("/503").await.text(), "default");
        site.annotate(&[PAGES]);
        assert_eq!(site.get("/404").await.text(), "page");
        assert_eq!(default.seen().pop().unwrap().header("x-code"), "503");
    }))
    .await;
}
