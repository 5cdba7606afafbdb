//! Services and their ports.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Endpoint, ObjectRef};

/// A Service by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a Service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Has at least one cluster IP.
    ClusterIp,
    /// `clusterIP: None`: DNS gives the endpoints' own addresses; never proxied.
    Headless,
    /// An alias for a name elsewhere, without a trailing dot; never proxied.
    ExternalName(Arc<str>),
}

/// One Service, compiled.
#[derive(Clone, Debug)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// What its name stands for.
    pub kind: ServiceKind,
    /// Cluster IPs, at most one a family, in the order of `spec.clusterIPs`.
    pub cluster_ips: Vec<IpAddr>,
    /// Other addresses that lead to it: `status.loadBalancer.ingress[].ip` and `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Its ports, in the order of `spec.ports`.
    pub ports: Vec<Arc<ServicePort>>,
    /// Every endpoint address of every slice, ready or not, without duplicates: what DNS needs.
    pub endpoints: Arc<[ServiceEndpoint]>,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16, protocol: Protocol) -> Option<&Arc<ServicePort>> {
        self.ports
            .iter()
            .find(|p| p.port == number && p.protocol == protocol)
    }

    /// The port with this name.
    pub fn port_named(&self, name: &str) -> Option<&Arc<ServicePort>> {
        self.ports.iter().find(|p| &*p.name == name)
    }
}

/// One endpoint address of a Service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// The address.
    pub addr: IpAddr,
    /// Ready (a missing condition counts as ready; never true while terminating, unless the
    /// Service publishes not-ready addresses and the slice controller says so).
    pub ready: bool,
    /// The pod's host name, if it has one within this Service.
    pub hostname: Option<Arc<str>>,
    /// The pod behind it.
    pub target: Option<ObjectRef>,
    /// The ports it listens on: name, protocol and number, from its slice.
    pub ports: Arc<[(Arc<str>, Protocol, u16)]>,
}

/// One port of a Service and the endpoints that can take its traffic now.
#[derive(Clone, Debug)]
pub struct ServicePort {
    /// The Service.
    pub service: ServiceKey,
    /// The port's name; empty if it has none.
    pub name: Arc<str>,
    /// The Service's port number.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The node port, for NodePort and LoadBalancer Services.
    pub node_port: Option<u16>,
    /// What is spoken on it.
    pub app_protocol: AppProtocol,
    /// Endpoints to choose from: the ready ones; if there are none, those that are serving and
    /// terminating (KEP-1669); deduplicated by address, sorted by address.
    pub endpoints: Arc<[Arc<Endpoint>]>,
}

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a Service port speaks, from `appProtocol` (KEP-1422, KEP-3726).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AppProtocol {
    /// Not said: look at the first bytes.
    #[default]
    Detect,
    /// `http`: HTTP/1.1 in plain text.
    Http,
    /// `kubernetes.io/h2c`, `http2`, `grpc`: HTTP/2 with prior knowledge.
    Http2,
    /// `https`, `tls`, `kubernetes.io/wss`: TLS, relayed as it is by the node proxy.
    Tls,
    /// `tcp` and everything unknown: bytes.
    Tcp,
}
