//! The snapshot: everything the data plane needs to know, immutable, published by one writer.
//!
//! Tables share structure between snapshots (persistent maps of `Arc`s), so publishing costs
//! O(change). A request calls [`Reader::load`] once and takes the `Arc`s that it needs; the guard is
//! never held across an await.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use foldhash::quality::RandomState;
use rpds::HashTrieMapSync;
use tokio::sync::watch;

use crate::history::History;
use crate::model::{
    AddressTable, Attachment, Backend, CertificateTable, EndpointOwners, GatewaySettings,
    IngressStatus, ObjectRef, Pods, Problem, Protocol, RouteTable, Service, ServiceKey,
    ServiceName, ServicePort, VipAddr,
};
use crate::staleness::Staleness;

/// A map that requests look things up in. Clients cannot put anything in, so that its hash need only be
/// unknown to who names the cluster's objects, which a seed of its own is enough for.
pub type Lookup<K, V> = HashTrieMapSync<K, V, RandomState>;

/// One consistent state of the world.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every publication; 0 is the empty snapshot before the first sync.
    pub generation: u64,
    /// Every watched kind was listed completely at least once. DNS answers SERVFAIL instead of
    /// NXDOMAIN, and readiness fails, until then.
    pub synced: bool,
    /// Services by namespace and name.
    pub services: Lookup<ServiceKey, Arc<Service>>,
    /// Service ports by the address that a client dials: cluster, external and load-balancer IPs.
    pub vips: Lookup<(IpAddr, Protocol, u16), Arc<ServicePort>>,
    /// Service ports by node port.
    pub node_ports: Lookup<(Protocol, u16), Arc<ServicePort>>,
    /// The Node that this process runs on is about to go: it is being deleted, or the cluster
    /// autoscaler has marked it. Load balancers are told to look elsewhere.
    pub node_is_leaving: bool,
    /// Names of the namespaces that exist.
    pub namespaces: HashTrieMapSync<Arc<str>, ()>,
    /// Services by cluster IP, for reverse DNS.
    pub cluster_ips: AddressTable<ServiceKey>,
    /// Services that have this address as an endpoint, for reverse DNS; none where names are not
    /// answered.
    pub endpoint_ips: EndpointOwners,
    /// Pods by address, if they are watched: those that have not ended.
    pub pods: Pods,
    /// Ingresses whose status is ours to keep or to clear.
    pub ingresses: HashTrieMapSync<ObjectRef, Arc<IngressStatus>>,
    /// Objects of Gateway API that are ours.
    pub attachments: HashTrieMapSync<ObjectRef, Arc<Attachment>>,
    /// Routes of the gateway.
    pub routes: RouteTable,
    /// Certificates of the gateway.
    pub certificates: CertificateTable,
    /// Settings of the gateway as a whole.
    pub gateway: Arc<GatewaySettings>,
    /// Seconds since the Unix epoch of the last change, the serial of DNS zones.
    pub changed_at: i64,
    /// What could not be compiled as written.
    pub problems: Arc<[Problem]>,
    /// Services that ask for a `healthCheckNodePort`, by it.
    pub health_ports: HashTrieMapSync<u16, ServiceKey>,
    /// What the last compilations touched of [`Self::vips`], [`Self::node_ports`] and
    /// [`Self::cluster_ips`].
    pub history: History,
}

impl Snapshot {
    /// A Service by its names, which need not be owned.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        let key: &dyn ServiceName = &(namespace, name);
        self.services.get(key)
    }

    /// The Service port behind an address that a client dialled.
    pub fn vip(&self, addr: VipAddr, protocol: Protocol) -> Option<&Arc<ServicePort>> {
        self.vips.get(&(addr.0.ip(), protocol, addr.0.port()))
    }

    /// The Service port that a route's backend stands for, if Service and port exist.
    pub fn backend(&self, backend: &Backend) -> Option<&Arc<ServicePort>> {
        self.services
            .get(&backend.service)?
            .port(backend.port, Protocol::Tcp)
    }

    /// The same with the endpoints of one family, which a client that dialled an address of this
    /// family is to get, if the Service has a cluster IP in it.
    pub fn backend_of_family(&self, backend: &Backend, is_v4: bool) -> Option<&Arc<ServicePort>> {
        let service = self.services.get(&backend.service)?;
        let mut ips = service.cluster_ips.iter();
        let of_family = ips.find(|ip| ip.is_ipv4() == is_v4);
        of_family
            .and_then(|ip| self.vips.get(&(*ip, Protocol::Tcp, backend.port)))
            .filter(|port| port.service == backend.service)
            .or_else(|| service.port(backend.port, Protocol::Tcp))
    }

    /// The Service port behind a node port, for the nodes' addresses of one family: each family has
    /// endpoints of its own, and a Service without a cluster IP in one has no node port there.
    pub fn node_port(
        &self,
        is_v4: bool,
        protocol: Protocol,
        number: u16,
    ) -> Option<&Arc<ServicePort>> {
        let port = self.node_ports.get(&(protocol, number))?;
        let service = self.services.get(&port.service)?;
        let mut ips = service.cluster_ips.iter();
        let ip = ips.find(|ip| ip.is_ipv4() == is_v4)?;
        let port = self.vips.get(&(*ip, protocol, port.port))?;
        (port.service == service.key).then_some(port)
    }
}

/// Makes the one writer and the first reader.
pub fn channel() -> (Publisher, Reader) {
    let (sender, receiver) = watch::channel(0);
    let current = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let staleness = Staleness::default();
    let publisher = Publisher {
        current: Arc::clone(&current),
        generation: sender,
        staleness: staleness.clone(),
    };
    let reader = Reader {
        current,
        generation: receiver,
        staleness,
    };
    (publisher, reader)
}

/// Publishes snapshots. There is one, and it cannot be cloned.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Sender<u64>,
    staleness: Staleness,
}

impl Publisher {
    /// Makes `snapshot` the current one, under the next generation number, which is returned.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> u64 {
        let generation = self.current.load().generation + 1;
        snapshot.generation = generation;
        self.current.store(Arc::new(snapshot));
        self.generation.send_replace(generation);
        generation
    }

    /// The snapshot that was published last.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The clock that says how old the state may be.
    pub(crate) fn staleness(&self) -> &Staleness {
        &self.staleness
    }
}

/// Reads the current snapshot.
#[derive(Clone, Debug)]
pub struct Reader {
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Receiver<u64>,
    staleness: Staleness,
}

impl Reader {
    /// The current snapshot. Drop the guard before awaiting anything.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// How long ago the API server was last heard of: how old the snapshot may be.
    pub fn staleness(&self) -> &Staleness {
        &self.staleness
    }

    /// Waits until a snapshot newer than the last one seen by this reader was published, and
    /// returns its generation. `None` once the publisher is gone.
    pub async fn changed(&mut self) -> Option<u64> {
        self.generation.changed().await.ok()?;
        Some(*self.generation.borrow_and_update())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_sees_what_was_published_and_is_woken() {
        let (mut publisher, mut reader) = channel();
        assert!(!reader.load().synced);
        let generation = publisher.publish(Snapshot {
            synced: true,
            ..Snapshot::default()
        });
        assert_eq!(generation, 1);
        assert_eq!(reader.changed().await, Some(1));
        assert!(reader.load().synced);
        drop(publisher);
        assert_eq!(reader.changed().await, None);
    }
}
