//! How much one client may ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Response;
use sealane_proxy::testing::{Origin, RawClient, full};
use tokio::sync::Semaphore;

use super::server::Nginx;
use super::{Both, Case, Common, compare};
use crate::support::on_worker;

#[tokio::test]
async fn ingress_a12_as_many_requests_come_in_as_with_nginx() {
    let gets = |count| vec!["GET / HTTP/1.1".to_owned(); count];
    let cases = vec![
        Case {
            name: "rate",
            annotations: &[("limit-rpm", "1")],
            http: "limit_req_zone $binary_remote_addr zone=rate:1m rate=1r/m;",
            server: "location / {
                limit_req zone=rate burst=5 nodelay; limit_req_status 503; PROXY }",
            requests: gets(9),
            ..Case::default()
        },
        Case {
            name: "burst",
            annotations: &[("limit-rpm", "2"), ("limit-burst-multiplier", "1")],
            http: "limit_req_zone $binary_remote_addr zone=burst:1m rate=2r/m;",
            server: "location / {
                limit_req zone=burst burst=2 nodelay; limit_req_status 503; PROXY }",
            requests: gets(5),
            ..Case::default()
        },
        // Limits come before lists of addresses.
        Case {
            name: "denied",
            annotations: &[("limit-rpm", "1"), ("denylist-source-range", "127.0.0.0/8")],
            http: "limit_req_zone $binary_remote_addr zone=denied:1m rate=1r/m;",
            server: "location / {
                limit_req zone=denied burst=5 nodelay; limit_req_status 503;
                deny 127.0.0.0/8; PROXY }",
            requests: gets(8),
            ..Case::default()
        },
    ];
    compare(cases, Common::default(), &[]).await;
}

#[tokio::test]
async fn ingress_a12_a_burst_is_as_long_as_with_nginx() {
    const RATE: usize = 2;
    const BURST: usize = 10;
    let Some(program) = Nginx::program() else {
        return;
    };
    let cases = [Case {
        name: "burst",
        annotations: &[("limit-rps", "2")],
        http: "limit_req_zone $binary_remote_addr zone=burst:1m rate=2r/s;",
        server: "location / {
            limit_req zone=burst burst=10 nodelay; limit_req_status 503; PROXY }",
        ..Case::default()
    }];
    on_worker(Box::pin(async {
        let common = Common::default();
        let both = Both::start(program, &cases, &common, || Origin::named("web")).await;
        for addr in [both.nginx.addr, both.edge.http] {
            let begin = Instant::now();
            let asked = (0..40).map(|_| status(addr, "/"));
            let answers = join_all(asked).await;
            let served = answers.iter().filter(|status| **status == 200).count();
            let refused = answers.iter().filter(|status| **status == 503).count();
            assert_eq!(served + refused, 40, "{answers:?}");
            // The first, the burst, and what became free meanwhile.
            let meanwhile = (begin.elapsed().as_millis() as usize * RATE).div_ceil(1000);
            let expected = 1 + BURST..=1 + BURST + meanwhile;
            assert!(expected.contains(&served), "{addr}: {served} {expected:?}");
        }
    }))
    .await;
}

/// The status of one request on a connection of its own.
async fn status(addr: SocketAddr, target: &str) -> u16 {
    let mut client = RawClient::connect(addr).await;
    client.get("burst.test", target).await.status
}

#[tokio::test]
async fn ingress_a12_as_many_requests_are_in_flight_as_with_nginx() {
    let Some(program) = Nginx::program() else {
        return;
    };
    let cases = [Case {
        name: "flight",
        annotations: &[("limit-connections", "2")],
        http: "limit_conn_zone $binary_remote_addr zone=flight:1m;",
        server: "location / { limit_conn flight 2; limit_conn_status 503; PROXY }",
        ..Case::default()
    }];
    on_worker(Box::pin(async {
        let permits = Arc::new(Semaphore::new(0));
        let backend = || {
            let permits = Arc::clone(&permits);
            Origin::slow(move |_| {
                let permits = Arc::clone(&permits);
                Box::pin(async move {
                    permits.acquire().await.unwrap().forget();
                    Response::new(full("web"))
                })
            })
        };
        let both = Both::start(program, &cases, &Common::default(), backend).await;
        let theirs = in_flight(both.nginx.addr, &both.behind_nginx, &permits).await;
        let ours = in_flight(both.edge.http, &both.behind_ours, &permits).await;
        assert_eq!(theirs, ours);
        let expected = [
            "one: passed on",
            "two: passed on",
            "one more: 503",
            "on a connection that waited: 503",
            "of another client: passed on",
            "two after an end: passed on",
            "one more then: 503",
        ];
        assert_eq!(ours, expected);
    }))
    .await;
}

/// Keeps requests waiting, and tells what becomes of those after them.
async fn in_flight(addr: SocketAddr, backend: &Origin, permits: &Semaphore) -> Vec<String> {
    let mut told = Vec::new();
    let mut kept_alive = RawClient::connect(addr).await;
    let mut waiting = Vec::new();
    for what in ["one", "two", "one more"] {
        let client = RawClient::connect(addr).await;
        let (client, outcome) = ask(client, backend).await;
        told.push(format!("{what}: {outcome}"));
        waiting.push(client);
    }
    let outcome;
    (kept_alive, outcome) = ask(kept_alive, backend).await;
    told.push(format!("on a connection that waited: {outcome}"));
    let stranger = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
    let stranger = RawClient::connect_from(stranger, addr).await;
    let (mut stranger, outcome) = ask(stranger, backend).await;
    told.push(format!("of another client: {outcome}"));
    // All three end, and each client has its whole answer.
    permits.add_permits(3);
    for client in waiting.iter_mut().take(2).chain([&mut stranger]) {
        assert_eq!(client.response().await.status, 200);
    }
    // That they ended is known to their clients first.
    for _ in 0..2 {
        waiting.push(ask_until_passed_on(addr, backend).await);
    }
    told.push("two after an end: passed on".to_owned());
    let client = RawClient::connect(addr).await;
    let (_client, outcome) = ask(client, backend).await;
    told.push(format!("one more then: {outcome}"));
    permits.add_permits(2);
    drop(kept_alive);
    told
}

/// Asks again until the request is passed on, for twenty seconds.
async fn ask_until_passed_on(addr: SocketAddr, backend: &Origin) -> RawClient {
    let asked = async {
        loop {
            let client = RawClient::connect(addr).await;
            let (client, outcome) = ask(client, backend).await;
            if outcome == "passed on" {
                return client;
            }
        }
    };
    let passed_on = tokio::time::timeout(Duration::from_secs(20), asked).await;
    passed_on.expect("what ended makes room")
}

/// Asks, and waits until the request was passed on or is answered.
async fn ask(mut client: RawClient, backend: &Origin) -> (RawClient, String) {
    let before = backend.hits();
    client
        .send("GET /x HTTP/1.1\r\nHost: flight.test\r\n\r\n")
        .await;
    loop {
        tokio::select! {
            biased;
            answer = client.bytes(12) => {
                let line = String::from_utf8_lossy(&answer).into_owned();
                return (client, line[9..].to_owned());
            }
            () = tokio::time::sleep(Duration::from_millis(5)) => {
                if backend.hits() > before {
                    return (client, "passed on".to_owned());
                }
            }
        }
    }
}
