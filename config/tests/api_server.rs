//! The state path on the embedded API server, through the same client that a cluster gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use sealane_cluster::api::{ApiOptions, ApiServer, Store};
use sealane_config::model::{ProblemKind, Protocol, ServiceKey};
use sealane_config::watch::{self, WatchOptions};
use sealane_config::{Reader, Snapshot, snapshot};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What has to come true comes true within this, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    client: Client,
    reader: Reader,
    shutdown: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    async fn start() -> Self {
        let server = ApiServer::new(Store::ephemeral(), ApiOptions::default());
        server.bootstrap().await.expect("the API server starts");
        let (publisher, reader) = snapshot::channel();
        let shutdown = CancellationToken::new();
        let options = WatchOptions::default();
        let watching = watch::run(server.client(), publisher, options, shutdown.clone());
        tokio::spawn(watching);
        let world = Self {
            client: server.client(),
            reader,
            shutdown,
        };
        world
            .create("v1", "Namespace", json!({"metadata": {"name": "shop"}}))
            .await;
        world
    }

    fn api(&self, version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match kind {
            "Namespace" | "IngressClass" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), "shop", &resource),
        }
    }

    async fn create(&self, version: &str, kind: &str, mut object: Value) {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let created = self
            .api(version, kind)
            .create(&PostParams::default(), &object)
            .await;
        let name = object.name_any();
        created.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    async fn merge(&self, version: &str, kind: &str, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        let api = self.api(version, kind);
        let patched = api.patch(name, &PatchParams::default(), &patch).await;
        patched.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    async fn delete(&self, version: &str, kind: &str, name: &str) {
        let api = self.api(version, kind);
        let deleted = api.delete(name, &DeleteParams::default()).await;
        deleted.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let snapshot = Arc::clone(&self.reader.load());
            if wanted(&snapshot) {
                return snapshot;
            }
            let changed = tokio::time::timeout_at(deadline, self.reader.changed()).await;
            assert!(changed.is_ok(), "{what}: {snapshot:?}");
        }
    }
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": endpoints(addresses),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
}

fn endpoints(addresses: &[&str]) -> Value {
    let one = |address: &&str| json!({"addresses": [address], "conditions": {"ready": true}});
    addresses.iter().map(one).collect()
}

fn targets(snapshot: &Snapshot, name: &str) -> Option<Vec<String>> {
    let key = ServiceKey {
        namespace: "shop".into(),
        name: name.into(),
    };
    let service = snapshot.services.get(&key)?;
    let ip = service.cluster_ips.first()?;
    let port = snapshot.vips.get(&(*ip, Protocol::Tcp, 80))?;
    let addresses = port.endpoints.iter().map(|e| e.addr.to_string());
    Some(addresses.collect())
}

const SLICES: &str = "discovery.k8s.io/v1";
const NETWORKING: &str = "networking.k8s.io/v1";

#[tokio::test]
async fn proxy_s1_service_gets_its_address_and_follows_its_slices() {
    let mut world = World::start().await;
    world.until("synced", |snapshot| snapshot.synced).await;
    world.create("v1", "Service", service("web")).await;
    world
        .create(
            SLICES,
            "EndpointSlice",
            slice("web-1", "web", &["10.244.0.5"]),
        )
        .await;
    let is = |want: &'static [&'static str]| {
        move |snapshot: &Snapshot| targets(snapshot, "web").is_some_and(|t| t == want)
    };
    let snapshot = world.until("one endpoint", is(&["10.244.0.5:8080"])).await;
    assert!(snapshot.namespaces.contains_key("shop"));
    let patch = json!({"endpoints": endpoints(&["10.244.0.5", "10.244.0.6"])});
    world.merge(SLICES, "EndpointSlice", "web-1", patch).await;
    world
        .until("two", is(&["10.244.0.5:8080", "10.244.0.6:8080"]))
        .await;
    let patch = json!({"endpoints": [
        {"addresses": ["10.244.0.5"], "conditions": {"ready": false}},
        {"addresses": ["10.244.0.6"], "conditions": {"ready": true}}]});
    world.merge(SLICES, "EndpointSlice", "web-1", patch).await;
    world.until("one not ready", is(&["10.244.0.6:8080"])).await;
    world.delete("v1", "Service", "web").await;
    world
        .until("deleted", |snapshot| targets(snapshot, "web").is_none())
        .await;
}

#[tokio::test]
async fn ingress_i9_i13_i20_ingress_with_certificate() {
    let mut world = World::start().await;
    let class =
        json!({"metadata": {"name": "edge"}, "spec": {"controller": "sealane.dev/ingress"}});
    world.create(NETWORKING, "IngressClass", class).await;
    let ingress = json!({"metadata": {"name": "front", "namespace": "shop"}, "spec": {
        "ingressClassName": "edge",
        "tls": [{"hosts": ["shop.localhost"], "secretName": "front-tls"}],
        "rules": [{"host": "shop.localhost", "http": {"paths": [{
            "path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "web", "port": {"name": "http"}}}}]}}]}});
    world.create(NETWORKING, "Ingress", ingress).await;
    let kinds = |snapshot: &Snapshot| -> Vec<ProblemKind> {
        snapshot
            .problems
            .iter()
            .map(|problem| problem.kind)
            .collect()
    };
    world
        .until("reported", |snapshot| {
            kinds(snapshot) == [ProblemKind::MissingService, ProblemKind::MissingSecret]
        })
        .await;

    let made = rcgen::generate_simple_self_signed(vec!["shop.localhost".to_owned()])
        .expect("a certificate");
    let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let data = json!({"tls.crt": encode(made.cert.pem()), "tls.key": encode(made.signing_key.serialize_pem())});
    let secret = json!({"metadata": {"name": "front-tls", "namespace": "shop"},
        "type": "kubernetes.io/tls", "data": data});
    world.create("v1", "Secret", secret).await;
    world.create("v1", "Service", service("web")).await;
    let snapshot = world
        .until("served", |snapshot| {
            snapshot.synced && snapshot.problems.is_empty()
        })
        .await;
    let host = snapshot.routes.host("shop.localhost").expect("the host");
    assert!(host.has_certificate);
    let backend = &host.rules[0].backends[0].backend;
    assert_eq!((&*backend.service.name, backend.port), ("web", 80));
    let found = snapshot.certificates.find("shop.localhost");
    assert_eq!(
        found.map(|certificate| &*certificate.source.name),
        Some("front-tls")
    );

    world.delete(NETWORKING, "IngressClass", "edge").await;
    world
        .until("class gone", |snapshot| {
            snapshot.routes.host("shop.localhost").is_none()
        })
        .await;
}

#[tokio::test]
async fn proxy_s27_changes_arrive_among_many_services() {
    let mut world = World::start().await;
    let count = 300;
    for index in 0..count {
        world
            .create("v1", "Service", service(&format!("s{index}")))
            .await;
    }
    world
        .until("all", |snapshot| {
            snapshot.synced && snapshot.services.size() >= count
        })
        .await;
    world
        .create(SLICES, "EndpointSlice", slice("s7-1", "s7", &[]))
        .await;
    let mut slowest = Duration::ZERO;
    for last in 1..=50_u8 {
        let address = format!("10.244.0.{last}");
        let start = Instant::now();
        let patch = json!({"endpoints": endpoints(&[&address])});
        world.merge(SLICES, "EndpointSlice", "s7-1", patch).await;
        let want = format!("{address}:8080");
        world
            .until(&want, |snapshot| {
                targets(snapshot, "s7").is_some_and(|targets| targets.contains(&want))
            })
            .await;
        slowest = slowest.max(start.elapsed());
    }
    // The goal is 100 ms with everything included; ten times that says that something is wrong
    // even on a busy machine without optimisation.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    eprintln!("slowest of 50 endpoint changes: {slowest:?}");
}
