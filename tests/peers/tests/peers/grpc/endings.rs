//! Calls that end before their time.

use futures_util::StreamExt;
use sealane_proxy::testing::eventually;
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::*;

#[tokio::test]
async fn proxy_l16_a_deadline_ends_the_call_on_both_sides() {
    for way in WAYS {
        let world = World::new(way, 1).await;
        let mut request = Request::new(Bytes::from_static(b"hang"));
        request.set_timeout(Duration::from_millis(300));
        let started = Instant::now();
        let status = world.client.unary_request(request).await.unwrap_err();
        let took = started.elapsed();
        // The client's own clock may say so first, in the word that its library has for that.
        assert!(
            matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{way:?}: {status:?}"
        );
        let in_time = Duration::from_millis(250)..Duration::from_millis(1500);
        assert!(in_time.contains(&took), "{way:?}: {took:?}");
        let backend = world.backend();
        eventually("the endpoint hears of it", || backend.cancelled() == 1).await;
        assert!(world.client.unary("next").await.is_ok(), "{way:?}");
    }
}

#[tokio::test]
async fn proxy_l16_the_proxy_keeps_a_deadline_that_the_client_only_announces() {
    for way in WAYS {
        let world = World::new(way, 1).await;
        let mut request = Request::new(Bytes::from_static(b"hang"));
        let metadata = request.metadata_mut();
        metadata.insert("grpc-timeout", "200m".parse().unwrap());
        let call = world.client.unary_request(request);
        let status = timeout(Duration::from_secs(5), call).await;
        let status = status.expect("an end").unwrap_err();
        assert!(
            matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{way:?}: {status:?}"
        );
    }
}

#[tokio::test]
async fn proxy_l6_a_client_that_gives_up_is_noticed_by_the_endpoint() {
    for way in WAYS {
        let world = World::new(way, 1).await;
        let backend = world.backend();
        let mut answers = world.client.down("0 100").await.unwrap().into_inner();
        assert!(answers.next().await.unwrap().is_ok());
        drop(answers);
        eventually("the stream is reset", || backend.cancelled() == 1).await;

        let call = world.client.unary("hang");
        assert!(timeout(Duration::from_millis(200), call).await.is_err());
        eventually("and this one", || backend.cancelled() == 2).await;
        assert!(world.client.unary("next").await.is_ok(), "{way:?}");
    }
}

#[tokio::test]
async fn proxy_l6_l26_an_endpoint_that_goes_away_finishes_its_streams_and_loses_no_call() {
    for way in WAYS {
        let mut world = World::new(way, 2).await;
        let mut streams = Vec::new();
        for _ in 0..10 {
            let answer = world.client.down("0 100").await.unwrap();
            streams.push((who(&answer), answer.into_inner()));
        }
        let on = |name| streams.iter().filter(|(who, _)| *who == name).count();
        let [first, second] = [0, 1].map(|i| world.backends[i].name());
        assert_eq!(on(first) + on(second), 10);

        // The endpoint says GOAWAY while the Service still lists it, then leaves.
        world.backends[0].retire().await;
        for _ in 0..50 {
            world.client.unary("in between").await.unwrap();
        }
        world.publish(&[1]);
        let before = world.backends[0].calls();
        for _ in 0..50 {
            world.client.unary("afterwards").await.unwrap();
        }
        assert_eq!(world.backends[0].calls(), before, "{way:?}");
        for (_, stream) in &mut streams {
            for _ in 0..20 {
                let next = timeout(Duration::from_secs(5), stream.next()).await;
                assert!(next.expect("goes on").unwrap().is_ok(), "{way:?}");
            }
        }
    }
}

#[tokio::test]
async fn proxy_l20_a_service_without_endpoints_is_unavailable_at_once() {
    for way in [Way::GatewayTls, Way::Gateway] {
        let mut world = World::new(way, 1).await;
        world.publish(&[]);
        // The best of three: a busy machine may be late itself.
        let mut took = Vec::new();
        for _ in 0..3 {
            let started = Instant::now();
            let status = world.client.unary("anybody?").await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{way:?}: {status:?}");
            took.push(started.elapsed());
        }
        let best = took.iter().min().unwrap();
        assert!(*best < Duration::from_millis(100), "{way:?}: {took:?}");
        world.publish(&[0]);
        let served = timeout(Duration::from_secs(1), async {
            while world.client.unary("now?").await.is_err() {}
        });
        served.await.expect("served again");
    }
}
