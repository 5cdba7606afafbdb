//! The control side of `up`: API server, controllers, node agent, and the order in which they start
//! and stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sealane_cluster::network::PodNetwork;
use sealane_cluster::runtime::{AgentOptions, NodeAgent, TrafficView};
use sealane_config::watch::{IngressWatch, WatchOptions};
use sealane_config::{Publisher, Reader};
use sealane_proxy::admission::Connections;
use tokio_util::sync::CancellationToken;

use super::apply::apply;
use super::console::{Console, Summary};
use super::data_dir::DataDir;
use super::plane::Plane;
use super::settings::Settings;
use super::{preflight, report, served, status, system};
use crate::admin::{self, MetricsHandle, Pages, Readiness, Scope};
use crate::exit::Failure;
use crate::explain::Explainer;
use crate::serve::workers::Workers;
use crate::signal;

/// How long requests may stay in flight at the end.
const DRAIN: Duration = Duration::from_millis(2500);

/// How long pods have to end; with `DRAIN` this stays under the five seconds that a stop may take.
const STOP_PODS: Duration = Duration::from_millis(2000);

/// How often the console looks at the pods while it waits for them.
const LOOK: Duration = Duration::from_millis(50);

/// Name of the node that this process is.
pub(crate) const NODE: &str = "sealane";

/// Addresses that the host sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostAddresses {
    /// Gateway, plain.
    pub(crate) http: SocketAddr,
    /// Gateway, TLS.
    pub(crate) https: SocketAddr,
    /// DNS.
    pub(crate) dns: SocketAddr,
}

/// Everything that was made before the control side starts.
pub(crate) struct Parts {
    /// The options.
    pub(crate) settings: Settings,
    /// The locked data directory.
    pub(crate) data_dir: DataDir,
    /// The listener of the API, or of the node's own API.
    pub(crate) api: TcpListener,
    /// The admin listener.
    pub(crate) admin: TcpListener,
    /// The metrics.
    pub(crate) metrics: MetricsHandle,
    /// Addresses that the host sees.
    pub(crate) addresses: HostAddresses,
    /// The pods' network.
    pub(crate) network: PodNetwork,
    /// Where snapshots go.
    pub(crate) publisher: Publisher,
    /// The snapshots.
    pub(crate) reader: Reader,
    /// Answers questions about them.
    pub(crate) explainer: Explainer,
    /// The data plane.
    pub(crate) workers: Workers,
    /// The connections of clients.
    pub(crate) connections: Connections,
    /// The console.
    pub(crate) console: Console,
}

/// Runs until a signal ends it, then stops everything in order.
///
/// # Errors
/// A part could not be started, or the API refused a manifest.
pub(crate) async fn run(parts: Parts) -> Result<(), Failure> {
    let Parts {
        settings,
        data_dir,
        api,
        admin,
        metrics,
        addresses,
        network,
        publisher,
        reader,
        explainer,
        connections,
        mut workers,
        mut console,
    } = parts;
    let mut stop = std::pin::pin!(signal::terminated());
    let cluster = settings.pod_network.addresses();
    // Controllers stop first: at the end of the process pods stop for reasons that no controller
    // should answer with new ones.
    let control = CancellationToken::new();
    let serving = CancellationToken::new();
    let readiness = Readiness::default();
    let pending = readiness.wait_for("pods ready");
    let admin_addr = admin
        .local_addr()
        .context("the admin listener has no address")?;
    let pages = Pages {
        mode: "up",
        readiness: readiness.clone(),
        explainer,
        metrics,
        connections,
    };
    // Where `sealane explain` finds us. Without it that has to be told: no reason to stop.
    if let Err(error) = data_dir.announce(admin_addr) {
        tracing::warn!("cannot write the admin listener's address: {error}");
    }
    let listeners = vec![(admin, Scope::All)];
    tokio::spawn(admin::serve(listeners, pages, serving.clone()));
    let plane = Box::pin(Plane::start(
        &settings,
        data_dir.path(),
        api,
        &network,
        &serving,
    ))
    .await?;
    let client = plane.client.clone();
    let kubeconfig = plane.kubeconfig.display().to_string();
    let url = plane.url.clone();
    system::install(&client, &cluster, &settings.control_plane)
        .await
        .context("cannot write the cluster's own objects")?;
    plane
        .begin_anew()
        .await
        .context("cannot write that no pod runs yet")?;
    console.step("Kubernetes API", &url);

    let watch = WatchOptions {
        ingress: Some(settings.gateway.apply(IngressWatch {
            classes: settings.classes.clone(),
            ..IngressWatch::default()
        })),
        ..WatchOptions::default()
    };
    tokio::spawn(sealane_config::watch::run(
        client.clone(),
        publisher,
        watch,
        serving.clone(),
    ));
    let reporter = tokio::spawn(sealane_config::report::run(
        client.clone(),
        reader.clone(),
        report::options(&settings.control_plane, addresses.http),
        control.clone(),
    ));
    let agent = Agent::start(&settings, &data_dir, &plane, network, reader.clone())?;
    let controllers = plane.attach(Arc::clone(&agent.agent), control.clone(), serving.clone());

    if !settings.manifests.is_empty() {
        let applied = apply(&client, &settings.manifests)
            .await
            .map_err(preflight::refused)?;
        console.step("manifests", &format!("{} objects applied", applied.len()));
    }
    let ready = wait_until_ready(&client, &reader, &settings, &mut console);
    let interrupted = tokio::select! {
        ready = ready => {
            let progress = ready?;
            let routes = status::routes(&client, addresses.http, addresses.https)
                .await
                .context("cannot list what can be reached")?;
            let scheme = |scheme: &str, at: SocketAddr| format!("{scheme}://{at}");
            console.summary(&Summary {
                ready: progress.is_complete(),
                seconds: console.seconds(),
                http: scheme("http", addresses.http),
                https: scheme("https", addresses.https),
                api: url,
                dns: addresses.dns.to_string(),
                admin: format!("http://{admin_addr}"),
                kubeconfig,
                routes,
                not_ready: progress.not_ready,
            });
            false
        }
        () = &mut stop => true,
    };
    drop(pending);
    let failure = if interrupted {
        None
    } else {
        tokio::select! {
            () = stop => None,
            failure = workers.failure() => Some(failure),
        }
    };
    readiness.drain();
    let stopping = async {
        control.cancel();
        // Nothing is left to do about one that panicked.
        let _ = reporter.await;
        if let Some(controllers) = controllers {
            let _ = controllers.await;
        }
        workers.drain(DRAIN).await;
        agent.stop().await;
        serving.cancel();
    };
    tokio::select! {
        () = stopping => {}
        () = signal::terminated() => console.warn("stopped at once"),
    }
    match failure {
        None => Ok(()),
        Some(failure) => Err(Failure::Other(anyhow::anyhow!(failure))),
    }
}

/// Waits until the data plane has its first state and all pods are ready, or the time is up.
async fn wait_until_ready(
    client: &kube::Client,
    reader: &Reader,
    settings: &Settings,
    console: &mut Console,
) -> Result<status::Progress, Failure> {
    let until = Instant::now() + settings.wait;
    loop {
        let progress = status::progress(client).await.context("cannot list pods")?;
        let served = progress.is_complete()
            && served::caught_up(client, reader, &settings.classes)
                .await
                .context("cannot list what should be served")?;
        if served || Instant::now() >= until {
            if progress.pods > 0 {
                console.step(
                    "pods",
                    &format!("{} of {} ready", progress.ready, progress.pods),
                );
            }
            return Ok(progress);
        }
        console.progress(&progress);
        tokio::time::sleep(LOOK).await;
    }
}

/// Where the workers' snapshot sends new requests. Endpoints that are used only because no ready one
/// is left do not count: the last pod of a Service would wait for itself.
fn traffic_view(reader: Reader) -> TrafficView {
    TrafficView::new(move |pod| {
        let snapshot = reader.load();
        let services = snapshot.endpoint_ips.get(&pod);
        let mut ports = services
            .into_iter()
            .flat_map(|services| services.iter())
            .filter_map(|key| snapshot.services.get(key))
            .flat_map(|service| &service.ports);
        ports.any(|port| {
            let mut endpoints = port.endpoints.iter();
            endpoints.any(|endpoint| endpoint.ready && endpoint.addr.ip() == pod)
        })
    })
}

/// The node agent on its own thread: it lives in the cluster's namespace, and the kernel ends
/// containers when the thread that started them is gone.
struct Agent {
    agent: Arc<NodeAgent>,
    shutdown: CancellationToken,
    done: tokio::sync::oneshot::Receiver<()>,
}

impl Agent {
    fn start(
        settings: &Settings,
        data_dir: &DataDir,
        plane: &Plane,
        network: PodNetwork,
        reader: Reader,
    ) -> Result<Self, Failure> {
        let addresses = settings.pod_network.addresses();
        let options = AgentOptions {
            cluster_dns: Some(addresses.dns),
            images: settings.images.clone(),
            stop_deadline: STOP_PODS,
            api_token: plane.token.clone(),
            kubelet: plane.kubelet,
            traffic: Some(traffic_view(reader)),
            ..AgentOptions::new(NODE, data_dir.path(), addresses.node.into())
        };
        let agent = NodeAgent::new(plane.client.clone(), network.clone(), options);
        let shutdown = CancellationToken::new();
        let (finished, done) = tokio::sync::oneshot::channel();
        let (running, token) = (Arc::clone(&agent), shutdown.clone());
        std::thread::Builder::new()
            .name("node-agent".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match (super::enter(&network), runtime) {
                    (Ok(()), Ok(runtime)) => runtime.block_on(running.run(token)),
                    (Err(error), _) => tracing::error!("the node agent cannot start: {error}"),
                    (_, Err(error)) => tracing::error!("the node agent cannot start: {error}"),
                }
                // Nobody waits any more if the process is ending at once.
                let _ = finished.send(());
            })
            .context("cannot start the node agent's thread")?;
        Ok(Self {
            agent,
            shutdown,
            done,
        })
    }

    async fn stop(self) {
        self.shutdown.cancel();
        if tokio::time::timeout(STOP_PODS + Duration::from_millis(500), self.done)
            .await
            .is_err()
        {
            tracing::warn!("some pods did not end in time");
        }
    }
}
