//! The state path as a process runs it, with what it logs and measures.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sealane_config::client::{self, ClusterAddress};
use sealane_config::model::{Protocol, ServiceKey};
use sealane_config::watch::{self, WatchOptions};
use sealane_config::{Reader, Snapshot, snapshot};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::subscriber::DefaultGuard;

/// What has to come true, and has no limit of its own, comes true within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A running state path. Tests run on one thread, so logs and metrics are its own.
pub(crate) struct World {
    pub(crate) reader: Reader,
    pub(crate) log: Log,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
    _subscriber: DefaultGuard,
    _recorder: metrics::LocalRecorderGuard<'static>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    /// Starts it as the user of a kubeconfig, and waits for the first snapshot.
    pub(crate) async fn synced(kubeconfig: PathBuf, options: WatchOptions) -> Self {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let recorder = metrics::set_default_local_recorder(Box::leak(Box::new(recorder)));
        let address = ClusterAddress {
            kubeconfig: Some(kubeconfig),
            context: None,
            server: None,
        };
        let config = client::configuration(&address).await.expect("a kubeconfig");
        let client = Box::pin(client::connect(config, "test"));
        let client = client.await.expect("a client");
        let (publisher, reader) = snapshot::channel();
        let shutdown = CancellationToken::new();
        tokio::spawn(watch::run(client, publisher, options, shutdown.clone()));
        let mut world = Self {
            reader,
            log,
            metrics,
            shutdown,
            _subscriber: guard,
            _recorder: recorder,
        };
        world.until("synced", |snapshot| snapshot.synced).await;
        world
    }

    /// Waits until a snapshot is as it should be; returns how long that took.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Duration {
        let start = Instant::now();
        while !wanted(&self.reader.load()) {
            let change = tokio::time::timeout_at(start + PATIENCE, self.reader.changed()).await;
            assert!(matches!(change, Ok(Some(_))), "{what}\n{}", self.log.text());
        }
        let took = start.elapsed();
        eprintln!("{what}: {took:?}");
        took
    }

    /// Waits until a line of the log has all these words.
    pub(crate) async fn until_logged(&self, words: &[&str]) {
        let end = Instant::now() + PATIENCE;
        while self.log.count(words) == 0 {
            assert!(
                Instant::now() < end,
                "no line with {words:?}\n{}",
                self.log.text()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The age of a kind, as `/readyz` shows it.
    pub(crate) fn age(&self, kind: &str) -> Duration {
        let ages = self.reader.staleness().ages();
        let age = ages.iter().find(|(of, _)| *of == kind);
        age.expect("the kind is watched").1
    }

    /// A sample of a gauge or counter, with its labels as in `name{kind="Service"}`.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.metrics.render();
        let sample = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(sample.trim().parse().expect("a number"))
    }
}

/// What was logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("the log")).into_owned()
    }

    /// How many lines have all these words.
    pub(crate) fn count(&self, words: &[&str]) -> usize {
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        self.text().lines().filter(has_all).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes objects, as an operator would.
#[derive(Clone)]
pub(crate) struct Operator {
    client: Client,
    namespace: String,
}

impl Operator {
    /// One who works in a namespace, which is made.
    pub(crate) async fn new(client: Client, namespace: &str) -> Self {
        let operator = Self {
            client,
            namespace: namespace.to_owned(),
        };
        let object = json!({"metadata": {"name": namespace}});
        operator.create("v1", "Namespace", object).await;
        operator
    }

    fn api(&self, version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match kind {
            "Namespace"
            | "IngressClass"
            | "ClusterRole"
            | "ClusterRoleBinding"
            | "CustomResourceDefinition" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        }
    }

    pub(crate) async fn create(&self, version: &str, kind: &str, mut object: Value) {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let api = self.api(version, kind);
        let created = api.create(&PostParams::default(), &object).await;
        let name = object.name_any();
        created.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    pub(crate) async fn merge(&self, version: &str, kind: &str, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        let api = self.api(version, kind);
        let patched = api.patch(name, &PatchParams::default(), &patch).await;
        patched.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    pub(crate) async fn delete(&self, version: &str, kind: &str, name: &str) {
        let api = self.api(version, kind);
        let deleted = api.delete(name, &DeleteParams::default()).await;
        deleted.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// A Service without a selector.
    pub(crate) async fn service(&self, name: &str) {
        let spec = json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
        let object = json!({"metadata": {"name": name}, "spec": spec});
        self.create("v1", "Service", object).await;
    }

    /// An EndpointSlice of a Service, of the same name.
    pub(crate) async fn slice(&self, service: &str, port: u16, addresses: &[&str]) {
        let object = json!({
            "metadata": {
                "name": service,
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "endpoints": endpoints(addresses),
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        });
        self.create("discovery.k8s.io/v1", "EndpointSlice", object)
            .await;
    }

    /// Replaces the endpoints of a slice.
    pub(crate) async fn move_slice(&self, name: &str, addresses: &[&str]) {
        let patch = json!({"endpoints": endpoints(addresses)});
        self.merge("discovery.k8s.io/v1", "EndpointSlice", name, patch)
            .await;
    }

    /// Whether a snapshot has a Service.
    pub(crate) fn has(&self, snapshot: &Snapshot, name: &str) -> bool {
        snapshot.services.contains_key(&self.key(name))
    }

    /// Where connections to a Service's port go.
    pub(crate) fn targets(&self, snapshot: &Snapshot, name: &str) -> Vec<std::net::SocketAddr> {
        let service = snapshot.services.get(&self.key(name));
        let port = service.and_then(|service| service.port(80, Protocol::Tcp));
        let endpoints = port.map(|port| port.endpoints.iter());
        let targets = endpoints.into_iter().flatten();
        targets.map(|endpoint| endpoint.addr.socket()).collect()
    }

    fn key(&self, name: &str) -> ServiceKey {
        ServiceKey {
            namespace: self.namespace.as_str().into(),
            name: name.into(),
        }
    }
}

fn endpoints(addresses: &[&str]) -> Value {
    let one = |address: &&str| json!({"addresses": [address], "conditions": {"ready": true}});
    addresses.iter().map(one).collect()
}
