//! Live counters of a Service's endpoints, carried over from one compilation to the next.
//!
//! Ready or not, an endpoint keeps its counters for as long as some slice has it under the same port
//! name and protocol, with the same address and the same pod. The endpoints that take traffic hold
//! theirs themselves and are found in the sorted lists that the data plane uses; only the others' are
//! kept here. A table keyed by all of that would be larger than what it holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::endpoints::PortEndpoints;
use super::service::PortRecord;
use crate::model::{Endpoint, EndpointInfo, EndpointStats, Protocol};

/// The counters of one Service's endpoints.
#[derive(Debug, Default)]
pub(super) struct StatsTable {
    ports: Vec<PortStats>,
}

/// The counters of one port's endpoints.
#[derive(Debug)]
pub(super) struct PortStats {
    name: Arc<str>,
    protocol: Protocol,
    /// Those that take traffic, sorted by address: a list for each family and scope.
    used: Vec<Arc<[Arc<Endpoint>]>>,
    /// The others, sorted by address and number; equal ones differ in their pod.
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    number: u16,
    info: Arc<EndpointInfo>,
    stats: Arc<EndpointStats>,
}

impl Known {
    fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.info.addr, self.number)
    }
}

impl PortStats {
    /// Notes which endpoints hold their counters themselves.
    pub(super) fn settle(&mut self, chosen: &PortEndpoints) {
        let lists = [
            Some(&chosen.cluster),
            chosen.local.as_ref(),
            chosen.everywhere.as_ref(),
        ];
        let lists = lists.into_iter().flatten().filter(|list| !list.is_empty());
        self.used.extend(lists.cloned());
        let used = &self.used;
        self.known
            .retain(|known| find_used(used, known.addr(), &known.info).is_none());
        for idle in &self.known {
            idle.stats.warming_since.store(0, Ordering::Relaxed);
        }
    }

    fn find(&self, addr: SocketAddr, info: &EndpointInfo) -> Option<&Arc<EndpointStats>> {
        let from = self.known.partition_point(|known| known.addr() < addr);
        let mut same = self.known[from..].iter().take_while(|it| it.addr() == addr);
        let known = same.find(|known| is_same_pod(&known.info, info));
        let known = known.map(|known| &known.stats);
        known.or_else(|| find_used(&self.used, addr, info))
    }

    /// All endpoints.
    fn iter(&self) -> impl Iterator<Item = (SocketAddr, &EndpointInfo, &EndpointStats)> {
        let used = self.used.iter().flat_map(|list| list.iter());
        let used = used.map(|it| (it.addr.socket(), &*it.info, &*it.stats));
        let known = self
            .known
            .iter()
            .map(|it| (it.addr(), &*it.info, &*it.stats));
        used.chain(known)
    }
}

fn find_used<'a>(
    used: &'a [Arc<[Arc<Endpoint>]>],
    addr: SocketAddr,
    info: &EndpointInfo,
) -> Option<&'a Arc<EndpointStats>> {
    used.iter().find_map(|list| {
        let index = list.binary_search_by_key(&addr, |endpoint| endpoint.addr.socket());
        let endpoint = list.get(index.ok()?)?;
        is_same_pod(&endpoint.info, info).then_some(&endpoint.stats)
    })
}

impl StatsTable {
    /// The counters of a port, to be filled with those that go on.
    pub(super) fn port(&mut self, port: &PortRecord) -> &mut PortStats {
        let is_it = |it: &PortStats| it.name == port.name && it.protocol == port.protocol;
        let index = self.ports.iter().position(is_it).unwrap_or_else(|| {
            self.ports.push(PortStats {
                name: Arc::clone(&port.name),
                protocol: port.protocol,
                used: Vec::new(),
                known: Vec::new(),
            });
            self.ports.len() - 1
        });
        &mut self.ports[index]
    }

    fn get(&self, port: &PortStats) -> Option<&PortStats> {
        let is_it = |it: &&PortStats| it.name == port.name && it.protocol == port.protocol;
        self.ports.iter().find(is_it)
    }

    /// Ends the compilation that `next` comes from: marks the endpoints that are gone for good.
    pub(super) fn replace(&mut self, mut next: Self) {
        next.ports.shrink_to_fit();
        for port in &mut next.ports {
            port.known.shrink_to_fit();
            port.used.shrink_to_fit();
        }
        for port in &self.ports {
            let now = next.get(port);
            for (addr, info, stats) in port.iter() {
                if now.and_then(|now| now.find(addr, info)).is_none() {
                    stats.removed.store(true, Ordering::Release);
                }
            }
        }
        *self = next;
    }

    /// The counters of an endpoint, from `before` if it was known. Endpoints of a port come in the
    /// order of their addresses and numbers.
    pub(super) fn keep(
        port: &mut PortStats,
        before: &Self,
        addr: SocketAddr,
        info: &Arc<EndpointInfo>,
    ) -> Arc<EndpointStats> {
        if let Some(again) = port.find(addr, info) {
            return Arc::clone(again);
        }
        let known = before.get(port).and_then(|before| before.find(addr, info));
        let stats = known.map_or_else(Arc::default, Arc::clone);
        port.known.push(Known {
            number: addr.port(),
            info: Arc::clone(info),
            stats: Arc::clone(&stats),
        });
        stats
    }
}

/// The same uid, or the same name if there is none.
fn is_same_pod(a: &EndpointInfo, b: &EndpointInfo) -> bool {
    match (&a.uid, &b.uid) {
        (None, None) => a.pod == b.pod,
        (a, b) => a == b,
    }
}
