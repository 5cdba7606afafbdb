//! The pause between a pod's deletion and TERM.
//!
//! Most programs take no more connections from TERM on, so proxies have to know before that the pod
//! is leaving. They learn it from the EndpointSlice. A kubelet gives them the time by its own slowness
//! (tens to hundreds of milliseconds); without a pause every rollout would race its own clients. On a
//! busy machine a fixed pause is not enough: where the agent can see what proxies do
//! ([`TrafficView`]), it waits for them, but not for ever.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::runtime::TrafficView;

/// The least pause: for proxies whose state the agent cannot see.
const LEAD: Duration = Duration::from_millis(200);
/// Time for requests that were on their way when the last proxy let go of the pod.
const SETTLE: Duration = Duration::from_millis(50);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// The longest pause.
const LIMIT: Duration = Duration::from_secs(2);

/// Waits until no new requests go to a deleted pod.
pub(super) async fn let_go(traffic: Option<&TrafficView>, pod: IpAddr) {
    let begin = Instant::now();
    if let Some(traffic) = traffic
        && traffic.reaches(pod)
    {
        while traffic.reaches(pod) && begin.elapsed() < LIMIT {
            sleep(LOOK).await;
        }
        sleep(SETTLE).await;
    }
    sleep_until(begin + LEAD).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deleted_pod_goes_on_until_proxies_let_go_of_it_but_not_for_ever() {
        let pod = IpAddr::from([10, 244, 0, 7]);
        for (name, let_go_after, expected) in [
            ("nobody to look at", None, LEAD),
            ("at once", Some(0), LEAD),
            ("soon", Some(40), LEAD),
            ("late", Some(700), Duration::from_millis(750)),
            ("never", Some(60_000), LIMIT + SETTLE),
        ] {
            let begin = Instant::now();
            let traffic = let_go_after.map(|after| {
                let end = begin + Duration::from_millis(after);
                TrafficView::new(move |ip| ip == pod && Instant::now() < end)
            });
            let_go(traffic.as_ref(), pod).await;
            let took = begin.elapsed();
            let slack = Duration::from_millis(15);
            assert!(
                took >= expected && took <= expected + slack,
                "{name}: {took:?}"
            );
        }
    }
}
