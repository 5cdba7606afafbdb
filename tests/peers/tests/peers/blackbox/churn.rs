//! Endpoints come and go, or all fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Response;
use sealane_proxy::testing::faults::{FaultProxy, Faults};
use sealane_proxy::testing::full;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reliability_f11_an_endpoint_whose_readiness_flaps_costs_no_request() {
    for entry in ENTRIES {
        let mut origins = Vec::new();
        for _ in 0..3 {
            let origin = Origin::slow(|seen| {
                Box::pin(async move {
                    // So that there are always some in flight when the set changes.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Response::new(full(seen.body.unwrap_or_default()))
                })
            });
            origins.push(origin.await);
        }
        let flapping = FaultProxy::start(origins[0].addr, Faults::default()).await;
        let steady = [origins[1].addr, origins[2].addr];
        let all = [flapping.addr, steady[0], steady[1]];
        let (mut front, first) = connected(entry, &all).await;
        drop(first);
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (stop, addr) = (Arc::clone(&stop), entry.addr(&front));
            clients.spawn(async move {
                let mut client = RawClient::connect(addr).await;
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    client
                        .send(format!(
                            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\n{sent:05}"
                        ))
                        .await;
                    let seen = client.response().await;
                    assert_eq!((seen.status, seen.text()), (200, &*format!("{sent:05}")));
                    sent += 1;
                }
                sent
            });
        }
        const FLAPS: usize = 15;
        for _ in 0..FLAPS {
            front.service(AppProtocol::Detect, &steady);
            tokio::time::sleep(Duration::from_millis(50)).await;
            front.service(AppProtocol::Detect, &all);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut sent = 0;
        while let Some(count) = clients.join_next().await {
            sent += count.unwrap();
        }
        assert!(sent > 100, "{entry:?}: {sent}");
        // As many as there are clients may need one at the same time after each flap.
        let connects = flapping.accepted();
        assert!(
            connects <= 4 * (FLAPS + 1),
            "{entry:?}: {connects} connections"
        );
    }
}

#[tokio::test]
async fn reliability_f12_when_all_endpoints_fail_nobody_waits_and_nobody_storms() {
    for entry in ENTRIES {
        let attempts = Arc::new(AtomicUsize::new(0));
        let mut origins = Vec::new();
        for _ in 0..3 {
            let attempts = Arc::clone(&attempts);
            // Reads the request, so that it may have had an effect, and dies.
            let dying = Origin::raw(move |mut stream, _| {
                let attempts = Arc::clone(&attempts);
                Box::pin(async move {
                    if read_head(&mut stream).await.is_some() {
                        attempts.fetch_add(1, Ordering::Relaxed);
                    }
                    let _ = stream.set_zero_linger();
                })
            });
            origins.push(dying.await);
        }
        let addrs: Vec<_> = origins.iter().map(|origin| origin.addr).collect();
        let (_front, mut client) = connected(entry, &addrs).await;
        let started = Instant::now();
        const REQUESTS: usize = 400;
        let mut slow = 0;
        for _ in 0..REQUESTS {
            let asked = Instant::now();
            let seen = client.get(HOST, "/").await;
            assert!(matches!(seen.status, 502 | 503), "{entry:?}: {seen:?}");
            slow += usize::from(asked.elapsed() > Duration::from_millis(10));
        }
        // Some may meet a busy machine.
        assert!(
            slow < REQUESTS / 4,
            "{entry:?}: {slow} took more than 10 ms"
        );
        // The budget: a fifth, ten a second, and what was saved up before.
        let seconds = started.elapsed().as_secs_f64();
        let most = REQUESTS as f64 * 1.2 + seconds * 10.0 + 20.0;
        let attempts = attempts.load(Ordering::Relaxed);
        assert!(
            (attempts as f64) <= most,
            "{entry:?}: {attempts} attempts, {most} at most"
        );
    }
}
