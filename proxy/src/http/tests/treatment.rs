//! What a Service's annotations do to its requests.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Response};
use tokio::io::AsyncWriteExt;

use super::*;
use crate::testing::{Origin, OriginBody, RawResponse, eventually, full, status};

fn with_field(code: u16, name: &'static str, value: &'static str) -> Response<OriginBody> {
    let mut response = status(code);
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}

/// Status and cause.
fn cause(response: &RawResponse) -> (u16, &str) {
    (response.status, response.header("sealane-error"))
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn proxy_l8_retry_after_is_obeyed() {
    on_worker(async {
        for annotations in [&[][..], &[("slow-start", "0s")]] {
            let tired = Origin::start(|_| with_field(503, "retry-after", "30")).await;
            let good = [Origin::named("b").await, Origin::named("c").await];
            let addrs = [tired.addr, good[0].addr, good[1].addr];
            let front = Front::treating(&addrs, annotations).await;
            let mut client = front.client().await;
            for _ in 0..100 {
                client.get("a.test", "/").await;
            }
            assert_eq!(tired.hits(), 1, "{annotations:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l8_one_clients_limit_means_nothing_for_the_others() {
    on_worker(async {
        let limiting = Origin::start(|_| with_field(429, "retry-after", "30")).await;
        let front = Front::new(&[limiting.addr, limiting.addr]).await;
        let mut client = front.client().await;
        for _ in 0..3 {
            assert_eq!(client.get("a.test", "/").await.status, 429);
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l12_statuses_are_a_reason_for_who_asks() {
    on_worker(async {
        let on = &[("retry-on", "gateway-error"), ("ejection", "off")][..];
        for (name, annotations, request, code, shed, want) in [
            ("asked for", on, "GET", 503, false, 200),
            ("another status", on, "GET", 500, false, 500),
            ("not idempotent", on, "POST", 503, false, 503),
            (
                "not asked for",
                &[("ejection", "off")],
                "GET",
                503,
                false,
                503,
            ),
            ("load shed", on, "GET", 503, true, 503),
        ] {
            let bad = Origin::start(move |_| {
                if shed {
                    with_field(code, "sealane-error", "overloaded")
                } else {
                    status(code)
                }
            })
            .await;
            let good = Origin::named("good").await;
            let front = Front::treating(&[bad.addr, good.addr], annotations).await;
            let mut client = front.client().await;
            let mut worst = 200;
            // The choice is a coin's: one that is slow for a moment may not be chosen for a while.
            for asked in 0..500 {
                if asked >= 10 && bad.hits() > 0 {
                    break;
                }
                let body = if request == "POST" { POST } else { "" };
                let request = format!("{request} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
                let request = if body.is_empty() { &*request } else { body };
                client.send(request).await;
                worst = worst.max(client.response().await.status);
            }
            assert!(bad.hits() > 0, "{name}");
            assert_eq!(worst, want, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l16_an_attempt_that_takes_too_long_is_repeated_elsewhere() {
    on_worker(async {
        let hanging = Origin::raw(|mut stream, _| {
            Box::pin(async move { while read_head(&mut stream).await {} })
        })
        .await;
        let good = Origin::named("good").await;
        let limit = &[("per-try-timeout", "100ms")];
        let front = Front::treating(&[hanging.addr, good.addr], limit).await;
        let mut client = front.client().await;
        for _ in 0..10 {
            assert_eq!(client.get("a.test", "/").await.text(), "good");
        }
        let front = Front::treating(&[hanging.addr], limit).await;
        let mut client = front.client().await;
        for _ in 0..2 {
            let response = client.get("a.test", "/").await;
            assert_eq!(cause(&response), (504, "response_timeout"));
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l16_the_request_as_a_whole_is_limited_and_the_connection_kept() {
    on_worker(async {
        let slow = Origin::slow(|seen| {
            Box::pin(async move {
                if seen.target == "/slow" {
                    tokio::time::sleep(ms(5_000)).await;
                }
                status(503)
            })
        })
        .await;
        let annotations = &[
            ("request-timeout", "200ms"),
            ("retry-on", "503"),
            ("retries", "10"),
            ("retry-backoff", "1m"),
        ];
        let front = Front::treating(&[slow.addr], annotations).await;
        let mut client = front.client().await;
        // In an attempt, and in the pause before the next one.
        for target in ["/slow", "/quick", "/slow"] {
            let started = tokio::time::Instant::now();
            let response = client.get("a.test", target).await;
            assert_eq!(cause(&response), (504, "request_timeout"), "{target}");
            let elapsed = started.elapsed();
            assert!(elapsed >= ms(190) && elapsed < ms(2_000), "{elapsed:?}");
        }
        let grpc = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc\r\n\
                    Content-Length: 0\r\n\r\n";
        client.send(grpc.replace("POST /", "POST /slow")).await;
        let response = client.response().await;
        assert_eq!(cause(&response), (200, "request_timeout"));
        assert_eq!(response.header("grpc-status"), "4");
    })
    .await;
}

#[tokio::test]
async fn proxy_l16_an_answer_that_stops_is_cut_off() {
    on_worker(async {
        for (name, annotations, end) in [
            ("silence", &[("idle-timeout", "1s")][..], ms(1_000)),
            (
                "the request's time",
                &[("request-timeout", "300ms")],
                ms(300),
            ),
        ] {
            let origin = Origin::raw(|mut stream, _| {
                Box::pin(async move {
                    read_head(&mut stream).await;
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
                    stream.write_all(head).await.unwrap();
                    std::future::pending().await
                })
            })
            .await;
            let front = Front::treating(&[origin.addr], annotations).await;
            let mut client = front.client().await;
            let started = tokio::time::Instant::now();
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            assert!(client.try_response(false).await.is_none(), "{name}");
            let elapsed = started.elapsed();
            assert!(
                elapsed >= end && elapsed < end + ms(2_000),
                "{name}: {elapsed:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l18_endpoints_get_so_many_requests_and_the_others_wait_in_line() {
    on_worker(async {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (current, highest) = (Arc::clone(&now), Arc::clone(&most));
        let origin = Origin::slow(move |_| {
            let (current, highest) = (Arc::clone(&current), Arc::clone(&highest));
            Box::pin(async move {
                let count = current.fetch_add(1, Ordering::Relaxed) + 1;
                highest.fetch_max(count, Ordering::Relaxed);
                tokio::time::sleep(ms(200)).await;
                current.fetch_sub(1, Ordering::Relaxed);
                Response::new(full("done"))
            })
        })
        .await;
        for (queued, timeout, served) in [("100", "10s", 8), ("2", "10s", 4), ("100", "100ms", 2)] {
            let annotations = &[
                ("max-requests-per-endpoint", "2"),
                ("max-queued-requests", queued),
                ("queue-timeout", timeout),
            ];
            let front = Front::treating(&[origin.addr], annotations).await;
            let mut clients = Vec::new();
            for _ in 0..8 {
                clients.push(front.client().await);
            }
            let asked = clients.iter_mut().map(|client| client.get("a.test", "/"));
            let answers = futures_util::future::join_all(asked).await;
            let good = answers.iter().filter(|answer| answer.status == 200);
            assert_eq!(good.count(), served, "{queued} queued for {timeout}");
            let refused = answers.iter().filter(|answer| answer.status != 200);
            for answer in refused {
                assert_eq!(cause(answer), (503, "overloaded"));
            }
            assert_eq!(most.swap(0, Ordering::Relaxed), 2);
            eventually("the origin is idle", || now.load(Ordering::Relaxed) == 0).await;
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l19_a_service_sets_its_own_limits() {
    on_worker(async {
        let origin = Origin::named("a").await;
        let annotations = &[
            ("max-body-bytes", "4"),
            ("max-header-bytes", "1Ki"),
            ("max-header-fields", "16"),
        ];
        let front = Front::treating(&[origin.addr], annotations).await;
        let chunked = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let get = "GET / HTTP/1.1\r\nHost: a.test\r\n";
        for (name, request, want) in [
            ("a short body", POST.to_owned(), (200, "")),
            (
                "a long one",
                POST.replace(": 2\r\n\r\nhi", ": 5\r\n\r\nhello"),
                (413, "body_too_large"),
            ),
            (
                "in chunks",
                format!("{chunked}2\r\nhi\r\n0\r\n\r\n"),
                (200, ""),
            ),
            (
                "too many chunks",
                format!("{chunked}3\r\nabc\r\n3\r\nabc\r\n0\r\n\r\n"),
                (413, "body_too_large"),
            ),
            (
                "long fields",
                format!("{get}X: {}\r\n\r\n", "v".repeat(1024)),
                (431, "headers_too_large"),
            ),
            (
                "many fields",
                format!("{get}{}\r\n", "X: 1\r\n".repeat(16)),
                (431, "headers_too_large"),
            ),
        ] {
            let mut client = front.client().await;
            client.send(request).await;
            assert_eq!(cause(&client.response().await), want, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l17_a_connection_is_not_kept_longer_than_its_peer_says() {
    on_worker(async {
        for (hint, connections) in [("timeout=1", 3), ("timeout=60, max=100", 1)] {
            let origin = Origin::start(move |_| with_field(200, "keep-alive", hint)).await;
            let front = Front::treating(&[origin.addr], &[("slow-start", "0s")]).await;
            let mut client = front.client().await;
            for _ in 0..3 {
                assert_eq!(client.get("a.test", "/").await.status, 200);
            }
            let seen = origin.seen();
            let last = seen.iter().map(|seen| seen.connection).max().unwrap();
            assert_eq!(last + 1, connections, "{hint}");
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l20_l21_every_cause_has_status_code_and_flag() {
    use crate::ErrorKind::{
        BadRequest, BodyTooLarge, ConnectFailed, ConnectTimeout, HeadersTooLarge, Loop,
        NoEndpoints, NoRoute, Overloaded, RequestTimeout, ResponseTimeout, RetryBudget,
        UpstreamReset,
    };
    let grpc = respond::Asked {
        grpc: true,
        http2: true,
    };
    for (kind, status, flag, code) in [
        (BadRequest, 400, "DPE", ""),
        (BodyTooLarge, 413, "DPE", ""),
        (HeadersTooLarge, 431, "DPE", ""),
        (NoRoute, 404, "NR", "12"),
        (NoEndpoints, 503, "UH", "14"),
        (Overloaded, 503, "UO", "14"),
        (RetryBudget, 503, "URX", "14"),
        (ConnectFailed, 502, "UF", "14"),
        (UpstreamReset, 502, "UC", "14"),
        (ConnectTimeout, 504, "UF", "4"),
        (ResponseTimeout, 504, "UT", "4"),
        (RequestTimeout, 504, "UT", "4"),
        (Loop, 508, "NR", "10"),
    ] {
        let label = kind.label();
        assert_eq!(
            (kind.status().as_u16(), kind.flag()),
            (status, flag),
            "{label}"
        );
        let mut answer = respond::error(&crate::Error::new(kind, "why"), grpc);
        respond::name_hop(&mut answer, Hop::Sidecar);
        let field = |name: &str| {
            let value = answer.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap())
        };
        assert_eq!(field("sealane-error"), label);
        assert_eq!(field("sealane-hop"), "sidecar");
        assert_eq!(field("grpc-status"), code, "{label}");
    }
}

#[tokio::test]
async fn reliability_l13_retries_do_not_multiply_an_outage() {
    on_worker(async {
        let ill = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let mut origins = Vec::new();
        for _ in 0..3 {
            let (ill, asked) = (Arc::clone(&ill), AtomicUsize::new(0));
            let answer = move |_: &crate::testing::Seen| {
                let odd = asked.fetch_add(1, Ordering::Relaxed) % 2 == 1;
                let fails = odd && ill.load(Ordering::Relaxed);
                status(if fails { 503 } else { 200 })
            };
            origins.push(Origin::start(answer).await);
        }
        let addrs: Vec<SocketAddr> = origins.iter().map(|origin| origin.addr).collect();
        let annotations = &[
            ("retry-on", "503"),
            ("retries", "5"),
            ("retry-backoff", "1ms-2ms"),
        ];
        let front = Front::treating(&addrs, annotations).await;
        let mut client = front.client().await;
        let started = tokio::time::Instant::now();
        let requests = 600;
        for _ in 0..requests {
            client.get("a.test", "/").await;
        }
        let attempts: usize = origins.iter().map(Origin::hits).sum();
        // Ten to begin with, and ten a second.
        let a_second = 10 * usize::try_from(started.elapsed().as_secs() + 2).unwrap();
        let most = requests + requests / 5 + a_second;
        assert!(
            attempts > requests && attempts <= most,
            "{attempts} attempts"
        );
        ill.store(false, Ordering::Relaxed);
        for _ in 0..50 {
            assert_eq!(client.get("a.test", "/").await.status, 200);
        }
    })
    .await;
}
