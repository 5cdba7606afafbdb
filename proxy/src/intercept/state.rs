//! Which elements the kernel's sets should have, and what has to change.
//!
//! Comparing costs a walk over all Service ports with one look-up each and, as long as nothing
//! differs, hardly any allocation; only differences are written. A port's element depends on whether
//! it has endpoints, not on which.
//!
//! Where a port's packets go follows from the policy for the address that is dialled:
//!
//! | endpoints | cluster IP | other addresses |
//! |---|---|---|
//! | none anywhere | refused | refused |
//! | some, but none on this node, and the policy is `Local` | lost | lost, unless a pod or the node dials |
//! | some that the policy allows | to the proxy | to the proxy |

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use sealane_config::Snapshot;
use sealane_config::model::{AddressKind, Protocol, Scope, ServicePort};

use super::InterceptOptions;
use super::rule::Family;

/// The sets of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// Service ports whose connections the proxy takes.
    Capture(Family),
    /// Service ports without endpoints.
    Refuse(Family),
    /// Service ports on a cluster IP with endpoints on other nodes only, where that is not allowed.
    CutOff(Family),
    /// The same on other addresses: served to pods and the node itself only.
    InsideOnly(Family),
    /// Service ports of load balancers that are not open to every client.
    Restricted(Family),
    /// Which clients these are open to.
    Admitted(Family),
    /// Addresses of Services.
    ServiceAddresses(Family),
    /// Addresses of this node.
    NodeAddresses(Family),
}

impl Set {
    pub(super) const ALL: [Self; 16] = {
        let (v4, v6) = (Family::V4, Family::V6);
        [
            Self::Capture(v4),
            Self::Capture(v6),
            Self::Refuse(v4),
            Self::Refuse(v6),
            Self::CutOff(v4),
            Self::CutOff(v6),
            Self::InsideOnly(v4),
            Self::InsideOnly(v6),
            Self::Restricted(v4),
            Self::Restricted(v6),
            Self::Admitted(v4),
            Self::Admitted(v6),
            Self::ServiceAddresses(v4),
            Self::ServiceAddresses(v6),
            Self::NodeAddresses(v4),
            Self::NodeAddresses(v6),
        ]
    };
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
    /// Of one of the sets that say what becomes of a Service port.
    Service(IpAddr, Protocol, u16),
    /// Of [`Set::Restricted`].
    Restricted(IpAddr, Protocol, u16),
    /// Of [`Set::Admitted`].
    Source(IpAddr, Protocol, u16, IpNet),
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
    let node_ips = options.node_ips.current();
    let is_own = |ip: IpAddr| node_ips.contains(&ip) || options.local_addresses.contains(&ip);
    for (&(ip, protocol, number), port) in &snapshot.vips {
        let kind = address_kind(snapshot, ip, port, options);
        if kind == AddressKind::External && !options.external_ips {
            continue;
        }
        // The cluster DNS listens on its Service's address itself, endpoints or not.
        let is_here = port.endpoints.is_empty() || is_served_here(port, number, is_own);
        if !is_own(ip) || !is_here {
            let set = set_for(port, kind, Family::of(ip));
            visit(Element::Service(ip, protocol, number), set);
        }
        if kind == AddressKind::LoadBalancer {
            restrict((ip, protocol, number), port, &node_ips, &mut visit);
        }
    }
    for (ip, _) in snapshot.cluster_ips.iter() {
        let within = options.service_cidrs.iter().any(|cidr| cidr.contains(&ip));
        if within && !is_own(ip) {
            visit(Element::Address(ip), Set::ServiceAddresses(Family::of(ip)));
        }
    }
    for &ip in node_ips.iter().filter(|ip| options.serves_node_ports(**ip)) {
        for &(protocol, number) in snapshot.node_ports.keys() {
            // An external IP may be a node's address; a Service's own port goes first.
            if snapshot.vips.contains_key(&(ip, protocol, number)) {
                continue;
            }
            // Like an external IP, but nobody can switch it off.
            if let Some(port) = snapshot.node_port(ip.is_ipv4(), protocol, number) {
                let set = set_for(port, AddressKind::External, Family::of(ip));
                visit(Element::Service(ip, protocol, number), set);
            }
        }
    }
    let mut seen = HashSet::new();
    for &ip in node_ips.iter().chain(&options.local_addresses) {
        if seen.insert(ip) {
            visit(Element::Address(ip), Set::NodeAddresses(Family::of(ip)));
        }
    }
}

/// What an address is to the Service that it leads to, where that makes a difference.
fn address_kind(
    snapshot: &Snapshot,
    ip: IpAddr,
    port: &ServicePort,
    options: &InterceptOptions,
) -> AddressKind {
    let policy = &port.policy;
    let is_simple = policy.internal == Scope::Cluster
        && policy.external == Scope::Cluster
        && policy.source_ranges.is_none();
    if is_simple && options.external_ips {
        return AddressKind::ClusterIp;
    }
    let service = snapshot.services.get(&port.service);
    let kind = service.and_then(|service| service.address_kind(ip));
    kind.unwrap_or(AddressKind::ClusterIp)
}

/// Datagrams to an own address whose endpoints are own addresses with the same port need no proxy:
/// that is the cluster DNS, which every query would otherwise cost a flow.
fn is_served_here(port: &ServicePort, number: u16, is_own: impl Fn(IpAddr) -> bool) -> bool {
    let own = |addr: SocketAddr| addr.port() == number && is_own(addr.ip());
    port.protocol == Protocol::Udp && port.endpoints.iter().all(|e| own(e.addr.0))
}

fn set_for(port: &ServicePort, kind: AddressKind, family: Family) -> Set {
    if port.endpoints.is_empty() {
        return Set::Refuse(family);
    }
    let (policy, otherwise) = match kind {
        AddressKind::ClusterIp => (port.policy.internal, Set::CutOff(family)),
        AddressKind::LoadBalancer | AddressKind::External => {
            (port.policy.external, Set::InsideOnly(family))
        }
    };
    if port.within(policy).is_empty() {
        otherwise
    } else {
        Set::Capture(family)
    }
}

/// `loadBalancerSourceRanges`, which hold for the load balancer's addresses, not for node ports. If
/// they name the node, it may also use the load balancer's address as its own, which a connection
/// from the node to that address has where the address is a local one.
fn restrict(
    (ip, protocol, number): (IpAddr, Protocol, u16),
    port: &ServicePort,
    node_ips: &[IpAddr],
    visit: &mut impl FnMut(Element, Set),
) {
    let family = Family::of(ip);
    let Some(ranges) = &port.policy.source_ranges else {
        return;
    };
    let of_family = ranges.iter().filter(|net| Family::of(net.addr()) == family);
    let mut admitted: Vec<IpNet> = of_family.map(IpNet::trunc).collect();
    if admitted.is_empty() && !ranges.is_empty() {
        return;
    }
    let names_node = node_ips
        .iter()
        .any(|node| admitted.iter().any(|net| net.contains(node)));
    if names_node {
        admitted.push(IpNet::from(ip));
    }
    let restricted = Element::Restricted(ip, protocol, number);
    visit(restricted, Set::Restricted(family));
    // The kernel refuses ranges that overlap.
    for net in IpNet::aggregate(&admitted) {
        let source = Element::Source(ip, protocol, number, net);
        visit(source, Set::Admitted(family));
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
        let gone = gone.map(|(&element, &set)| Change {
            set,
            element,
            add: false,
        });
        // Before what comes: a range that grows overlaps what it was.
        changes.splice(0..0, gone.collect::<Vec<_>>());
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
