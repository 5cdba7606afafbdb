//! Which elements the kernel's sets should have, and what has to change.
//!
//! Comparing costs a walk over all Service ports, about a millisecond at 10,000 Services, and
//! happens once a publication; only differences are written. A port's element depends on whether
//! it has endpoints, not on which.

use std::collections::HashMap;
use std::net::IpAddr;

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

/// The elements for a snapshot.
pub(super) fn desired(snapshot: &Snapshot, options: &InterceptOptions) -> Elements {
    let mut elements = Elements::with_capacity(2 * snapshot.vips.size());
    for (&(ip, protocol, number), port) in &snapshot.vips {
        let own = is_node_address(ip, options);
        if let Some(set) = set_for(port, Family::of(ip)) {
            // The cluster DNS listens on its Service's address itself, endpoints or not.
            if !(own && set == Set::Refuse(Family::of(ip))) {
                elements.insert(Element::Service(ip, protocol, number), set);
            }
        }
        if !own && options.service_cidrs.iter().any(|c| c.contains(&ip)) {
            let set = Set::ServiceAddresses(Family::of(ip));
            elements.insert(Element::Address(ip), set);
        }
    }
    for &ip in &options.node_ips {
        for (&(protocol, number), port) in &snapshot.node_ports {
            if let Some(set) = set_for(port, Family::of(ip)) {
                elements.insert(Element::Service(ip, protocol, number), set);
            }
        }
    }
    for &ip in options.node_ips.iter().chain(&options.local_addresses) {
        let set = Set::NodeAddresses(Family::of(ip));
        elements.insert(Element::Address(ip), set);
    }
    elements
}

fn is_node_address(ip: IpAddr, options: &InterceptOptions) -> bool {
    options.node_ips.contains(&ip) || options.local_addresses.contains(&ip)
}

/// UDP ports with endpoints are in no set, because datagrams are not proxied yet: on a Service's
/// address they are refused like every port that nobody serves.
fn set_for(port: &ServicePort, family: Family) -> Option<Set> {
    if port.endpoints.is_empty() {
        return Some(Set::Refuse(family));
    }
    match port.protocol {
        Protocol::Tcp => Some(Set::Capture(family)),
        Protocol::Udp => None,
    }
}

/// What turns `current` into `desired`, with the changes of one element behind each other.
pub(super) fn difference(current: &Elements, desired: &Elements) -> Vec<Change> {
    let change = |element: &Element, set: &Set, add| Change {
        set: *set,
        element: *element,
        add,
    };
    let mut changes = Vec::new();
    for (element, set) in desired {
        match current.get(element) {
            Some(old) if old == set => {}
            Some(old) => {
                changes.push(change(element, old, false));
                changes.push(change(element, set, true));
            }
            None => changes.push(change(element, set, true)),
        }
    }
    for (element, set) in current {
        if !desired.contains_key(element) {
            changes.push(change(element, set, false));
        }
    }
    changes
}
