//! Services and their slices to the Service tables of the snapshot, one Service at a time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use rpds::HashTrieMapSync;
use tokio::time::Instant;

use super::claims::{Claims, Rank, Wanted, wanted};
use super::endpoints::{Holds, Merged};
use super::node::{Here, NodeIdentity, NodeRecord};
use super::port::CompiledPort;
use super::problems::{Problems, Unit};
use super::service::ServiceRecord;
use super::slice::SliceRecord;
use super::stats::StatsTable;
use super::store::{Changed, Delta, ObjectKey, Store};
use crate::Snapshot;
use crate::defaults::{NAME_MOVE_GRACE, SLICE_MOVE_GRACE};
use crate::history::Touched;
use crate::model::{
    Problem, ProblemKind, Protocol, Service, ServiceEndpoint, ServiceKey, ServiceKind, ServicePort,
};

/// A dialled address: key of [`Snapshot::vips`].
type Vip = (IpAddr, Protocol, u16);

/// The Services half of the compiler.
#[derive(Debug)]
pub(super) struct Services {
    records: Store<ServiceRecord>,
    slices: Store<SliceRecord>,
    nodes: Store<NodeRecord>,
    /// Of the Node that this process runs on, see [`Snapshot::node_is_leaving`].
    pub(super) node_is_leaving: bool,
    here: Option<Here>,
    /// Connections are proxied, so it has to be known where they go.
    pub(super) has_traffic: bool,
    /// Names are answered, so it has to be known whose endpoint an address is.
    pub(super) has_names: bool,
    /// Sorted by name.
    slices_of: HashMap<ObjectKey, Vec<ObjectKey>>,
    holds: HashMap<ObjectKey, Holds>,
    compiled: HashMap<ObjectKey, Box<Compiled>>,
    vips: Claims<Vip, Arc<ServicePort>>,
    node_ports: Claims<(Protocol, u16), Arc<ServicePort>>,
    cluster_ips: Claims<IpAddr, ServiceKey>,
    dirty: BTreeSet<ObjectKey>,
    /// Services whose claims met or left another's.
    contested: HashSet<ObjectKey>,
    /// What was touched since the last [`Self::build`] began.
    touched: Touched,
}

/// What the last compilation of a Service put into the tables.
#[derive(Debug, Default)]
struct Compiled {
    stats: StatsTable,
    vips: Wanted<Vip, Arc<ServicePort>>,
    node_ports: Wanted<(Protocol, u16), Arc<ServicePort>>,
    cluster_ips: Wanted<IpAddr, ServiceKey>,
    /// The zone of this node has a say.
    has_zone_hints: bool,
}

/// What a [`Services::build`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServicesWork {
    /// Services compiled.
    pub(super) services: usize,
    /// Slices read for them.
    pub(super) slices: usize,
    /// Endpoints in these.
    pub(super) endpoints: usize,
}

impl Services {
    pub(super) fn new(node: Option<NodeIdentity>) -> Self {
        Self {
            records: Store::new("Service"),
            slices: Store::new("EndpointSlice"),
            nodes: Store::new("Node"),
            node_is_leaving: false,
            here: node.map(|node| Here {
                node: node.name,
                zone: None,
            }),
            has_traffic: true,
            has_names: true,
            slices_of: HashMap::new(),
            holds: HashMap::new(),
            compiled: HashMap::new(),
            vips: Claims::new(),
            node_ports: Claims::new(),
            cluster_ips: Claims::new(),
            dirty: BTreeSet::new(),
            contested: HashSet::new(),
            touched: Touched::default(),
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&ServiceRecord> {
        self.records.get(key)
    }

    /// Takes changed Services in; returns those of which something changed that routes depend on:
    /// kind, ports, cluster IPs, how requests are treated.
    pub(super) fn apply_services(
        &mut self,
        delta: Delta<ServiceRecord>,
        problems: &mut Problems,
    ) -> Vec<ObjectKey> {
        let mut interface_changed = Vec::new();
        for Changed { key, old } in self.records.apply(delta, problems) {
            let new = self.records.get(&key);
            let is_same = match (old.as_deref(), new) {
                (Some(old), Some(new)) => {
                    (&old.kind, &old.ports) == (&new.kind, &new.ports)
                        && (&old.cluster_ips, &old.http) == (&new.cluster_ips, &new.http)
                }
                (old, new) => old.is_none() && new.is_none(),
            };
            if !is_same {
                interface_changed.push(key.clone());
            }
            problems.set(
                Unit::Object("Service", key.clone()),
                new.map(|record| record.problems.to_vec())
                    .unwrap_or_default(),
            );
            self.dirty.insert(key);
        }
        interface_changed
    }

    /// Takes changed Nodes in, of which only our own counts: when its zone changes, other endpoints
    /// may be hinted at us.
    pub(super) fn apply_nodes(&mut self, delta: Delta<NodeRecord>, problems: &mut Problems) {
        self.nodes.apply(delta, problems);
        let Some(here) = &mut self.here else {
            return;
        };
        let key = ObjectKey {
            namespace: "".into(),
            name: Arc::clone(&here.node),
        };
        let node = self.nodes.get(&key);
        self.node_is_leaving = node.is_some_and(|node| node.is_leaving);
        let zone = node.and_then(|node| node.zone.clone());
        if here.zone != zone {
            here.zone = zone;
            let hinted = self.compiled.iter().filter(|(_, it)| it.has_zone_hints);
            self.dirty.extend(hinted.map(|(key, _)| key.clone()));
        }
    }

    /// Takes changed slices in.
    pub(super) fn apply_slices(
        &mut self,
        delta: Delta<SliceRecord>,
        now: Instant,
        problems: &mut Problems,
    ) {
        let is_list = matches!(delta, Delta::ListEnd);
        if is_list {
            self.dirty
                .extend(self.holds.drain().map(|(service, _)| service));
        }
        for Changed { key, old } in self.slices.apply(delta, problems) {
            let new = self.slices.get(&key);
            problems.set(
                Unit::Object("EndpointSlice", key.clone()),
                new.map(|record| record.problems.clone())
                    .unwrap_or_default(),
            );
            if let Some(old) = old {
                if !is_list && let Some(service) = self.records.get(&old.service) {
                    let holds = self.holds.entry(old.service.clone()).or_default();
                    let until = now
                        + match self.has_traffic {
                            true => SLICE_MOVE_GRACE,
                            false => NAME_MOVE_GRACE,
                        };
                    holds.keep_lost(&old, new, service.publish_not_ready, until);
                }
                unlink(&mut self.slices_of, &old.service, &key);
                self.dirty.insert(old.service);
            }
            if let Some(new) = new {
                let slices = self.slices_of.entry(new.service.clone());
                let slices = slices.or_insert_with(|| Vec::with_capacity(1));
                if let Err(index) = slices.binary_search(&key) {
                    slices.insert(index, key);
                }
                self.dirty.insert(new.service.clone());
            }
        }
    }

    /// When a held endpoint has to go.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.holds.values().filter_map(Holds::next_deadline).min()
    }

    /// Compiles the Services that changed into `snapshot`.
    pub(super) fn build(
        &mut self,
        now: Instant,
        snapshot: &mut Snapshot,
        problems: &mut Problems,
    ) -> ServicesWork {
        let over = |holds: &Holds| holds.next_deadline().is_some_and(|until| until <= now);
        let expired = self.holds.iter().filter(|(_, holds)| over(holds));
        self.dirty
            .extend(expired.map(|(service, _)| service.clone()));
        let mut work = ServicesWork::default();
        for key in std::mem::take(&mut self.dirty) {
            self.compile(&key, now, snapshot, &mut work);
        }
        for key in std::mem::take(&mut self.contested) {
            let lost = self.lost_claims(&key);
            if let Some(compiled) = self.compiled.get(&key) {
                compiled.touch(&mut self.touched);
            }
            problems.set(Unit::Claims(key), lost);
        }
        let touched = std::mem::take(&mut self.touched);
        if self.has_traffic && work.services > 0 {
            snapshot.history.push(touched);
        }
        work
    }

    fn compile(
        &mut self,
        key: &ObjectKey,
        now: Instant,
        snapshot: &mut Snapshot,
        work: &mut ServicesWork,
    ) {
        work.services += 1;
        let service_key = ServiceKey::from(key);
        let before = snapshot.services.get(&service_key).map(Arc::clone);
        if !self.has_traffic {
            let service = self.assemble_names(key, now, work);
            return self.replace_names(&service_key, before, service, snapshot);
        }
        let mut previous = self.compiled.remove(key).unwrap_or_default();
        let health_port_before = before
            .as_ref()
            .and_then(|it| it.policy.health_check_node_port);
        let endpoints_before = before.map_or_else(Arc::default, |it| Arc::clone(&it.endpoints));
        let assembled = self.assemble(key, now, &previous.stats, work);
        let mut endpoints = Arc::default();
        let mut next = Compiled::default();
        let exists = assembled.is_some();
        let mut health_port = None;
        if let Some((service, compiled)) = assembled {
            endpoints = Arc::clone(&service.endpoints);
            health_port = service.policy.health_check_node_port;
            next = compiled;
            snapshot
                .services
                .insert_mut(service_key.clone(), Arc::new(service));
        } else {
            self.holds.remove(key);
            snapshot.services.remove_mut(&service_key);
        }
        previous.touch(&mut self.touched);
        next.touch(&mut self.touched);
        previous.stats.replace(std::mem::take(&mut next.stats));
        next.stats = previous.stats;
        let contested = &mut self.contested;
        let (before, after) = (&previous.vips, &next.vips);
        self.vips
            .exchange(before, after, &mut snapshot.vips, contested);
        let (before, after) = (&previous.node_ports, &next.node_ports);
        self.node_ports
            .exchange(before, after, &mut snapshot.node_ports, contested);
        let (before, after) = (&previous.cluster_ips, &next.cluster_ips);
        self.cluster_ips
            .exchange(before, after, &mut snapshot.cluster_ips, contested);
        if self.has_names {
            let owners = &mut snapshot.endpoint_ips;
            owners.exchange(&service_key, &endpoints_before, &endpoints);
        }
        let ports = &mut snapshot.health_ports;
        replace_health_port(ports, &service_key, health_port_before, health_port);
        if exists {
            self.compiled.insert(key.clone(), Box::new(next));
        }
    }

    /// Replaces a Service of which only names are served. Cluster IPs are the API server's to give
    /// out: at any time at most one Service has one, but a batch may have its old and its new owner
    /// in any order.
    fn replace_names(
        &mut self,
        key: &ServiceKey,
        before: Option<Arc<Service>>,
        service: Option<Service>,
        snapshot: &mut Snapshot,
    ) {
        let none: Arc<[ServiceEndpoint]> = Arc::default();
        let old = before.as_ref().map_or(&none, |old| &old.endpoints);
        let new = service.as_ref().map_or(&none, |new| &new.endpoints);
        snapshot.endpoint_ips.exchange(key, old, new);
        let table = &mut snapshot.cluster_ips;
        for ip in before.iter().flat_map(|old| &old.cluster_ips) {
            if table.get(ip) == Some(key) {
                table.remove_mut(ip);
            }
        }
        let Some(service) = service else {
            snapshot.services.remove_mut(key);
            return;
        };
        for ip in &service.cluster_ips {
            table.insert_mut(*ip, key.clone());
        }
        let services = &mut snapshot.services;
        services.insert_mut(key.clone(), Arc::new(service));
    }

    /// Puts a Service of which only names are served together; `None` if it does not exist.
    fn assemble_names(
        &mut self,
        key: &ObjectKey,
        now: Instant,
        work: &mut ServicesWork,
    ) -> Option<Service> {
        let mut holds = self.holds.remove(key).unwrap_or_default();
        let record = self.records.get(key)?;
        let merged = self.merge(key, record, &mut holds, now, work);
        let service = service(key, record, Vec::new(), merged.for_dns());
        if holds.next_deadline().is_some() {
            self.holds.insert(key.clone(), holds);
        }
        Some(service)
    }

    /// Puts a Service together; `None` if it does not exist.
    fn assemble(
        &mut self,
        key: &ObjectKey,
        now: Instant,
        stats: &StatsTable,
        work: &mut ServicesWork,
    ) -> Option<(Service, Compiled)> {
        let mut holds = self.holds.remove(key).unwrap_or_default();
        let record = self.records.get(key)?;
        let merged = self.merge(key, record, &mut holds, now, work);
        let service_key = ServiceKey::from(key);
        let mut next_stats = StatsTable::default();
        let ports: Vec<CompiledPort> = record
            .ports
            .iter()
            .map(|port| {
                CompiledPort::new(&service_key, record, port, |v4, with_local| {
                    merged.for_port(port, v4, with_local, stats, &mut next_stats)
                })
            })
            .collect();
        let proxied = ports.iter().map(|port| Arc::clone(&port.any)).collect();
        let service = service(key, record, proxied, merged.for_dns());
        let mut compiled = Compiled::of(key, record, &ports);
        compiled.stats = next_stats;
        compiled.has_zone_hints = merged.has_zone_hints();
        if holds.next_deadline().is_some() {
            self.holds.insert(key.clone(), holds);
        }
        Some((service, compiled))
    }

    /// The endpoints of a Service, out of all its slices and what is held of them.
    fn merge<'a>(
        &'a self,
        key: &ObjectKey,
        record: &ServiceRecord,
        holds: &'a mut Holds,
        now: Instant,
        work: &mut ServicesWork,
    ) -> Merged<'a> {
        let slices: Vec<&SliceRecord> = match record.kind {
            ServiceKind::ExternalName(_) => Vec::new(),
            ServiceKind::ClusterIp | ServiceKind::Headless => self
                .slices_of
                .get(key)
                .into_iter()
                .flatten()
                .filter_map(|slice| self.slices.get(slice))
                .collect(),
        };
        holds.settle(&slices, now);
        let merged = Merged::new(&slices, holds, record.publish_not_ready, self.here.as_ref());
        work.slices += slices.len();
        work.endpoints += merged.len();
        merged
    }

    /// Addresses that a Service claims and another one has.
    fn lost_claims(&self, key: &ObjectKey) -> Vec<Problem> {
        let Some(compiled) = self.compiled.get(key) else {
            return Vec::new();
        };
        let problem = |field: &str, what: String, winner: &Rank| Problem {
            object: key.of_kind("Service"),
            field: field.into(),
            kind: ProblemKind::Conflict,
            message: format!("{what} belongs to Service {} already", winner.owner),
        };
        let mut lost = Vec::new();
        for (vip, rank, _) in &compiled.vips {
            let winner = self.vips.winner(vip).filter(|winner| *winner != rank);
            let record = self.records.get(key);
            let is_balancer = record.is_some_and(|it| it.load_balancer_ips.contains(&vip.0));
            let field = match (rank.external, is_balancer) {
                (false, _) => "spec.clusterIPs",
                (true, true) => "status.loadBalancer.ingress",
                (true, false) => "spec.externalIPs",
            };
            lost.extend(winner.map(|w| problem(field, format!("{} port {}", vip.0, vip.2), w)));
        }
        for (node_port, rank, _) in &compiled.node_ports {
            let winner = self.node_ports.winner(node_port);
            let winner = winner.filter(|winner| *winner != rank);
            let what = format!("node port {}", node_port.1);
            lost.extend(winner.map(|w| problem("spec.ports", what, w)));
        }
        lost
    }
}

impl Compiled {
    /// Notes what is in the tables.
    fn touch(&self, touched: &mut Touched) {
        touched.vips.extend(self.vips.iter().map(|claim| claim.0));
        let node_ports = self.node_ports.iter().map(|claim| claim.0);
        touched.node_ports.extend(node_ports);
        let cluster_ips = self.cluster_ips.iter().map(|claim| claim.0);
        touched.cluster_ips.extend(cluster_ips);
    }

    fn of(key: &ObjectKey, record: &ServiceRecord, ports: &[CompiledPort]) -> Self {
        let rank = |external| Rank {
            external,
            created: record.created,
            owner: key.clone(),
        };
        let name = ServiceKey::from(key);
        let cluster_ips = record.cluster_ips.iter();
        let cluster_ips = cluster_ips.map(|ip| (*ip, rank(false), name.clone()));
        let (mut vips, mut node_ports) = (Vec::new(), Vec::new());
        let relayed = |port: &&CompiledPort| record.proxied && port.any.protocol != Protocol::Sctp;
        for port in ports.iter().filter(relayed) {
            let (number, protocol) = (port.any.port, port.any.protocol);
            for (index, ip) in record.addresses().enumerate() {
                // Cluster IPs come first: one that is an external IP as well is claimed as such.
                let rank = rank(index >= record.cluster_ips.len());
                let port = port.family(ip).map(Arc::clone);
                vips.extend(port.map(|port| ((ip, protocol, number), rank, port)));
            }
            if let Some(node_port) = port.any.node_port {
                node_ports.push(((protocol, node_port), rank(false), Arc::clone(&port.any)));
            }
        }
        Self {
            cluster_ips: wanted(cluster_ips.collect()),
            vips: wanted(vips),
            node_ports: wanted(node_ports),
            ..Self::default()
        }
    }
}

fn service(
    key: &ObjectKey,
    record: &ServiceRecord,
    ports: Vec<Arc<ServicePort>>,
    endpoints: Arc<[ServiceEndpoint]>,
) -> Service {
    Service {
        key: ServiceKey::from(key),
        kind: record.kind.clone(),
        cluster_ips: record.cluster_ips.to_vec(),
        load_balancer_ips: record.load_balancer_ips.to_vec(),
        external_ips: record.external_ips.to_vec(),
        policy: Arc::clone(&record.policy),
        ports,
        listed_ports: Arc::clone(&record.listed_ports),
        endpoints,
    }
}

/// Health check ports are the API server's to give out, as cluster IPs are: a batch may have the old
/// and the new owner of one in any order.
fn replace_health_port(
    table: &mut HashTrieMapSync<u16, ServiceKey>,
    service: &ServiceKey,
    before: Option<u16>,
    after: Option<u16>,
) {
    if before == after {
        return;
    }
    if let Some(old) = before.filter(|port| table.get(port) == Some(service)) {
        table.remove_mut(&old);
    }
    if let Some(new) = after {
        table.insert_mut(new, service.clone());
    }
}

fn unlink(index: &mut HashMap<ObjectKey, Vec<ObjectKey>>, from: &ObjectKey, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(from) {
        if let Ok(place) = keys.binary_search(key) {
            keys.remove(place);
        }
        if keys.is_empty() {
            index.remove(from);
        }
    }
}
