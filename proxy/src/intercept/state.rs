//! Which elements the kernel's sets should have, and what has to change.
//!
//! Only differences are written. Where it is known which Services were compiled since the last write,
//! nothing else is looked at, so that a change costs the same among ten Services and ten thousand;
//! otherwise everything is compared, with one look-up for each element. A port's element depends on
//! whether it has endpoints, not on which.
//!
//! Where a port's packets go follows from the policy for the address that is dialled:
//!
//! | endpoints | cluster IP | other addresses |
//! |---|---|---|
//! | none anywhere | refused | refused |
//! | some, but none on this node, and the policy is `Local` | lost | lost, unless a pod or the node dials |
//! | some that the policy allows | to the proxy | to the proxy |

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use sealane_config::model::{AddressKind, Protocol, Scope, ServicePort};
use sealane_config::{Snapshot, Touched};

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

/// An address that a client dials: a key of [`Snapshot::vips`], or a node port on a node's address.
type Dialled = (IpAddr, Protocol, u16);

/// An element of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
pub(super) type Elements = BTreeMap<Element, Set>;

/// What a snapshot asks for on a node with these addresses.
pub(super) struct Wanted<'a> {
    snapshot: &'a Snapshot,
    options: &'a InterceptOptions,
    node_ips: Arc<[IpAddr]>,
}

impl<'a> Wanted<'a> {
    /// With the node's addresses as they are now.
    pub(super) fn new(snapshot: &'a Snapshot, options: &'a InterceptOptions) -> Self {
        Self {
            snapshot,
            options,
            node_ips: options.node_ips.current(),
        }
    }

    /// The node's addresses.
    pub(super) fn node_ips(&self) -> &Arc<[IpAddr]> {
        &self.node_ips
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.node_ips.contains(&ip) || self.options.local_addresses.contains(&ip)
    }

    /// Calls `visit` once with each element.
    fn all(&self, mut visit: impl FnMut(Element, Set)) {
        let snapshot = self.snapshot;
        for (&at, port) in &snapshot.vips {
            self.vip(at, port, &mut visit);
        }
        for &ip in self.node_ips.iter() {
            for &(protocol, number) in snapshot.node_ports.keys() {
                let at = (ip, protocol, number);
                if !snapshot.vips.contains_key(&at) {
                    self.node_port(at, &mut visit);
                }
            }
        }
        let own = self.node_ips.iter().chain(&self.options.local_addresses);
        let own: HashSet<IpAddr> = own.copied().collect();
        let services = snapshot.cluster_ips.iter().map(|(ip, _)| ip);
        let services = services.filter(|ip| !own.contains(ip));
        for ip in services.chain(own.iter().copied()) {
            if let Some(set) = self.address(ip) {
                visit(Element::Address(ip), set);
            }
        }
    }

    /// Calls `visit` once with each element of an address that a client dials.
    fn dialled(&self, at: Dialled, mut visit: impl FnMut(Element, Set)) {
        match self.snapshot.vips.get(&at) {
            // An external IP may be a node's address; a Service's own port goes first.
            Some(port) => self.vip(at, port, &mut visit),
            None => self.node_port(at, &mut visit),
        }
    }

    fn vip(&self, at: Dialled, port: &ServicePort, visit: &mut impl FnMut(Element, Set)) {
        let (ip, protocol, number) = at;
        let kind = address_kind(self.snapshot, ip, port, self.options);
        if kind == AddressKind::External && !self.options.external_ips {
            return;
        }
        // The cluster DNS listens on its Service's address itself, endpoints or not.
        let is_here =
            port.endpoints.is_empty() || is_served_here(port, number, |ip| self.is_own(ip));
        if !self.is_own(ip) || !is_here {
            let set = set_for(port, kind, Family::of(ip));
            visit(Element::Service(ip, protocol, number), set);
        }
        if kind == AddressKind::LoadBalancer {
            restrict(at, port, &self.node_ips, visit);
        }
    }

    fn node_port(&self, at: Dialled, visit: &mut impl FnMut(Element, Set)) {
        let (ip, protocol, number) = at;
        if !self.node_ips.contains(&ip) || !self.options.serves_node_ports(ip) {
            return;
        }
        // Like an external IP, but nobody can switch it off.
        if let Some(port) = self.snapshot.node_port(ip.is_ipv4(), protocol, number) {
            let set = set_for(port, AddressKind::External, Family::of(ip));
            visit(Element::Service(ip, protocol, number), set);
        }
    }

    /// The set that an address as such is in.
    fn address(&self, ip: IpAddr) -> Option<Set> {
        if self.is_own(ip) {
            return Some(Set::NodeAddresses(Family::of(ip)));
        }
        let mut cidrs = self.options.service_cidrs.iter();
        let is_service =
            cidrs.any(|cidr| cidr.contains(&ip)) && self.snapshot.cluster_ips.get(&ip).is_some();
        is_service.then(|| Set::ServiceAddresses(Family::of(ip)))
    }

    /// What turns `current` into what is wanted, with the changes of one element behind each other.
    pub(super) fn difference(&self, current: &Elements) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut known = 0;
        self.all(|element, set| known += usize::from(compare(current, element, set, &mut changes)));
        if known < current.len() {
            let mut wanted = HashSet::with_capacity(current.len());
            self.all(|element, _| {
                wanted.insert(element);
            });
            let gone = current.iter().filter(|(e, _)| !wanted.contains(*e));
            let gone = gone.map(|(element, set)| removal(element, set));
            // Before what comes: a range that grows overlaps what it was.
            changes.splice(0..0, gone.collect::<Vec<_>>());
        }
        changes
    }

    /// The same where nothing but what was touched can differ: `current` is what an earlier snapshot
    /// asked for on a node with the same addresses.
    pub(super) fn difference_since<'t>(
        &self,
        current: &Elements,
        touched: impl Iterator<Item = &'t Touched>,
    ) -> Vec<Change> {
        let (mut dialled, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for touched in touched {
            dialled.extend(&touched.vips);
            addresses.extend(&touched.cluster_ips);
            for &ip in self.node_ips.iter() {
                let on_node = touched.node_ports.iter();
                dialled.extend(on_node.map(|&(protocol, number)| (ip, protocol, number)));
            }
        }
        let (mut gone, mut changes) = (Vec::new(), Vec::new());
        for at in dialled {
            let mut wanted = Vec::new();
            self.dialled(at, |element, set| {
                compare(current, element, set, &mut changes);
                wanted.push(element);
            });
            let left = elements_of(current, at).filter(|(e, _)| !wanted.contains(*e));
            gone.extend(left.map(|(element, set)| removal(element, set)));
        }
        for ip in addresses {
            let element = Element::Address(ip);
            if let Some(set) = self.address(ip) {
                compare(current, element, set, &mut changes);
            } else if let Some(set) = current.get(&element) {
                gone.push(removal(&element, set));
            }
        }
        changes.splice(0..0, gone);
        changes
    }
}

/// Notes what puts an element into its set; says whether it is in one already.
fn compare(current: &Elements, element: Element, set: Set, changes: &mut Vec<Change>) -> bool {
    let change = |set, add| Change { set, element, add };
    let old = current.get(&element).copied();
    if old != Some(set) {
        changes.extend(old.map(|old| change(old, false)));
        changes.push(change(set, true));
    }
    old.is_some()
}

fn removal(element: &Element, set: &Set) -> Change {
    Change {
        set: *set,
        element: *element,
        add: false,
    }
}

/// The elements of an address that a client dials.
fn elements_of(
    current: &Elements,
    (ip, protocol, number): Dialled,
) -> impl Iterator<Item = (&Element, &Set)> {
    let one = [
        Element::Service(ip, protocol, number),
        Element::Restricted(ip, protocol, number),
    ];
    let one = one.into_iter().filter_map(|it| current.get_key_value(&it));
    let first = IpNet::V4(Ipv4Net::default());
    let sources = current.range(Element::Source(ip, protocol, number, first)..);
    let is_here = move |element: &Element| matches!(*element, Element::Source(a, b, c, _) if (a, b, c) == (ip, protocol, number));
    one.chain(sources.take_while(move |(element, _)| is_here(element)))
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
    port.protocol == Protocol::Udp && port.endpoints.iter().all(|e| own(e.addr.socket()))
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
