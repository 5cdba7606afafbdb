//! What some clients, or what passes for them, may not cost others.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sealane_proxy::testing::{Origin, RawClient, eventually, full};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

const SOON: Duration = Duration::from_secs(60);

/// A host `NAME.test`, with its annotations and its backend.
type Host<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a Origin);

async fn hosts(hosts: &[Host<'_>]) -> Edge {
    let mut edge = Edge::new().await;
    let mut manifests = Manifests::compat();
    for (name, annotations, origin) in hosts {
        manifests.service(name, origin.addr);
        let paths = [("Prefix", "/", *name)];
        manifests.ingress(name, annotations, &format!("{name}.test"), &paths);
    }
    manifests.publish(&mut edge);
    edge
}

/// Ten mebibytes of nothing, in ten kibibytes.
fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 10 << 20]).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn reliability_b15_nothing_that_is_compressed_is_unpacked() {
    on_worker(Box::pin(async {
        let packed = bomb();
        assert!(packed.len() < 20 << 10, "{}", packed.len());
        let answer = packed.clone();
        let origin = Origin::start(move |_| {
            let response = Response::builder().header("content-encoding", "gzip");
            response.body(full(answer.clone())).unwrap()
        })
        .await;
        // Two ways through the gateway: the relay, and the engine.
        let limited: &[(&str, &str)] = &[("limit-rps", "1000"), ("proxy-body-size", "64k")];
        let edge = hosts(&[("plain", &[], &origin), ("limited", limited, &origin)]).await;
        for host in ["plain.test", "limited.test"] {
            let mut client = RawClient::connect(edge.http).await;
            let head = format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                packed.len()
            );
            client.send([head.as_bytes(), &packed].concat()).await;
            let response = client.response().await;
            assert_eq!(response.status, 200, "{host}");
            assert_eq!(response.header("content-encoding"), "gzip", "{host}");
            assert!(response.body == packed, "{host}: {}", response.body.len());
            let seen = origin.seen().pop().unwrap();
            assert_eq!(seen.header("content-encoding"), "gzip", "{host}");
            assert!(seen.body.as_deref() == Some(&packed[..]), "{host}");
        }
    }))
    .await;
}

#[tokio::test]
async fn reliability_l11_a_host_above_its_limit_costs_others_nothing() {
    on_worker(Box::pin(async {
        let (noisy, quiet) = (Origin::named("noisy").await, Origin::named("quiet").await);
        let limited: &[(&str, &str)] = &[("limit-rpm", "10"), ("limit-burst-multiplier", "1")];
        let same: &[(&str, &str)] = &[("limit-rpm", "600")];
        let edge = hosts(&[("noisy", limited, &noisy), ("quiet", same, &quiet)]).await;
        let ask = async |host: &str, count: usize| {
            let mut client = RawClient::connect(edge.http).await;
            let mut answers = Vec::new();
            for _ in 0..count {
                answers.push(client.get(host, "/").await.status);
            }
            answers
        };
        // The same client, ten times what the one host lets through.
        let flood = join_all((0..10).map(|_| ask("noisy.test", 11)));
        let calm = ask("quiet.test", 100);
        let (flood, calm) = tokio::join!(flood, calm);
        assert_eq!(calm, [200; 100]);
        assert_eq!(quiet.hits(), 100);
        let served = flood.iter().flatten().filter(|it| **it == 200).count();
        let refused = flood.iter().flatten().filter(|it| **it == 503).count();
        assert_eq!(served + refused, 110, "{flood:?}");
        // Eleven at once, and one each six seconds.
        assert!((11..40).contains(&served), "{served}");
        assert_eq!(noisy.hits(), served);
    }))
    .await;
}

#[tokio::test]
async fn reliability_l10_slow_clients_hold_up_nobody_else() {
    const SLOW: usize = 100;
    on_worker(Box::pin(async {
        let big = vec![b'x'; 4 << 20];
        let origin = Origin::start(move |seen| {
            let is_big = seen.target == "/big";
            Response::new(full(if is_big { big.clone() } else { b"web".to_vec() }))
        })
        .await;
        let edge = hosts(&[("web", &[], &origin)]).await;
        let mut slow = Vec::new();
        for number in 0..SLOW {
            let mut client = RawClient::connect(edge.http).await;
            // Who reads nothing of a long answer, and who never finishes a head.
            let head = if number % 2 == 0 {
                "GET /big HTTP/1.1\r\nHost: web.test\r\n\r\n"
            } else {
                "GET / HTTP/1.1\r\nHost: web.test\r\nX-"
            };
            client.send(head).await;
            slow.push(client);
        }
        eventually("all of them are there", || origin.hits() == SLOW / 2).await;
        let normal = async {
            for _ in 0..50 {
                let mut client = RawClient::connect(edge.http).await;
                for _ in 0..10 {
                    let response = client.get("web.test", "/").await;
                    assert_eq!((response.status, response.text()), (200, "web"));
                }
            }
        };
        timeout(SOON, normal).await.expect("others are served");
        // What the slow ones were promised is still theirs.
        let response = slow[0].response().await;
        assert_eq!((response.status, response.body.len()), (200, 4 << 20));
    }))
    .await;
}

/// Streams of [`reliability_l5_streams_that_are_given_up_leave_nothing_behind`].
const ROUNDS: usize = 20;
const STREAMS: usize = 50;

/// A connection of HTTP/2 with prior knowledge, whose client remembers which streams it has given up:
/// h2 would end the connection when too much still comes for those that it has forgotten.
async fn http2(edge: &Edge) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(edge.http).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_reset_streams(ROUNDS * STREAMS)
        .initial_stream_window_size(65_535);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn reliability_l5_streams_that_are_given_up_leave_nothing_behind() {
    /// More than a connection's window and a stream's.
    const LENGTH: usize = 4 << 20;
    on_worker(Box::pin(async {
        let big = Bytes::from(vec![b'x'; LENGTH]);
        let origin = Origin::start(move |_| Response::new(full(big.clone()))).await;
        let edge = hosts(&[("web", &[("limit-connections", "100")], &origin)]).await;
        let get = || {
            let request = Request::get("http://web.test/");
            request.body(Empty::<Bytes>::new()).unwrap()
        };
        let mut sender = http2(&edge).await;
        for _ in 0..ROUNDS {
            let mut answers = Vec::new();
            for _ in 0..STREAMS {
                sender.ready().await.unwrap();
                answers.push(sender.send_request(get()));
            }
            for (number, answer) in join_all(answers).await.into_iter().enumerate() {
                let mut body = answer.unwrap().into_body();
                // Half of them are given up at their head, half in the middle of their body.
                if number % 2 == 0 {
                    assert!(body.frame().await.unwrap().is_ok());
                }
            }
        }
        // Windows, places in flight and the table of streams are as they were.
        let whole = async {
            loop {
                sender.ready().await.unwrap();
                let answer = sender.send_request(get()).await.unwrap();
                if answer.status() == 200 {
                    return answer.into_body().collect().await.unwrap().to_bytes();
                }
            }
        };
        let whole = timeout(SOON, whole).await.expect("the connection goes on");
        assert_eq!(whole.len(), LENGTH);
        let free = async {
            loop {
                let mut answers = Vec::new();
                for _ in 0..100 {
                    sender.ready().await.unwrap();
                    answers.push(sender.send_request(get()));
                }
                let answers = join_all(answers).await;
                if answers
                    .iter()
                    .all(|it| it.as_ref().is_ok_and(|it| it.status() == 200))
                {
                    return;
                }
            }
        };
        timeout(SOON, free)
            .await
            .expect("a hundred may be in flight again");
    }))
    .await;
}
