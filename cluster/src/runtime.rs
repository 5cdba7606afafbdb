//! The node agent: pods as processes.
//!
//! [`NodeAgent::run`] lives on one thread that is in the cluster's network namespace for as long as
//! the agent lives: probes reach pods from there, and the kernel ends containers with the thread
//! that started them. It watches the pods of its node and has a worker for each ([`pod`]).

pub mod container;
pub mod images;
pub mod init;
pub mod logs;

mod backoff;
mod context;
mod env;
mod mountpoint;
mod node;
mod pod;
mod prepare;
mod probe;
mod report;
mod resolve;
mod runs;
mod status;
mod streams;
mod tokens;
mod volumes;
mod withdraw;

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::container::InitCommand;
use self::context::{Context, Machine};
pub use self::images::ImageMap;
use self::pod::{Handle, Worker};
use self::streams::Request;
use self::tokens::Tokens;
pub use self::withdraw::withdraw_readiness;
use crate::controllers::events;
use crate::network::PodNetwork;

/// Requests for logs and commands that can wait.
const REQUESTS: usize = 32;

/// The agent's settings.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Name of the Node.
    pub node_name: String,
    /// Where logs and volumes are.
    pub data_dir: PathBuf,
    /// The node's address as pods see it.
    pub node_ip: IpAddr,
    /// Address of the cluster's DNS; without it pods use the machine's `/etc/resolv.conf`.
    pub cluster_dns: Option<IpAddr>,
    /// Domain of the cluster's names.
    pub cluster_domain: String,
    /// Which command stands for which image.
    pub images: ImageMap,
    /// How this program is started as a container's init.
    pub init_command: InitCommand,
    /// At shutdown all pods end within this time, however long their grace period is.
    pub stop_deadline: Duration,
    /// Bearer token for the API server, for the service account volumes of pods. Without it the API
    /// server is asked for a token of the pod's ServiceAccount (TokenRequest).
    pub api_token: Option<String>,
    /// Where an API server reaches the node agent's own API ([`crate::api::kubelet`]), if it is not
    /// in this process.
    pub kubelet: Option<SocketAddr>,
    /// Which pods proxies still send new requests to, so that a deleted pod is not told to end before
    /// they have let go of it.
    pub traffic: Option<TrafficView>,
}

/// Says whether new requests may still go to a pod with this address.
#[derive(Clone)]
pub struct TrafficView(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl TrafficView {
    /// A view by this function, which must not block.
    pub fn new(reaches: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(reaches))
    }

    /// New requests may go there.
    pub(crate) fn reaches(&self, pod: IpAddr) -> bool {
        (self.0)(pod)
    }
}

impl Debug for TrafficView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TrafficView")
    }
}

impl AgentOptions {
    /// The usual settings.
    pub fn new(node_name: impl Into<String>, data_dir: &Path, node_ip: IpAddr) -> Self {
        Self {
            node_name: node_name.into(),
            data_dir: data_dir.to_owned(),
            node_ip,
            cluster_dns: None,
            cluster_domain: "cluster.local".to_owned(),
            images: ImageMap::default(),
            init_command: InitCommand::default(),
            stop_deadline: Duration::from_secs(4),
            api_token: None,
            kubelet: None,
            traffic: None,
        }
    }
}

/// The node agent.
pub struct NodeAgent {
    client: Client,
    network: PodNetwork,
    options: AgentOptions,
    requests: mpsc::Sender<Request>,
    /// Taken by [`NodeAgent::run`].
    queue: Mutex<Option<mpsc::Receiver<Request>>>,
}

impl NodeAgent {
    /// An agent that does not yet run.
    pub fn new(client: Client, network: PodNetwork, options: AgentOptions) -> Arc<Self> {
        let (requests, queue) = mpsc::channel(REQUESTS);
        Arc::new(Self {
            client,
            network,
            options,
            requests,
            queue: Mutex::new(Some(queue)),
        })
    }

    /// Registers the node and runs its pods until shut down; then ends all of them within
    /// [`AgentOptions::stop_deadline`]. They stay in the API, and run again with the next agent of
    /// that node.
    ///
    /// To be called once, on a current-thread runtime whose thread lives until this returns and is in
    /// the network namespace that reaches the pods.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(queue) = queue else {
            tracing::error!("the node agent was started twice");
            return;
        };
        let (recorder, writer) = events::channel("kubelet");
        let ctx = Arc::new(Context {
            client: self.client.clone(),
            network: self.network.clone(),
            options: self.options.clone(),
            recorder,
            machine: Machine::detect(),
            tokens: Tokens::default(),
            working_dir: std::env::current_dir().unwrap_or_else(|_| "/".into()),
        });
        let background = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(self.client.clone(), background.clone()));
        tasks.spawn(node::keep(Arc::clone(&ctx), background.clone()));
        Box::pin(Pods::new(ctx).run(queue, &shutdown)).await;
        background.cancel();
        while tasks.join_next().await.is_some() {}
    }
}

/// The pods of this node.
struct Pods {
    ctx: Arc<Context>,
    /// By uid.
    handles: HashMap<String, Handle>,
    workers: JoinSet<()>,
    /// Whose worker a task is.
    uids: HashMap<Id, String>,
    /// Pods of a list that is being received.
    listed: HashSet<String>,
    stop: watch::Sender<Option<Instant>>,
}

impl Pods {
    fn new(ctx: Arc<Context>) -> Self {
        Self {
            ctx,
            handles: HashMap::new(),
            workers: JoinSet::new(),
            uids: HashMap::new(),
            listed: HashSet::new(),
            stop: watch::Sender::new(None),
        }
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>, shutdown: &CancellationToken) {
        let api: Api<Pod> = Api::all(self.ctx.client.clone());
        let node = format!("spec.nodeName={}", self.ctx.options.node_name);
        let config = watcher::Config::default().fields(&node);
        let mut events = watcher(api, config).default_backoff().boxed();
        let client = &self.ctx.client;
        let mut sources = futures_util::stream::select(
            changed_namespaces::<ConfigMap>(client),
            changed_namespaces::<Secret>(client),
        );
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = events.next() => match event {
                    Ok(event) => self.handle(event),
                    Err(error) => tracing::debug!(%error, "the watch of pods was interrupted"),
                },
                Some(namespace) = sources.next() => self.refresh(&namespace),
                Some(ended) = self.workers.join_next_with_id() => self.forget(ended),
                Some(request) = requests.recv() => self.serve(request),
            }
        }
        let deadline = Instant::now() + self.ctx.options.stop_deadline;
        self.stop.send_replace(Some(deadline));
        while let Some(ended) = self.workers.join_next_with_id().await {
            self.forget(ended);
        }
    }

    fn handle(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed.insert(pod.uid().unwrap_or_default());
                self.apply(pod);
            }
            watcher::Event::InitDone => {
                for (uid, handle) in &self.handles {
                    if !self.listed.contains(uid) {
                        handle.gone.cancel();
                    }
                }
            }
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => {
                if let Some(handle) = self.handles.get(&pod.uid().unwrap_or_default()) {
                    handle.gone.cancel();
                }
            }
        }
    }

    /// Tells the pods of a namespace that what their volumes are made of has changed.
    fn refresh(&self, namespace: &str) {
        for handle in self.handles.values() {
            let same = handle.pod.borrow().metadata.namespace.as_deref() == Some(namespace);
            if same {
                handle.refresh.notify_one();
            }
        }
    }

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let pod = Arc::new(pod);
        if let Some(handle) = self.handles.get(&uid) {
            handle.pod.send_replace(pod);
            return;
        }
        let ctx = Arc::clone(&self.ctx);
        let (worker, handle) = Worker::new(ctx, pod, self.stop.subscribe());
        let task = self.workers.spawn(worker.run());
        self.uids.insert(task.id(), uid.clone());
        self.handles.insert(uid, handle);
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a pod's worker ended");
                error.id()
            }
        };
        if let Some(uid) = self.uids.remove(&id) {
            self.handles.remove(&uid);
        }
    }

    /// Answers what is asked of a pod; commands take their time in a task of their own.
    fn serve(&self, request: Request) {
        let handle = self.handles.get(request.uid());
        let runs = handle.map(|handle| Arc::clone(&handle.runs));
        request.answer(&self.ctx, runs);
    }
}

/// Namespaces in which an object of the kind has appeared or changed.
fn changed_namespaces<K>(client: &Client) -> BoxStream<'static, String>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    watcher(api, watcher::Config::default())
        .default_backoff()
        .filter_map(async |event| match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                object.namespace()
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "a watch of the volumes' sources was interrupted");
                None
            }
        })
        .boxed()
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
