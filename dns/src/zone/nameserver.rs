//! Name servers of the cluster's zone: the Services through which this server is reached, or
//! `ns.dns.ZONE` with our own addresses if there is none.

use std::net::IpAddr;

use sealane_config::model::{ServiceKey, ServiceKind};

use super::{Lookup, endpoint};
use crate::name::Name;

/// Names and addresses of the zone's servers. `zone` is as the client typed it.
pub(super) fn servers(lookup: &Lookup<'_>, zone: &Name) -> Vec<(Name, Vec<IpAddr>)> {
    let own = &lookup.settings.own_addresses;
    let mut servers: Vec<(Name, Vec<IpAddr>)> = Vec::new();
    for &addr in own {
        for key in services(lookup, addr) {
            for (name, addrs) in names(lookup, zone, key, addr) {
                match servers.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => known.extend(addrs),
                    None => servers.push((name, addrs)),
                }
            }
        }
    }
    if servers.is_empty() {
        let addrs = own.iter().copied().filter(|addr| !addr.is_loopback());
        let name = Name::prepend(["ns", "dns"], zone);
        servers.extend(name.map(|name| (name, addrs.collect())));
    }
    for (_, addrs) in &mut servers {
        addrs.sort_unstable();
        addrs.dedup();
    }
    servers
}

/// The Services that lead to this address.
fn services<'a>(lookup: &Lookup<'a>, addr: IpAddr) -> impl Iterator<Item = &'a ServiceKey> {
    let snapshot = lookup.snapshot;
    let by_endpoint = snapshot.endpoint_ips.get(&addr);
    let by_endpoint = by_endpoint.into_iter().flat_map(|keys| keys.iter());
    snapshot
        .cluster_ips
        .get(&addr)
        .into_iter()
        .chain(by_endpoint)
}

/// What such a Service is called as a name server: by its own name, or endpoint by endpoint if it
/// is headless.
fn names(
    lookup: &Lookup<'_>,
    zone: &Name,
    key: &ServiceKey,
    addr: IpAddr,
) -> Vec<(Name, Vec<IpAddr>)> {
    let Some(service) = lookup.snapshot.services.get(key) else {
        return Vec::new();
    };
    let labels = [&*key.name, &*key.namespace, "svc"];
    match service.kind {
        ServiceKind::ClusterIp => Name::prepend(labels, zone)
            .map(|name| (name, service.cluster_ips.clone()))
            .into_iter()
            .collect(),
        ServiceKind::Headless => {
            let endpoints = service.endpoints.iter();
            let ready = endpoints.filter(|endpoint| endpoint.ready && endpoint.addr() == addr);
            ready
                .filter_map(|endpoint| {
                    let label = endpoint::label(endpoint, lookup.settings.endpoint_pod_names);
                    let labels = [&*label].into_iter().chain(labels);
                    Some((Name::prepend(labels, zone)?, vec![endpoint.addr()]))
                })
                .collect()
        }
        ServiceKind::ExternalName(_) => Vec::new(),
    }
}
