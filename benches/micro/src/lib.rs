//! What small measurements look at: a cluster's state, made up and compiled as from a watch.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use sealane_config::Snapshot;
use sealane_config::compile::{
    Change, ClassRecord, Compiler, Delta, GatewayOptions, IngressRecord, Names, ObjectKey,
    ServiceRecord, SliceRecord,
};
use sealane_config::defaults::INGRESS_CONTROLLER;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Objects and what they compile to.
pub struct World {
    compiler: Box<Compiler>,
    names: Names,
}

impl World {
    /// Nothing but an IngressClass of ours, `sealane`.
    ///
    /// # Errors
    /// An object is not what the API has; so for all functions.
    pub fn new() -> anyhow::Result<Self> {
        let mut world = Self {
            compiler: Box::new(Compiler::new(GatewayOptions::default(), None)),
            names: Names::default(),
        };
        let class = object(json!({
            "metadata": {"name": "sealane"},
            "spec": {"controller": INGRESS_CONTROLLER},
        }))?;
        let set = Delta::Set(
            ObjectKey::new("", "sealane"),
            Ok(Some(ClassRecord::read(class))),
        );
        world.apply(Change::Classes(set));
        Ok(world)
    }

    /// Service `NAME` in `default`, port 80, with this cluster IP.
    pub fn service(&mut self, name: &str, cluster_ip: Ipv4Addr) -> anyhow::Result<()> {
        let key = ObjectKey::new("default", name);
        let service = object(json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {
                "type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
                "ports": [{"name": "http", "port": 80}],
            },
        }))?;
        let service = ServiceRecord::read(&key, service, &mut self.names);
        self.apply(Change::Services(Delta::Set(key, Ok(Some(service)))));
        Ok(())
    }

    /// Its ready endpoints, of one port.
    pub fn endpoints(&mut self, service: &str, endpoints: &[SocketAddr]) -> anyhow::Result<()> {
        let port = endpoints.first().context("no endpoint")?.port();
        let endpoint =
            |addr: &SocketAddr| json!({"addresses": [addr.ip()], "conditions": {"ready": true}});
        let key = ObjectKey::new("default", service);
        let slice = object(json!({
            "metadata": {
                "namespace": "default", "name": service,
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [{"port": port, "protocol": "TCP", "name": "http"}],
        }))?;
        let slice = SliceRecord::read(&key, slice, &mut self.names);
        self.apply(Change::Slices(Delta::Set(key, Ok(slice))));
        Ok(())
    }

    /// An Ingress of its own for `host`, whose `path` leads to a Service.
    pub fn ingress(
        &mut self,
        host: &str,
        path: &str,
        service: &str,
        annotations: Value,
    ) -> anyhow::Result<()> {
        let key = ObjectKey::new("default", host);
        let ingress = object(json!({
            "metadata": {"namespace": "default", "name": host, "annotations": annotations},
            "spec": {"ingressClassName": "sealane", "rules": [{"host": host, "http": {"paths": [{
                "path": path, "pathType": "ImplementationSpecific",
                "backend": {"service": {"name": service, "port": {"number": 80}}},
            }]}}]},
        }))?;
        let record = IngressRecord::read(&key, ingress);
        self.apply(Change::Ingresses(Delta::Set(key, Ok(Some(record)))));
        Ok(())
    }

    /// Compiles what has changed.
    pub fn snapshot(&mut self) -> Snapshot {
        let mut snapshot = self.compiler.build(Instant::now(), 0).snapshot;
        snapshot.synced = true;
        snapshot
    }

    fn apply(&mut self, change: Change) {
        self.compiler.apply(change, Instant::now());
    }
}

fn object<T: DeserializeOwned>(value: Value) -> anyhow::Result<T> {
    Ok(serde_json::from_value(value)?)
}

/// The name of a host.
pub fn host(number: usize) -> String {
    format!("host-{number}.example.test")
}

/// Addresses of endpoints, port 8080.
pub fn addresses(count: u32) -> Vec<SocketAddr> {
    let first = u32::from(Ipv4Addr::new(10, 64, 0, 1));
    let addresses = first..first + count;
    addresses
        .map(|bits| SocketAddr::from((Ipv4Addr::from(bits), 8080)))
        .collect()
}

/// A sequence of numbers that is the same in every run (a linear congruential generator).
#[derive(Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}
