//! What the data plane works with, for people who look for a fault: Services, endpoints with their
//! live state, connections. Names and addresses only; nothing of a request.

use std::sync::atomic::Ordering::Relaxed;

use sealane_config::Snapshot;
use sealane_config::model::{Endpoint, Service, ServicePort};
use sealane_proxy::admission::Connections;
use sealane_proxy::balance::{Ejection, ejection};
use serde_json::{Value, json};

/// Services that one page shows; a single one is asked for by name.
const SERVICES: usize = 1000;

/// Sources that the page of connections shows.
const SOURCES: usize = 100;

/// The Services in order of their names, as `show` has them.
pub(super) fn services(
    snapshot: &Snapshot,
    only: Option<&str>,
    show: fn(&Service) -> Value,
) -> Value {
    let wanted = |service: &&std::sync::Arc<Service>| {
        only.is_none_or(|only| service.key.to_string() == only)
    };
    let mut services: Vec<_> = snapshot.services.values().filter(wanted).collect();
    services.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let total = services.len();
    services.truncate(SERVICES);
    let shown: Vec<Value> = services.into_iter().map(|service| show(service)).collect();
    json!({"generation": snapshot.generation, "total": total, "services": shown})
}

/// How a Service is reached and treated.
pub(super) fn config(service: &Service) -> Value {
    let ports = service.ports.iter().map(|port| {
        json!({
            "name": &*port.name,
            "port": port.port,
            "protocol": format!("{:?}", port.protocol).to_uppercase(),
            "nodePort": port.node_port,
            "appProtocol": format!("{:?}", port.app_protocol),
        })
    });
    let policy = &service.policy;
    let ranges = policy.source_ranges.as_ref();
    json!({
        "service": service.key.to_string(),
        "kind": format!("{:?}", service.kind),
        "clusterIPs": service.cluster_ips,
        "loadBalancerIPs": service.load_balancer_ips,
        "externalIPs": service.external_ips,
        "ports": ports.collect::<Vec<_>>(),
        "internalTrafficPolicy": format!("{:?}", policy.internal),
        "externalTrafficPolicy": format!("{:?}", policy.external),
        "sessionAffinitySeconds": policy.affinity.map(|timeout| timeout.as_secs()),
        "sourceRanges": ranges.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "healthCheckNodePort": policy.health_check_node_port,
    })
}

/// The endpoints that take a Service's traffic.
pub(super) fn endpoints(service: &Service) -> Value {
    let ports = service.ports.iter().map(|port| {
        json!({
            "name": &*port.name,
            "port": port.port,
            "endpoints": port.endpoints.iter().map(|e| endpoint(port, e)).collect::<Vec<_>>(),
        })
    });
    json!({
        "service": service.key.to_string(),
        "localReady": service.local_ready(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

fn endpoint(port: &ServicePort, endpoint: &Endpoint) -> Value {
    let stats = &endpoint.stats;
    let is_local = port.local.as_ref().map(|local| {
        let mut local = local.iter();
        local.any(|it| it.addr == endpoint.addr)
    });
    json!({
        "address": endpoint.addr.to_string(),
        "pod": endpoint.pod(),
        "node": endpoint.node(),
        "zone": endpoint.zone(),
        "ready": endpoint.ready,
        "local": is_local,
        "ejection": match ejection(endpoint) {
            Ejection::Open => "open",
            Ejection::Ejected => "ejected",
            Ejection::Probation => "probation",
        },
        "inFlight": stats.in_flight.load(Relaxed),
        "roundTripMicros": stats.rtt_nanos.load(Relaxed) / 1000,
        "failuresInARow": stats.consecutive_failures.load(Relaxed),
    })
}

/// How many connections clients have, and the clients with the most.
pub(super) fn connections(connections: &Connections) -> Value {
    let sources = connections.busiest_sources(SOURCES).into_iter();
    let sources = sources.map(|(ip, count)| json!({"source": ip, "connections": count}));
    json!({
        "open": connections.open(),
        "limit": connections.limits().total,
        "limitPerSource": connections.limits().per_source,
        "sources": sources.collect::<Vec<_>>(),
    })
}
