//! Which endpoint takes the next request.
//!
//! Two endpoints are drawn at random and the cheaper one is taken, where
//! `cost = round trip estimate × (requests in flight + 1)`. The state is the endpoint's
//! [`EndpointStats`], shared by all workers and read without a lock.
//!
//! Three things keep the estimate from starving an endpoint that is as good as the others:
//! - estimates below a millisecond count as one: on a pod network the difference is scheduling
//!   noise;
//! - the choice between two is a weighted coin (odds are the squared costs, the other way round),
//!   not a comparison: 3 % slower gets 3 % less, twice as slow a quarter, ten times as slow a
//!   hundredth;
//! - an estimate follows a slow answer upwards by a factor of two at most and comes down by a
//!   quarter of the difference with each faster one, so one hiccup costs an endpoint a few requests
//!   and a slow endpoint is found out after a few.
//!
//! A failure counts as a very slow answer, so that failing fast does not attract traffic. An
//! endpoint that fails five times in a row, or much more often than its peers, is ejected; [`eject`]
//! says how it comes back, and [`warm`] what it gets then.
//!
//! A Service may ask for another algorithm; ejection is the same for all.

mod affinity;
mod eject;
mod estimate;
mod rate;
mod sticky;
mod warm;

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sealane_config::model::{
    Algorithm, Balancing, Endpoint, EndpointAddr, EndpointStats, Scope, ServicePort,
};

use crate::clock;

/// What a failed request counts for in the round-trip estimate.
const FAILURE_PENALTY: Duration = Duration::from_secs(5);

pub use affinity::{Affinity, CAPACITY as AFFINITY_CAPACITY};
pub use eject::State as Ejection;
pub use sticky::{Sticky, home};

/// Whether an endpoint takes traffic now, as far as its own failures go.
pub fn ejection(endpoint: &Endpoint) -> Ejection {
    eject::state(&endpoint.stats, clock::now())
}

/// So many endpoints are ejected that ejection is ignored.
pub fn ignores_ejection(endpoints: &[Arc<Endpoint>]) -> bool {
    eject::in_panic(endpoints, clock::now())
}

/// Picks endpoints. One for each worker; it holds nothing but a random number generator and the
/// table of clients that stay with their endpoint, which is shared by the workers.
#[derive(Debug)]
pub struct Balancer {
    state: Cell<u64>,
    affinity: Affinity,
}

impl Default for Balancer {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer {
    /// A balancer with a seed and a table of its own.
    pub fn new() -> Self {
        Self::sharing(Affinity::default())
    }

    /// A balancer with a seed of its own whose clients stay with their endpoints on other workers,
    /// too.
    pub fn sharing(affinity: Affinity) -> Self {
        Self {
            affinity,
            ..Self::seeded(RandomState::new().hash_one(clock::now()))
        }
    }

    /// A balancer whose choices follow from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self {
            state: Cell::new(seed),
            affinity: Affinity::default(),
        }
    }

    /// The endpoint for the next request, or `None` if all of them are in `avoid`, which names
    /// those that this request was tried on already.
    ///
    /// Costs the same for ten endpoints and for ten thousand, unless one that was drawn is ejected
    /// or `avoid` is not empty: then all are looked at once.
    pub fn pick<'a>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
        avoid: &[EndpointAddr],
        rules: &Balancing,
    ) -> Option<&'a Arc<Endpoint>> {
        self.pick_near(endpoints, endpoints, avoid, rules)
    }

    /// As [`Self::pick`] from `near`, a part of `everywhere`, while at least half of them take traffic;
    /// from `everywhere` if fewer do, or if all of them are in `avoid`.
    fn pick_near<'a>(
        &self,
        near: &'a [Arc<Endpoint>],
        everywhere: &'a [Arc<Endpoint>],
        avoid: &[EndpointAddr],
        rules: &Balancing,
    ) -> Option<&'a Arc<Endpoint>> {
        let now = clock::now();
        if let [only] = everywhere {
            return (!avoid.contains(&only.addr)).then_some(only);
        }
        let drawn = self.draw(near, avoid, rules, now);
        let spills = || {
            let all_tried = || near.iter().all(|e| avoid.contains(&e.addr));
            near.len() < everywhere.len() && (eject::in_panic(near, now) || all_tried())
        };
        match drawn {
            Drawn::One(endpoint) => Some(endpoint),
            Drawn::NotAtOnce if spills() => match self.draw(everywhere, avoid, rules, now) {
                Drawn::One(endpoint) => Some(endpoint),
                Drawn::NotAtOnce => self.pick_among(everywhere, avoid, rules, now),
            },
            Drawn::NotAtOnce => self.pick_among(near, avoid, rules, now),
        }
    }

    /// An endpoint, if it can be had without looking at all of them.
    fn draw<'a>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
        avoid: &[EndpointAddr],
        rules: &Balancing,
        now: u64,
    ) -> Drawn<'a> {
        if !avoid.is_empty() {
            return Drawn::NotAtOnce;
        }
        let drawn = match rules.algorithm {
            Algorithm::PeakEwma | Algorithm::LeastRequest => self.two(endpoints),
            Algorithm::Random => {
                let any = endpoints.get(self.index(endpoints.len()));
                any.zip(any)
            }
            Algorithm::RoundRobin => {
                let next = in_turn(endpoints, now);
                next.zip(next)
            }
        };
        let Some((first, second)) = drawn else {
            return Drawn::NotAtOnce;
        };
        for drawn in [first, second] {
            match eject::state(&drawn.stats, now) {
                eject::State::Open => {}
                eject::State::Probation if eject::claim_probe(&drawn.stats, now) => {
                    return Drawn::One(drawn);
                }
                eject::State::Probation | eject::State::Ejected => return Drawn::NotAtOnce,
            }
        }
        Drawn::One(self.cheaper(first, second, rules, now))
    }

    /// As [`Self::pick`] from `endpoints`, which are of `port`; but a client of a Service with
    /// `sessionAffinity: ClientIP` stays with the endpoint that it was at, while that is among them
    /// and not ejected. `None` for the client means that affinity does not apply.
    ///
    /// Where topology hints leave endpoints out, those are taken when fewer than half of the near ones
    /// take traffic, and for a request that was tried on all of these (proxy L23).
    pub fn pick_for<'a>(
        &self,
        client: Option<IpAddr>,
        port: &'a ServicePort,
        scope: Scope,
        avoid: &[EndpointAddr],
    ) -> Option<&'a Arc<Endpoint>> {
        self.pick_by(&port.http.balancing, client, port, scope, avoid)
    }

    /// As [`Self::pick_for`], by other rules than those of the port.
    pub(crate) fn pick_by<'a>(
        &self,
        rules: &Balancing,
        client: Option<IpAddr>,
        port: &'a ServicePort,
        scope: Scope,
        avoid: &[EndpointAddr],
    ) -> Option<&'a Arc<Endpoint>> {
        let (near, everywhere) = (port.within(scope), port.everywhere_within(scope));
        let pick = || self.pick_near(near, everywhere, avoid, rules);
        self.stay_or(client, port, near, avoid, pick)
    }

    /// As [`Self::pick_for`], with another way to choose where affinity does not say.
    pub(crate) fn stay_or<'a>(
        &self,
        client: Option<IpAddr>,
        port: &ServicePort,
        endpoints: &'a [Arc<Endpoint>],
        avoid: &[EndpointAddr],
        pick: impl FnOnce() -> Option<&'a Arc<Endpoint>>,
    ) -> Option<&'a Arc<Endpoint>> {
        let (Some(client), Some(timeout)) = (client, port.policy.affinity) else {
            return pick();
        };
        let avoids = |endpoint: &Endpoint| avoid.contains(&endpoint.addr);
        let affinity = &self.affinity;
        affinity.choose((client, port, timeout), endpoints, avoids, pick)
    }

    /// An endpoint from [`Self::pick_for`] could not be connected to: the client does not stay with
    /// it.
    pub fn not_connected(&self, client: Option<IpAddr>, port: &ServicePort, endpoint: &Endpoint) {
        if let Some(client) = client.filter(|_| port.policy.affinity.is_some()) {
            self.affinity.forget(client, port, endpoint);
        }
    }

    /// A random index into weights, by weight; `None` if their sum is 0.
    pub fn pick_weighted(&self, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        let total: u64 = weights.clone().map(u64::from).sum();
        if total == 0 {
            return None;
        }
        let mut left = self.below(total);
        for (index, weight) in weights.map(u64::from).enumerate() {
            if left < weight {
                return Some(index);
            }
            left -= weight;
        }
        None
    }

    /// A random number, for identifiers that need not be secret.
    pub fn random(&self) -> u64 {
        // SplitMix64: passes BigCrush and is five instructions.
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        mix(state)
    }

    /// Uniform in `0..bound`; `bound` is not 0. The bias of the multiplication is below 2⁻³².
    fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.random()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Two different endpoints.
    fn two<'a>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
    ) -> Option<(&'a Arc<Endpoint>, &'a Arc<Endpoint>)> {
        if endpoints.len() < 2 {
            return None;
        }
        let first = self.index(endpoints.len());
        let mut second = self.index(endpoints.len() - 1);
        if second >= first {
            second += 1;
        }
        Some((endpoints.get(first)?, endpoints.get(second)?))
    }

    /// Looks at all endpoints: leaves out `avoid` and, unless too many are, the ejected.
    fn pick_among<'a>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
        avoid: &[EndpointAddr],
        rules: &Balancing,
        now: u64,
    ) -> Option<&'a Arc<Endpoint>> {
        let panic = eject::in_panic(endpoints, now);
        let mut drawn: [Option<&Arc<Endpoint>>; 2] = [None, None];
        let mut open = 0;
        let mut last_resort = None;
        let mut others = 0;
        for endpoint in endpoints {
            if avoid.contains(&endpoint.addr) {
                continue;
            }
            if !panic && eject::state(&endpoint.stats, now) != eject::State::Open {
                others += 1;
                if self.index(others) == 0 {
                    last_resort = Some(endpoint);
                }
                continue;
            }
            // Reservoir sampling of two.
            let slot = if open < 2 { open } else { self.index(open + 1) };
            open += 1;
            if let Some(place) = drawn.get_mut(slot) {
                *place = Some(endpoint);
            }
        }
        match drawn {
            [Some(first), Some(second)] => Some(self.cheaper(first, second, rules, now)),
            [Some(only), None] => Some(only),
            _ => last_resort,
        }
    }

    fn cheaper<'a>(
        &self,
        first: &'a Arc<Endpoint>,
        second: &'a Arc<Endpoint>,
        rules: &Balancing,
        now: u64,
    ) -> &'a Arc<Endpoint> {
        let (a, b) = match rules.algorithm {
            Algorithm::PeakEwma => estimate::costs(&first.stats, &second.stats, now),
            Algorithm::LeastRequest => estimate::loads(&first.stats, &second.stats),
            Algorithm::RoundRobin | Algorithm::Random => (1.0, 1.0),
        };
        let (warm_a, warm_b) = warm::shares(&first.stats, &second.stats, rules.slow_start, now);
        let (for_first, for_second) = (b * b * warm_a, a * a * warm_b);
        let odds = for_first / (for_first + for_second);
        // 53 random bits as a number in 0..1.
        let coin = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        if coin < odds { first } else { second }
    }
}

/// What a draw came to.
enum Drawn<'a> {
    One(&'a Arc<Endpoint>),
    /// One that was drawn is ejected, or some are to be avoided: all have to be looked at.
    NotAtOnce,
}

/// The endpoint whose turn it is, passing over the ejected. All workers share the turn.
fn in_turn(endpoints: &[Arc<Endpoint>], now: u64) -> Option<&Arc<Endpoint>> {
    let turn = endpoints.first()?.stats.turn.fetch_add(1, Relaxed);
    let from = usize::try_from(turn).unwrap_or(0) % endpoints.len();
    let (behind, ahead) = endpoints.split_at(from);
    let mut in_order = ahead.iter().chain(behind);
    let takes_traffic = |e: &&Arc<Endpoint>| eject::state(&e.stats, now) != eject::State::Ejected;
    in_order.find(takes_traffic).or_else(|| ahead.first())
}

/// A request or flow on its way to an endpoint: counts as in flight until it is dropped.
#[derive(Debug)]
pub struct Flight {
    stats: Arc<EndpointStats>,
}

impl Flight {
    /// Counts one more in flight.
    pub fn start(endpoint: &Endpoint) -> Self {
        endpoint.stats.in_flight.fetch_add(1, Relaxed);
        Self {
            stats: Arc::clone(&endpoint.stats),
        }
    }

    /// The same unless `most` are in flight already.
    pub fn start_below(endpoint: &Endpoint, most: u32) -> Option<Self> {
        let before = endpoint.stats.in_flight.fetch_add(1, Relaxed);
        if before >= most {
            endpoint.stats.in_flight.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self {
            stats: Arc::clone(&endpoint.stats),
        })
    }

    /// The endpoint answered after `elapsed` (time to the first byte of the answer), and well.
    pub fn succeeded(&self, elapsed: Duration) {
        self.succeeded_at(elapsed, clock::now());
    }

    /// The same at a time of [`clock::now`] that is known already.
    pub(crate) fn succeeded_at(&self, elapsed: Duration, now: u64) {
        self.was_good_at(now);
        estimate::sample(&self.stats, elapsed, now);
    }

    /// The endpoint answered after `elapsed`; whether it was well is not known yet.
    pub fn answered(&self, elapsed: Duration) {
        estimate::sample(&self.stats, elapsed, clock::now());
    }

    /// The answer was good.
    pub fn was_good(&self) {
        self.was_good_at(clock::now());
    }

    fn was_good_at(&self, now: u64) {
        if eject::succeeded(&self.stats) {
            // What its failures counted for would keep it out for minutes.
            estimate::forget(&self.stats);
            rate::forget(&self.stats);
            warm::restart(&self.stats, now);
        }
        rate::record(&self.stats, false, now);
    }

    /// The endpoint could not be reached, broke off, timed out or answered with a server error.
    /// `peers` are all endpoints of the Service port: too few of them left is a reason not to
    /// eject this one.
    pub fn failed(&self, peers: &[Arc<Endpoint>], rules: &Balancing) {
        let now = clock::now();
        estimate::sample(&self.stats, FAILURE_PENALTY, now);
        rate::record(&self.stats, true, now);
        eject::failed(&self.stats, peers, &rules.ejection, now);
    }

    /// The endpoint failed and asks for no traffic for so long (`Retry-After`): it is ejected for
    /// that time, but no longer than the longest ejection.
    pub fn asked_to_wait(&self, peers: &[Arc<Endpoint>], rules: &Balancing, time: Duration) {
        eject::hold(&self.stats, peers, &rules.ejection, time, clock::now());
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.stats.in_flight.fetch_sub(1, Relaxed);
    }
}

pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
