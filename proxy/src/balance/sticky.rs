//! A request that would rather go to a certain endpoint: that of its session, or the one that a key
//! stands for.
//!
//! A key's endpoint is the one with the largest hash of both (rendezvous hashing): every replica of
//! the proxy finds the same one without a word between them, an endpoint that comes takes its share
//! of the keys from all others alike, and one that goes leaves its keys to all others alike. It costs
//! a look at every endpoint, and needs no table that a change of endpoints would have to rebuild.
//!
//! Ejection goes before preference: while an endpoint takes no traffic, its keys go to their second
//! choice. Topology hints do not count, since replicas in different zones have to agree.

use std::net::IpAddr;
use std::sync::Arc;

use sealane_config::model::{Endpoint, EndpointAddr};

use super::{Balancer, eject, mix};
use crate::clock;

/// Where a request would rather go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// To this endpoint.
    Endpoint(EndpointAddr),
    /// To the endpoint of this key.
    Key(u64),
    /// Anywhere; but whoever sends it wants to know where it went.
    Anywhere,
}

/// The endpoint of a key, whether or not it takes traffic.
pub fn home(key: u64, endpoints: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
    best(key, endpoints, |_| true)
}

fn best(
    key: u64,
    endpoints: &[Arc<Endpoint>],
    may: impl Fn(&Endpoint) -> bool,
) -> Option<&Arc<Endpoint>> {
    let candidates = endpoints.iter().filter(|endpoint| may(endpoint));
    candidates.max_by_key(|endpoint| weight(key, endpoint.addr))
}

fn weight(key: u64, endpoint: EndpointAddr) -> u64 {
    let addr = endpoint.socket();
    let ip = match addr.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let [high, low] = [ip.to_bits() >> 64, ip.to_bits()].map(|half| half as u64);
            mix(high) ^ low
        }
    };
    mix(mix(key ^ mix(ip)) ^ u64::from(addr.port()))
}

impl Balancer {
    /// The endpoint where a request would rather go, if it takes traffic and is not in `avoid`.
    pub(crate) fn preferred<'a>(
        &self,
        sticky: Sticky,
        endpoints: &'a [Arc<Endpoint>],
        avoid: &[EndpointAddr],
    ) -> Option<&'a Arc<Endpoint>> {
        let now = clock::now();
        let state = |endpoint: &Endpoint| eject::state(&endpoint.stats, now);
        let is_new = |endpoint: &Endpoint| !avoid.contains(&endpoint.addr);
        let takes = |endpoint: &Endpoint| match state(endpoint) {
            eject::State::Open => true,
            eject::State::Probation => eject::claim_probe(&endpoint.stats, now),
            eject::State::Ejected => false,
        };
        match sticky {
            Sticky::Anywhere => None,
            Sticky::Endpoint(addr) => {
                let index = endpoints.binary_search_by_key(&addr, |e| e.addr).ok()?;
                let found = endpoints.get(index).filter(|found| is_new(found))?;
                (takes(found) || eject::in_panic(endpoints, now)).then_some(found)
            }
            Sticky::Key(key) => {
                let first = best(key, endpoints, is_new)?;
                if takes(first) || eject::in_panic(endpoints, now) {
                    return Some(first);
                }
                let is_open = |e: &Endpoint| is_new(e) && state(e) == eject::State::Open;
                best(key, endpoints, is_open)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn endpoints(count: u8) -> Vec<Arc<Endpoint>> {
        let addr = |last| format!("10.1.0.{last}:80").parse().unwrap();
        (1..=count)
            .map(|last| Arc::new(Endpoint::at(addr(last))))
            .collect()
    }

    fn at(key: u64, endpoints: &[Arc<Endpoint>]) -> EndpointAddr {
        home(key, endpoints).unwrap().addr
    }

    #[test]
    fn ingress_a17_keys_are_spread_evenly_and_move_only_where_they_must() {
        const KEYS: u64 = 10_000;
        let before = endpoints(10);
        let after = endpoints(11);
        let mut counts: HashMap<EndpointAddr, u64> = HashMap::new();
        let mut moved = 0;
        for key in 0..KEYS {
            let (old, new) = (at(key, &before), at(key, &after));
            *counts.entry(old).or_default() += 1;
            if old != new {
                moved += 1;
                assert_eq!(new, after[10].addr, "a key moves to the new endpoint only");
            }
        }
        assert_eq!(counts.len(), 10);
        for (addr, count) in counts {
            assert!((850..1150).contains(&count), "{addr}: {count} of {KEYS}");
        }
        assert!((750..1080).contains(&moved), "{moved} of {KEYS} moved");
    }

    #[test]
    fn ingress_a17_an_endpoint_that_takes_no_traffic_leaves_its_keys_to_their_second_choice() {
        let (all, balancer) = (endpoints(4), Balancer::seeded(1));
        let pick = |avoid: &[EndpointAddr]| {
            let picked = balancer.preferred(Sticky::Key(7), &all, avoid);
            picked.map(|endpoint| endpoint.addr)
        };
        let first = at(7, &all);
        let without: Vec<_> = all.iter().filter(|e| e.addr != first).cloned().collect();
        let second = at(7, &without);
        assert_eq!(pick(&[]), Some(first));
        assert_eq!(pick(&[first]), Some(second));
        let everybody: Vec<_> = all.iter().map(|e| e.addr).collect();
        assert_eq!(pick(&everybody), None);

        let stats = &home(7, &all).unwrap().stats;
        let until = clock::now() + 3_600_000_000_000;
        stats.ejected_until.store(until & !1, Relaxed);
        assert_eq!(pick(&[]), Some(second));
        let sticky = Sticky::Endpoint(first);
        assert!(balancer.preferred(sticky, &all, &[]).is_none());
        // One request finds out whether it is back.
        stats.ejected_until.store(2, Relaxed);
        assert_eq!((pick(&[]), pick(&[])), (Some(first), Some(second)));
    }

    #[test]
    fn ingress_a11_a_session_is_where_its_endpoint_is() {
        let (all, balancer) = (endpoints(4), Balancer::seeded(1));
        let (here, elsewhere) = (all[2].addr, endpoints(5)[4].addr);
        for (sticky, avoid, want) in [
            (Sticky::Endpoint(here), &[][..], Some(here)),
            (Sticky::Endpoint(here), &[here], None),
            (Sticky::Endpoint(elsewhere), &[], None),
            (Sticky::Anywhere, &[], None),
        ] {
            let picked = balancer.preferred(sticky, &all, avoid).map(|e| e.addr);
            assert_eq!(picked, want, "{sticky:?} {avoid:?}");
        }
        // When most are ejected, ejection is ignored.
        let until = (clock::now() + 3_600_000_000_000) & !1;
        for endpoint in &all {
            endpoint.stats.ejected_until.store(until, Relaxed);
        }
        let picked = balancer.preferred(Sticky::Endpoint(here), &all, &[]);
        assert_eq!(picked.map(|e| e.addr), Some(here));
    }
}
