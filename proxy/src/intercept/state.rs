//! Which elements the kernel's sets should have, and what has to change.
//!
//! Comparing costs a walk over all Service ports with one look-up each and, as long as nothing
//! differs, no allocation; only differences are written. A port's element depends on whether it has
//! endpoints, not on which.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use sealane_config::Snapshot;
use sealane_config::model::{Protocol, ServicePort};

use super::InterceptOptions;
use super::rule::Family;

/// The sets of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// Service ports whose connections the proxy takes.
    Capture(Family),
    /// Service ports without endpoints.
    Refuse(Family),
    /// Addresses of Services.
    ServiceAddresses(Family),
    /// Addresses of this node.
    NodeAddresses(Family),
}

impl Set {
    pub(super) const ALL: [Self; 8] = [
        Self::Capture(Family::V4),
        Self::Capture(Family::V6),
        Self::Refuse(Family::V4),
        Self::Refuse(Family::V6),
        Self::ServiceAddresses(Family::V4),
        Self::ServiceAddresses(Family::V6),
        Self::NodeAddresses(Family::V4),
        Self::NodeAddresses(Family::V6),
    ];
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// An element of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Element {
    Address(IpAddr),
    Service(IpAddr, Protocol, u16),
}

/// An element that enters or leaves a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) set: Set,
    pub(super) element: Element,
    pub(super) add: bool,
}

/// Elements with the set that each is in. None is in two.
pub(super) type Elements = HashMap<Element, Set>;

/// Calls `visit` once with each element that a snapshot asks for.
fn desired(snapshot: &Snapshot, options: &InterceptOptions, mut visit: impl FnMut(Element, Set)) {
    for (&(ip, protocol, number), port) in &snapshot.vips {
        // The cluster DNS listens on its Service's address itself, endpoints or not.
        let is_own = is_node_address(ip, options);
        let is_here = port.endpoints.is_empty() || is_served_here(port, number, options);
        if !is_own || !is_here {
            let set = set_for(port, Family::of(ip));
            visit(Element::Service(ip, protocol, number), set);
        }
    }
    for (&ip, _) in &snapshot.cluster_ips {
        let within = options.service_cidrs.iter().any(|cidr| cidr.contains(&ip));
        if within && !is_node_address(ip, options) {
            visit(Element::Address(ip), Set::ServiceAddresses(Family::of(ip)));
        }
    }
    for &ip in &options.node_ips {
        for (&(protocol, number), port) in &snapshot.node_ports {
            // An external IP may be a node's address; a Service's own port goes first.
            if snapshot.vips.contains_key(&(ip, protocol, number)) {
                continue;
            }
            let set = set_for(port, Family::of(ip));
            visit(Element::Service(ip, protocol, number), set);
        }
    }
    for &ip in options.node_ips.iter().chain(&options.local_addresses) {
        visit(Element::Address(ip), Set::NodeAddresses(Family::of(ip)));
    }
}

fn is_node_address(ip: IpAddr, options: &InterceptOptions) -> bool {
    options.node_ips.contains(&ip) || options.local_addresses.contains(&ip)
}

/// Datagrams to an own address whose endpoints are own addresses with the same port need no proxy:
/// that is the cluster DNS, which every query would otherwise cost a flow.
fn is_served_here(port: &ServicePort, number: u16, options: &InterceptOptions) -> bool {
    let own = |addr: SocketAddr| addr.port() == number && is_node_address(addr.ip(), options);
    port.protocol == Protocol::Udp && port.endpoints.iter().all(|e| own(e.addr.0))
}

fn set_for(port: &ServicePort, family: Family) -> Set {
    if port.endpoints.is_empty() {
        Set::Refuse(family)
    } else {
        Set::Capture(family)
    }
}

/// What turns `current` into what a snapshot asks for, with the changes of one element behind each
/// other.
pub(super) fn difference(
    current: &Elements,
    snapshot: &Snapshot,
    options: &InterceptOptions,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut known = 0;
    desired(snapshot, options, |element, set| {
        let change = |set, add| Change { set, element, add };
        match current.get(&element) {
            Some(old) => {
                known += 1;
                if *old != set {
                    changes.push(change(*old, false));
                    changes.push(change(set, true));
                }
            }
            None => changes.push(change(set, true)),
        }
    });
    if known < current.len() {
        let mut wanted = HashSet::with_capacity(current.len());
        desired(snapshot, options, |element, _| {
            wanted.insert(element);
        });
        let gone = current.iter().filter(|(e, _)| !wanted.contains(*e));
        changes.extend(gone.map(|(&element, &set)| Change {
            set,
            element,
            add: false,
        }));
    }
    changes
}

/// Notes what the kernel has now.
pub(super) fn record(current: &mut Elements, changes: &[Change]) {
    for change in changes {
        if change.add {
            current.insert(change.element, change.set);
        } else {
            current.remove(&change.element);
        }
    }
}
