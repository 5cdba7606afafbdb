//! The network of the embedded cluster's pods.
//!
//! With namespaces, each pod has a network namespace of its own, joined to the *cluster* namespace
//! by a routed veth pair:
//!
//! ```text
//! pod namespace                      cluster namespace (proxy, DNS, node agent)
//! eth0 10.244.0.5/32  ───────────  sl1005   10.244.0.5 dev sl1005
//! default via 169.254.1.1 onlink             lo: 127.0.0.1, node address, service-local addresses
//! ```
//!
//! There is no bridge, because behind one a TPROXY rule assigns the socket and the SYN is dropped
//! wherever `net.bridge.bridge-nf-call-iptables` is 1. There is no ARP either: both ends know each
//! other's hardware address from the start, so 169.254.1.1 need not exist anywhere.
//!
//! Where user namespaces are forbidden, [`LoopbackNetwork`] gives each pod an address in
//! 127.244.0.0/16 and no namespace.

mod allocate;
mod cluster;
mod link;
mod loopback;
pub mod userns;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

pub use cluster::{ClusterNetwork, ClusterNetworkOptions};
pub use link::INTERCEPT_MARK;
pub use loopback::LoopbackNetwork;

/// Why the pod network could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel does not let this user make a user namespace, or gives it no capabilities in one.
    #[error(
        "cannot make a user namespace with capabilities: {reason}; \
         or run with --pod-network=loopback, which needs no namespaces"
    )]
    UserNamespace {
        /// What forbids it and how to allow it.
        reason: String,
        /// The call's error.
        #[source]
        source: io::Error,
    },
    /// This process may not make network namespaces.
    #[error(
        "cannot make a network namespace: this takes CAP_SYS_ADMIN, which root in a container lacks; \
         run as an ordinary user where user namespaces are allowed, \
         or with --pod-network=loopback, which needs no namespaces"
    )]
    NotPermitted(#[source] io::Error),
    /// A system call failed.
    #[error("pod network: cannot {action}")]
    System {
        /// What was tried.
        action: String,
        /// The call's error.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("pod network: cannot {action}")]
    Netlink {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// Another pod has the wanted address.
    #[error("pod address {0} belongs to another pod")]
    AddressInUse(IpAddr),
    /// The wanted address cannot be a pod's: outside the pod CIDR, or reserved in it.
    #[error("{0} cannot be a pod's address: it is outside the pod CIDR or reserved")]
    AddressNotForPods(IpAddr),
    /// Every address of the pod CIDR is taken.
    #[error("no free pod address is left")]
    NoAddressLeft,
    /// The thread that owns the cluster's namespace is gone.
    #[error("the pod network has been shut down")]
    Closed,
}

impl NetworkError {
    fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }

    fn netlink(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let action = action.into();
        move |source| Self::Netlink { action, source }
    }
}

/// In the calling thread's namespace: has packets with this mark delivered to this machine whatever
/// their destination is, which is what TPROXY needs. [`ClusterNetwork`] has that for
/// [`INTERCEPT_MARK`]; a real node needs it, too. Stays in force.
///
/// # Errors
/// The kernel refused; it takes `CAP_NET_ADMIN`.
pub async fn deliver_marked_packets(mark: u32) -> Result<(), NetworkError> {
    let netlink = link::open().map_err(NetworkError::system("open a netlink socket"))?;
    let with_ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
    link::deliver_marked_packets(&netlink, mark, with_ipv6).await
}

/// A pod's place in the network.
#[derive(Debug)]
pub struct PodAttachment {
    /// The pod's address.
    pub ip: IpAddr,
    /// The pod's network namespace, which its processes enter; `None` in loopback mode. The
    /// namespace lives until [`PodNetwork::detach`], whatever happens to this descriptor.
    pub netns: Option<OwnedFd>,
}

/// How pods get addresses.
#[derive(Clone, Debug)]
pub enum PodNetwork {
    /// A network namespace a pod.
    Namespaces(ClusterNetwork),
    /// A loopback address a pod, in the host's namespace.
    Loopback(LoopbackNetwork),
}

impl PodNetwork {
    /// Gives a pod its address, and its namespace if there are any. `ip` asks for a certain
    /// address, which a restarted agent does to keep `status.podIP`. A pod that is attached
    /// already gets what it has.
    ///
    /// # Errors
    /// The address is taken or not a pod's, none is left, or the kernel refused.
    pub async fn attach(
        &self,
        pod_uid: &str,
        ip: Option<IpAddr>,
    ) -> Result<PodAttachment, NetworkError> {
        match self {
            Self::Namespaces(network) => network.attach(pod_uid, ip).await,
            Self::Loopback(network) => network.attach(pod_uid, ip),
        }
    }

    /// Takes a pod off the network and frees its address. Unknown pods are no error.
    pub async fn detach(&self, pod_uid: &str) {
        match self {
            Self::Namespaces(network) => network.detach(pod_uid).await,
            Self::Loopback(network) => network.detach(pod_uid),
        }
    }

    /// The address under which pods reach the node.
    pub fn node_ip(&self) -> IpAddr {
        match self {
            Self::Namespaces(network) => network.node_ip(),
            Self::Loopback(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }
}
