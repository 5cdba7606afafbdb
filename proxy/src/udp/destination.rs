//! What a datagram is for, and whether a flow may stay where it is.

use std::net::IpAddr;
use std::sync::Arc;

use sealane_config::Snapshot;
use sealane_config::model::{EndpointAddr, Protocol, Scope, ServiceEndpoint, ServicePort, VipAddr};

use crate::node::Places;

/// What a client's datagrams are for.
pub(super) struct Destination {
    pub(super) port: Arc<ServicePort>,
    /// Which of its endpoints may serve.
    pub(super) scope: Scope,
    /// The client's address, if endpoints may see it.
    pub(super) source: Option<IpAddr>,
}

/// The Service port behind an address, for a client that may dial it.
pub(super) fn find(
    snapshot: &Snapshot,
    client: IpAddr,
    vip: VipAddr,
    places: &Places,
) -> Option<Destination> {
    let ip = vip.0.ip();
    let found = places.find(snapshot, vip.0, Protocol::Udp)?;
    if !places.admits(client, ip, &found) {
        return None;
    }
    let dialled = places.dialled(client, ip, found.kind);
    let (scope, source) = dialled.under(&found.port.policy);
    Some(Destination {
        port: Arc::clone(found.port),
        scope,
        source,
    })
}

/// Whether somebody could be served at an address.
pub(super) fn is_served(snapshot: &Snapshot, vip: VipAddr, places: &Places) -> bool {
    let found = places.find(snapshot, vip.0, Protocol::Udp);
    found.is_some_and(|found| !found.port.endpoints.is_empty())
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
    let ip = endpoint.ip();
    let first = all.partition_point(|e| e.addr() < ip);
    let same = all[first..].iter().take_while(|e| e.addr() == ip);
    same.into_iter()
        .any(|e| is_serving(e) && has_port(e, port, endpoint.port()))
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
