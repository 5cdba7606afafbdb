//! Asking a service whether a request may pass, over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use http_body_util::{BodyExt as _, Full};
use sealane_proxy::testing::{Origin, RawClient, RawResponse, full, status};

use crate::annotations::HOST;
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

mod kept;

const ASK: (&str, &str) = (
    "auth-url",
    "http://judge.default.svc.cluster.local/ask?from=$host",
);

/// A gateway in front of `web`, and `judge`, which is asked.
struct Site {
    edge: Edge,
    web: Origin,
    judge: Origin,
    /// The status of the judge's next answers.
    says: Arc<AtomicU16>,
    manifests: Manifests,
}

impl Site {
    /// The judge's answers have these fields, and a body.
    async fn new(fields: &'static [(&'static str, &'static str)]) -> Self {
        let says = Arc::new(AtomicU16::new(200));
        let next = Arc::clone(&says);
        let judge = Origin::start(move |_| {
            let mut response = status(next.load(Relaxed));
            *response.body_mut() = full("a body that nobody reads");
            for (name, value) in fields {
                let value = HeaderValue::from_static(value);
                response.headers_mut().append(*name, value);
            }
            response
        })
        .await;
        let web = Origin::start(|seen| {
            let code = seen.target.trim_start_matches('/').parse().unwrap_or(200);
            status(code)
        })
        .await;
        let mut manifests = Manifests::new();
        manifests.service("web", web.addr);
        manifests.service("judge", judge.addr);
        Self {
            edge: Edge::new().await,
            web,
            judge,
            says,
            manifests,
        }
    }

    fn annotate(&mut self, annotations: &[(&str, &str)]) {
        let paths = [("Prefix", "/", "web")];
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

    async fn get(&self) -> RawResponse {
        self.ask("GET / HTTP/1.1", "").await
    }
}

#[tokio::test]
async fn ingress_a8_the_answer_of_the_service_decides() {
    on_worker(async {
        let challenge = "Bearer realm=\"here\"";
        let mut site = Site::new(&[("www-authenticate", "Bearer realm=\"here\"")]).await;
        site.annotate(&[ASK]);
        for (says, expected, error) in [
            (200, 200, ""),
            (204, 200, ""),
            (299, 200, ""),
            (401, 401, "unauthorized"),
            (403, 403, "access_denied"),
            (302, 500, "auth_failed"),
            (404, 500, "auth_failed"),
            (500, 500, "auth_failed"),
            (503, 500, "auth_failed"),
        ] {
            site.says.store(says, Relaxed);
            let hits = site.web.hits();
            let response = site.get().await;
            let found = (response.status, response.header("sealane-error"));
            assert_eq!(found, (expected, error), "{says}");
            let passed = usize::from(expected == 200);
            assert_eq!(site.web.hits(), hits + passed, "{says}");
            let told = response.header("www-authenticate");
            assert_eq!(told == challenge, expected == 401, "{says}: {told}");
        }
        for gone in [
            "http://gone.default.svc.cluster.local/",
            "http://judge.default.svc.cluster.local:81/",
            "http://unknown.test/",
        ] {
            site.annotate(&[("auth-url", gone)]);
            let response = site.get().await;
            assert_eq!(response.header("sealane-error"), "auth_failed", "{gone}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_the_question_says_what_was_asked_for_and_has_no_body() {
    on_worker(async {
        let mut site = Site::new(&[("x-user", "alice"), ("x-group", "a"), ("x-group", "b")]).await;
        let fields = ("auth-response-headers", "X-User, X-Group, X-Absent");
        site.annotate(&[ASK, fields]);
        let head = "POST /a/b?c=d HTTP/1.1\nContent-Length: 5\nContent-Type: text/x\nCookie: k=v\n\
                    If-None-Match: \"x\"\nX-User: evil\nX-Absent: evil\nX-Original-URL: http://evil\n\
                    X-Auth-Request-Redirect: http://evil\nX-Forwarded-Host: evil\n\
                    X-Forwarded-For: 10.1.1.1";
        assert_eq!(site.ask(head, "12345").await.status, 200);
        let asked = site.judge.seen().remove(0);
        assert_eq!((asked.method.as_str(), &*asked.target), ("GET", "/ask?from=shop.test"));
        assert_eq!(asked.body.as_deref(), Some(&b""[..]));
        for (name, value) in [
            ("host", "judge.default.svc.cluster.local"),
            ("x-original-url", "http://shop.test/a/b?c=d"),
            ("x-original-uri", "/a/b?c=d"),
            ("x-original-method", "POST"),
            ("x-auth-request-redirect", "/a/b?c=d"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", HOST),
            ("cookie", "k=v"),
            ("content-length", ""),
            ("content-type", ""),
            ("if-none-match", ""),
        ] {
            assert_eq!(asked.header(name), value, "{name}");
        }
        let got = site.web.seen().remove(0);
        assert_eq!(got.body.as_deref(), Some(&b"12345"[..]));
        for (name, value) in [
            ("x-user", "alice"),
            ("x-group", "a"),
            ("x-absent", ""),
            ("content-type", "text/x"),
            ("if-none-match", "\"x\""),
            ("x-request-id", asked.header("x-request-id")),
        ] {
            assert_eq!(got.header(name), value, "{name}");
        }
        assert_eq!(got.headers.get_all("x-group").iter().count(), 2);
        assert_eq!(got.header("x-request-id").len(), 32);
        site.annotate(&[
            ASK,
            ("auth-method", "HEAD"),
            ("auth-request-redirect", "https://$host/back"),
        ]);
        assert_eq!(site.get().await.status, 200);
        let asked = site.judge.seen().pop().unwrap();
        assert_eq!(asked.method, http::Method::HEAD);
        assert_eq!(asked.header("x-auth-request-redirect"), "https://shop.test/back");
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_a_post_over_http2_keeps_its_body() {
    on_worker(async {
        let mut site = Site::new(&[]).await;
        site.annotate(&[ASK]);
        let stream = tokio::net::TcpStream::connect(site.edge.http)
            .await
            .unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        // More than a window, so that somebody has to read on.
        let body = bytes::Bytes::from(vec![b'x'; 300_000]);
        for says in [200, 401] {
            site.says.store(says, Relaxed);
            let request = http::Request::post(format!("http://{HOST}/"))
                .body(Full::new(body.clone()))
                .unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), says);
            response.into_body().collect().await.unwrap();
        }
        let seen = site.web.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].body.as_ref(), Some(&body));
        assert!(
            site.judge
                .seen()
                .iter()
                .all(|it| it.body.as_deref() == Some(&b""[..]))
        );
        connection.abort();
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_who_has_to_sign_in_is_sent_there_and_back() {
    on_worker(async {
        let mut site = Site::new(&[("set-cookie", "state=1"), ("www-authenticate", "Basic")]).await;
        let signin = ("auth-signin", "https://login.test/start");
        site.annotate(&[ASK, signin]);
        site.says.store(401, Relaxed);
        let response = site.ask("GET /a/b?c=d&e HTTP/1.1", "").await;
        let back = "https://login.test/start?rd=http://shop.test%2Fa%2Fb%3Fc%3Dd%26e";
        assert_eq!((response.status, response.header("location")), (302, back));
        assert_eq!(response.header("set-cookie"), "state=1");
        assert_eq!(response.header("www-authenticate"), "");
        site.says.store(403, Relaxed);
        assert_eq!(site.get().await.status, 403, "signing in would not help");
        assert_eq!(site.web.hits(), 0);
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_cookies_of_the_service_are_set_with_the_answer() {
    on_worker(async {
        let mut site = Site::new(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]).await;
        let always = ("auth-always-set-cookie", "true");
        for (annotations, says, target, expected) in [
            (&[ASK][..], 200, "/200", (200, 2)),
            (&[ASK], 200, "/404", (404, 0)),
            (&[ASK, always], 200, "/404", (404, 2)),
            (&[ASK], 401, "/", (401, 0)),
            (&[ASK, always], 401, "/", (401, 2)),
        ] {
            site.annotate(annotations);
            site.says.store(says, Relaxed);
            let response = site.ask(&format!("GET {target} HTTP/1.1"), "").await;
            let cookies = response
                .fields
                .iter()
                .filter(|(name, _)| name == "set-cookie");
            let found = (response.status, cookies.count());
            assert_eq!(found, expected, "{annotations:?} {says} {target}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_connections_to_the_service_are_used_again() {
    on_worker(async {
        let mut site = Site::new(&[]).await;
        site.annotate(&[ASK]);
        for says in [200, 401, 403, 500, 200, 200] {
            site.says.store(says, Relaxed);
            site.get().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let used: Vec<usize> = site.judge.seen().iter().map(|it| it.connection).collect();
        assert_eq!(used, [0; 6]);
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_a_service_that_is_silent_or_gone_lets_nobody_in() {
    on_worker(async {
        let silent = Origin::slow(|_| Box::pin(std::future::pending())).await;
        let mut site = Site::new(&[]).await;
        site.manifests.service("judge", silent.addr);
        site.annotate(&[ASK]);
        let response = tokio::time::timeout(Duration::from_secs(60), site.get()).await;
        let response = response.expect("an answer after ten seconds");
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (500, "auth_failed")
        );
        let addr = silent.addr;
        silent.kill().await;
        let response = site.get().await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (500, "auth_failed"),
            "{addr}"
        );
        assert_eq!(site.web.hits(), 0);
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_a_host_of_this_gateway_is_asked_without_leaving_it() {
    on_worker(async {
        let mut site = Site::new(&[]).await;
        let paths = [("Prefix", "/oauth2", "judge")];
        site.manifests.ingress("login", &[], HOST, &paths);
        let rewritten = [("rewrite-target", "/verify/$1")];
        let other = [("ImplementationSpecific", "/auth/(.*)", "judge")];
        site.manifests
            .ingress("other", &rewritten, "login.test", &other);
        for (url, target, host) in [
            ("https://$host/oauth2/auth", "/oauth2/auth", HOST),
            (
                "http://login.test/auth/x?y=$scheme",
                "/verify/x?y=http",
                "login.test",
            ),
        ] {
            site.annotate(&[("auth-url", url)]);
            site.says.store(200, Relaxed);
            assert_eq!(site.get().await.status, 200, "{url}");
            let asked = site.judge.seen().pop().unwrap();
            assert_eq!((&*asked.target, asked.header("host")), (target, host));
            site.says.store(401, Relaxed);
            assert_eq!(site.get().await.status, 401, "{url}");
        }
        // A question to a route that asks a question itself would have no end.
        for url in [
            "https://$host/",
            "https://elsewhere.test/",
            "https://login.test/none",
        ] {
            site.annotate(&[("auth-url", url)]);
            let response = site.get().await;
            assert_eq!(response.header("sealane-error"), "auth_failed", "{url}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_challenges_of_certificate_authorities_are_let_through() {
    on_worker(async {
        let mut site = Site::new(&[]).await;
        let acme = "/.well-known/acme-challenge";
        let token = format!("{acme}/token");
        let paths = [("Prefix", "/", "web"), ("Exact", &*token, "web")];
        site.manifests.ingress("site", &[ASK], HOST, &paths);
        site.manifests.publish(&mut site.edge);
        site.says.store(403, Relaxed);
        for (target, expected) in [
            (token.clone(), 200),
            // The rule for everything asks for it, whatever the request's path.
            (format!("{acme}/other"), 403),
            ("/".to_owned(), 403),
        ] {
            let response = site.ask(&format!("GET {target} HTTP/1.1"), "").await;
            assert_eq!(response.status, expected, "{target}");
        }
    })
    .await;
}
