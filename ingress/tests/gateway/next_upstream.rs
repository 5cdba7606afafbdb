//! When a request is sent to another endpoint (`proxy-next-upstream`).

use std::time::Duration;

use sealane_proxy::testing::{Origin, RawClient, full, status};

use crate::affinity::Crowd;
use crate::support::on_worker;

const TURNS: (&str, &str) = ("load-balance", "round_robin");

/// Ten requests, one after the other: how many of them got the status, and how many requests each
/// endpoint saw.
async fn ten(crowd: &Crowd, method: &str, wanted: u16) -> (usize, Vec<usize>) {
    let before: Vec<usize> = crowd.origins.iter().map(Origin::hits).collect();
    let mut got = 0;
    for _ in 0..10 {
        let mut client = RawClient::connect(crowd.edge.http).await;
        let request =
            format!("{method} /app HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi");
        client.send(request).await;
        got += usize::from(client.response().await.status == wanted);
    }
    let hits = crowd.origins.iter().zip(before);
    (
        got,
        hits.map(|(origin, before)| origin.hits() - before)
            .collect(),
    )
}

#[tokio::test]
async fn ingress_a15_a_status_is_a_reason_if_it_is_named() {
    on_worker(async {
        let on = |conditions| ("proxy-next-upstream", conditions);
        for (annotations, method, all_good) in [
            (&[][..], "GET", false),
            (&[on("error timeout")], "GET", false),
            (&[on("http_404")], "GET", true),
            (&[on("error http_404")], "PUT", true),
            (&[on("http_404")], "POST", false),
            (&[on("http_404")], "PATCH", false),
            (&[on("http_404")], "LOCK", false),
            (&[on("http_404 non_idempotent")], "POST", true),
            (&[on("http_403")], "GET", false),
            (&[on("off")], "GET", false),
            (
                &[on("http_404"), ("proxy-next-upstream-tries", "1")],
                "GET",
                false,
            ),
            (
                &[on("http_404"), ("proxy-next-upstream-tries", "2")],
                "GET",
                true,
            ),
        ] {
            let bad = Origin::start(|_| status(404)).await;
            let good = Origin::named("good").await;
            let annotations = [&[TURNS], annotations].concat();
            let crowd = Crowd::new(vec![bad, good], &annotations).await;
            let (got, hits) = Box::pin(ten(&crowd, method, 200)).await;
            let case = format!("{annotations:?} {method}: {got} good, {hits:?}");
            assert_eq!(got == 10, all_good, "{case}");
            assert!(hits[0] > 0, "{case}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a15_no_endpoint_is_tried_twice() {
    on_worker(async {
        for (tries, seen) in [("0", 1), ("3", 1), ("1", 1)] {
            let annotations = [
                ("proxy-next-upstream", "http_404"),
                ("proxy-next-upstream-tries", tries),
            ];
            let bad = Origin::start(|_| status(404)).await;
            let crowd = Crowd::new(vec![bad], &annotations).await;
            let (_, response) = crowd.ask("/app", "").await;
            assert_eq!(
                (response.status, crowd.origins[0].hits()),
                (404, seen),
                "{tries}"
            );
        }
        let annotations = [
            ("proxy-next-upstream", "http_404"),
            ("proxy-next-upstream-tries", "3"),
        ];
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(Origin::start(|_| status(404)).await);
        }
        let crowd = Crowd::new(all, &annotations).await;
        let (_, response) = crowd.ask("/app", "").await;
        let hits: Vec<usize> = crowd.origins.iter().map(Origin::hits).collect();
        assert_eq!(
            (response.status, hits.iter().sum::<usize>()),
            (404, 3),
            "{hits:?}"
        );
        assert!(hits.iter().all(|hits| *hits <= 1), "{hits:?}");
    })
    .await;
}

#[tokio::test]
async fn ingress_a15_an_endpoint_that_is_gone_is_passed_over_unless_that_is_off() {
    on_worker(async {
        let off = ("proxy-next-upstream", "off");
        let once = ("proxy-next-upstream-tries", "1");
        for (annotations, all_good) in [
            (&[][..], true),
            (&[("proxy-next-upstream", "error")], true),
            (&[off], false),
            (&[once], false),
        ] {
            let annotations = [&[TURNS], annotations].concat();
            let (gone, good) = (Origin::named("gone").await, Origin::named("good").await);
            let mut crowd = Crowd::new(vec![gone, good], &annotations).await;
            crowd.origins.remove(0).kill().await;
            let (got, _) = Box::pin(ten(&crowd, "POST", 200)).await;
            assert_eq!(got == 10, all_good, "{annotations:?}: {got}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a15_silence_is_a_reason_for_as_long_as_there_is_time() {
    on_worker(async {
        let patience = ("proxy-read-timeout", "1");
        let timeout = ("proxy-next-upstream", "timeout");
        for (annotations, all_good) in [
            (&[patience][..], false),
            (&[patience, timeout], true),
            (&[patience, ("proxy-next-upstream", "error")], false),
            (
                &[patience, timeout, ("proxy-next-upstream-timeout", "1")],
                false,
            ),
            (
                &[patience, timeout, ("proxy-next-upstream-timeout", "30")],
                true,
            ),
        ] {
            let silent = Origin::slow(|_| {
                Box::pin(async {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    http::Response::new(full("late"))
                })
            });
            let origins = vec![silent.await, Origin::named("good").await];
            let annotations = [&[TURNS], annotations].concat();
            let crowd = Crowd::new(origins, &annotations).await;
            let mut statuses = Vec::new();
            for _ in 0..2 {
                statuses.push(crowd.ask("/app", "").await.1.status);
            }
            statuses.sort_unstable();
            let want = if all_good { [200, 200] } else { [200, 504] };
            assert_eq!(statuses, want, "{annotations:?}");
        }
    })
    .await;
}
