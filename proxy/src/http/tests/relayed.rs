//! Plain requests, which are relayed, beside others on the same connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use super::*;
use crate::testing::{Origin, eventually, full};

/// Bytes that are not all the same.
fn varied(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// Long enough to be spliced.
fn long() -> Vec<u8> {
    varied(5_000_000)
}

#[tokio::test]
async fn proxy_l3_pipelined_requests_are_answered_in_order_whoever_serves_them() {
    on_worker(async {
        let origin = Origin::start(|seen| Response::new(full(seen.target.clone()))).await;
        let front = Front::new(&[origin.addr]).await;
        let plain = |path| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let chunked = "POST /chunked HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                       2\r\nok\r\n0\r\n\r\n";
        let body = "POST /body HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";
        let requests = [
            &plain("/1"),
            body,
            &plain("/2"),
            chunked,
            &plain("/3"),
            body,
        ]
        .concat();
        // Cut where a read may end: within a head, within a body, between requests.
        for at in [1, 30, 37, 100, 110, 200, requests.len()] {
            let mut client = front.client().await;
            let (first, rest) = requests.split_at(at);
            client.send(first).await;
            tokio::task::yield_now().await;
            client.send(rest).await;
            for path in ["/1", "/body", "/2", "/chunked", "/3", "/body"] {
                assert_eq!(client.response().await.text(), path, "cut at {at}");
            }
        }
        let bodies: Vec<_> = origin
            .seen()
            .into_iter()
            .filter_map(|seen| seen.body)
            .collect();
        let whole = |body: &&bytes::Bytes| **body == "body" || **body == "ok";
        assert_eq!(bodies.iter().filter(whole).count(), 21);
    })
    .await;
}

#[tokio::test]
async fn proxy_l3_long_bodies_come_through_whole_and_the_connection_goes_on() {
    on_worker(async {
        let origin = Origin::start(|_| Response::new(full(long()))).await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        for _ in 0..3 {
            let response = client.get("a.test", "/").await;
            assert_eq!(response.status, 200);
            assert!(response.body == long(), "{} bytes", response.body.len());
        }
        assert!(origin.seen().iter().all(|seen| seen.connection == 0));
    })
    .await;
}

/// What is read with the head, what is copied behind that and what is spliced.
#[tokio::test]
async fn proxy_l3_bodies_of_every_length_come_through_whole() {
    on_worker(async {
        let origin = Origin::start(|seen| {
            let length = seen.target[1..].parse().unwrap();
            Response::new(full(varied(length)))
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        let limits = [16 << 10, 64 << 10, 80 << 10];
        let around = |limit: usize| (limit - 400..limit + 50).step_by(23);
        for length in limits.into_iter().flat_map(around).chain([0, 1, 40_000]) {
            let response = client.get("a.test", &format!("/{length}")).await;
            assert!(response.body == varied(length), "{length} bytes");
        }
        assert!(origin.seen().iter().all(|seen| seen.connection == 0));
    })
    .await;
}

/// The same of answers that an endpoint writes at once, with each kind of body, and of one cut short.
#[tokio::test]
async fn proxy_l3_what_follows_a_head_is_relayed_to_its_end() {
    let body = varied(40_000);
    let chunked = [b"9c40\r\n", body.as_slice(), b"\r\n0\r\n\r\n"].concat();
    let cases = [
        ("Content-Length: 40000", &body, true),
        ("Content-Length: 50000", &body, false),
        ("Transfer-Encoding: chunked", &chunked, true),
        ("Connection: close", &body, true),
    ];
    for (field, sent, is_whole) in cases {
        let head = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
        let answer = [head.as_bytes(), sent].concat();
        on_worker(async {
            let origin = Origin::raw(move |mut stream, _| {
                let answer = answer.clone();
                Box::pin(async move {
                    if read_head(&mut stream).await {
                        stream.write_all(&answer).await.unwrap();
                    }
                })
            })
            .await;
            let front = Front::new(&[origin.addr]).await;
            let mut client = front.client().await;
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            if is_whole {
                assert!(client.response().await.body == body, "{field}");
            } else {
                let received = client.closed().await;
                assert!(
                    received.ends_with(&body),
                    "{field}: {} bytes",
                    received.len()
                );
            }
        })
        .await;
    }
}

/// Nothing behind a malformed chunk ends the body for the client, wherever a read of the answer ends.
#[tokio::test]
async fn proxy_l3_a_malformed_chunk_is_the_end_of_what_a_client_gets() {
    on_worker(async {
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                if read_head(&mut stream).await {
                    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
                    let mut answer = head.to_vec();
                    answer.resize(16 << 10, b'z');
                    answer.extend_from_slice(b"0\r\n\r\n");
                    stream.write_all(&answer).await.unwrap();
                }
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let received = client.closed().await;
        let text = String::from_utf8_lossy(&received);
        assert!(text.ends_with("2\r\nok\r\n"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn proxy_l3_a_long_body_that_is_cut_short_ends_the_clients_connection() {
    on_worker(async {
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                if read_head(&mut stream).await {
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n";
                    stream.write_all(head).await.unwrap();
                    stream.write_all(&long()[..3_000_000]).await.unwrap();
                }
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let received = client.closed().await;
        let body = received.len() - received.windows(4).position(|w| w == b"\r\n\r\n").unwrap() - 4;
        assert_eq!(body, 3_000_000);
    })
    .await;
}

#[tokio::test]
async fn proxy_l26_a_client_that_leaves_takes_its_endpoints_connection_along() {
    on_worker(async {
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        let origin = Origin::raw(move |mut stream, _| {
            let open = Arc::clone(&count);
            Box::pin(async move {
                if read_head(&mut stream).await {
                    open.fetch_add(1, Ordering::Relaxed);
                    // Never answered; ends when the other side does.
                    read_head(&mut stream).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                }
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        eventually("the request is there", || open.load(Ordering::Relaxed) == 1).await;
        drop(client);
        eventually("it is given up", || open.load(Ordering::Relaxed) == 0).await;
    })
    .await;
}

/// A body that is not all there is not the relay's, wherever on a connection it comes.
#[tokio::test]
async fn reliability_b13_a_body_that_trickles_is_sent_away_on_a_relayed_connection() {
    on_worker(async {
        let heads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heads);
        let origin = Origin::raw(move |mut stream, _| {
            let heads = Arc::clone(&count);
            Box::pin(async move {
                while read_head(&mut stream).await {
                    heads.fetch_add(1, Ordering::Relaxed);
                    if heads.load(Ordering::Relaxed) == 1 {
                        stream.write_all(OK).await.unwrap();
                    }
                }
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        assert_eq!(client.get("a.test", "/").await.status, 200);
        client
            .send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nx")
            .await;
        eventually("the head is there", || heads.load(Ordering::Relaxed) == 2).await;
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        let response = client.response().await;
        let waited = begun.elapsed();
        assert_eq!(response.status, 408);
        assert_eq!(response.header("sealane-error"), "slow_body");
        let expected = ms(9_000)..ms(11_000);
        assert!(expected.contains(&waited), "answered after {waited:?}");
        assert!(client.closed().await.is_empty(), "the connection is closed");
    })
    .await;
}

/// The answer to a last request goes out with the connection's end, which closing it with something
/// unread would turn into a reset that overtakes it.
#[tokio::test]
async fn proxy_pf7_the_last_answer_comes_whole_whatever_else_the_client_says() {
    let last = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    on_worker(async {
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (count, go) = (Arc::clone(&asked), Arc::clone(&answers));
        let origin = Origin::raw(move |mut stream, _| {
            let (asked, answers) = (Arc::clone(&count), Arc::clone(&go));
            Box::pin(async move {
                while read_head(&mut stream).await {
                    asked.fetch_add(1, Ordering::Relaxed);
                    answers.notified().await;
                    stream.write_all(OK).await.unwrap();
                }
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        // With the request, behind it, and after an answer on the same connection.
        let cases = [
            ("", "", ""),
            ("", "more", ""),
            ("", "", "more"),
            ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "", ""),
            ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "", "more"),
        ];
        for (turn, (first, with, later)) in cases.into_iter().enumerate() {
            let mut client = front.client().await;
            let before = asked.load(Ordering::Relaxed);
            if !first.is_empty() {
                answers.notify_one();
                client.send(first).await;
                assert_eq!(client.response().await.status, 200, "{turn}");
            }
            client.send([last, with].concat()).await;
            let expected = before + 1 + usize::from(!first.is_empty());
            eventually("it was asked", || asked.load(Ordering::Relaxed) == expected).await;
            client.send(later).await;
            // What was sent over loopback is there before the answer begins.
            answers.notify_one();
            assert_eq!(client.response().await.status, 200, "{turn}");
            assert_eq!(client.closed().await, b"", "{turn}");
        }
    })
    .await;
}
