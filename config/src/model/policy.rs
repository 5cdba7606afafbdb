//! How a Service's traffic is to be treated, apart from where its endpoints are.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Which endpoints may take a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of the whole cluster, or of the part that topology hints name.
    #[default]
    Cluster,
    /// Those on this node.
    Local,
}

/// The fields of a Service that say how its traffic is treated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrafficPolicy {
    /// `internalTrafficPolicy`: for connections to a cluster IP.
    pub internal: Scope,
    /// `externalTrafficPolicy`: for connections from outside the cluster to a node port, load
    /// balancer or external IP. Pods and the node itself dial such an address as if this were
    /// [`Scope::Cluster`].
    pub external: Scope,
    /// `sessionAffinity: ClientIP`: a client stays with its endpoint until it has opened no
    /// connection for this long.
    pub affinity: Option<Duration>,
    /// `loadBalancerSourceRanges`, see [`Self::admits`]. `None`: not given.
    pub source_ranges: Option<Box<[IpNet]>>,
    /// `healthCheckNodePort` of a load balancer Service with `externalTrafficPolicy: Local`: where
    /// the load balancer asks whether this node has ready endpoints.
    pub health_check_node_port: Option<u16>,
}

impl TrafficPolicy {
    /// Whether a client may come in through a load balancer IP.
    ///
    /// As in kube-proxy each family stands for itself: ranges of one family leave the other open.
    /// Ranges of which none can be used admit nobody.
    pub fn admits(&self, client: IpAddr) -> bool {
        let Some(ranges) = &self.source_ranges else {
            return true;
        };
        let client = client.to_canonical();
        let of_family = |range: &&IpNet| range.addr().is_ipv4() == client.is_ipv4();
        let mut family = ranges.iter().filter(of_family).peekable();
        if family.peek().is_none() {
            return !ranges.is_empty();
        }
        family.any(|range| range.contains(&client))
    }
}
