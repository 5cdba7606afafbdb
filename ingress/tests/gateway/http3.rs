//! HTTP/3.

mod client;
mod limits;
mod lives;
mod secure;

use std::net::UdpSocket;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body_util::{BodyExt, StreamBody};
use sealane_ingress::http3::Limits;
use sealane_proxy::access::{AccessLog, Format};
use sealane_proxy::http::{EngineOptions, ServerOptions};
use sealane_proxy::testing::{Origin, full};

use crate::answers::Sink;
use crate::certificates::Client as Tls;
use crate::manifests::Manifests;
use crate::support::{Edge, Options, on_worker};
use client::{Client, answer};

const HOST: &str = "a.test";
const ALL: &[(&str, &str, &str)] = &[("Prefix", "/", "web")];

/// A gateway with HTTP/3.
async fn edge() -> Edge {
    edge_with(Options::default()).await
}

async fn edge_with(options: Options) -> Edge {
    Box::pin(Edge::start(Options {
        http3: Some(options.http3.unwrap_or_default()),
        ..options
    }))
    .await
}

/// One that has `web` behind [`HOST`].
async fn edge_before(web: &Origin, annotations: &[(&str, &str)]) -> (Edge, Manifests) {
    let mut edge = edge().await;
    let mut manifests = Manifests::new();
    manifests.service("web", web.addr);
    manifests.ingress("web", annotations, HOST, ALL);
    manifests.publish(&mut edge);
    (edge, manifests)
}

#[tokio::test]
async fn ingress_t5_it_is_off_unless_asked_for() {
    on_worker(async {
        let web = Origin::named("web").await;
        for is_on in [false, true] {
            let mut edge = Edge::start(Options {
                http3: is_on.then(Limits::default),
                ..Options::default()
            })
            .await;
            let mut manifests = Manifests::new();
            manifests.service("web", web.addr);
            manifests.ingress("web", &[], HOST, ALL);
            manifests.publish(&mut edge);
            let told = if is_on { "h3=\":8443\"; ma=86400" } else { "" };
            // Relayed, and by hyper.
            let relayed = Tls::new(None).get(&edge, HOST, HOST).await;
            let line = format!("\r\nalt-svc: {told}\r\n");
            assert_eq!(relayed.text.contains(&line), is_on, "{}", relayed.text);
            let answers = Tls::new(None).get_http2(&edge, HOST, &[HOST]).await;
            let alternative = answers[0].headers().get("alt-svc");
            assert_eq!(alternative.map_or("", |it| it.to_str().unwrap()), told);
            // Who came without TLS or with HTTP/3 is not told.
            let plain = edge.client().await.get(HOST, "/").await;
            assert_eq!(plain.header("alt-svc"), "");
            assert_eq!(UdpSocket::bind(edge.https).is_err(), is_on);
            if is_on {
                let answer = Client::new(None).get(&edge, HOST).await;
                assert_eq!((answer.text(), answer.header("alt-svc")), ("web", ""));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_what_a_backend_says_about_alternatives_stands() {
    on_worker(async {
        let web = Origin::start(|_| {
            let mut response = Response::new(full("web"));
            let clear = HeaderValue::from_static("clear");
            response.headers_mut().insert("alt-svc", clear);
            response
        })
        .await;
        let (edge, _) = edge_before(&web, &[]).await;
        let relayed = Tls::new(None).get(&edge, HOST, HOST).await;
        assert!(
            relayed.text.contains("alt-svc: clear\r\n"),
            "{}",
            relayed.text
        );
        assert_eq!(relayed.text.matches("alt-svc").count(), 1);
        let answers = Tls::new(None).get_http2(&edge, HOST, &[HOST]).await;
        let told: Vec<_> = answers[0].headers().get_all("alt-svc").iter().collect();
        assert_eq!(told, ["clear"]);
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_requests_answers_and_trailers_get_through() {
    on_worker(async {
        let web = Origin::start(|_| {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("42"));
            let frames = [
                Ok(http_body::Frame::data(Bytes::from(vec![b'x'; 300_000]))),
                Ok(http_body::Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let mut response = Response::new(BodyExt::boxed(body));
            let named = HeaderValue::from_static("x-sum");
            response.headers_mut().insert("trailer", named);
            response
        })
        .await;
        let (edge, _) = edge_before(&web, &[]).await;
        let mut client = Client::new(None).connect(&edge, HOST).await;
        let request = Request::post("https://a.test/upload?x=1")
            .header("te", "trailers")
            .header("trailer", "x-md5")
            .header("x-forwarded-for", "192.0.2.9");
        let mut stream = client.open(request.body(()).unwrap()).await.unwrap();
        for _ in 0..10 {
            stream.send_data(vec![b'y'; 50_000].into()).await.unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-md5", HeaderValue::from_static("abc"));
        stream.send_trailers(trailers).await.unwrap();
        stream.finish().await.unwrap();
        let answer = answer(&mut stream).await.unwrap();
        assert_eq!((answer.status(), answer.body.len()), (200, 300_000));
        assert_eq!(answer.trailers.unwrap()["x-sum"], "42");
        let seen = web.seen().remove(0);
        assert_eq!(seen.method, Method::POST);
        assert_eq!(
            (seen.target.as_str(), seen.version),
            ("/upload?x=1", Version::HTTP_11)
        );
        assert_eq!(seen.body.as_ref().unwrap().len(), 500_000);
        assert_eq!(seen.trailers.as_ref().unwrap()["x-md5"], "abc");
        for (name, value) in [
            ("host", HOST),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-original-forwarded-for", "192.0.2.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", HOST),
        ] {
            assert_eq!(seen.header(name), value, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_heads_are_as_over_http2() {
    on_worker(async {
        let web = Origin::start(|seen| {
            let mut response = Response::new(full(if seen.target == "/none" { "" } else { "web" }));
            if seen.target == "/none" {
                *response.status_mut() = http::StatusCode::NO_CONTENT;
            }
            response
        })
        .await;
        let (edge, _) = edge_before(&web, &[]).await;
        let mut client = Client::new(None).connect(&edge, HOST).await;
        for (method, path, status, length, body) in [
            (Method::GET, "/", 200, "3", "web"),
            (Method::HEAD, "/", 200, "3", ""),
            (Method::GET, "/none", 204, "", ""),
            (Method::DELETE, "/", 200, "3", "web"),
        ] {
            let request = Request::builder()
                .method(&method)
                .uri(format!("https://a.test{path}"));
            let request = request.header("cookie", "a=1").header("cookie", "b=2");
            let answer = client.send(request.body(()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {path}");
            assert_eq!(answer.header("content-length"), length, "{method} {path}");
            assert_eq!(answer.text(), body, "{method} {path}");
            assert!(!answer.header("date").is_empty());
            let seen = web.seen().pop().unwrap();
            // A body that ends with the head is none.
            assert_eq!(seen.header("transfer-encoding"), "", "{method} {path}");
            assert_eq!(seen.header("cookie"), "a=1; b=2");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_the_router_is_the_same() {
    on_worker(async {
        let web = Origin::named("web").await;
        let (mut edge, mut manifests) =
            edge_before(&web, &[("whitelist-source-range", "192.0.2.0/24")]).await;
        manifests.ingress(
            "moved",
            &[("permanent-redirect", "https://b.test/")],
            "moved.test",
            ALL,
        );
        manifests.publish(&mut edge);
        let mut client = Client::new(None).connect(&edge, HOST).await;
        assert_eq!(client.get(HOST, "/").await.status(), 403);
        let none = client.get("nothing.test", "/").await;
        assert_eq!(
            (none.status(), none.header("sealane-error")),
            (404, "no_route")
        );
        let moved = client.get("moved.test", "/").await;
        assert_eq!(
            (moved.status(), moved.header("location")),
            (301, "https://b.test/")
        );
        // An edit takes effect on the open connection.
        manifests.ingress("web", &[], HOST, ALL);
        manifests.publish(&mut edge);
        assert_eq!(client.get(HOST, "/").await.text(), "web");
        assert_eq!(web.hits(), 1);
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_the_access_log_says_so() {
    on_worker(Box::pin(async {
        for (format, name, value) in [
            (Format::Nginx, "server_protocol", "HTTP/3.0"),
            (Format::Sealane, "protocol", "HTTP/3"),
        ] {
            let (sender, written) = channel();
            let engine = EngineOptions {
                access_log: Some(AccessLog::start(format, Sink(sender)).unwrap()),
                ..EngineOptions::default()
            };
            let web = Origin::named("web").await;
            let mut edge = edge_with(Options {
                server: ServerOptions::default(),
                engine,
                ..Options::default()
            })
            .await;
            let mut manifests = Manifests::new();
            manifests.service("web", web.addr);
            manifests.ingress("web", &[], HOST, ALL);
            manifests.publish(&mut edge);
            assert_eq!(Client::new(None).get(&edge, HOST).await.status(), 200);
            let text = written.recv_timeout(Duration::from_secs(20)).unwrap();
            let line: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(line[name], value, "{line}");
            assert_eq!(line["status"], 200, "{line}");
        }
    }))
    .await;
}
