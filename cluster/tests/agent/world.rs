//! An API server, the controllers and an agent in one process.

use std::fmt::Debug;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Resource};
use sealane_cluster::api::{ApiOptions, ApiServer, Store};
use sealane_cluster::controllers::{self, Options};
use sealane_cluster::network::userns::prove_capabilities;
use sealane_cluster::network::{
    ClusterNetwork, ClusterNetworkOptions, LoopbackNetwork, PodNetwork,
};
use sealane_cluster::runtime::{AgentOptions, NodeAgent};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a test waits for a state.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where pods run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// On loopback addresses.
    Loopback,
    /// In network namespaces.
    Namespaces,
}

pub(crate) type Case = (
    &'static str,
    &'static [Mode],
    for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
);

/// A cluster of one node.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) agent: Arc<NodeAgent>,
    pub(crate) dir: tempfile::TempDir,
    network: PodNetwork,
    controllers: CancellationToken,
    running: Running,
}

/// An agent on its thread.
pub(crate) struct Running {
    shutdown: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    fn start(agent: Arc<NodeAgent>, network: PodNetwork) -> Self {
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            if let PodNetwork::Namespaces(network) = &network {
                network.enter().expect("the cluster's namespace");
            }
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(agent.run(token));
        });
        Self { shutdown, thread }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let joined = tokio::task::spawn_blocking(move || self.thread.join());
        joined.await.expect("a task").expect("no panic");
    }
}

impl World {
    /// `None` where namespaces are not allowed and not required.
    pub(crate) async fn start(mode: Mode) -> Option<Self> {
        let network = match mode {
            Mode::Loopback => PodNetwork::Loopback(LoopbackNetwork::new()),
            Mode::Namespaces => {
                if let Err(error) = prove_capabilities() {
                    let required =
                        std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
                    assert!(!required, "{error:?}");
                    println!("skipped: {error}");
                    return None;
                }
                let network = ClusterNetwork::create(ClusterNetworkOptions {
                    pod_cidr: "10.244.0.0/16".parse().expect("a CIDR"),
                    service_cidr: "10.96.0.0/16".parse().expect("a CIDR"),
                    node_ip: Ipv4Addr::new(10, 244, 0, 1),
                    local_addresses: Vec::new(),
                });
                PodNetwork::Namespaces(network.expect("a network"))
            }
        };
        let options = ApiOptions {
            allow_loopback_endpoints: mode == Mode::Loopback,
            ..ApiOptions::default()
        };
        let server = ApiServer::new(Store::ephemeral(), options);
        server.bootstrap().await.expect("a new store");
        let client = server.client();
        let controllers = CancellationToken::new();
        let root_ca = Options {
            root_ca_pem: "PEM".to_owned(),
        };
        tokio::spawn(controllers::run(
            client.clone(),
            root_ca,
            controllers.clone(),
        ));
        let dir = tempfile::tempdir().expect("a directory");
        let agent = new_agent(&client, &network, dir.path().to_owned());
        server.set_streams(agent.clone());
        let running = Running::start(agent.clone(), network.clone());
        let world = Self {
            client,
            agent,
            dir,
            network,
            controllers,
            running,
        };
        let accounts: Api<ServiceAccount> = world.api();
        eventually("the default account", async || {
            accounts.get_opt("default").await.expect("an answer")
        })
        .await;
        Some(world)
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
        self.controllers.cancel();
    }

    /// Ends an agent of its own for `work`'s pods, and starts the next one, as a restart does.
    pub(crate) fn second_agent(&self, node: &str) -> Running {
        let mut options = options(self.dir.path().join(node));
        options.node_name = node.to_owned();
        let agent = NodeAgent::new(self.client.clone(), self.network.clone(), options);
        Running::start(agent, self.network.clone())
    }

    pub(crate) async fn end_agent(&self, agent: Running) {
        agent.stop().await;
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let object = serde_json::from_value(object).expect("an object");
        let api = self.api::<K>();
        let created = api.create(&PostParams::default(), &object).await;
        created.expect("it is created")
    }

    /// A pod with one container `c` that runs a shell script; `more` is merged into the container and
    /// `spec` into the spec.
    pub(crate) async fn shell(&self, name: &str, script: &str, more: Value, spec: Value) {
        let mut container = json!({
            "name": "c", "image": "shell:1", "command": ["sh", "-c", script],
        });
        merge(&mut container, more);
        // Bound from the start: another case has a node of its own that comes and goes.
        let mut whole = json!({
            "containers": [container], "terminationGracePeriodSeconds": 5, "nodeName": "node",
        });
        merge(&mut whole, spec);
        self.create::<Pod>(json!({ "metadata": { "name": name }, "spec": whole }))
            .await;
    }

    pub(crate) async fn pod(&self, name: &str) -> Option<Pod> {
        let pod = self.api::<Pod>().get_opt(name).await;
        pod.expect("an answer")
    }

    /// Waits until the pod is as wanted.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let end = Instant::now() + DEADLINE;
        loop {
            let pod = self.pod(name).await;
            match &pod {
                Some(pod) if wanted(pod) => return pod.clone(),
                _ if Instant::now() > end => {
                    let status = pod.map(|pod| serde_json::to_string_pretty(&pod.status));
                    panic!("{name}: still {status:?}");
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Deletes the pod; gives how long it took to go.
    pub(crate) async fn delete(&self, name: &str) -> Duration {
        let begin = Instant::now();
        let api = self.api::<Pod>();
        let deleted = api.delete(name, &DeleteParams::default()).await;
        deleted.expect("it is marked");
        eventually("the pod is gone", async || {
            self.pod(name).await.is_none().then_some(())
        })
        .await;
        begin.elapsed()
    }

    /// Reasons and messages of the pod's events.
    pub(crate) async fn events(&self, name: &str) -> Vec<(String, String)> {
        let params = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let events = self.api::<Event>().list(&params).await.expect("events");
        let text = |text: Option<String>| text.unwrap_or_default();
        let events = events.items.into_iter();
        events
            .map(|event| (text(event.reason), text(event.message)))
            .collect()
    }

    /// Waits for an event whose message holds the text.
    pub(crate) async fn event(&self, name: &str, reason: &str, part: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            let events = self.events(name).await;
            let found = events.iter().any(|(r, m)| r == reason && m.contains(part));
            if found {
                return;
            }
            assert!(Instant::now() < end, "{reason} {part:?} in {events:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The container's log.
    pub(crate) async fn log(&self, name: &str) -> String {
        let logs = self.api::<Pod>().logs(name, &Default::default()).await;
        logs.expect("a log")
    }
}

fn new_agent(client: &Client, network: &PodNetwork, dir: PathBuf) -> Arc<NodeAgent> {
    NodeAgent::new(client.clone(), network.clone(), options(dir))
}

fn options(dir: PathBuf) -> AgentOptions {
    let mut options = AgentOptions::new("node", &dir, Ipv4Addr::new(10, 244, 0, 1).into());
    options
        .images
        .add_flag("greeter:*=echo hello")
        .expect("a rule");
    options
}

/// Waits until there is an answer.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status.and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _)| status == "True")
}

/// A condition's status and reason.
pub(crate) fn condition(pod: &Pod, kind: &str) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == kind)?;
    Some((
        found.status.clone(),
        found.reason.clone().unwrap_or_default(),
    ))
}

pub(crate) fn container(pod: &Pod) -> ContainerStatus {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.clone());
    statuses
        .unwrap_or_default()
        .into_iter()
        .next()
        .unwrap_or_default()
}

pub(crate) fn restarts(pod: &Pod) -> i32 {
    container(pod).restart_count
}

/// Why the container waits.
pub(crate) fn waiting(pod: &Pod) -> String {
    let state = container(pod).state.and_then(|state| state.waiting);
    state.and_then(|w| w.reason).unwrap_or_default()
}

/// Exit code and reason of the container's end.
pub(crate) fn exit(pod: &Pod) -> Option<(i32, String)> {
    let ended = container(pod).state?.terminated?;
    Some((ended.exit_code, ended.reason.unwrap_or_default()))
}

/// The same of its run before.
pub(crate) fn last_exit(pod: &Pod) -> Option<(i32, String)> {
    let ended = container(pod).last_state?.terminated?;
    Some((ended.exit_code, ended.reason.unwrap_or_default()))
}
