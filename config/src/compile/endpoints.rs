//! The endpoints of one Service, out of all its slices.
//!
//! - An address may be in several slices: one copy a slice. Copies are merged by address for DNS and
//!   by address and port for traffic; a ready copy goes before one that is not, so that the result
//!   does not depend on the order of events.
//! - A port of the Service is served by the slice ports of the same name and protocol; their number
//!   may differ from slice to slice (a rollout that changes `targetPort` by name).
//! - Traffic goes to the ready endpoints of a family; if there are none, to those that are serving
//!   while they terminate (KEP-1669).
//!
//! Make before break. The slice controller moves endpoints between slices, and the two halves of a
//! move are two events in either order. A *ready* endpoint that is missing from the new version of
//! its slice (or whose slice was deleted) is therefore held for [`SLICE_MOVE_GRACE`] as it was, and
//! dropped as soon as some slice of the Service has its address on the same ports again: from then
//! on, that slice speaks for it. Nothing else is held: a pod that becomes not ready or starts to
//! terminate does so in place and is believed at once, an endpoint that was not ready can go at once,
//! and a complete list is consistent and so overrules everything that was held.
//!
//! [`SLICE_MOVE_GRACE`]: crate::defaults::SLICE_MOVE_GRACE

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::service::PortRecord;
use super::slice::{EndpointRecord, SlicePort, SliceRecord};
use crate::model::{Endpoint, EndpointAddr, EndpointStats, Protocol, ServiceEndpoint};

/// An endpoint that vanished from its slice and may be on its way to another.
#[derive(Clone, Debug)]
pub(super) struct Held {
    endpoint: EndpointRecord,
    ports: Arc<[SlicePort]>,
    until: Instant,
}

/// The endpoints held for one Service.
#[derive(Debug, Default)]
pub(super) struct Holds(Vec<Held>);

impl Holds {
    /// Holds the ready endpoints of `old` that `new`, the same slice's next version, lacks.
    pub(super) fn keep_lost(
        &mut self,
        old: &SliceRecord,
        new: Option<&SliceRecord>,
        publish_not_ready: bool,
        until: Instant,
    ) {
        let stayed: HashSet<IpAddr> = new
            .filter(|new| new.service == old.service)
            .into_iter()
            .flat_map(|new| new.endpoints.iter().map(|endpoint| endpoint.addr))
            .collect();
        for endpoint in &old.endpoints {
            let is_held =
                |held: &Held| held.endpoint.addr == endpoint.addr && held.ports == old.ports;
            if endpoint.is_ready(publish_not_ready)
                && !stayed.contains(&endpoint.addr)
                && !self.0.iter().any(is_held)
            {
                self.0.push(Held {
                    endpoint: endpoint.clone(),
                    ports: Arc::clone(&old.ports),
                    until,
                });
            }
        }
    }

    /// Forgets what is over: the time is up, or a slice has the endpoint again.
    pub(super) fn settle(&mut self, slices: &[&SliceRecord], now: Instant) {
        if self.0.is_empty() {
            return;
        }
        let present: HashSet<(IpAddr, &Arc<str>, Protocol)> = slices
            .iter()
            .flat_map(|slice| {
                let addrs = slice.endpoints.iter().map(|endpoint| endpoint.addr);
                addrs.flat_map(|addr| slice.ports.iter().map(move |p| (addr, &p.name, p.protocol)))
            })
            .collect();
        let addresses: HashSet<IpAddr> = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().map(|endpoint| endpoint.addr))
            .collect();
        self.0.retain(|held| {
            let addr = held.endpoint.addr;
            let is_back = addresses.contains(&addr)
                && held
                    .ports
                    .iter()
                    .all(|p| present.contains(&(addr, &p.name, p.protocol)));
            held.until > now && !is_back
        });
    }

    /// When the first of them is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().map(|held| held.until).min()
    }
}

/// One slice's word on an address.
#[derive(Clone, Copy, Debug)]
struct SliceEntry<'a> {
    endpoint: &'a EndpointRecord,
    ports: &'a Arc<[SlicePort]>,
    ready: bool,
}

impl SliceEntry<'_> {
    /// The better entry for the same address is the greater one.
    fn rank(&self) -> (bool, bool) {
        (self.ready, self.endpoint.is_serving_terminating())
    }
}

/// All slices of a Service, by address.
#[derive(Debug)]
pub(super) struct Merged<'a> {
    by_addr: BTreeMap<IpAddr, Vec<SliceEntry<'a>>>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(
        slices: &[&'a SliceRecord],
        holds: &'a Holds,
        publish_not_ready: bool,
    ) -> Self {
        let mut by_addr: BTreeMap<IpAddr, Vec<SliceEntry<'a>>> = BTreeMap::new();
        let listed = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().map(|e| (e, &slice.ports)));
        let held = holds.0.iter().map(|held| (&held.endpoint, &held.ports));
        for (endpoint, ports) in listed.chain(held) {
            by_addr.entry(endpoint.addr).or_default().push(SliceEntry {
                endpoint,
                ports,
                ready: endpoint.is_ready(publish_not_ready),
            });
        }
        for entries in by_addr.values_mut() {
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.rank()));
        }
        Self { by_addr }
    }

    /// Every address, as DNS sees it.
    pub(super) fn for_dns(&self) -> Arc<[ServiceEndpoint]> {
        let mut shared = SharedPorts::default();
        let mut all = Vec::with_capacity(self.by_addr.len());
        for (addr, entries) in &self.by_addr {
            let Some(best) = entries.first() else {
                continue;
            };
            let ports = match entries.as_slice() {
                [only] => shared.of(only.ports),
                several => {
                    let agreeing = several.iter().filter(|entry| entry.ready == best.ready);
                    dns_ports(agreeing.flat_map(|entry| entry.ports.iter()))
                }
            };
            all.push(ServiceEndpoint {
                addr: *addr,
                ready: best.ready,
                hostname: best.endpoint.hostname.clone(),
                target: best.endpoint.target.clone(),
                ports,
            });
        }
        all.into()
    }

    /// The endpoints of one family that can take a port's traffic now, sorted by address.
    pub(super) fn for_port(
        &self,
        port: &PortRecord,
        v4: bool,
        stats: &mut StatsTable,
    ) -> Arc<[Arc<Endpoint>]> {
        let mut best: BTreeMap<SocketAddr, SliceEntry<'_>> = BTreeMap::new();
        for (addr, entries) in self.by_addr.iter().filter(|(a, _)| a.is_ipv4() == v4) {
            for entry in entries {
                let matching = |p: &&SlicePort| p.name == port.name && p.protocol == port.protocol;
                for slice_port in entry.ports.iter().filter(matching) {
                    let addr = SocketAddr::new(*addr, slice_port.port);
                    stats.keep(port, addr, entry.endpoint);
                    best.entry(addr).or_insert(*entry);
                }
            }
        }
        let is_ready = |entry: &SliceEntry<'_>| entry.ready;
        let is_draining = |entry: &SliceEntry<'_>| entry.endpoint.is_serving_terminating();
        let usable = if best.values().any(is_ready) {
            is_ready
        } else {
            is_draining
        };
        best.iter()
            .filter(|(_, entry)| usable(entry))
            .map(|(addr, entry)| {
                Arc::new(Endpoint {
                    addr: EndpointAddr(*addr),
                    target: entry.endpoint.target.clone(),
                    node: entry.endpoint.node.clone(),
                    zone: entry.endpoint.zone.clone(),
                    ready: entry.ready,
                    stats: stats.keep(port, *addr, entry.endpoint),
                })
            })
            .collect()
    }
}

/// Ports as DNS sees them: name, protocol, number.
type DnsPorts = Arc<[(Arc<str>, Protocol, u16)]>;

fn dns_ports<'p>(ports: impl Iterator<Item = &'p SlicePort>) -> DnsPorts {
    let mut unique: Vec<(Arc<str>, Protocol, u16)> = Vec::new();
    for port in ports {
        let port = (Arc::clone(&port.name), port.protocol, port.port);
        if !unique.contains(&port) {
            unique.push(port);
        }
    }
    unique.into()
}

/// The endpoints of a slice share one list of ports instead of having one each.
#[derive(Default)]
struct SharedPorts<'a>(Vec<(&'a Arc<[SlicePort]>, DnsPorts)>);

impl<'a> SharedPorts<'a> {
    fn of(&mut self, ports: &'a Arc<[SlicePort]>) -> DnsPorts {
        let known = self.0.iter().find(|(slice, _)| Arc::ptr_eq(slice, ports));
        if let Some((_, known)) = known {
            return Arc::clone(known);
        }
        let made = dns_ports(ports.iter());
        self.0.push((ports, Arc::clone(&made)));
        made
    }
}

/// What makes an endpoint the same one as before, within its Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    port: Arc<str>,
    protocol: Protocol,
    addr: SocketAddr,
    /// The target's uid, or its name if it has none.
    target: Option<Arc<str>>,
}

/// The live counters of a Service's endpoints, ready or not, carried over from one compilation to
/// the next.
#[derive(Debug, Default)]
pub(super) struct StatsTable {
    before: HashMap<Identity, Arc<EndpointStats>>,
    now: HashMap<Identity, Arc<EndpointStats>>,
}

impl StatsTable {
    /// Starts a new compilation.
    pub(super) fn next(self) -> Self {
        Self {
            before: self.now,
            now: HashMap::new(),
        }
    }

    fn keep(
        &mut self,
        port: &PortRecord,
        addr: SocketAddr,
        endpoint: &EndpointRecord,
    ) -> Arc<EndpointStats> {
        let name = || {
            endpoint
                .target
                .as_ref()
                .map(|target| Arc::clone(&target.name))
        };
        let identity = Identity {
            port: Arc::clone(&port.name),
            protocol: port.protocol,
            addr,
            target: endpoint.uid.clone().or_else(name),
        };
        let before = &self.before;
        let stats = self
            .now
            .entry(identity)
            .or_insert_with_key(|identity| before.get(identity).cloned().unwrap_or_default());
        Arc::clone(stats)
    }

    /// Ends the compilation: marks the endpoints that are gone for good.
    pub(super) fn finish(&mut self) {
        for (identity, stats) in self.before.drain() {
            if !self.now.contains_key(&identity) {
                stats.removed.store(true, Ordering::Release);
            }
        }
    }
}
