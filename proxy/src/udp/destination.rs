//! What a datagram is for, and whether a flow may stay where it is.

use std::net::IpAddr;
use std::sync::Arc;

use sealane_config::Snapshot;
use sealane_config::model::{
    AddressKind, EndpointAddr, Protocol, Scope, ServiceEndpoint, ServicePort, VipAddr,
};

/// The Service port behind an address, and which of its endpoints may serve there.
pub(super) fn find(
    snapshot: &Snapshot,
    vip: VipAddr,
    node_ips: &[IpAddr],
) -> Option<(Arc<ServicePort>, Scope)> {
    let node_port = || {
        let key = (Protocol::Udp, vip.0.port());
        let is_node = node_ips.contains(&vip.0.ip());
        is_node.then(|| snapshot.node_ports.get(&key)).flatten()
    };
    let port = snapshot.vip(vip, Protocol::Udp).or_else(node_port)?;
    let service = snapshot.services.get(&port.service);
    let kind = service.and_then(|service| service.address_kind(vip.0.ip()));
    let scope = match kind {
        Some(AddressKind::ClusterIp) => port.policy.internal,
        // From pods and the node, every other address leads to the whole cluster (proxy S6).
        Some(AddressKind::LoadBalancer | AddressKind::External) | None => Scope::Cluster,
    };
    Some((Arc::clone(port), scope))
}

/// Whether an endpoint still takes datagrams of flows that it has: it may be chosen, or it is not
/// chosen any more but says that it serves, as a terminating one does, or one that topology hints
/// name no more (kube-proxy, too, ends the flows only of endpoints that do not serve).
pub(super) fn serves(
    snapshot: &Snapshot,
    port: &ServicePort,
    scope: Scope,
    endpoint: EndpointAddr,
) -> bool {
    let chosen = port.within(scope);
    if chosen.binary_search_by_key(&endpoint, |e| e.addr).is_ok() {
        return true;
    }
    let Some(service) = snapshot.services.get(&port.service) else {
        return false;
    };
    let all = &service.endpoints;
    let ip = endpoint.0.ip();
    let first = all.partition_point(|e| e.addr() < ip);
    let same = all[first..].iter().take_while(|e| e.addr() == ip);
    same.into_iter()
        .any(|e| is_serving(e) && has_port(e, port, endpoint.0.port()))
}

/// A missing `serving` means the same as `ready`.
fn is_serving(endpoint: &ServiceEndpoint) -> bool {
    let conditions = endpoint.info.conditions;
    let serving = conditions.serving.or(conditions.ready).unwrap_or(true);
    endpoint.ready || serving
}

fn has_port(endpoint: &ServiceEndpoint, port: &ServicePort, number: u16) -> bool {
    let mut ports = endpoint.ports.iter();
    ports
        .any(|(name, protocol, n)| *name == port.name && *protocol == Protocol::Udp && *n == number)
}

#[cfg(test)]
mod tests;
