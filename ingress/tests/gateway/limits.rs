//! Limits of what a client may ask, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use sealane_config::model::GatewaySettings;
use sealane_proxy::testing::{Origin, RawClient, RawResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::annotations::{ALL, HOST, Site};
use crate::proxies;
use crate::support::{Edge, on_worker};

/// Lets two requests in at once, and then one a minute.
const TWO: [(&str, &str); 2] = [("limit-rpm", "1"), ("limit-burst-multiplier", "1")];

/// Status and reason.
fn outcome(response: &RawResponse) -> (u16, &str) {
    (response.status, response.header("sealane-error"))
}

const OK: (u16, &str) = (200, "");
const LIMITED: (u16, &str) = (503, "rate_limited");

#[tokio::test]
async fn ingress_a12_a_client_that_asks_too_often_is_refused() {
    on_worker(Box::pin(async {
        let more = |name, value| [TWO[0], TWO[1], (name, value)];
        for (annotations, expected) in [
            (&TWO[..], [OK, OK, LIMITED]),
            // A burst of five times the rate, if nothing is said.
            (&[("limit-rpm", "1")], [OK; 3]),
            (&[("limit-rps", "0"), ("limit-connections", "0")], [OK; 3]),
            // One that cannot be read does not hold, and the others do.
            (&[("limit-rpm", "one"), TWO[1]], [OK; 3]),
            (&more("limit-rps", "-1"), [OK, OK, LIMITED]),
            (&more("limit-whitelist", "127.0.0.0/8"), [OK; 3]),
            (&more("limit-whitelist", "192.0.2.0/24"), [OK, OK, LIMITED]),
            (&more("limit-whitelist", "everybody"), [OK, OK, LIMITED]),
            (&more("limit-connections", "1"), [OK, OK, LIMITED]),
        ] {
            let site = Site::new(annotations, ALL).await;
            for (number, expected) in expected.iter().enumerate() {
                // What a client says about itself counts for nothing.
                let head =
                    format!("GET / HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: 10.1.2.{number}");
                let response = site.ask(&head).await;
                assert_eq!(outcome(&response), *expected, "{annotations:?} {number}");
                let wait: u32 = response.header("retry-after").parse().unwrap_or(0);
                let is_refused = *expected == LIMITED;
                assert_eq!((1..=60).contains(&wait), is_refused, "{annotations:?}");
            }
            let served = expected.iter().filter(|it| **it == OK).count();
            assert_eq!(site.origin.hits(), served, "{annotations:?}");
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_a12_limits_come_after_redirects_and_before_access() {
    on_worker(Box::pin(async {
        let more = |name, value| [TWO[0], TWO[1], (name, value)];
        let denied = (403, "access_denied");
        let preflight = "OPTIONS / HTTP/1.1\nOrigin: https://a.test";
        for (annotations, head, expected) in [
            (
                more("denylist-source-range", "127.0.0.1"),
                "GET / HTTP/1.1",
                [denied, denied, LIMITED],
            ),
            (
                more("temporal-redirect", "https://new.test"),
                "GET / HTTP/1.1",
                [(302, ""); 3],
            ),
            (more("enable-cors", "true"), preflight, [(204, ""); 3]),
        ] {
            let site = Site::new(&annotations, ALL).await;
            for expected in expected {
                let response = site.ask(&format!("{head}\nHost: {HOST}")).await;
                assert_eq!(outcome(&response), expected, "{annotations:?}");
            }
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_u10_limits_may_say_429_say_when_to_come_back_and_hold_for_each_replica() {
    on_worker(Box::pin(async {
        let settings = GatewaySettings {
            rate_limit_status: 429,
            ..GatewaySettings::default()
        };
        let replica = async |annotations| {
            let site = proxies::Site::new(annotations, settings.clone()).await;
            for status in [200, 200, 429] {
                let response = site.edge.client().await.get(HOST, "/").await;
                assert_eq!(response.status, status);
                if status == 429 {
                    assert_eq!(response.header("sealane-error"), "rate_limited");
                    let wait: u32 = response.header("retry-after").parse().unwrap();
                    // One a minute: it takes that long, and no longer.
                    assert!((55..=60).contains(&wait), "{wait}");
                }
            }
            site
        };
        // What one has counted, another does not know.
        let (site, _other) = (replica(&TWO).await, replica(&TWO).await);
        // Whoever is on the list is not counted, whoever is beside it is.
        let spared = ("limit-whitelist", "127.0.0.3/32");
        let listed = [TWO[0], TWO[1], spared];
        let site_with_list = replica(&listed).await;
        for (site, status) in [(&site, 200), (&site_with_list, 200)] {
            let mut stranger = RawClient::connect_from(proxies::STRANGER, site.edge.http).await;
            assert_eq!(stranger.get(HOST, "/").await.status, status);
        }
        for _ in 0..5 {
            let edge = &site_with_list.edge;
            let mut stranger = RawClient::connect_from(proxies::STRANGER, edge.http).await;
            assert_eq!(stranger.get(HOST, "/").await.status, 200);
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_a12_what_is_counted_outlives_a_change_of_other_things() {
    on_worker(Box::pin(async {
        let mut site = Site::new(&TWO, ALL).await;
        for expected in [OK, OK, LIMITED] {
            assert_eq!(outcome(&site.get("/").await), expected);
        }
        let changed = [TWO[0], TWO[1], ("enable-cors", "true")];
        site.annotate(&changed, &[("Prefix", "/"), ("Exact", "/other")]);
        for path in ["/", "/other"] {
            assert_eq!(outcome(&site.get(path).await), LIMITED, "{path}");
        }
        let call = format!(
            "POST / HTTP/1.1\nHost: {HOST}\nContent-Type: application/grpc\nContent-Length: 0"
        );
        let response = site.ask(&call).await;
        assert_eq!(outcome(&response), (200, "rate_limited"));
        assert_eq!(response.header("grpc-status"), "8", "resource exhausted");
        site.annotate(&[("limit-rpm", "2"), TWO[1]], ALL);
        assert_eq!(outcome(&site.get("/").await), OK, "another limit");
        site.annotate(&[], ALL);
        assert_eq!(outcome(&site.get("/").await), OK, "none");
    }))
    .await;
}

/// Answers `/ws` with a tunnel, and everything else with a body of which half comes at once and half
/// with a permit.
async fn answer(mut stream: TcpStream, permits: Arc<Semaphore>) {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_closed) => return,
            }
        }
        if head.starts_with(b"GET /ws ") {
            let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                            Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
            let _ = stream.write_all(switched.as_bytes()).await;
            // Until the client closes.
            while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
            return;
        }
        head.clear();
        let begin = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
        let _ = stream.write_all(begin.as_bytes()).await;
        let permit = permits.acquire().await.unwrap();
        permit.forget();
        let _ = stream.write_all(b"half").await;
    }
}

/// Asks until the answer is this one: that a request has ended is known to its client first.
async fn until(edge: &Edge, expected: u16) {
    let asked = async {
        while status(edge).await != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), asked).await.unwrap();
}

/// The status of a request whose answer is not waited for.
async fn status(edge: &Edge) -> u16 {
    let mut client = edge.client().await;
    client.send(head("/")).await;
    let line = client.bytes(12).await;
    String::from_utf8_lossy(&line)[9..].parse().unwrap()
}

fn head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

#[tokio::test]
async fn ingress_a12_requests_in_flight_count_until_the_end_of_their_answers() {
    on_worker(Box::pin(async {
        let permits = Arc::new(Semaphore::new(0));
        let mut site = Site::new(&[], ALL).await;
        let of_origin = Arc::clone(&permits);
        site.origin =
            Origin::raw(move |stream, _| Box::pin(answer(stream, Arc::clone(&of_origin)))).await;
        site.annotate(&[("limit-connections", "2")], ALL);
        let edge = &site.edge;
        let mut streaming = RawClient::connect(edge.http).await;
        streaming.send(head("/")).await;
        assert!(streaming.bytes(12).await.ends_with(b"200"));
        let mut socket = RawClient::connect(edge.http).await;
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        socket
            .send(head("/ws").replace("\r\n\r\n", &format!("\r\n{upgrade}")))
            .await;
        assert_eq!(socket.response().await.status, 101);

        // A second request on the same connection counts like one on another.
        let refused = edge.client().await.get(HOST, "/").await;
        assert_eq!(outcome(&refused), LIMITED);
        assert_eq!(refused.header("retry-after"), "1");

        permits.add_permits(1);
        let body = b"half".repeat(2);
        let mut rest = Vec::new();
        while !rest.ends_with(&body) {
            rest.extend(streaming.bytes(1).await);
        }
        until(edge, 200).await;
        // That one's client has gone, and with it its request.
        until(edge, 200).await;
        let mut streaming = RawClient::connect(edge.http).await;
        let asked = async {
            loop {
                streaming.send(head("/")).await;
                if streaming.bytes(12).await.ends_with(b"200") {
                    return;
                }
                streaming = RawClient::connect(edge.http).await;
            }
        };
        timeout(Duration::from_secs(20), asked).await.unwrap();
        assert_eq!(status(edge).await, 503, "the tunnel is still there");
        let settings = GatewaySettings {
            connection_limit_status: 429,
            ..GatewaySettings::default()
        };
        site.edge.world.snapshot.gateway = Arc::new(settings);
        site.edge.world.publish();
        let edge = &site.edge;
        assert_eq!(status(edge).await, 429, "as the settings say");
        drop(socket);
        until(edge, 200).await;
    }))
    .await;
}
