//! Services and their slices to the Service tables of the snapshot, one Service at a time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use rpds::HashTrieMapSync;
use tokio::time::Instant;

use super::claims::{Claims, Rank};
use super::endpoints::{Holds, Merged, StatsTable};
use super::problems::{Problems, Unit};
use super::service::{PortRecord, ServiceRecord};
use super::slice::SliceRecord;
use super::store::{Changed, Delta, ObjectKey, Store};
use crate::Snapshot;
use crate::defaults::SLICE_MOVE_GRACE;
use crate::model::{
    Endpoint, Problem, ProblemKind, Protocol, Service, ServiceKey, ServiceKind, ServicePort,
};

/// A dialled address: key of [`Snapshot::vips`].
type Vip = (IpAddr, Protocol, u16);

/// The Services half of the compiler.
#[derive(Debug)]
pub(super) struct Services {
    records: Store<ServiceRecord>,
    slices: Store<SliceRecord>,
    slices_of: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    holds: HashMap<ObjectKey, Holds>,
    compiled: HashMap<ObjectKey, Compiled>,
    vips: Claims<Vip, Arc<ServicePort>>,
    node_ports: Claims<(Protocol, u16), Arc<ServicePort>>,
    cluster_ips: Claims<IpAddr, ServiceKey>,
    dirty: BTreeSet<ObjectKey>,
    /// Services whose claims met or left another's.
    contested: HashSet<ObjectKey>,
}

/// What the last compilation of a Service put into the tables.
#[derive(Debug, Default)]
struct Compiled {
    stats: StatsTable,
    vips: Wanted<Vip, Arc<ServicePort>>,
    node_ports: Wanted<(Protocol, u16), Arc<ServicePort>>,
    cluster_ips: Wanted<IpAddr, ServiceKey>,
    endpoint_ips: BTreeSet<IpAddr>,
}

/// Claims of one Service on one table.
type Wanted<K, V> = HashMap<K, (Rank, V)>;

/// A port with the endpoints of either family.
struct CompiledPort {
    /// The family that the Service prefers, or the other if that one has no endpoints.
    any: Arc<ServicePort>,
    v4: Arc<ServicePort>,
    v6: Arc<ServicePort>,
}

impl Services {
    pub(super) fn new() -> Self {
        Self {
            records: Store::new("Service"),
            slices: Store::new("EndpointSlice"),
            slices_of: HashMap::new(),
            holds: HashMap::new(),
            compiled: HashMap::new(),
            vips: Claims::new(),
            node_ports: Claims::new(),
            cluster_ips: Claims::new(),
            dirty: BTreeSet::new(),
            contested: HashSet::new(),
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&ServiceRecord> {
        self.records.get(key)
    }

    /// Takes changed Services in; returns those whose kind or ports changed, which is all that
    /// routes depend on.
    pub(super) fn apply_services(
        &mut self,
        delta: Delta<ServiceRecord>,
        problems: &mut Problems,
    ) -> Vec<ObjectKey> {
        let mut interface_changed = Vec::new();
        for Changed { key, old } in self.records.apply(delta, problems) {
            let new = self.records.get(&key);
            let interface = |record: &ServiceRecord| (record.kind.clone(), record.ports.clone());
            if old.as_ref().map(interface) != new.map(interface) {
                interface_changed.push(key.clone());
            }
            problems.set(
                Unit::Object("Service", key.clone()),
                new.map(|record| record.problems.clone())
                    .unwrap_or_default(),
            );
            self.dirty.insert(key);
        }
        interface_changed
    }

    /// Takes changed slices in.
    pub(super) fn apply_slices(
        &mut self,
        delta: Delta<SliceRecord>,
        now: Instant,
        problems: &mut Problems,
    ) {
        let is_list = matches!(delta, Delta::Replace(_));
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
                    let until = now + SLICE_MOVE_GRACE;
                    holds.keep_lost(&old, new, service.publish_not_ready, until);
                }
                unlink(&mut self.slices_of, &old.service, &key);
                self.dirty.insert(old.service);
            }
            if let Some(new) = new {
                let slices = self.slices_of.entry(new.service.clone()).or_default();
                slices.insert(key);
                self.dirty.insert(new.service.clone());
            }
        }
    }

    /// When a held endpoint has to go.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.holds.values().filter_map(Holds::next_deadline).min()
    }

    /// Compiles the Services that changed into `snapshot`; returns how many.
    pub(super) fn build(
        &mut self,
        now: Instant,
        snapshot: &mut Snapshot,
        problems: &mut Problems,
    ) -> usize {
        let over = |holds: &Holds| holds.next_deadline().is_some_and(|until| until <= now);
        let expired = self.holds.iter().filter(|(_, holds)| over(holds));
        self.dirty
            .extend(expired.map(|(service, _)| service.clone()));
        let dirty = std::mem::take(&mut self.dirty);
        for key in &dirty {
            self.compile(key, now, snapshot);
        }
        for key in std::mem::take(&mut self.contested) {
            let lost = self.lost_claims(&key);
            problems.set(Unit::Claims(key), lost);
        }
        dirty.len()
    }

    fn compile(&mut self, key: &ObjectKey, now: Instant, snapshot: &mut Snapshot) {
        let mut previous = self.compiled.remove(key).unwrap_or_default();
        let mut stats = std::mem::take(&mut previous.stats).next();
        let assembled = self.assemble(key, now, &mut stats);
        stats.finish();
        let service_key = ServiceKey::from(key);
        let next = if let Some((service, mut compiled)) = assembled {
            snapshot.services.insert_mut(service_key, Arc::new(service));
            compiled.stats = stats;
            compiled
        } else {
            self.holds.remove(key);
            snapshot.services.remove_mut(&service_key);
            Compiled::default()
        };
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
        let (before, after) = (&previous.endpoint_ips, &next.endpoint_ips);
        exchange_endpoint_ips(key, before, after, &mut snapshot.endpoint_ips);
        if self.records.get(key).is_some() {
            self.compiled.insert(key.clone(), next);
        }
    }

    /// Puts a Service together; `None` if it does not exist.
    fn assemble(
        &mut self,
        key: &ObjectKey,
        now: Instant,
        stats: &mut StatsTable,
    ) -> Option<(Service, Compiled)> {
        let record = self.records.get(key)?;
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
        let mut holds = self.holds.remove(key).unwrap_or_default();
        holds.settle(&slices, now);
        let merged = Merged::new(&slices, &holds, record.publish_not_ready);
        let prefers_v4 = record.cluster_ips.first().is_none_or(IpAddr::is_ipv4);
        let service_key = ServiceKey::from(key);
        let ports: Vec<CompiledPort> = record
            .ports
            .iter()
            .map(|port| CompiledPort::new(&service_key, port, &merged, prefers_v4, stats))
            .collect();
        let service = Service {
            key: service_key,
            kind: record.kind.clone(),
            cluster_ips: record.cluster_ips.clone(),
            external_ips: record.external_ips.clone(),
            ports: ports.iter().map(|port| Arc::clone(&port.any)).collect(),
            endpoints: merged.for_dns(),
        };
        let compiled = Compiled::of(key, record, &service, &ports);
        if holds.next_deadline().is_some() {
            self.holds.insert(key.clone(), holds);
        }
        Some((service, compiled))
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
        for (vip, (rank, _)) in &compiled.vips {
            let winner = self.vips.winner(vip).filter(|winner| *winner != rank);
            let field = if rank.external {
                "spec.externalIPs"
            } else {
                "spec.clusterIPs"
            };
            lost.extend(winner.map(|w| problem(field, format!("{} port {}", vip.0, vip.2), w)));
        }
        for (node_port, (rank, _)) in &compiled.node_ports {
            let winner = self.node_ports.winner(node_port);
            let winner = winner.filter(|winner| *winner != rank);
            let what = format!("node port {}", node_port.1);
            lost.extend(winner.map(|w| problem("spec.ports", what, w)));
        }
        lost
    }
}

impl CompiledPort {
    fn new(
        service: &ServiceKey,
        port: &PortRecord,
        merged: &Merged<'_>,
        prefers_v4: bool,
        stats: &mut StatsTable,
    ) -> Self {
        let with = |endpoints: Arc<[Arc<Endpoint>]>| {
            Arc::new(ServicePort {
                service: service.clone(),
                name: Arc::clone(&port.name),
                port: port.port,
                protocol: port.protocol,
                node_port: port.node_port,
                app_protocol: port.app_protocol,
                endpoints,
            })
        };
        let v4 = with(merged.for_port(port, true, stats));
        let v6 = with(merged.for_port(port, false, stats));
        let (first, second) = if prefers_v4 { (&v4, &v6) } else { (&v6, &v4) };
        let any = if first.endpoints.is_empty() {
            second
        } else {
            first
        };
        Self {
            any: Arc::clone(any),
            v4,
            v6,
        }
    }

    fn family(&self, addr: IpAddr) -> &Arc<ServicePort> {
        if addr.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

impl Compiled {
    fn of(
        key: &ObjectKey,
        record: &ServiceRecord,
        service: &Service,
        ports: &[CompiledPort],
    ) -> Self {
        let rank = |external| Rank {
            external,
            created: record.created,
            owner: key.clone(),
        };
        let mut compiled = Self {
            endpoint_ips: service.endpoints.iter().map(|e| e.addr).collect(),
            ..Self::default()
        };
        for ip in &record.cluster_ips {
            let claim = (rank(false), service.key.clone());
            compiled.cluster_ips.insert(*ip, claim);
        }
        if !record.proxied {
            return compiled;
        }
        for port in ports {
            let (number, protocol) = (port.any.port, port.any.protocol);
            // Cluster IPs come last: one that is an external IP as well is claimed as a cluster IP.
            let external = record.external_ips.iter().map(|ip| (ip, true));
            let internal = record.cluster_ips.iter().map(|ip| (ip, false));
            for (ip, is_external) in external.chain(internal) {
                let claim = (rank(is_external), Arc::clone(port.family(*ip)));
                compiled.vips.insert((*ip, protocol, number), claim);
            }
            if let Some(node_port) = port.any.node_port {
                let claim = (rank(false), Arc::clone(&port.any));
                compiled.node_ports.insert((protocol, node_port), claim);
            }
        }
        compiled
    }
}

fn unlink(index: &mut HashMap<ObjectKey, BTreeSet<ObjectKey>>, from: &ObjectKey, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(from) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(from);
        }
    }
}

fn exchange_endpoint_ips(
    key: &ObjectKey,
    before: &BTreeSet<IpAddr>,
    after: &BTreeSet<IpAddr>,
    table: &mut HashTrieMapSync<IpAddr, Arc<[ServiceKey]>>,
) {
    let service = ServiceKey::from(key);
    for ip in before.symmetric_difference(after) {
        let mut services = table.get(ip).map_or_else(Vec::new, |s| s.to_vec());
        match services.binary_search(&service) {
            Ok(index) if !after.contains(ip) => drop(services.remove(index)),
            Err(index) if after.contains(ip) => services.insert(index, service.clone()),
            Ok(_) | Err(_) => continue,
        }
        if services.is_empty() {
            table.remove_mut(ip);
        } else {
            table.insert_mut(*ip, services.into());
        }
    }
}
