//! Services and their ports.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Endpoint, EndpointInfo, HttpPolicy, Scope, TrafficPolicy};

/// A Service by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// Namespace and name, whoever owns them: what a Service is looked up by.
pub trait ServiceName {
    /// Namespace and name.
    fn parts(&self) -> (&str, &str);
}

impl ServiceName for ServiceKey {
    fn parts(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl ServiceName for (&str, &str) {
    fn parts(&self) -> (&str, &str) {
        *self
    }
}

impl PartialEq for dyn ServiceName + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn ServiceName + '_ {}

impl Hash for dyn ServiceName + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl<'a> Borrow<dyn ServiceName + 'a> for ServiceKey {
    fn borrow(&self) -> &(dyn ServiceName + 'a) {
        self
    }
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
    /// Addresses of load balancers that lead here as they are: `status.loadBalancer.ingress[].ip`,
    /// unless `ipMode` is `Proxy`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// How its traffic is treated; its ports share this.
    pub policy: Arc<TrafficPolicy>,
    /// Its ports, in the order of `spec.ports`; none where only names are served.
    pub ports: Vec<Arc<ServicePort>>,
    /// Name, protocol and number of its ports in the same order: what DNS needs. Services with the
    /// same ports share this.
    pub listed_ports: EndpointPorts,
    /// Every endpoint address of every slice, ready or not, without duplicates, sorted by address:
    /// what DNS needs.
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

    /// What an address is to this Service; a cluster IP goes before the others.
    pub fn address_kind(&self, ip: IpAddr) -> Option<AddressKind> {
        if self.cluster_ips.contains(&ip) {
            Some(AddressKind::ClusterIp)
        } else if self.load_balancer_ips.contains(&ip) {
            Some(AddressKind::LoadBalancer)
        } else {
            let is_external = self.external_ips.contains(&ip);
            is_external.then_some(AddressKind::External)
        }
    }

    /// Addresses of ready endpoints on this node: what `healthCheckNodePort` reports. 0 if it is not
    /// known which node this is, or if neither traffic policy is `Local`.
    pub fn local_ready(&self) -> usize {
        let local = self.ports.iter().filter_map(|port| port.local.as_ref());
        let ready = local.flat_map(|all| all.iter()).filter(|e| e.ready);
        let ips: BTreeSet<IpAddr> = ready.map(|endpoint| endpoint.addr.ip()).collect();
        ips.len()
    }
}

/// What an address is to the Service that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// One of its cluster IPs.
    ClusterIp,
    /// A load balancer's, `loadBalancerSourceRanges` apply.
    LoadBalancer,
    /// One of `externalIPs`.
    External,
}

/// One endpoint address of a Service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// What its EndpointSlice says.
    pub info: Arc<EndpointInfo>,
    /// Ready (a missing condition counts as ready; never true while terminating, unless the
    /// Service publishes not-ready addresses and the slice controller says so).
    pub ready: bool,
    /// The ports it listens on, from its slice.
    pub ports: EndpointPorts,
}

const _: () = assert!(size_of::<ServiceEndpoint>() <= 24);

/// Ports of an endpoint: name, protocol and number.
/// Each endpoint has a pointer to such a list, which is why that is a thin one.
pub type EndpointPorts = Arc<Vec<(Arc<str>, Protocol, u16)>>;

impl ServiceEndpoint {
    /// The address.
    pub fn addr(&self) -> IpAddr {
        self.info.addr
    }

    /// The pod's host name, if it has one within this Service.
    pub fn hostname(&self) -> Option<&str> {
        self.info.hostname.as_deref().map(AsRef::as_ref)
    }

    /// Name of the pod behind it.
    pub fn pod(&self) -> Option<&str> {
        self.info.pod.as_deref()
    }
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
    /// Endpoints to choose from, wherever they are: the ready ones, or those of them that topology
    /// hints name for this node or its zone; if there are none, those that are serving and
    /// terminating (KEP-1669); deduplicated by address, sorted by address.
    pub endpoints: Arc<[Arc<Endpoint>]>,
    /// The same among the endpoints on this node, hints ignored. `None` as long as no traffic policy
    /// is [`Scope::Local`], or if it is not known which node this is.
    pub local: Option<Arc<[Arc<Endpoint>]>>,
    /// All ready endpoints, wherever they are, sorted by address; `None` unless topology hints left
    /// some of them out of [`Self::endpoints`].
    pub everywhere: Option<Arc<[Arc<Endpoint>]>>,
    /// How the Service's traffic is treated.
    pub policy: Arc<TrafficPolicy>,
    /// How its requests are treated, and how endpoints are chosen.
    pub http: Arc<HttpPolicy>,
}

impl ServicePort {
    /// Endpoints to choose from for a connection of this scope.
    ///
    /// None here while [`Self::endpoints`] has some means that such a connection is to be dropped;
    /// none there either, that it is to be refused.
    pub fn within(&self, scope: Scope) -> &Arc<[Arc<Endpoint>]> {
        match (scope, &self.local) {
            (Scope::Local, Some(local)) => local,
            (Scope::Local, None) | (Scope::Cluster, _) => &self.endpoints,
        }
    }

    /// As [`Self::within`], with the endpoints that topology hints leave out: where traffic goes when
    /// those that they name fail.
    pub fn everywhere_within(&self, scope: Scope) -> &Arc<[Arc<Endpoint>]> {
        match (scope, &self.local, &self.everywhere) {
            (Scope::Local, Some(local), _) => local,
            (_, _, Some(everywhere)) => everywhere,
            (_, _, None) => &self.endpoints,
        }
    }
}

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: such ports have names in DNS, but nothing relays them.
    Sctp,
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
