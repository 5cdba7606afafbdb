//! Live counters of a Service's endpoints, carried over from one compilation to the next.
//!
//! Ready or not, an endpoint keeps its counters for as long as some slice has it under the same port
//! name and protocol, with the same address and the same pod. They are kept in sorted lists, since
//! a table keyed by all of that would be larger than what it holds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::service::PortRecord;
use crate::model::{EndpointInfo, EndpointStats, Protocol};

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
    /// Sorted by address and number; equal ones differ in their pod.
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    number: u16,
    info: Arc<EndpointInfo>,
    stats: Arc<EndpointStats>,
}

impl Known {
    fn place(&self) -> (IpAddr, u16) {
        (self.info.addr, self.number)
    }
}

impl StatsTable {
    /// The counters of a port, to be filled with those that go on.
    pub(super) fn port(&mut self, port: &PortRecord) -> &mut PortStats {
        let is_it = |it: &PortStats| it.name == port.name && it.protocol == port.protocol;
        let index = self.ports.iter().position(is_it).unwrap_or_else(|| {
            self.ports.push(PortStats {
                name: Arc::clone(&port.name),
                protocol: port.protocol,
                known: Vec::new(),
            });
            self.ports.len() - 1
        });
        &mut self.ports[index]
    }

    fn get(&self, port: &PortStats) -> &[Known] {
        let is_it = |it: &&PortStats| it.name == port.name && it.protocol == port.protocol;
        let found = self.ports.iter().find(is_it);
        found.map_or(&[], |port| &port.known)
    }

    /// Ends the compilation that `next` comes from: marks the endpoints that are gone for good.
    pub(super) fn replace(&mut self, mut next: Self) {
        next.ports.shrink_to_fit();
        for port in &mut next.ports {
            port.known.shrink_to_fit();
        }
        for port in &self.ports {
            let now = next.get(port);
            for known in &port.known {
                if find(now, known.number, &known.info).is_none() {
                    known.stats.removed.store(true, Ordering::Release);
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
        if let Some(again) = find(&port.known, addr.port(), info) {
            return Arc::clone(&again.stats);
        }
        let known = find(before.get(port), addr.port(), info);
        let stats = known.map_or_else(Arc::default, |known| Arc::clone(&known.stats));
        port.known.push(Known {
            number: addr.port(),
            info: Arc::clone(info),
            stats: Arc::clone(&stats),
        });
        stats
    }
}

fn find<'a>(sorted: &'a [Known], number: u16, info: &EndpointInfo) -> Option<&'a Known> {
    let place = (info.addr, number);
    let from = sorted.partition_point(|known| known.place() < place);
    let same = sorted[from..].iter().take_while(|it| it.place() == place);
    same.into_iter()
        .find(|known| is_same_pod(&known.info, info))
}

/// The same uid, or the same name if there is none.
fn is_same_pod(a: &EndpointInfo, b: &EndpointInfo) -> bool {
    match (&a.uid, &b.uid) {
        (None, None) => a.pod == b.pod,
        (a, b) => a == b,
    }
}
