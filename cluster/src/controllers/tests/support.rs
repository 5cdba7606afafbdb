//! An API server, the controllers and an agent in one process.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::{ApiOptions, ApiServer, Store};
use crate::controllers::{Options, run};

/// How long a test waits for a state.
const DEADLINE: Duration = Duration::from_secs(20);

/// A cluster; everything in it ends when it is dropped.
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) server: ApiServer,
    controllers: CancellationToken,
    running: Mutex<Option<JoinHandle<()>>>,
    shutdown: CancellationToken,
    _guard: DropGuard,
}

impl Cluster {
    /// Server and controllers, no node.
    pub(super) async fn without_node() -> Self {
        Self::with(|server| server.client()).await
    }

    /// The controllers reach the server through a client of the test's choice.
    pub(super) async fn with(controllers: impl FnOnce(&ApiServer) -> Client) -> Self {
        let server = ApiServer::new(Store::ephemeral(), ApiOptions::default());
        let client = controllers(&server);
        Self::over(&server, client).await
    }

    /// Over a server of the test's own; `controllers` is how the controllers reach it.
    pub(super) async fn over(server: &ApiServer, controllers: Client) -> Self {
        server.bootstrap().await.unwrap();
        let client = server.client();
        let shutdown = CancellationToken::new();
        let options = Options {
            root_ca_pem: "PEM".to_owned(),
        };
        let token = shutdown.child_token();
        let running = tokio::spawn(run(controllers, options, token.clone()));
        Self {
            client,
            server: server.clone(),
            controllers: token,
            running: Mutex::new(Some(running)),
            _guard: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    /// Ends the controllers; server and agent stay.
    pub(super) async fn stop(&self) {
        self.controllers.cancel();
        let running = self.running.lock().unwrap().take();
        running.unwrap().await.unwrap();
    }

    /// With a node whose agent runs every pod, except those with the image `broken`.
    pub(super) async fn start() -> Self {
        let cluster = Self::without_node().await;
        cluster.add_agent().await;
        cluster
    }

    /// Adds a node and its agent.
    pub(super) async fn add_agent(&self) {
        self.add_node().await;
        tokio::spawn(agent(self.client.clone(), self.shutdown.clone()));
    }

    pub(super) async fn add_node(&self) {
        let node: Node = from(json!({ "metadata": { "name": "node" } }));
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        nodes
            .patch_status("node", &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub(super) async fn add_namespace(&self, name: &str) {
        let namespace: Namespace = from(json!({ "metadata": { "name": name } }));
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }

    /// The API of a kind in `default`.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(super) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        self.api::<K>()
            .create(&PostParams::default(), &from(object))
            .await
            .unwrap()
    }

    pub(super) async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap()
    }

    /// Names of the objects of a kind in `default`.
    pub(super) async fn names<K>(&self) -> Vec<String>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let list = self.api::<K>().list(&ListParams::default()).await.unwrap();
        list.iter().map(ResourceExt::name_any).collect()
    }

    /// The pods of `default` that are not being deleted.
    pub(super) async fn pods(&self) -> Vec<Pod> {
        let list = self
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let alive = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
        list.into_iter().filter(alive).collect()
    }

    /// Addresses that slices of the service call ready.
    pub(super) async fn ready_addresses(&self, service: &str) -> Vec<String> {
        let label = format!("kubernetes.io/service-name={service}");
        let params = ListParams::default().labels(&label);
        ready(
            &self
                .api::<EndpointSlice>()
                .list(&params)
                .await
                .unwrap()
                .items,
        )
    }
}

/// Addresses that slices call ready, each once.
pub(super) fn ready<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Vec<String> {
    let mut addresses: Vec<String> = slices
        .into_iter()
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .is_some_and(|c| c.ready == Some(true))
        })
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

pub(super) fn from<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Asks again and again until the answer is as wanted; fails with the last answer.
pub(super) async fn eventually<T, Fut>(
    what: &str,
    wanted: impl Fn(&T) -> bool,
    ask: impl Fn() -> Fut,
) -> T
where
    T: Debug,
    Fut: Future<Output = T>,
{
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: still {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Does a node agent's work: runs pods that are bound, ends pods that are deleted.
async fn agent(client: Client, shutdown: CancellationToken) {
    let next = AtomicU32::new(2);
    let mut events = std::pin::pin!(watcher(Api::<Pod>::all(client.clone()), Config::default()));
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        let Some(event) = event else { return };
        if let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event {
            handle(&client, &pod, &next).await;
        }
    }
}

async fn handle(client: &Client, pod: &Pod, next: &AtomicU32) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
    let name = pod.name_any();
    let spec = pod.spec.as_ref().unwrap();
    if spec.node_name.is_none() {
        return;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        // Someone else may have been faster; then it is gone, which is all that counts.
        let _ = api
            .delete(&name, &DeleteParams::default().grace_period(0))
            .await;
        return;
    }
    let broken = spec.containers[0].image.as_deref() == Some("broken");
    let starting = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending");
    if starting && !broken {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let ip = format!("10.244.{}.{}", number / 250, number % 250 + 1);
        let status = json!({ "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{ "ip": ip }],
            "conditions": [
                { "type": "PodScheduled", "status": "True" },
                { "type": "Ready", "status": "True",
                    "lastTransitionTime": crate::controllers::clock::now() },
            ],
        } });
        // The pod may be gone already.
        let _ = api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await;
    }
}
