//! One of five endpoints fails for ten seconds: what that costs, and when it is back.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealane_config::model::{Balancing, Endpoint};
use sealane_proxy::balance::{Balancer, Ejection, Flight, ejection};

const ENDPOINTS: u16 = 5;
/// Time between two requests.
const PAUSE: Duration = Duration::from_millis(1);
const ANSWER: Duration = Duration::from_millis(10);
const BEGINS: Duration = Duration::from_secs(2);
const ENDS: Duration = Duration::from_secs(12);
const RUN: Duration = Duration::from_secs(40);
/// The share afterwards is counted from here: all ejections are over.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// What an outage costs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage {
    /// Requests that failed before the endpoint was ejected.
    pub(crate) lost_before_ejection: u32,
    /// Requests that failed later: one for each time that it was tried again.
    pub(crate) probes: u32,
    /// From the end of the outage to the first good answer.
    pub(crate) back_after: Duration,
    /// What the endpoint gets of the requests when all is over.
    pub(crate) share_afterwards: f64,
}

impl Outage {
    /// Requests come one a millisecond and are answered one after the other. The runtime's clock
    /// has to be paused.
    pub(crate) async fn simulate(seed: u64) -> Self {
        sealane_proxy::testing::advance_to_tick().await;
        let balancer = Balancer::seeded(seed);
        let endpoint = |i| Arc::new(Endpoint::at(SocketAddr::from(([10, 244, 0, 1], 8000 + i))));
        let endpoints: Vec<Arc<Endpoint>> = (0..ENDPOINTS).map(endpoint).collect();
        let mut outage = Self::default();
        let (mut afterwards, mut to_it) = (0_u32, 0_u32);
        let mut was_ejected = false;
        let mut now = Duration::ZERO;
        while now < RUN {
            let picked = balancer
                .pick(&endpoints, &[], &Balancing::DEFAULT)
                .expect("never empty");
            let is_it = Arc::ptr_eq(picked, &endpoints[0]);
            let flight = Flight::start(picked);
            if is_it && (BEGINS..ENDS).contains(&now) {
                flight.failed(&endpoints, &Balancing::DEFAULT);
                if was_ejected {
                    outage.probes += 1;
                } else {
                    outage.lost_before_ejection += 1;
                    was_ejected = ejection(&endpoints[0]) != Ejection::Open;
                }
            } else {
                flight.succeeded(ANSWER);
                if is_it && now >= ENDS && outage.back_after.is_zero() {
                    outage.back_after = now - ENDS;
                }
            }
            if now >= AFTERWARDS {
                afterwards += 1;
                to_it += u32::from(is_it);
            }
            tokio::time::advance(PAUSE).await;
            now += PAUSE;
        }
        outage.share_afterwards = f64::from(to_it) / f64::from(afterwards);
        outage
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "one of five fails for 10 s: {} requests lost until it was ejected, {} by probes, \
             back {:.1} s after it was well again, then {:.1}% of the requests",
            self.lost_before_ejection,
            self.probes,
            self.back_after.as_secs_f64(),
            self.share_afterwards * 100.0
        )
    }
}
