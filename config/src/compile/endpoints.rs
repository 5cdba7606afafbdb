//! The endpoints of one Service, out of all its slices.
//!
//! - An address may be in several slices: one copy a slice. Copies are merged by address for DNS and
//!   by address and port for traffic. A ready copy goes before one that is not, so that the result
//!   does not depend on the order of events; for traffic a copy on this node goes before both.
//! - A port of the Service is served by the slice ports of the same name and protocol; their number
//!   may differ from slice to slice (a rollout that changes `targetPort` by name).
//! - Traffic goes to the ready endpoints of a family, of which topology hints may leave some; if none
//!   is ready, to those that are serving while they terminate, hints or not (KEP-1669). The endpoints
//!   on this node are a scope of their own, in which that is decided again, without hints.
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

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;

use super::node::{Here, Preference};
use super::service::PortRecord;
use super::slice::SliceRecord;
use super::stats::StatsTable;
use crate::model::{
    Endpoint, EndpointAddr, EndpointInfo, EndpointPorts, Protocol, ServiceEndpoint,
};

/// An endpoint that vanished from its slice and may be on its way to another.
#[derive(Clone, Debug)]
pub(super) struct Held {
    endpoint: Arc<EndpointInfo>,
    ports: EndpointPorts,
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
            if endpoint.conditions.is_ready(publish_not_ready)
                && !stayed.contains(&endpoint.addr)
                && !self.0.iter().any(is_held)
            {
                self.0.push(Held {
                    endpoint: Arc::clone(endpoint),
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
                addrs.flat_map(|addr| {
                    let ports = slice.ports.iter();
                    ports.map(move |(name, protocol, _)| (addr, name, *protocol))
                })
            })
            .collect();
        let addresses: HashSet<IpAddr> = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().map(|endpoint| endpoint.addr))
            .collect();
        self.0.retain(|held| {
            let addr = held.endpoint.addr;
            let mut ports = held.ports.iter();
            let is_back = addresses.contains(&addr)
                && ports.all(|(name, protocol, _)| present.contains(&(addr, name, *protocol)));
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
    info: &'a Arc<EndpointInfo>,
    ports: &'a EndpointPorts,
    ready: bool,
    draining: bool,
}

/// All slices of a Service, by address.
#[derive(Debug)]
pub(super) struct Merged<'a> {
    /// Sorted by address; of the same address, the better one first.
    entries: Vec<SliceEntry<'a>>,
    here: Option<&'a Here>,
}

/// Who takes a port's traffic.
pub(super) struct PortEndpoints {
    pub(super) cluster: Arc<[Arc<Endpoint>]>,
    /// With those that hints leave out, if there are any.
    pub(super) everywhere: Option<Arc<[Arc<Endpoint>]>>,
    pub(super) local: Option<Arc<[Arc<Endpoint>]>>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(
        slices: &[&'a SliceRecord],
        holds: &'a Holds,
        publish_not_ready: bool,
        here: Option<&'a Here>,
    ) -> Self {
        let listed = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().map(|e| (e, &slice.ports)));
        let held = holds.0.iter().map(|held| (&held.endpoint, &held.ports));
        let entry = |(info, ports): (&'a Arc<EndpointInfo>, &'a EndpointPorts)| SliceEntry {
            info,
            ports,
            ready: info.conditions.is_ready(publish_not_ready),
            draining: info.conditions.is_serving_terminating(),
        };
        let mut entries: Vec<SliceEntry<'a>> = listed.chain(held).map(entry).collect();
        entries.sort_by_key(|it| (it.info.addr, Reverse((it.ready, it.draining))));
        Self { entries, here }
    }

    /// How many copies of endpoints there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether any of them has a hint for a zone.
    pub(super) fn has_zone_hints(&self) -> bool {
        let mut locations = self.entries.iter().map(|entry| &entry.info.location);
        locations.any(|location| !location.for_zones.is_empty())
    }

    /// Every address, as DNS sees it.
    pub(super) fn for_dns(&self) -> Arc<[ServiceEndpoint]> {
        let of_address = |copies: &[SliceEntry<'_>]| {
            let best = copies.first()?;
            let ports = match copies {
                [only] => Arc::clone(only.ports),
                several => {
                    let agreeing = several.iter().filter(|entry| entry.ready == best.ready);
                    all_ports(agreeing.map(|entry| entry.ports))
                }
            };
            Some(ServiceEndpoint {
                info: Arc::clone(best.info),
                ready: best.ready,
                ports,
            })
        };
        let by_address = self.entries.chunk_by(|a, b| a.info.addr == b.info.addr);
        by_address.filter_map(of_address).collect::<Vec<_>>().into()
    }

    /// The endpoints of one family that can take a port's traffic now, sorted by address. Those on
    /// this node are looked at only if `with_local` is set.
    pub(super) fn for_port(
        &self,
        port: &PortRecord,
        v4: bool,
        with_local: bool,
        before: &StatsTable,
        now: &mut StatsTable,
    ) -> PortEndpoints {
        let stats = now.port(port);
        let mut found: Vec<Candidate<'_>> = Vec::new();
        let of_family = |entry: &&SliceEntry<'_>| entry.info.addr.is_ipv4() == v4;
        for entry in self.entries.iter().filter(of_family) {
            for (name, protocol, number) in entry.ports.iter() {
                if *name == port.name && *protocol == port.protocol {
                    found.push(Candidate {
                        addr: SocketAddr::new(entry.info.addr, *number),
                        local: self.here.is_some_and(|here| here.is_local(entry.info)),
                        entry: *entry,
                        stats: None,
                    });
                }
            }
        }
        found.sort_by_key(|it| (it.addr, Reverse(it.local)));
        for candidate in &mut found {
            let info = candidate.entry.info;
            candidate.stats = Some(StatsTable::keep(stats, before, candidate.addr, info));
        }
        found.dedup_by_key(|candidate| candidate.addr);
        let chosen = choose(&found, self.here, with_local);
        stats.settle(&chosen);
        chosen
    }
}

/// An endpoint of a port.
struct Candidate<'a> {
    addr: SocketAddr,
    entry: SliceEntry<'a>,
    /// Runs on this node.
    local: bool,
    stats: Option<Arc<crate::model::EndpointStats>>,
}

impl Candidate<'_> {
    fn endpoint(&self) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            addr: EndpointAddr::from(self.addr),
            ready: self.entry.ready,
            info: Arc::clone(self.entry.info),
            stats: self.stats.clone().unwrap_or_default(),
        })
    }
}

/// Which of the endpoints of a port take traffic, in either scope.
fn choose(found: &[Candidate<'_>], here: Option<&Here>, with_local: bool) -> PortEndpoints {
    let is_ready = |it: &&Candidate<'_>| it.entry.ready;
    let ready = found.iter().filter(is_ready);
    let any_ready = ready.clone().next().is_some();
    let preference = Preference::of(ready.map(|it| &**it.entry.info), here);
    let in_cluster = |it: &Candidate<'_>| {
        if any_ready {
            it.entry.ready && preference.admits(it.entry.info, here)
        } else {
            it.entry.draining
        }
    };
    let with_local = with_local && here.is_some();
    let any_local_ready = found.iter().any(|it| it.local && it.entry.ready);
    let in_local = |it: &Candidate<'_>| {
        let usable = if any_local_ready {
            it.entry.ready
        } else {
            it.entry.draining
        };
        with_local && it.local && usable
    };
    let is_left_out = |it: &Candidate<'_>| it.entry.ready && !in_cluster(it);
    let any_left_out = found.iter().any(is_left_out);
    let (mut cluster, mut local, mut everywhere) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in found {
        let (is_in_cluster, is_in_local) = (in_cluster(candidate), in_local(candidate));
        let is_everywhere = any_left_out && candidate.entry.ready;
        if !is_in_cluster && !is_in_local && !is_everywhere {
            continue;
        }
        let endpoint = candidate.endpoint();
        if is_in_local {
            local.push(Arc::clone(&endpoint));
        }
        if is_everywhere {
            everywhere.push(Arc::clone(&endpoint));
        }
        if is_in_cluster {
            cluster.push(endpoint);
        }
    }
    PortEndpoints {
        cluster: cluster.into(),
        everywhere: any_left_out.then(|| everywhere.into()),
        local: with_local.then(|| local.into()),
    }
}

fn all_ports<'p>(lists: impl Iterator<Item = &'p EndpointPorts>) -> EndpointPorts {
    let mut unique: Vec<(Arc<str>, Protocol, u16)> = Vec::new();
    for port in lists.flat_map(|ports| ports.iter()) {
        if !unique.contains(port) {
            unique.push(port.clone());
        }
    }
    Arc::new(unique)
}
