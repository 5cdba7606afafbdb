//! From a request to a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use sealane_config::model::{AppProtocol, BackendProtocol, PathMatch, Rewrite, WeightedBackend};
use sealane_proxy::testing::{Origin, backend};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Edge, on_worker, prefix};

#[tokio::test]
async fn ingress_i3_hosts_and_paths_lead_to_services() {
    on_worker(async {
        let (web, api) = (Origin::named("web").await, Origin::named("api").await);
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.service("api", &[api.addr]);
        edge.host(
            "shop.test",
            false,
            vec![prefix("/", "web"), prefix("/api", "api")],
        );
        edge.host("", false, vec![prefix("/only", "web")]);
        let mut client = edge.client().await;
        for (host, path, status, text) in [
            ("shop.test", "/", 200, "web"),
            ("shop.test", "/api/v1?x=y", 200, "api"),
            ("shop.test", "/apiary", 200, "web"),
            ("SHOP.test:8080", "/api", 200, "api"),
            ("shop.test", "/x/../api", 200, "api"),
            ("shop.test", "//api", 200, "api"),
            ("other.test", "/only", 200, "web"),
        ] {
            let response = client.get(host, path).await;
            assert_eq!(
                (response.status, response.text()),
                (status, text),
                "{host}{path}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_i8_nothing_matches_is_a_404_of_our_own() {
    on_worker(async {
        let mut edge = Edge::new().await;
        edge.host("shop.test", false, vec![prefix("/a", "web")]);
        let mut client = edge.client().await;
        for (host, path) in [("other.test", "/a"), ("shop.test", "/b")] {
            let response = client.get(host, path).await;
            assert_eq!(
                (response.status, response.header("sealane-error")),
                (404, "no_route")
            );
            for field in ["server", "date", "content-length"] {
                assert_ne!(response.header(field), "", "ingress I8: {field}");
            }
            assert_eq!(response.header("content-type"), "text/plain; charset=utf-8");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_i13_a_missing_backend_is_a_503_for_its_path_only() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.service("empty", &[]);
        let mut no_port = prefix("/port", "web");
        no_port.backends[0].backend.port = 81;
        let mut invalid = prefix("/invalid", "web");
        invalid.invalid = Some("resource backends are not served");
        let mut nothing = prefix("/nothing", "web");
        nothing.backends.clear();
        edge.host(
            "a.test",
            false,
            vec![
                prefix("/", "web"),
                prefix("/gone", "gone"),
                prefix("/empty", "empty"),
                no_port,
                invalid,
                nothing,
            ],
        );
        let mut client = edge.client().await;
        for (path, reason) in [
            ("/gone", "no_service"),
            ("/port", "no_port"),
            ("/empty", "no_endpoints"),
            ("/invalid", "invalid_route"),
            ("/nothing", "invalid_route"),
        ] {
            let response = client.get("a.test", path).await;
            assert_eq!(
                (response.status, response.header("sealane-error")),
                (503, reason),
                "{path}"
            );
        }
        assert_eq!(client.get("a.test", "/").await.status, 200);
        edge.service("empty", &[web.addr]);
        assert_eq!(client.get("a.test", "/empty").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn ingress_i15_all_endpoints_are_used() {
    on_worker(async {
        let mut origins = Vec::new();
        for _ in 0..10 {
            origins.push(Origin::named("pod").await);
        }
        let addrs: Vec<_> = origins.iter().map(|o| o.addr).collect();
        let mut edge = Edge::new().await;
        edge.service("web", &addrs);
        edge.host("", false, vec![prefix("/", "web")]);
        let mut client = edge.client().await;
        for _ in 0..200 {
            assert_eq!(client.get("a.test", "/").await.status, 200);
        }
        assert!(origins.iter().all(|o| o.hits() > 0));
    })
    .await;
}

#[tokio::test]
async fn ingress_i23_the_backend_gets_the_request_as_it_was() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("a.test", false, vec![prefix("/", "web")]);
        let mut client = edge.client().await;
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            client
                .send(format!(
                    "{method} /a%2Fb/c//d?e=%20 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: Tester/1\r\n\
                     X-Forwarded-For: 6.6.6.6\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
            assert_eq!(client.response().await.status, 200);
        }
        let seen = web.seen();
        let methods: Vec<&str> = seen.iter().map(|s| s.method.as_str()).collect();
        assert_eq!(methods, ["GET", "POST", "PUT", "DELETE", "PATCH"]);
        for seen in &seen {
            assert_eq!(seen.target, "/a%2Fb/c//d?e=%20");
            assert_eq!(seen.version, http::Version::HTTP_11);
            assert_eq!(seen.header("user-agent"), "Tester/1");
            assert_eq!(seen.header("host"), "a.test");
            assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
            assert_eq!(seen.header("x-forwarded-proto"), "http");
            assert_eq!(seen.header("x-forwarded-port"), edge.http.port().to_string());
            assert_eq!(seen.header("x-request-id").len(), 32);
        }
        assert_ne!(seen[0].header("x-request-id"), seen[1].header("x-request-id"));
    })
    .await;
}

#[tokio::test]
async fn ingress_a1_a_rewrite_changes_what_the_backend_sees() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        let mut rule = prefix("/", "web");
        let pattern = fancy_regex::Regex::new("(?i)^/something(/|$)(.*)").unwrap();
        rule.path = PathMatch::Regex(Arc::new(pattern));
        rule.filters.rewrite = Some(Rewrite::Template(Arc::from("/$2")));
        edge.host("a.test", false, vec![rule]);
        let mut client = edge.client().await;
        assert_eq!(client.get("a.test", "/something/new?q=1").await.status, 200);
        assert_eq!(web.seen()[0].target, "/new?q=1");
        assert_eq!(client.get("a.test", "/else").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn ingress_a2_plain_http_is_redirected_where_asked() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        let redirected = |force| {
            let mut rule = prefix("/", "web");
            rule.filters.ssl_redirect = true;
            rule.filters.force_ssl_redirect = force;
            vec![rule]
        };
        edge.host("cert.test", true, redirected(false));
        edge.host("none.test", false, redirected(false));
        edge.host("forced.test", false, redirected(true));
        let mut client = edge.client().await;
        for (host, path, status, location) in [
            (
                "cert.test:8080",
                "/a?b=c",
                308,
                "https://cert.test:8443/a?b=c",
            ),
            ("cert.test", "/.well-known/acme-challenge/x", 200, ""),
            (
                "cert.test",
                "/.well-known/acme-challengex",
                308,
                "https://cert.test:8443/.well-known/acme-challengex",
            ),
            ("none.test", "/", 200, ""),
            ("forced.test", "/", 308, "https://forced.test:8443"),
        ] {
            let response = client.get(host, path).await;
            assert_eq!(
                (response.status, response.header("location")),
                (status, location),
                "{host}{path}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn weights_share_requests_between_backends() {
    on_worker(async {
        let (old, new) = (Origin::named("old").await, Origin::named("new").await);
        let mut edge = Edge::new().await;
        edge.service("old", &[old.addr]);
        edge.service("new", &[new.addr]);
        let mut rule = prefix("/", "old");
        rule.backends[0].weight = 80;
        rule.backends.push(WeightedBackend {
            weight: 20,
            backend: backend("new"),
        });
        edge.host("", false, vec![rule]);
        let mut client = edge.client().await;
        for _ in 0..200 {
            assert_eq!(client.get("a.test", "/").await.status, 200);
        }
        assert!((15..70).contains(&new.hits()), "{}", new.hits());
    })
    .await;
}

#[tokio::test]
async fn ingress_a5_a_service_that_speaks_http2_is_spoken_to_in_http2() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.world.service("web", AppProtocol::Http2, &[web.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let mut client = edge.client().await;
        assert_eq!(client.get("a.test", "/x").await.text(), "web");
        assert_eq!(web.seen()[0].version, http::Version::HTTP_2);
    })
    .await;
}

#[tokio::test]
async fn ingress_t18_a_change_takes_effect_on_open_connections() {
    on_worker(async {
        let (old, new) = (Origin::named("old").await, Origin::named("new").await);
        let mut edge = Edge::new().await;
        edge.service("web", &[old.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let mut client = edge.client().await;
        assert_eq!(client.get("a.test", "/").await.text(), "old");
        edge.service("web", &[new.addr]);
        assert_eq!(client.get("a.test", "/").await.text(), "new");
    })
    .await;
}

#[tokio::test]
async fn ingress_t4_a_websocket_goes_through_and_survives_changes() {
    on_worker(async {
        let web = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                              Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            })
        })
        .await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let mut client = edge.client().await;
        client
            .send(
                "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            )
            .await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.header("sec-websocket-accept")),
            (101, "x")
        );
        for _ in 0..10 {
            edge.host("", false, vec![prefix("/other", "web")]);
            edge.service("web", &[]);
            client.send("ping").await;
            assert_eq!(client.bytes(4).await, b"ping");
        }
        // A tunnel does not keep the listeners from ending.
        edge.shutdown.cancel();
        for listener in edge.listeners.drain(..) {
            listener.await.unwrap();
        }
        client.send("pong").await;
        assert_eq!(client.bytes(4).await, b"pong");
    })
    .await;
}

#[tokio::test]
async fn ingress_t3_grpc_is_answered_in_its_own_terms() {
    on_worker(async {
        let grpc = Origin::start(|_| {
            let mut response = sealane_proxy::testing::status(200);
            let headers = response.headers_mut();
            headers.insert("content-type", "application/grpc".parse().unwrap());
            headers.insert("grpc-status", "0".parse().unwrap());
            response
        })
        .await;
        let mut edge = Edge::new().await;
        edge.service("grpc", &[grpc.addr]);
        let mut rule = prefix("/pkg.Service", "grpc");
        rule.filters.backend_protocol = BackendProtocol::Grpc;
        edge.host("", false, vec![rule, prefix("/pkg.Gone", "gone")]);
        let stream = tokio::net::TcpStream::connect(edge.http).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        for (path, code) in [
            ("/pkg.Service/Call", "0"),
            ("/pkg.Gone/Call", "14"),
            ("/pkg.Unknown/Call", "12"),
        ] {
            let request = http::Request::post(format!("http://a.test{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(http_body_util::Full::new(bytes::Bytes::from_static(b"x")))
                .unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()["grpc-status"], code, "{path}");
        }
        assert_eq!(grpc.seen()[0].version, http::Version::HTTP_2);
        connection.abort();
    })
    .await;
}

#[tokio::test]
async fn requests_are_counted_by_ingress_and_service() {
    on_worker(async {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host(
            "a.test",
            false,
            vec![prefix("/", "web"), prefix("/gone", "gone")],
        );
        let mut client = edge.client().await;
        for (host, path) in [("a.test", "/"), ("a.test", "/gone"), ("b.test", "/secret")] {
            client.get(host, path).await;
        }
        let text = metrics.render();
        for line in [
            r#"sealane_gateway_requests_total{namespace="default",ingress="test",code="2xx"} 1"#,
            r#"sealane_gateway_requests_total{namespace="default",ingress="test",code="5xx"} 1"#,
            r#"sealane_gateway_requests_total{namespace="",ingress="",code="4xx"} 1"#,
            r#"sealane_requests_total{namespace="default",service="web",code="2xx"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        // Nothing that a client chose is a label (reliability B21).
        assert!(
            !text.contains("secret") && !text.contains("b.test"),
            "{text}"
        );
    })
    .await;
}

#[tokio::test]
async fn ingress_t9_a_client_cannot_take_our_fields_away() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let mut client = edge.client().await;
        client
            .send(
                "GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: secret\r\nX-Hop: 1\r\n\
                 Connection: X-Hop, Host, X-Forwarded-For, X-Real-IP, Authorization\r\n\r\n",
            )
            .await;
        assert_eq!(client.response().await.status, 200);
        let seen = web.seen().remove(0);
        for (name, value) in [
            ("host", "a.test"),
            ("authorization", "secret"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-hop", ""),
            ("connection", ""),
        ] {
            assert_eq!(seen.header(name), value, "{name}");
        }
    })
    .await;
}

/// A backend that answers with 256 MiB and counts what it could write.
async fn endless() -> (Origin, Arc<AtomicUsize>) {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let origin = Origin::raw(move |mut stream, _| {
        let written = Arc::clone(&count);
        Box::pin(async move {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
            let block = vec![b'x'; 64 * 1024];
            for _ in 0..4096 {
                if stream.write_all(&block).await.is_err() {
                    return;
                }
                written.fetch_add(block.len(), Ordering::Relaxed);
            }
        })
    })
    .await;
    (origin, written)
}

/// Waits until the counter stands still, and returns it.
async fn standstill(counter: &AtomicUsize) -> usize {
    let mut last = 0;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let now = counter.load(Ordering::Relaxed);
        if now == last && now > 0 {
            return now;
        }
        last = now;
    }
}

#[tokio::test]
async fn ingress_t2_a_client_that_does_not_read_stops_the_backend() {
    on_worker(async {
        let (web, written) = endless().await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let stream = tokio::net::TcpStream::connect(edge.http).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get("http://a.test/")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        // What the kernel buffers between backend and gateway, and a window; not 256 MiB.
        let stopped = standstill(&written).await;
        assert!(stopped < 32 * 1024 * 1024, "{stopped} bytes");
        let mut body = response.into_body();
        let mut read = 0;
        while read < 64 * 1024 * 1024 {
            let frame = body.frame().await.unwrap().unwrap();
            read += frame.data_ref().map_or(0, bytes::Bytes::len);
        }
        assert!(written.load(Ordering::Relaxed) > stopped);
        connection.abort();
    })
    .await;
}
