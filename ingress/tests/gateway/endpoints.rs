//! What becomes of requests when endpoints leave, refuse, restart, or say too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sealane_config::model::BackendProtocol;
use sealane_proxy::testing::{Origin, RawClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Edge, on_worker, prefix};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Reads a head; false if the connection ended first.
async fn head(stream: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    while !read.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut read).await, Ok(count) if count > 0) {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn ingress_t16_connections_are_kept_and_a_stale_one_costs_nothing() {
    on_worker(async {
        // Answers three requests a connection and closes without having said so.
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let origin = Origin::raw(move |mut stream, _| {
            let count = Arc::clone(&count);
            Box::pin(async move {
                count.fetch_add(1, Ordering::Relaxed);
                for _ in 0..3 {
                    if !head(&mut stream).await {
                        return;
                    }
                    stream.write_all(OK).await.unwrap();
                }
            })
        })
        .await;
        let mut edge = Edge::new().await;
        edge.service("web", &[origin.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let mut client = edge.client().await;
        for number in 0..30 {
            assert_eq!(client.get("a.test", "/").await.status, 200, "{number}");
        }
        // A connection that closed right behind its third answer may have been noticed or not.
        let connections = connections.load(Ordering::Relaxed);
        assert!((10..30).contains(&connections), "{connections}");
    })
    .await;
}

/// An endpoint of HTTP/2 that takes no stream: it refuses each, or says that it goes away.
async fn unwilling(goes_away: bool) -> (Origin, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::raw(move |stream, _| {
        let count = Arc::clone(&count);
        Box::pin(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                if goes_away {
                    connection.graceful_shutdown();
                }
            }
        })
    })
    .await;
    (origin, asked)
}

#[tokio::test]
async fn ingress_t16_refused_streams_and_those_behind_a_goaway_are_sent_elsewhere() {
    on_worker(async {
        for goes_away in [false, true] {
            let (unwilling, asked) = unwilling(goes_away).await;
            let willing = Origin::named("alive").await;
            let mut edge = Edge::new().await;
            edge.service("web", &[unwilling.addr, willing.addr]);
            let mut rule = prefix("/", "web");
            rule.filters.backend_protocol = BackendProtocol::Grpc;
            edge.host("", false, vec![rule]);
            let stream = TcpStream::connect(edge.http).await.unwrap();
            let (mut client, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            for number in 0..20 {
                let request = Request::get("http://a.test/").body(Full::<Bytes>::default());
                let response = client.send_request(request.unwrap()).await.unwrap();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, "alive", "{number}, goes away {goes_away}");
            }
            assert!(asked.load(Ordering::Relaxed) > 0, "it was asked as well");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t16_an_endpoint_that_fails_is_left_out_unless_all_do() {
    on_worker(async {
        let failing = async || {
            let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
            closed.local_addr().unwrap()
        };
        let (good, bad) = (Origin::named("good").await, failing().await);
        let mut edge = Edge::new().await;
        edge.service("web", &[good.addr, bad]);
        edge.host("", false, vec![prefix("/", "web")]);
        let mut client = edge.client().await;
        for number in 0..50 {
            // Not idempotent, and still not lost: nobody has read it yet.
            let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx";
            client.send(post).await;
            assert_eq!(client.response().await.status, 200, "{number}");
        }
        assert_eq!(good.hits(), 50);
        // The last one is tried, whatever it has done so far.
        edge.service("web", &[bad]);
        for _ in 0..10 {
            let refused = client.get("a.test", "/").await;
            assert_eq!(
                (refused.status, refused.header("sealane-error")),
                (502, "connect_failed")
            );
        }
        let back = TcpListener::bind(bad).await.unwrap();
        let answered = tokio::spawn(async move {
            let (mut stream, _) = back.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        });
        assert_eq!(client.get("a.test", "/").await.status, 200);
        answered.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn ingress_t16_an_endpoint_that_left_gets_nothing_new_and_finishes_what_it_has() {
    on_worker(async {
        let leaving = Origin::slow(|seen| {
            Box::pin(async move {
                if seen.target == "/slow" {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                http::Response::new(sealane_proxy::testing::full("leaving"))
            })
        })
        .await;
        let staying = Origin::named("staying").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[leaving.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let (mut slow, mut quick) = (edge.client().await, edge.client().await);
        assert_eq!(quick.get("a.test", "/").await.text(), "leaving");
        slow.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await;
        sealane_proxy::testing::eventually("it is in flight", || leaving.hits() == 2).await;
        edge.service("web", &[staying.addr]);
        let left = Instant::now();
        for _ in 0..20 {
            assert_eq!(quick.get("a.test", "/").await.text(), "staying");
        }
        assert!(left.elapsed() < Duration::from_secs(20));
        assert_eq!(slow.response().await.text(), "leaving");
        assert_eq!(leaving.hits(), 2);
    })
    .await;
}

/// A field that makes a head this long.
fn filler(head: &str, length: usize) -> String {
    let name = "X-Filler: ";
    let rest = length - head.len() - name.len() - "\r\n\r\n".len();
    format!("{name}{}\r\n", "x".repeat(rest))
}

#[tokio::test]
async fn ingress_u8_long_heads_pass_both_ways_and_longer_ones_are_refused_with_a_reason() {
    const LIMIT: usize = 64 * 1024;
    on_worker(async {
        // Answers with a head as long as the path says.
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                let mut read = Vec::new();
                while let Ok(count) = stream.read_buf(&mut read).await
                    && count > 0
                {
                    if !read.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let text = String::from_utf8(std::mem::take(&mut read)).unwrap();
                    let length = text.split(['/', ' ']).nth(2).unwrap();
                    let start = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";
                    let more = length
                        .parse()
                        .map_or(String::new(), |length| filler(start, length));
                    let answer = format!("{start}{more}\r\nok");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            })
        })
        .await;
        let mut edge = Edge::new().await;
        edge.service("web", &[origin.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let start = "GET /none HTTP/1.1\r\nHost: a.test\r\n";
        for (length, status, reason) in [
            (LIMIT - 1024, 200, ""),
            (LIMIT + 1024, 431, "headers_too_large"),
        ] {
            let mut client = edge.client().await;
            client
                .send(format!("{start}{}\r\n", filler(start, length)))
                .await;
            let response = client.response().await;
            let got = (response.status, response.header("sealane-error"));
            assert_eq!(got, (status, reason), "a request of {length}");
        }
        for (length, status, reason) in
            [(LIMIT - 1024, 200, ""), (LIMIT + 1024, 502, "bad_response")]
        {
            let mut client = RawClient::connect(edge.http).await;
            let response = client.get("a.test", &format!("/{length}")).await;
            let got = (response.status, response.header("sealane-error"));
            assert_eq!(got, (status, reason), "a response of {length}");
        }
    })
    .await;
}
