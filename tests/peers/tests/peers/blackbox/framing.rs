//! Where an answer ends.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn proxy_t5_l3_answers_without_a_body_do_not_confuse_the_next_one() {
    for entry in ENTRIES {
        for (name, request, answer, status) in [
            (
                "HEAD",
                "HEAD",
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                200,
            ),
            ("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
            (
                "304",
                "GET",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                304,
            ),
            (
                "an empty body",
                "GET",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                200,
            ),
        ] {
            let origin = answering(answer.as_bytes()).await;
            let (_front, mut client) = connected(entry, &[origin.addr]).await;
            for _ in 0..3 {
                client
                    .send(format!("{request} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
                    .await;
                let seen = if request == "HEAD" {
                    client.response_to_head().await
                } else {
                    client.response().await
                };
                assert_eq!(
                    (seen.status, &*seen.body),
                    (status, &b""[..]),
                    "{entry:?}, {name}"
                );
                let length = seen.header("content-length");
                if request == "HEAD" {
                    assert_eq!(length, "9", "{entry:?}, {name}");
                }
            }
        }
    }
}

#[tokio::test]
async fn proxy_t5_l3_a_body_may_end_with_its_connection() {
    for entry in ENTRIES {
        for version in ["1.0", "1.1"] {
            let origin = Origin::raw(move |mut stream, _| {
                Box::pin(async move {
                    if read_head(&mut stream).await.is_some() {
                        let head = format!("HTTP/{version} 200 OK\r\n\r\n");
                        stream.write_all(head.as_bytes()).await.unwrap();
                        for _ in 0..50 {
                            stream.write_all(&[b'x'; 1_000]).await.unwrap();
                        }
                    }
                })
            })
            .await;
            let (_front, mut client) = connected(entry, &[origin.addr]).await;
            client.send(get("/")).await;
            let seen = client.response().await;
            assert_eq!(
                (seen.status, seen.body.len()),
                (200, 50_000),
                "{entry:?}, {version}"
            );
        }
    }
}

#[tokio::test]
async fn proxy_t5_l3_pipelined_requests_are_answered_in_order() {
    for entry in ENTRIES {
        let origin = Origin::slow(|seen| {
            Box::pin(async move {
                // The first ones take the longest.
                let number: u64 = seen.target[1..].parse().unwrap();
                tokio::time::sleep(Duration::from_millis(50 - number * 10)).await;
                http::Response::new(sealane_proxy::testing::full(seen.target))
            })
        })
        .await;
        let (_front, mut client) = connected(entry, &[origin.addr]).await;
        let all: String = (0..5).map(|number| get(&format!("/{number}"))).collect();
        client.send(all).await;
        for number in 0..5 {
            let seen = client.response().await;
            assert_eq!(seen.text(), format!("/{number}"), "{entry:?}");
        }
    }
}

#[tokio::test]
async fn proxy_t6_l3_a_client_that_waits_for_100_is_told_to_go_on() {
    for entry in ENTRIES {
        let origin = Origin::start(|seen| {
            let length = seen.body.as_ref().map_or(0, bytes::Bytes::len);
            http::Response::new(sealane_proxy::testing::full(length.to_string()))
        })
        .await;
        let (_front, mut client) = connected(entry, &[origin.addr]).await;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"
        );
        client.send(head).await;
        let interim = timeout(Duration::from_secs(5), client.response()).await;
        assert_eq!(interim.expect("100 in time").status, 100, "{entry:?}");
        client.send("0123456789").await;
        assert_eq!(client.response().await.text(), "10", "{entry:?}");
    }
}

#[tokio::test]
async fn proxy_t6_l3_early_hints_do_not_take_the_place_of_the_answer() {
    const ANSWER: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for entry in ENTRIES {
        let origin = answering(ANSWER).await;
        let (_front, mut client) = connected(entry, &[origin.addr]).await;
        for _ in 0..2 {
            client.send(get("/")).await;
            // The hints themselves get lost: known, and harmless.
            let seen = client.response().await;
            assert_eq!((seen.status, seen.text()), (200, "ok"), "{entry:?}");
        }
    }
}
