//! What is kept of an EndpointSlice.

use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1;

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
    pub fn read(key: &ObjectKey, slice: v1::EndpointSlice, names: &mut Names) -> Option<Self> {
        if slice.address_type == "FQDN" {
            return None;
        }
        let annotations = slice.metadata.annotations.unwrap_or_default();
        let triggered = annotations
            .get(TRIGGERED)
            .and_then(|time| time.parse().ok());
        let triggered = triggered.map(|time: jiff::Timestamp| time.as_millisecond());
        let labels = slice.metadata.labels.unwrap_or_default();
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
        let ports = slice.ports.unwrap_or_default();
        Some(Self {
            service,
            ports: ports_of(ports, names),
            endpoints: endpoints.into(),
            problems,
            triggered: Trigger(triggered),
        })
    }
}

/// Only the first address counts (the API calls all addresses of an endpoint fungible).
fn address(endpoint: &v1::Endpoint, address_type: &str) -> Result<IpAddr, String> {
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

fn info(key: &ObjectKey, addr: IpAddr, endpoint: v1::Endpoint, names: &mut Names) -> EndpointInfo {
    let conditions = endpoint.conditions.unwrap_or_default();
    let reference = endpoint.target_ref.unwrap_or_default();
    let namespace = reference.namespace.as_deref();
    let is_pod = reference.kind.as_deref() == Some("Pod")
        && namespace.is_none_or(|namespace| namespace == &*key.namespace);
    let hints = endpoint.hints.unwrap_or_default();
    let for_nodes = hints.for_nodes.unwrap_or_default().into_iter();
    let for_zones = hints.for_zones.unwrap_or_default().into_iter();
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
        uid: reference.uid.map(|uid| uid_bytes(&uid)),
        pod: reference.name.filter(|_| is_pod).map(Into::into),
        hostname: endpoint
            .hostname
            .filter(|name| !name.is_empty())
            .map(Into::into),
        location: names.location(location),
    }
}

/// A uid's hash: tells two uids apart as well as their text, in less than half the space.
fn uid_bytes(uid: &str) -> [u8; 16] {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(uid.as_bytes());
        u128::from(hasher.finish())
    };
    (half(0) << 64 | half(1)).to_le_bytes()
}

/// A port without a number means all ports, which a Service cannot use.
fn ports_of(ports: Vec<v1::EndpointPort>, names: &mut Names) -> EndpointPorts {
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
