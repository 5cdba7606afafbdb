//! What a client may do.

use std::net::Ipv4Addr;
use std::time::Duration;

use h3::error::Code;
use http::{Method, Request, Response, Version};
use sealane_ingress::http3::Limits;
use sealane_proxy::admission::{Connections, Limits as Admitted};
use sealane_proxy::http::{EngineOptions, ServerOptions};
use sealane_proxy::testing::{Origin, eventually, full};

use super::client::{Client, answer};
use super::{ALL, HOST, edge_before, edge_with};
use crate::manifests::Manifests;
use crate::support::{Edge, Options, on_worker};

#[tokio::test]
async fn ingress_t5_bad_requests_are_refused_as_over_http2() {
    on_worker(async {
        let web = Origin::named("web").await;
        let (edge, _) = edge_before(&web, &[]).await;
        let client = Client::new(None);
        let get = || Request::get("https://a.test/");
        for (name, request, status) in [
            ("path", Request::get("https://a.test/%00"), 400),
            ("escape", Request::get("https://a.test/%zz"), 400),
            ("userinfo", Request::get("https://x@a.test/"), 400),
            ("connection", get().header("connection", "close"), 400),
            ("upgrade", get().header("upgrade", "h2c"), 400),
            ("keep-alive", get().header("keep-alive", "timeout=1"), 400),
            ("te", get().header("te", "gzip"), 400),
            ("coding", get().header("transfer-encoding", "chunked"), 400),
            ("no length", get().header("content-length", "+5"), 400),
            (
                "two lengths",
                get()
                    .header("content-length", "5")
                    .header("content-length", "5"),
                400,
            ),
            ("trace", get().method(Method::TRACE), 405),
            ("connect", Request::connect("https://a.test/"), 405),
            ("expectation", get().header("expect", "cake"), 417),
            ("long", get().header("x-long", "x".repeat(70_000)), 431),
            ("longer", get().header("x-long", "x".repeat(100_000)), 431),
            (
                "target",
                Request::get(format!("https://a.test/{}", "x".repeat(17_000))),
                414,
            ),
        ] {
            let mut connection = client.connect(&edge, HOST).await;
            let request = request.version(Version::HTTP_3).body(()).unwrap();
            let got = connection.send(request).await;
            assert_eq!(got.unwrap().status(), status, "{name}");
            // The connection goes on.
            assert_eq!(connection.get(HOST, "/").await.status(), 200, "{name}");
        }
        // With a field that is none the request is malformed, and nobody says more.
        let mut connection = client.connect(&edge, HOST).await;
        let other = Request::get("https://a.test/").header("host", "b.test");
        assert!(connection.send(other.body(()).unwrap()).await.is_err());
        assert!(web.seen().iter().all(|seen| seen.target == "/"));
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_a_body_is_as_long_as_its_head_says() {
    on_worker(async {
        let web = Origin::named("web").await;
        let (edge, _) = edge_before(&web, &[]).await;
        let client = Client::new(None);
        for (said, sent, fits) in [
            (5, 5, true),
            (0, 0, true),
            (5, 4, false),
            (5, 6, false),
            (5, 0, false),
        ] {
            let hits = web.hits();
            let mut connection = client.connect(&edge, HOST).await;
            let request = Request::post("https://a.test/").header("content-length", said);
            let mut stream = connection.open(request.body(()).unwrap()).await.unwrap();
            if sent > 0 {
                stream.send_data(vec![b'x'; sent].into()).await.unwrap();
            }
            // The gateway may have stopped listening.
            let _ = stream.finish().await;
            let status = answer(&mut stream).await.map(|answer| answer.status());
            assert_eq!(
                matches!(status, Ok(200)),
                fits,
                "{sent} of {said}: {status:?}"
            );
            if fits {
                eventually("the backend has it", || web.hits() > hits).await;
                let seen = web.seen().pop().unwrap();
                assert_eq!(seen.body.unwrap().len(), sent);
            } else {
                let whole = web
                    .seen()
                    .split_off(hits)
                    .iter()
                    .any(|seen| seen.body.is_some());
                assert!(!whole, "{sent} of {said}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_bodies_have_a_limit() {
    on_worker(async {
        let web = Origin::named("web").await;
        let (edge, _) = edge_before(&web, &[("proxy-body-size", "10")]).await;
        let mut connection = Client::new(None).connect(&edge, HOST).await;
        for (length, status) in [(10, 200), (11, 413)] {
            let request = Request::post("https://a.test/").body(()).unwrap();
            let mut stream = connection.open(request).await.unwrap();
            stream.send_data(vec![b'x'; length].into()).await.unwrap();
            let _ = stream.finish().await;
            assert_eq!(answer(&mut stream).await.unwrap().status(), status);
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_addresses_have_to_be_proven_when_many_come() {
    on_worker(async {
        let web = Origin::named("web").await;
        for (unproven, handshakes, is_served, asked) in [
            (64, 1_000, true, false),
            (0, 1_000, true, true),
            (0, 0, false, false),
        ] {
            let mut edge = edge_with(Options {
                http3: Some(Limits {
                    unproven,
                    handshakes,
                }),
                ..Options::default()
            })
            .await;
            let mut manifests = Manifests::new();
            manifests.service("web", web.addr);
            manifests.ingress("web", &[], HOST, ALL);
            manifests.publish(&mut edge);
            let connected = Client::new(None).try_connect(&edge, HOST).await;
            assert_eq!(connected.is_ok(), is_served, "{unproven} {handshakes}");
            if let Ok(mut connection) = connected {
                assert_eq!(connection.get(HOST, "/").await.status(), 200);
            }
            assert_eq!(was_asked_to_retry(&edge).await, asked);
        }
    })
    .await;
}

/// Whether a client that comes first gets a Retry packet (RFC 9000, 17.2.5).
async fn was_asked_to_retry(edge: &Edge) -> bool {
    let between = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let client = Client::new(None);
    let _connecting = client.connecting(between.local_addr().unwrap(), HOST);
    let mut packet = [0; 2048];
    let (length, _) = between.recv_from(&mut packet).await.unwrap();
    let out = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    // The first message may take two packets, of which the first is enough for this.
    out.send_to(&packet[..length], edge.https).await.unwrap();
    out.recv_from(&mut packet).await.unwrap();
    packet[0] & 0xf0 == 0xf0
}

#[tokio::test]
async fn ingress_t5_connections_count_with_those_over_tcp() {
    on_worker(async {
        let connections = Connections::new(Admitted {
            total: 2,
            ..Admitted::public()
        });
        let edge = edge_with(Options {
            engine: EngineOptions {
                connections: connections.clone(),
                ..EngineOptions::default()
            },
            ..Options::default()
        })
        .await;
        let client = Client::new(None);
        let _tcp = edge.client().await;
        eventually("it is accepted", || connections.open() == 1).await;
        let first = client.connect(&edge, HOST).await;
        assert_eq!(connections.open(), 2);
        assert!(client.try_connect(&edge, HOST).await.is_err());
        first.quic.close(0_u32.into(), b"");
        eventually("it has ended", || connections.open() == 1).await;
        client.connect(&edge, HOST).await;
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_a_connection_without_requests_ends() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = edge_with(Options {
            server: ServerOptions {
                idle_timeout: Duration::from_millis(300),
                ..ServerOptions::default()
            },
            ..Options::default()
        })
        .await;
        let mut manifests = Manifests::new();
        manifests.service("web", web.addr);
        manifests.ingress("web", &[], HOST, ALL);
        manifests.publish(&mut edge);
        let mut connection = Client::new(None).connect(&edge, HOST).await;
        assert_eq!(connection.get(HOST, "/").await.status(), 200);
        let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
            panic!("it was not closed in order");
        };
        assert_eq!(close.error_code.into_inner(), 0x100, "H3_NO_ERROR");
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_a_client_that_breaks_off_hundreds_of_requests_is_turned_away() {
    on_worker(async {
        let web = Origin::slow(|_| {
            Box::pin(async {
                std::future::pending::<()>().await;
                Response::new(full("never"))
            })
        })
        .await;
        let (edge, _) = edge_before(&web, &[]).await;
        let mut connection = Client::new(None).connect(&edge, HOST).await;
        let mut broken_off = 0;
        while broken_off < 1_000 {
            let get = Request::get("https://a.test/").body(()).unwrap();
            let Ok(mut stream) = connection.open(get).await else {
                break;
            };
            if stream.finish().await.is_err() {
                break;
            }
            stream.stop_sending(Code::H3_REQUEST_CANCELLED);
            broken_off += 1;
        }
        assert!((200..1_000).contains(&broken_off), "{broken_off}");
        let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
            panic!("it was not told why");
        };
        assert_eq!(close.error_code.into_inner(), 0x107, "H3_EXCESSIVE_LOAD");
        let mut other = Client::new(None).connect(&edge, HOST).await;
        assert_eq!(other.get("nothing.test", "/").await.status(), 404);
    })
    .await;
}
