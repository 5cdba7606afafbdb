//! Failing endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::testing::{Origin, Refusing, eventually, full, status};

fn post(body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn proxy_l7_keep_alive_requests_are_spread_evenly() {
    on_worker(async {
        let origins = [
            Origin::named("a").await,
            Origin::named("b").await,
            Origin::named("c").await,
        ];
        let addrs: Vec<SocketAddr> = origins.iter().map(|o| o.addr).collect();
        let front = Front::new(&addrs).await;
        let mut client = front.client().await;
        for _ in 0..300 {
            assert_eq!(client.get("a.test", "/").await.status, 200);
        }
        let hits: Vec<usize> = origins.iter().map(Origin::hits).collect();
        assert!(hits.iter().all(|h| *h <= 130), "{hits:?}");
    })
    .await;
}

#[tokio::test]
async fn proxy_l13_a_refused_connection_is_retried_elsewhere() {
    on_worker(async {
        let origin = Origin::named("alive").await;
        let refusing = [Refusing::bind(), Refusing::bind()];
        let front = Front::new(&[refusing[0].addr, origin.addr, refusing[1].addr]).await;
        let mut client = front.client().await;
        for _ in 0..30 {
            client.send(post("hello")).await;
            assert_eq!(client.response().await.status, 200);
        }
        assert!(
            origin
                .seen()
                .iter()
                .all(|s| s.body.as_deref() == Some(b"hello"))
        );
    })
    .await;
}

#[tokio::test]
async fn proxy_l20_nobody_accepts_a_connection() {
    on_worker(async {
        let refusing = [Refusing::bind(), Refusing::bind()];
        let front = Front::new(&refusing.each_ref().map(|nobody| nobody.addr)).await;
        let response = front.client().await.get("a.test", "/").await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (502, "connect_failed")
        );
    })
    .await;
}

#[tokio::test]
async fn proxy_l13_a_stale_connection_is_replaced() {
    on_worker(async {
        // Answers one request a connection and closes without having said so.
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                if read_head(&mut stream).await {
                    stream.write_all(OK).await.unwrap();
                }
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        for _ in 0..20 {
            assert_eq!(client.get("a.test", "/").await.status, 200);
        }
    })
    .await;
}

/// An origin that resets the connection once it has a request, but for the first connection's first
/// if `good_first`. It counts the requests that it has read.
async fn resetting(good_first: bool) -> (Origin, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let origin = Origin::raw(move |mut stream, number| {
        let count = Arc::clone(&count);
        Box::pin(async move {
            if good_first && number == 0 && read_head(&mut stream).await {
                count.fetch_add(1, Ordering::Relaxed);
                stream.write_all(OK).await.unwrap();
            }
            if read_head(&mut stream).await {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let _ = stream.set_zero_linger();
        })
    })
    .await;
    (origin, read)
}

#[tokio::test]
async fn proxy_l12_an_endpoint_that_dies_costs_idempotent_requests_nothing() {
    on_worker(async {
        let ((bad, _), good) = (resetting(false).await, Origin::named("good").await);
        let front = Front::new(&[bad.addr, good.addr]).await;
        let mut client = front.client().await;
        for _ in 0..20 {
            assert_eq!(client.get("a.test", "/").await.text(), "good");
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l12_what_may_have_happened_is_not_repeated() {
    on_worker(async {
        let (bad, read) = resetting(false).await;
        let front = Front::new(&[bad.addr]).await;
        let mut client = front.client().await;
        client.send(post("pay")).await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (502, "upstream_reset")
        );
        assert_eq!(read.load(Ordering::Relaxed), 1);

        let (bad, read) = resetting(true).await;
        let good = Origin::named("good").await;
        let front = Front::new(&[bad.addr, good.addr]).await;
        let mut client = front.client().await;
        for _ in 0..20 {
            client.send(post("pay")).await;
            let response = client.response().await;
            assert!(matches!(response.status, 200 | 502), "{response:?}");
        }
        assert_eq!(read.load(Ordering::Relaxed) + good.hits(), 20);
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_is_killed_fails_no_safe_request() {
    on_worker(async {
        let slow = |name: &'static str| {
            Origin::slow(move |_| {
                Box::pin(async move {
                    tokio::time::sleep(ms(100)).await;
                    Response::new(full(name))
                })
            })
        };
        let (doomed, stays) = (slow("doomed").await, slow("stays").await);
        let front = Front::new(&[doomed.addr, stays.addr]).await;
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = front.client().await;
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            clients.push(client);
        }
        eventually("requests at both", || doomed.hits() > 0 && stays.hits() > 0).await;
        doomed.kill().await;
        for client in &mut clients {
            assert_eq!(client.response().await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l14_retries_end_with_the_budget() {
    on_worker(async {
        let bad = [
            resetting(false).await,
            resetting(false).await,
            resetting(false).await,
        ];
        let addrs: Vec<SocketAddr> = bad.iter().map(|(o, _)| o.addr).collect();
        let front = Front::new(&addrs).await;
        let mut client = front.client().await;
        let started = tokio::time::Instant::now();
        let mut refused = 0;
        for _ in 0..100 {
            let response = client.get("a.test", "/").await;
            match response.header("sealane-error") {
                "upstream_reset" => assert_eq!(response.status, 502),
                "retry_budget" => {
                    assert_eq!(response.status, 503);
                    refused += 1;
                }
                other => panic!("{other}"),
            }
        }
        assert!(refused >= 50, "{refused} were not tried again");
        let read: usize = bad
            .iter()
            .map(|(_, read)| read.load(Ordering::Relaxed))
            .sum();
        // Ten to begin with, a fifth of the requests, ten a second.
        let most = 130 + 10 * usize::try_from(started.elapsed().as_secs() + 1).unwrap();
        assert!((120..=most).contains(&read), "{read} attempts");
    })
    .await;
}

#[tokio::test]
async fn proxy_l16_an_endpoint_that_does_not_answer_is_a_504() {
    on_worker(async {
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move { while read_head(&mut stream).await {} })
        })
        .await;
        let front = Front::treating(&[origin.addr], &[("response-timeout", "100ms")]).await;
        let mut client = front.client().await;
        for _ in 0..2 {
            let response = client.get("a.test", "/").await;
            assert_eq!(
                (response.status, response.header("sealane-error")),
                (504, "response_timeout")
            );
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l10_an_endpoint_that_answers_with_errors_is_ejected() {
    on_worker(async {
        let bad = Origin::start(|_| status(500)).await;
        let good = [Origin::named("b").await, Origin::named("c").await];
        let front = Front::new(&[bad.addr, good[0].addr, good[1].addr]).await;
        let mut client = front.client().await;
        let mut errors = 0;
        for _ in 0..200 {
            errors += usize::from(client.get("a.test", "/").await.status == 500);
        }
        assert!(errors <= 10, "{errors} errors");
    })
    .await;
}

#[tokio::test]
async fn proxy_l13_a_body_is_sent_again_from_its_beginning() {
    on_worker(async {
        let ((bad, _), good) = (resetting(false).await, Origin::named("good").await);
        let front = Front::new(&[bad.addr, good.addr]).await;
        let mut client = front.client().await;
        let body = "x".repeat(10_000);
        for _ in 0..10 {
            client
                .send(format!(
                    "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10000\r\n\r\n{body}"
                ))
                .await;
            assert_eq!(client.response().await.status, 200);
        }
        assert!(
            good.seen()
                .iter()
                .all(|s| s.body.as_deref() == Some(body.as_bytes()))
        );
    })
    .await;
}

#[tokio::test]
async fn proxy_l13_a_request_finds_endpoints_that_came_after_it() {
    on_worker(async {
        let (bad, read) = resetting(false).await;
        let good = Origin::named("good").await;
        let mut front = Front::new(&[bad.addr]).await;
        let (engine, reader) = (front.engine.clone(), front.world.reader.clone());
        let stop = front.shutdown.clone();
        tokio::task::spawn_local(async move { engine.maintain(reader, stop).await });
        let port = front
            .world
            .snapshot
            .backend(&backend("api"))
            .unwrap()
            .clone();
        front
            .world
            .service("api", AppProtocol::Detect, &[good.addr]);
        tokio::task::yield_now().await;
        // A target that was looked up before the change.
        let mut request = http::Request::new(Body::empty());
        let host = http::HeaderValue::from_static("a.test");
        request.headers_mut().insert("host", host);
        let target = Target::new(port, Upstream::Http1);
        let response = Box::pin(front.engine.forward(request, &target)).await;
        assert_eq!(response.status(), 200);
        assert_eq!((read.load(Ordering::Relaxed), good.hits()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn ingress_a14_a_services_own_address_is_not_replaced_by_its_endpoints() {
    on_worker(async {
        let (bad, read) = resetting(false).await;
        let good = Origin::named("good").await;
        let mut front = Front::new(&[bad.addr]).await;
        let (engine, reader) = (front.engine.clone(), front.world.reader.clone());
        let stop = front.shutdown.clone();
        tokio::task::spawn_local(async move { engine.maintain(reader, stop).await });
        let port = front
            .world
            .snapshot
            .backend(&backend("api"))
            .unwrap()
            .clone();
        front
            .world
            .service("api", AppProtocol::Detect, &[good.addr]);
        let services = &mut front.world.snapshot.services;
        let mut service = (**services.get(&port.service).unwrap()).clone();
        service.cluster_ips = vec![bad.addr.ip()];
        services.insert_mut(port.service.clone(), Arc::new(service));
        front.world.publish();
        tokio::task::yield_now().await;
        let mut request = http::Request::new(Body::empty());
        let host = http::HeaderValue::from_static("a.test");
        request.headers_mut().insert("host", host);
        let target = Target::new(port, Upstream::Http1);
        let response = Box::pin(front.engine.forward(request, &target)).await;
        assert_eq!(response.status(), 502);
        assert_eq!(good.hits(), 0);
        assert!(read.load(Ordering::Relaxed) > 0);
    })
    .await;
}

#[tokio::test]
async fn a_rolling_update_under_load_fails_nothing() {
    on_worker(async {
        let mut pods = vec![Origin::named("v1").await, Origin::named("v1").await];
        let addrs = |pods: &[Origin]| pods.iter().map(|o| o.addr).collect::<Vec<_>>();
        let mut front = Front::new(&addrs(&pods)).await;
        let (engine, reader) = (front.engine.clone(), front.world.reader.clone());
        let stop = front.shutdown.clone();
        tokio::task::spawn_local(async move { engine.maintain(reader, stop).await });
        let done = CancellationToken::new();
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let (addr, done) = (front.addr, done.clone());
                tokio::task::spawn_local(async move {
                    let mut client = RawClient::connect(addr).await;
                    let mut requests = 0;
                    while !done.is_cancelled() {
                        if number % 2 == 0 {
                            client.send(post("order")).await;
                        } else {
                            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                        }
                        let response = client.response().await;
                        assert_eq!(response.status, 200, "{}", response.text());
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        for _ in 0..10 {
            pods.push(Origin::named("v2").await);
            front
                .world
                .service("api", AppProtocol::Detect, &addrs(&pods));
            let newest = &pods[pods.len() - 1];
            eventually("the new pod works", || newest.hits() > 20).await;
            let oldest = pods.remove(0);
            let port = front
                .world
                .snapshot
                .backend(&backend("api"))
                .unwrap()
                .clone();
            front
                .world
                .service("api", AppProtocol::Detect, &addrs(&pods));
            let leaving = port
                .endpoints
                .iter()
                .find(|e| e.addr.socket() == oldest.addr)
                .unwrap();
            let in_flight = || leaving.stats.in_flight.load(Ordering::Relaxed);
            eventually("the old pod is done", || in_flight() == 0).await;
            oldest.kill().await;
        }
        done.cancel();
        let mut requests = 0;
        for client in clients {
            requests += client.await.unwrap();
        }
        assert!(requests > 200, "{requests}");
    })
    .await;
}
