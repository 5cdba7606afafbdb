//! What is kept of an EndpointSlice.

use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::endpoint_slice::{Endpoint, EndpointPort, EndpointSlice, Metadata};
use super::names::Names;
use super::service::{port_number, protocol};
use super::store::ObjectKey;
use crate::model::{Conditions, EndpointInfo, EndpointPorts, Location, Problem, ProblemKind};

/// Names the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// When the change happened that made the slice controller write the slice (RFC 3339).
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The fields of an EndpointSlice that are used.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceRecord {
    pub(super) service: ObjectKey,
    /// They hold for all of the slice's endpoints.
    pub(super) ports: EndpointPorts,
    pub(super) endpoints: Box<[Arc<EndpointInfo>]>,
    pub(super) problems: Vec<Problem>,
    /// When the change happened that it was written for.
    pub(crate) triggered: Trigger,
}

/// A time, in milliseconds since the Unix epoch, that does not make one record differ from another.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trigger(pub(crate) Option<i64>);

impl PartialEq for Trigger {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl SliceRecord {
    /// The Service that it belongs to.
    pub(crate) fn service(&self) -> &ObjectKey {
        &self.service
    }

    /// Reads a slice; `None` if it belongs to no Service or holds names instead of addresses.
    pub fn read(key: &ObjectKey, slice: EndpointSlice, names: &mut Names) -> Option<Self> {
        if slice.address_type == "FQDN" {
            return None;
        }
        let Metadata {
            labels,
            annotations,
            ..
        } = slice.metadata;
        let triggered = annotations
            .get(TRIGGERED)
            .and_then(|time| time.parse().ok());
        let triggered = triggered.map(|time: jiff::Timestamp| time.as_millisecond());
        let service = labels.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
        let service = key.sibling(&names.get(service));
        let mut problems = Vec::new();
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        for (index, endpoint) in slice.endpoints.into_iter().enumerate() {
            match address(&endpoint, &slice.address_type) {
                Ok(addr) => endpoints.push(Arc::new(info(key, addr, endpoint, names))),
                Err(message) => problems.push(Problem {
                    object: key.of_kind("EndpointSlice"),
                    field: format!("endpoints[{index}].addresses"),
                    kind: ProblemKind::BadField,
                    message,
                }),
            }
        }
        Some(Self {
            service,
            ports: ports_of(slice.ports, names),
            endpoints: endpoints.into(),
            problems,
            triggered: Trigger(triggered),
        })
    }
}

/// Only the first address counts (the API calls all addresses of an endpoint fungible).
fn address(endpoint: &Endpoint, address_type: &str) -> Result<IpAddr, String> {
    let text = endpoint.addresses.first().map_or("", String::as_str);
    let addr: IpAddr = text
        .parse()
        .map_err(|_not_an_address| format!("`{text}` is not an IP address"))?;
    let v4 = address_type == "IPv4";
    if v4 != addr.is_ipv4() {
        return Err(format!("{addr} is not an {address_type} address"));
    }
    // What the API server forbids as well: such an endpoint would turn the proxy against its node
    // or the cloud's metadata service. Loopback is what pods have without a network of their own.
    let link_local = match addr {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if link_local || addr.is_unspecified() || addr.is_multicast() {
        return Err(format!("{addr} cannot be an endpoint"));
    }
    Ok(addr)
}

fn info(key: &ObjectKey, addr: IpAddr, endpoint: Endpoint, names: &mut Names) -> EndpointInfo {
    let conditions = endpoint.conditions.unwrap_or_default();
    let reference = endpoint.target_ref.unwrap_or_default();
    let is_here = reference.namespace.is_empty() || *reference.namespace == *key.namespace;
    let is_pod = reference.kind == "Pod" && is_here && !reference.name.is_empty();
    let hints = endpoint.hints.unwrap_or_default();
    let for_nodes = hints.for_nodes.into_iter();
    let for_zones = hints.for_zones.into_iter();
    let location = Location {
        node: endpoint.node_name.map(|name| names.get(&name)),
        zone: endpoint.zone.map(|name| names.get(&name)),
        for_nodes: for_nodes.map(|node| names.get(&node.name)).collect(),
        for_zones: for_zones.map(|zone| names.get(&zone.name)).collect(),
    };
    EndpointInfo {
        addr,
        conditions: Conditions {
            ready: conditions.ready,
            serving: conditions.serving,
            terminating: conditions.terminating.unwrap_or_default(),
        },
        uid: uid_hash(&reference.uid),
        pod: is_pod.then(|| reference.name.into()),
        hostname: endpoint
            .hostname
            .filter(|name| !name.is_empty())
            .map(|name| Box::new(name.into())),
        location: names.location(location),
    }
}

/// A uid's hash, which tells the pods that have had one address apart as well as their uids do.
fn uid_hash(uid: &str) -> Option<NonZeroU64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(uid.as_bytes());
    NonZeroU64::new(hasher.finish().max(1)).filter(|_| !uid.is_empty())
}

/// A port without a number means all ports, which a Service cannot use.
fn ports_of(ports: Vec<EndpointPort>, names: &mut Names) -> EndpointPorts {
    let mut unique = Vec::with_capacity(ports.len());
    for port in ports {
        let protocol = protocol(port.protocol.as_deref());
        if let (Some(protocol), Some(number)) = (protocol, port.port.and_then(port_number)) {
            let name = names.get(port.name.as_deref().unwrap_or_default());
            let port = (name, protocol, number);
            if !unique.contains(&port) {
                unique.push(port);
            }
        }
    }
    names.ports(unique)
}
