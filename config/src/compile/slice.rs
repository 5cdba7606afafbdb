//! What is kept of an EndpointSlice.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1;

use super::names::Names;
use super::service::{port_number, protocol};
use super::store::ObjectKey;
use crate::model::{ObjectRef, Problem, ProblemKind, Protocol};

/// Names the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The fields of an EndpointSlice that are used.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceRecord {
    pub(super) service: ObjectKey,
    pub(super) ports: Arc<[SlicePort]>,
    pub(super) endpoints: Vec<EndpointRecord>,
    pub(super) problems: Vec<Problem>,
}

/// A port of a slice: it holds for all of the slice's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlicePort {
    pub(super) name: Arc<str>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EndpointRecord {
    pub(super) addr: IpAddr,
    /// `conditions.ready` as written.
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: bool,
    pub(super) hostname: Option<Arc<str>>,
    pub(super) target: Option<ObjectRef>,
    /// `targetRef.uid`: tells a pod from its successor of the same name and address.
    pub(super) uid: Option<Arc<str>>,
    pub(super) node: Option<Arc<str>>,
    pub(super) zone: Option<Arc<str>>,
}

impl EndpointRecord {
    /// Takes new traffic. A missing condition counts as ready; a terminating endpoint is ready only
    /// if its Service publishes not-ready addresses and the slice says so.
    pub(super) fn is_ready(&self, publish_not_ready: bool) -> bool {
        match self.ready {
            Some(ready) => ready && (!self.terminating || publish_not_ready),
            None => !self.terminating,
        }
    }

    /// Takes traffic if no ready endpoint is left (KEP-1669). A missing condition means the same as
    /// `ready`.
    pub(super) fn is_serving_terminating(&self) -> bool {
        self.terminating && self.serving.or(self.ready).unwrap_or(true)
    }
}

impl SliceRecord {
    /// Reads a slice; `None` if it belongs to no Service or holds names instead of addresses.
    pub fn read(key: &ObjectKey, slice: v1::EndpointSlice, names: &mut Names) -> Option<Self> {
        if slice.address_type == "FQDN" {
            return None;
        }
        let labels = slice.metadata.labels.unwrap_or_default();
        let service = labels.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
        let service = key.sibling(&names.get(service));
        let mut problems = Vec::new();
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        for (index, endpoint) in slice.endpoints.into_iter().enumerate() {
            match address(&endpoint, &slice.address_type) {
                Ok(addr) => endpoints.push(record(key, addr, endpoint, names)),
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
            ports: ports
                .into_iter()
                .filter_map(|port| slice_port(port, names))
                .collect(),
            endpoints,
            problems,
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

fn record(
    key: &ObjectKey,
    addr: IpAddr,
    endpoint: v1::Endpoint,
    names: &mut Names,
) -> EndpointRecord {
    let conditions = endpoint.conditions.unwrap_or_default();
    let reference = endpoint.target_ref.unwrap_or_default();
    let is_pod = reference.kind.as_deref() == Some("Pod");
    let target = reference.name.filter(|_| is_pod).map(|name| ObjectRef {
        kind: "Pod",
        namespace: reference
            .namespace
            .map_or_else(|| Arc::clone(&key.namespace), |name| names.get(&name)),
        name: name.into(),
    });
    EndpointRecord {
        addr,
        ready: conditions.ready,
        serving: conditions.serving,
        terminating: conditions.terminating.unwrap_or_default(),
        hostname: endpoint.hostname.filter(|h| !h.is_empty()).map(Into::into),
        target,
        uid: reference.uid.map(Into::into),
        node: endpoint.node_name.map(|name| names.get(&name)),
        zone: endpoint.zone.map(|name| names.get(&name)),
    }
}

/// A port without a number means all ports, which a Service cannot use.
fn slice_port(port: v1::EndpointPort, names: &mut Names) -> Option<SlicePort> {
    Some(SlicePort {
        name: names.get(port.name.as_deref().unwrap_or_default()),
        protocol: protocol(port.protocol.as_deref())?,
        port: port.port.and_then(port_number)?,
    })
}
