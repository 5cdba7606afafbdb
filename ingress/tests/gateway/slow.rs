//! Clients that are slow, and those that are too many.
//!
//! What the connections of idle clients cost is measured by the long runs (`docs/soak.md`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sealane_proxy::admission::{Connections, Limits};
use sealane_proxy::http::{EngineOptions, ServerOptions};
use sealane_proxy::testing::{Origin, RawClient, full};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, pause, timeout};

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker, prefix};
use crate::tls::Client;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(150);

const HEAD: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n";
const WHOLE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Only what the case is about is short.
fn patient() -> ServerOptions {
    ServerOptions {
        head_timeout: LONG,
        idle_timeout: LONG,
        stall_timeout: LONG,
        ..ServerOptions::default()
    }
}

/// A gateway in front of one backend with answers of this length.
async fn edge(server: ServerOptions, connections: Connections, length: usize) -> (Edge, Origin) {
    let body = "x".repeat(length);
    let origin = Origin::start(move |_| http::Response::new(full(body.clone()))).await;
    let mut edge = Edge::with(
        server,
        EngineOptions {
            connections,
            ..EngineOptions::default()
        },
    )
    .await;
    edge.service("web", &[origin.addr]);
    edge.host("", false, vec![prefix("/", "web")]);
    (edge, origin)
}

/// Sends `first`, reads the answer to it if it is a whole request, sends `second`, and waits until the
/// gateway closes; says how long that took.
async fn closes<S>(mut stream: S, first: &str, second: &str) -> Duration
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(first.as_bytes()).await.unwrap();
    if first == WHOLE {
        let mut answer = Vec::new();
        while !answer.ends_with(b"xyz") {
            answer.push(stream.read_u8().await.unwrap());
        }
    }
    let begun = Instant::now();
    let _ = stream.write_all(second.as_bytes()).await;
    let closed = async {
        let mut rest = [0; 1024];
        // A connection that ends with an error has ended, too.
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    };
    match timeout(Duration::from_secs(30), closed).await {
        Ok(()) => begun.elapsed(),
        Err(_still_open) => panic!("{first:?} and {second:?}: still open"),
    }
}

#[tokio::test]
async fn ingress_t15_slow_clients_are_sent_away() {
    on_worker(Box::pin(async {
        let slow_head = ServerOptions {
            head_timeout: SHORT,
            ..patient()
        };
        let idle = ServerOptions {
            idle_timeout: SHORT,
            ..patient()
        };
        for (name, server, first, second) in [
            ("no first byte", &slow_head, "", ""),
            ("half a head", &slow_head, HEAD, ""),
            ("half a preface", &slow_head, "PRI * HT", ""),
            ("half a second head", &slow_head, WHOLE, HEAD),
            ("no second request", &idle, WHOLE, ""),
        ] {
            let origin = Origin::start(|_| http::Response::new(full("xyz"))).await;
            let mut edge = Edge::with(server.clone(), EngineOptions::default()).await;
            edge.service("web", &[origin.addr]);
            edge.host("", false, vec![prefix("/", "web")]);
            let plain = TcpStream::connect(edge.http).await.unwrap();
            let waited = closes(plain, first, second).await;
            assert!(waited >= SHORT / 2, "{name}: {waited:?}");
            let alpn: &[&str] = if first.starts_with("PRI") {
                &["h2"]
            } else {
                &[]
            };
            let tls = Client::new(alpn).connect(&edge, "a.test").await;
            let waited = closes(tls, first, second).await;
            assert!(waited >= SHORT / 2, "{name} over TLS: {waited:?}");
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_t15_an_idle_connection_ends_over_http2_too() {
    on_worker(Box::pin(async {
        let server = ServerOptions {
            idle_timeout: SHORT,
            ..patient()
        };
        let (edge, _origin) = edge(server, Connections::default(), 1).await;
        let stream = Client::new(&["h2"]).connect(&edge, "a.test").await;
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get("https://a.test/").body(Empty::<Bytes>::new());
        let response = client.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "x");
        // The client could ask again, and does not.
        let ended = timeout(Duration::from_secs(30), connection).await;
        ended.expect("the connection is closed").unwrap().unwrap();
        assert!(client.ready().await.is_err());
    }))
    .await;
}

#[tokio::test]
async fn ingress_t15_a_body_that_trickles_is_a_408() {
    on_worker(Box::pin(async {
        let (edge, origin) = edge(patient(), Connections::default(), 1).await;
        let mut client = RawClient::connect(edge.http).await;
        client
            .send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nx")
            .await;
        // The first of another client's requests is answered, so that this one's head is there.
        assert_eq!(edge.client().await.get("a.test", "/").await.status, 200);
        pause();
        let response = client.response().await;
        let reason = response.header("sealane-error");
        assert_eq!((response.status, reason), (408, "slow_body"));
        assert!(client.closed().await.is_empty(), "the connection is closed");
        assert_eq!(origin.hits(), 1, "the backend got no whole request of it");
    }))
    .await;
}

#[tokio::test]
async fn ingress_t15_a_client_that_takes_nothing_is_sent_away() {
    on_worker(Box::pin(async {
        let length = 64 * 1024 * 1024;
        let server = ServerOptions {
            stall_timeout: SHORT,
            ..patient()
        };
        let (edge, _origin) = edge(server, Connections::default(), length).await;
        let mut stream = TcpStream::connect(edge.http).await.unwrap();
        stream.write_all(WHOLE.as_bytes()).await.unwrap();
        stream.readable().await.unwrap();
        // Nothing is taken for twenty times as long as that may be.
        tokio::time::sleep(SHORT * 20).await;
        let mut got = 0;
        let mut piece = vec![0; 1 << 20];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            got += count;
        }
        assert!(got < length, "it got everything");
    }))
    .await;
}

#[tokio::test]
async fn ingress_t15_connections_that_are_too_many_are_not_served() {
    on_worker(Box::pin(async {
        let limits = Limits {
            total: 2,
            ..Limits::none()
        };
        let (edge, _origin) = edge(patient(), Connections::new(limits), 1).await;
        let mut first = edge.client().await;
        assert_eq!(first.get("a.test", "/").await.status, 200);
        let mut second = edge.client().await;
        assert_eq!(second.get("a.test", "/").await.status, 200);
        let mut third = edge.client().await;
        assert!(third.closed().await.is_empty(), "none of them is idle");
        // One that has been idle makes room.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(second.get("a.test", "/").await.status, 200);
        let mut fourth = edge.client().await;
        assert_eq!(fourth.get("a.test", "/").await.status, 200);
        assert!(first.closed().await.is_empty(), "the longest idle one ends");
        assert_eq!(second.get("a.test", "/").await.status, 200);
    }))
    .await;
}

#[tokio::test]
async fn ingress_a4_an_endpoint_that_takes_no_more_of_a_request_is_given_up_with_504() {
    on_worker(Box::pin(async {
        let (mut edge, mut manifests) = (Edge::new().await, Manifests::new());
        // Connections are made, and nothing is read from them.
        let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = Origin::named("web").await;
        manifests.service("deaf", deaf.local_addr().unwrap());
        manifests.service("web", web.addr);
        let paths = [("Prefix", "/deaf", "deaf"), ("Prefix", "/", "web")];
        let annotations = [("proxy-send-timeout", "1")];
        manifests.ingress("it", &annotations, "shop.test", &paths);
        manifests.publish(&mut edge);
        let head = |path, length| {
            format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n")
        };

        let mut stream = TcpStream::connect(edge.http).await.unwrap();
        let (mut read, mut write) = stream.split();
        let send = async {
            let head = head("/deaf", 1_u64 << 30);
            write.write_all(head.as_bytes()).await.unwrap();
            // Until nobody takes any more of it, or the gateway has closed.
            while write.write_all(&[0; 65536]).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let mut begin = [0; 12];
        tokio::select! {
            read = read.read_exact(&mut begin) => { read.unwrap(); }
            () = send => {}
            () = tokio::time::sleep(LONG) => panic!("there is no answer"),
        }
        assert_eq!(&begin, b"HTTP/1.1 504");

        // A client that pauses for longer is not the endpoint's fault.
        let mut client = RawClient::connect(edge.http).await;
        client.send(head("/", 10) + "hello").await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        client.send("world").await;
        assert_eq!(client.response().await.status, 200);
    }))
    .await;
}
