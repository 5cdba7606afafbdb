//! Where an address is: in the cluster, on this node, or outside. Policies of Services depend on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sealane_config::Snapshot;
use sealane_config::model::{AddressKind, Protocol, ServicePort, VipAddr};

use super::Capture;
use crate::http::{Dialled, Reach};
use crate::intercept::InterceptOptions;

/// What is known about addresses.
#[derive(Clone, Debug)]
pub(crate) enum Places {
    /// What the interception of a node is told.
    Node(Arc<InterceptOptions>),
    /// Everything is on this machine.
    Loopback,
    /// All clients are one pod.
    Pod,
}

/// A Service port that was dialled.
pub(crate) struct Found<'a> {
    pub(crate) port: &'a Arc<ServicePort>,
    /// `None`: a node port.
    pub(crate) kind: Option<AddressKind>,
}

impl Places {
    pub(super) fn of(capture: &Capture) -> Self {
        match capture {
            Capture::Transparent(options) => Self::Node(Arc::new(options.clone())),
            Capture::Listeners => Self::Loopback,
            Capture::Pod(..) => Self::Pod,
        }
    }

    /// The Service port behind an address.
    pub(crate) fn find<'a>(
        &self,
        snapshot: &'a Snapshot,
        dialled: SocketAddr,
        protocol: Protocol,
    ) -> Option<Found<'a>> {
        let ip = dialled.ip();
        let by_node_port = || {
            let is_node = self.serves_node_ports(ip);
            let port = is_node.then(|| snapshot.node_port(ip.is_ipv4(), protocol, dialled.port()));
            port.flatten()
        };
        let by_vip = snapshot.vip(VipAddr(dialled), protocol);
        let port = by_vip.or_else(by_node_port)?;
        let service = snapshot.services.get(&port.service);
        let kind = service.and_then(|service| service.address_kind(ip));
        Some(Found { port, kind })
    }

    /// Addresses on which node ports are served, loopback ones included.
    pub(crate) fn node_port_ips(&self) -> Vec<IpAddr> {
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        match self {
            Self::Node(options) => {
                let own = options.node_ips.current();
                let own = own.iter().filter(|ip| options.serves_node_ports(**ip));
                loopback.into_iter().chain(own.copied()).collect()
            }
            Self::Loopback => loopback.to_vec(),
            Self::Pod => Vec::new(),
        }
    }

    fn serves_node_ports(&self, ip: IpAddr) -> bool {
        match self {
            Self::Node(options) => {
                let is_own = options.node_ips.contains(ip) && options.serves_node_ports(ip);
                ip.is_loopback() || is_own
            }
            Self::Loopback => ip.is_loopback(),
            Self::Pod => false,
        }
    }

    /// How a client has come to a Service, and whether endpoints may see its address: pods that dial
    /// a cluster IP here are on this node; another client's packets come back here if the endpoint is
    /// on this node.
    pub(crate) fn dialled(&self, client: IpAddr, ip: IpAddr, kind: Option<AddressKind>) -> Dialled {
        let (is_pod, is_inside) = match self {
            Self::Node(options) => {
                let is_pod = options.is_pod(client);
                (
                    is_pod,
                    is_pod || client.is_loopback() || options.is_own(client),
                )
            }
            Self::Loopback | Self::Pod => (false, true),
        };
        let reach = match kind {
            Some(AddressKind::ClusterIp) => Reach::ClusterIp,
            _ if is_inside => Reach::Inside,
            _ => Reach::Outside,
        };
        Dialled {
            reach,
            is_v4: Some(ip.is_ipv4()),
            client: (is_pod || reach == Reach::Outside).then_some(client),
        }
    }

    /// Whether a client may come by this address. The kernel has asked the same before, of what it
    /// was told last.
    pub(crate) fn admits(&self, client: IpAddr, ip: IpAddr, found: &Found<'_>) -> bool {
        let Self::Node(options) = self else {
            return true;
        };
        match found.kind {
            Some(AddressKind::LoadBalancer) => {
                let policy = &found.port.policy;
                let node_ips = options.node_ips.current();
                let names_node = || node_ips.iter().any(|ip| policy.admits(*ip));
                policy.admits(client) || (client == ip && names_node())
            }
            Some(AddressKind::External) => options.external_ips,
            Some(AddressKind::ClusterIp) | None => true,
        }
    }
}
