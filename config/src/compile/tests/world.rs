//! A compiler fed with objects as a user writes them.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Snapshot;
use crate::compile::endpoint_slice::EndpointSlice;
use crate::compile::{
    Change, ClassRecord, Compiler, ConfigMapRecord, Delta, GatewayOptions, IngressRecord, Names,
    NodeIdentity, NodeRecord, ObjectKey, SecretRecord, ServiceRecord, SliceRecord, Work,
};
use crate::model::{
    HostRoutes, PathMatch, Problem, ProblemKind, Protocol, RouteRule, Service, ServiceKey,
    ServicePort,
};

/// 2026-01-01T00:00:00Z
pub(super) const EPOCH: i64 = 1_767_225_600;

pub(super) struct World {
    pub(super) compiler: Compiler,
    pub(super) now: Instant,
    pub(super) epoch: i64,
}

impl World {
    /// Has the IngressClass `ours` and serves no Ingress without a class.
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A world on the node `here`.
    pub(super) fn on_node() -> Self {
        let here = NodeIdentity {
            name: "here".into(),
        };
        Self::build_with(|_| {}, Some(here))
    }

    pub(super) fn with(change: impl FnOnce(&mut GatewayOptions)) -> Self {
        Self::build_with(change, None)
    }

    fn build_with(change: impl FnOnce(&mut GatewayOptions), node: Option<NodeIdentity>) -> Self {
        let mut options = GatewayOptions::default();
        change(&mut options);
        let mut world = Self {
            compiler: Compiler::new(options, node),
            now: Instant::now(),
            epoch: EPOCH,
        };
        world.class("ours", json!({"controller": "sealane.dev/ingress"}));
        world
    }

    pub(super) fn build(&mut self) -> Snapshot {
        self.build_counted().0
    }

    pub(super) fn build_counted(&mut self) -> (Snapshot, Work) {
        let built = self.compiler.build(self.now, self.epoch);
        (built.snapshot, built.work)
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    pub(super) fn apply(&mut self, change: Change) {
        self.compiler.apply(change, self.now);
    }

    /// A Service in namespace `shop`.
    pub(super) fn service(&mut self, name: &str, spec: Value) {
        let metadata = json!({"name": name, "namespace": "shop"});
        self.service_object(json!({"metadata": metadata, "spec": spec}));
    }

    pub(super) fn service_object(&mut self, object: Value) {
        let key = key_of(&object);
        let record =
            ServiceRecord::read(&key, typed::<core::Service>(object), &mut Names::default());
        self.apply(Change::Services(Delta::Set(key, Ok(Some(record)))));
    }

    pub(super) fn delete_service(&mut self, name: &str) {
        let key = ObjectKey::new("shop", name);
        self.apply(Change::Services(Delta::Remove(key)));
    }

    /// A slice of `service` in namespace `shop`, with one port `http`, 8080/TCP.
    pub(super) fn slice(&mut self, name: &str, service: &str, endpoints: Value) {
        self.slice_object(slice(name, service, endpoints));
    }

    pub(super) fn slice_object(&mut self, object: Value) {
        let key = key_of(&object);
        let record = SliceRecord::read(&key, typed::<EndpointSlice>(object), &mut Names::default());
        self.apply(Change::Slices(Delta::Set(key, Ok(record))));
    }

    pub(super) fn delete_slice(&mut self, name: &str) {
        let key = ObjectKey::new("shop", name);
        self.apply(Change::Slices(Delta::Remove(key)));
    }

    /// A complete list of slices.
    pub(super) fn list_slices(&mut self, objects: Vec<Value>) {
        let read = |object: Value| {
            let key = key_of(&object);
            let record =
                SliceRecord::read(&key, typed::<EndpointSlice>(object), &mut Names::default());
            (key, Ok(record))
        };
        let listed = objects.into_iter().map(read).collect();
        self.apply(Change::Slices(Delta::ListBegin));
        self.apply(Change::Slices(Delta::Page(listed)));
        self.apply(Change::Slices(Delta::ListEnd));
    }

    /// The Node `here` with this zone.
    pub(super) fn node(&mut self, zone: Option<&str>) {
        let labels = zone.map(|zone| json!({"topology.kubernetes.io/zone": zone}));
        self.node_object(json!({"metadata": {"name": "here", "labels": labels}}));
    }

    pub(super) fn node_object(&mut self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let key = ObjectKey::new("", name);
        let record = NodeRecord::read(&key, typed(object), &mut Names::default());
        self.apply(Change::Nodes(Delta::Set(key, Ok(Some(record)))));
    }

    pub(super) fn namespace(&mut self, name: &str, exists: bool) {
        let key = ObjectKey::new("", name);
        self.apply(Change::Namespaces(if exists {
            Delta::Set(key, Ok(Some(())))
        } else {
            Delta::Remove(key)
        }));
    }

    pub(super) fn class(&mut self, name: &str, spec: Value) {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let record = ClassRecord::read(typed::<networking::IngressClass>(object));
        let key = ObjectKey::new("", name);
        self.apply(Change::Classes(Delta::Set(key, Ok(Some(record)))));
    }

    pub(super) fn delete_class(&mut self, name: &str) {
        let key = ObjectKey::new("", name);
        self.apply(Change::Classes(Delta::Remove(key)));
    }

    /// An Ingress of the class `ours` in namespace `shop`, created `age` seconds after the epoch.
    pub(super) fn ingress(&mut self, name: &str, age: i64, annotations: Value, spec: Value) {
        let mut spec = spec;
        spec["ingressClassName"] = json!("ours");
        self.ingress_object(ingress(name, age, annotations, spec));
    }

    pub(super) fn ingress_object(&mut self, object: Value) {
        let key = key_of(&object);
        let record = IngressRecord::read(&key, typed::<networking::Ingress>(object));
        self.apply(Change::Ingresses(Delta::Set(key, Ok(Some(record)))));
    }

    pub(super) fn delete_ingress(&mut self, name: &str) {
        let key = ObjectKey::new("shop", name);
        self.apply(Change::Ingresses(Delta::Remove(key)));
    }

    pub(super) fn undecodable_ingress(&mut self, name: &str) {
        let key = ObjectKey::new("shop", name);
        self.apply(Change::Ingresses(Delta::Set(key, Err("no".into()))));
    }

    pub(super) fn secret(&mut self, name: &str, secret: core::Secret) {
        let key = ObjectKey::new("shop", name);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let record = SecretRecord::read(&key, secret, &provider);
        let page = Delta::Page(vec![(key.clone(), Ok(Some(record)))]);
        for delta in [Delta::ListBegin, page, Delta::ListEnd] {
            self.apply(Change::Secret(key.clone(), delta));
        }
    }

    pub(super) fn delete_secret(&mut self, name: &str) {
        let key = ObjectKey::new("shop", name);
        self.apply(Change::Secret(key.clone(), Delta::Remove(key)));
    }

    pub(super) fn config_map(&mut self, name: &str, data: &[(&str, &str)]) {
        let key = ObjectKey::new("shop", name);
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(k, v)| ((*k).into(), json!(v))).collect();
        let record = ConfigMapRecord::read(typed::<core::ConfigMap>(json!({"data": data})));
        let page = Delta::Page(vec![(key.clone(), Ok(Some(record)))]);
        for delta in [Delta::ListBegin, page, Delta::ListEnd] {
            self.apply(Change::ConfigMap(key.clone(), delta));
        }
    }

    pub(super) fn delete_config_map(&mut self, name: &str) {
        let key = ObjectKey::new("shop", name);
        self.apply(Change::ConfigMap(key.clone(), Delta::Remove(key)));
    }

    /// Service `name` on port 80, reachable at its slice's port 8080.
    pub(super) fn simple_service(&mut self, name: &str) {
        self.service(
            name,
            json!({"clusterIP": "None", "ports": [
                {"name": "http", "port": 80}, {"name": "admin", "port": 9000}
            ]}),
        );
    }
}

pub(super) fn slice(name: &str, service: &str, endpoints: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

pub(super) fn ingress(name: &str, age: i64, annotations: Value, spec: Value) -> Value {
    let created = jiff::Timestamp::from_second(EPOCH + age).unwrap();
    json!({
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created.to_string(),
            "annotations": annotations},
        "spec": spec,
    })
}

/// A path of an Ingress rule to port 80 of a Service.
pub(super) fn path(kind: &str, path: &str, service: &str) -> Value {
    json!({"path": path, "pathType": kind,
        "backend": {"service": {"name": service, "port": {"number": 80}}}})
}

/// A spec with one rule.
pub(super) fn one_host(host: &str, paths: Value) -> Value {
    json!({"rules": [{"host": host, "http": {"paths": paths}}]})
}

fn typed<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn key_of(object: &Value) -> ObjectKey {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    ObjectKey::new(text("namespace"), text("name"))
}

pub(super) fn service<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Service> {
    let key = ServiceKey {
        namespace: "shop".into(),
        name: name.into(),
    };
    snapshot.services.get(&key).map(AsRef::as_ref)
}

/// Addresses that take a port's traffic, as text.
pub(super) fn targets(port: &ServicePort) -> Vec<String> {
    let text = |endpoint: &std::sync::Arc<crate::model::Endpoint>| endpoint.addr.to_string();
    port.endpoints.iter().map(text).collect()
}

/// What a connection to `addr` over TCP leads to.
pub(super) fn vip(snapshot: &Snapshot, addr: &str) -> Option<Vec<String>> {
    let addr: SocketAddr = addr.parse().unwrap();
    let port = snapshot.vip(addr.into(), Protocol::Tcp)?;
    Some(targets(port))
}

/// The routes of a host, found as the gateway does.
pub(super) fn host<'a>(snapshot: &'a Snapshot, host: &str) -> &'a HostRoutes {
    snapshot.routes.host(host).unwrap()
}

/// The first rule of a host that matches, which is what the order of rules is about.
pub(super) fn rule<'a>(snapshot: &'a Snapshot, name: &str, path: &str) -> Option<&'a RouteRule> {
    let matches = |rule: &&std::sync::Arc<RouteRule>| match &rule.path {
        PathMatch::Exact(exact) => &**exact == path,
        PathMatch::Prefix(prefix) => path
            .strip_prefix(&**prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathMatch::Start(start) => path.starts_with(&**start),
        PathMatch::Regex(regex) => regex.is_match(path).unwrap(),
    };
    let host = snapshot.routes.host(name)?;
    host.rules.iter().find(matches).map(AsRef::as_ref)
}

/// `service:port` that takes a request, the reason why none does, or `404`.
pub(super) fn route(snapshot: &Snapshot, name: &str, path: &str) -> String {
    match rule(snapshot, name, path) {
        None => "404".into(),
        Some(rule) => answer(rule),
    }
}

pub(super) fn answer(rule: &RouteRule) -> String {
    match (rule.invalid, rule.backends.first()) {
        (Some(reason), _) => reason.into(),
        (None, Some(to)) => format!("{}:{}", to.backend.service.name, to.backend.port),
        (None, None) => "nothing".into(),
    }
}

pub(super) fn problems(snapshot: &Snapshot, kind: ProblemKind) -> Vec<&Problem> {
    let wanted = |problem: &&Problem| problem.kind == kind;
    snapshot.problems.iter().filter(wanted).collect()
}
