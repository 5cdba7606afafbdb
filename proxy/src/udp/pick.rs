//! Which endpoint takes a flow: rendezvous hashing with a bound on load.
//!
//! Each endpoint gets a score that follows from the flow and the endpoint alone, and the highest
//! score wins. So the choice needs no memory: while the endpoints stay the same, a flow comes to the
//! same one on whatever worker or node, also after this program was started again, and when one
//! leaves only its own flows move. Choosing at random would spread as evenly, but a restart would
//! tear every conversation (QUIC, DTLS, game servers) from the endpoint that knows it.
//!
//! Hashing alone lets chance and a few unlike clients pile flows up, so an endpoint that has over a
//! quarter more than its share is passed over for the next score. Flows that were passed on are
//! those that a restart can move.
//!
//! Endpoints whose port was found closed are left out as the balancer leaves them out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sealane_config::model::{Endpoint, EndpointAddr};

use crate::balance::{Ejection, ejection, ignores_ejection, mix};

/// Flows over its share that an endpoint may always have, so that a handful of flows stay where
/// hashing puts them.
const SLACK: u64 = 8;

/// What the choice follows from: what all flows that belong together have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(u64);

impl Seed {
    /// That of one flow.
    pub(super) fn of_flow(client: SocketAddr, vip: SocketAddr) -> Self {
        Self(mix(hash(client) ^ mix(hash(vip))))
    }

    /// That of all flows of one client to one Service port, for `sessionAffinity: ClientIP`,
    /// whatever address of the Service was dialled.
    pub(super) fn of_client(client: IpAddr, service: &str, namespace: &str, port: u16) -> Self {
        let names = [namespace, service].map(|name| {
            let bytes = name.bytes().map(u64::from);
            bytes.fold(0, |hash, byte| mix(hash ^ byte))
        });
        let [namespace, service] = names;
        Self(mix(hash(SocketAddr::new(client, port))
            ^ mix(namespace)
            ^ service))
    }

    fn score(self, endpoint: EndpointAddr) -> u64 {
        mix(self.0 ^ hash(endpoint.socket()))
    }
}

/// The endpoint for a flow; none of `avoid`, unless there are no others.
pub(super) fn pick<'a>(
    endpoints: &'a [Arc<Endpoint>],
    seed: Seed,
    avoid: &[EndpointAddr],
) -> Option<&'a Arc<Endpoint>> {
    if let [only] = endpoints {
        return Some(only);
    }
    let panic = ignores_ejection(endpoints);
    let usable = |endpoint: &&Arc<Endpoint>| {
        !avoid.contains(&endpoint.addr) && (panic || ejection(endpoint) != Ejection::Ejected)
    };
    let load = |endpoint: &Endpoint| u64::from(endpoint.stats.in_flight.load(Relaxed));
    let usables = || endpoints.iter().filter(usable);
    let (count, total) = usables().fold((0, 0), |(count, total), endpoint| {
        (count + 1, total + load(endpoint))
    });
    let bound = (total * 5 / 4).checked_div(count).unwrap_or(0) + SLACK;
    let score = |endpoint: &&Arc<Endpoint>| seed.score(endpoint.addr);
    usables()
        .filter(|endpoint| load(endpoint) < bound)
        .max_by_key(score)
        .or_else(|| usables().max_by_key(score))
        .or_else(|| endpoints.iter().max_by_key(score))
}

/// The same in every process, unlike the hashes of the standard library.
fn hash(addr: SocketAddr) -> u64 {
    let port = u64::from(addr.port());
    match addr.ip() {
        IpAddr::V4(ip) => mix((u64::from(ip.to_bits()) << 16) | port),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            let (high, low) = ((bits >> 64) as u64, bits as u64);
            mix(mix(high ^ port).wrapping_add(low))
        }
    }
}

#[cfg(test)]
mod tests;
