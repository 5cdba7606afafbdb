//! The control side of `up`: API server, controllers, node agent, and the order in which they start
//! and stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sealane_cluster::api::credentials::Credentials;
use sealane_cluster::api::{self, ApiOptions, Store};
use sealane_cluster::network::PodNetwork;
use sealane_cluster::runtime::{AgentOptions, NodeAgent};
use sealane_cluster::{controllers, streams};
use sealane_config::watch::WatchOptions;
use sealane_config::{Publisher, Reader};
use tokio_util::sync::CancellationToken;

use super::apply::apply;
use super::console::{Console, Summary};
use super::data_dir::DataDir;
use super::settings::{PodNetworkMode, Settings};
use super::workers::Workers;
use super::{preflight, served, status, system};
use crate::exit::Failure;
use crate::signal;

/// How long requests may stay in flight at the end.
const DRAIN: Duration = Duration::from_millis(2500);

/// How long pods have to end; with `DRAIN` this stays under the five seconds that a stop may take.
const STOP_PODS: Duration = Duration::from_millis(2000);

/// How often the console looks at the pods while it waits for them.
const LOOK: Duration = Duration::from_millis(50);

/// Name of the one node.
const NODE: &str = "sealane";

/// Addresses that the host sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostAddresses {
    /// Gateway, plain.
    pub(crate) http: SocketAddr,
    /// Gateway, TLS.
    pub(crate) https: SocketAddr,
    /// DNS.
    pub(crate) dns: SocketAddr,
    /// Kubernetes API.
    pub(crate) api: SocketAddr,
}

/// Everything that was made before the control side starts.
pub(crate) struct Parts {
    /// The options.
    pub(crate) settings: Settings,
    /// The locked data directory.
    pub(crate) data_dir: DataDir,
    /// The API's listener.
    pub(crate) api: TcpListener,
    /// Addresses that the host sees.
    pub(crate) addresses: HostAddresses,
    /// The pods' network.
    pub(crate) network: PodNetwork,
    /// Where snapshots go.
    pub(crate) publisher: Publisher,
    /// The snapshots.
    pub(crate) reader: Reader,
    /// The data plane.
    pub(crate) workers: Workers,
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
        addresses,
        network,
        publisher,
        reader,
        workers,
        mut console,
    } = parts;
    let mut stop = std::pin::pin!(signal::terminated());
    let cluster = settings.pod_network.addresses();
    let store = if settings.ephemeral {
        Store::ephemeral()
    } else {
        Store::open(&data_dir.path().join("state.redb"))
            .context("cannot open the cluster's state")?
    };
    let credentials = Credentials::load_or_create(data_dir.path(), &[cluster.node.into()])
        .context("cannot make the API's certificates")?;
    let inside = api_for_pods(&settings, &network, addresses.api, cluster.node.into())?;
    let options = ApiOptions {
        advertise: Some(inside.addr),
        token: Some(credentials.token().to_owned()),
        ..ApiOptions::default()
    };
    let server = preflight::server(&settings, store, options).await?;
    let client = server.client();
    let kubeconfig = data_dir.path().join("kubeconfig");
    credentials
        .write_kubeconfig(&kubeconfig, &format!("https://{}", addresses.api))
        .context("cannot write the kubeconfig")?;
    let tls = credentials.tls();

    // Controllers stop first: at the end of the process pods stop for reasons that no controller
    // should answer with new ones.
    let control = CancellationToken::new();
    let serving = CancellationToken::new();
    let api = tokio::net::TcpListener::from_std(api).context("cannot listen for the API")?;
    tokio::spawn(api::serve(
        api,
        Arc::clone(&tls),
        server.clone(),
        serving.clone(),
    ));
    if let Some(listener) = inside.listener {
        tokio::spawn(api::serve(listener, tls, server.clone(), serving.clone()));
    }
    system::install(&client, &cluster)
        .await
        .context("cannot write the cluster's own objects")?;
    console.step("Kubernetes API", &format!("https://{}", addresses.api));

    let watch = WatchOptions::default();
    tokio::spawn(sealane_config::watch::run(
        client.clone(),
        publisher,
        watch,
        serving.clone(),
    ));
    let options = controllers::Options {
        root_ca_pem: credentials.ca_pem().to_owned(),
    };
    let controllers = tokio::spawn(controllers::run(client.clone(), options, control.clone()));
    let token = credentials.token().to_owned();
    let agent = Agent::start(&settings, &data_dir, client.clone(), network, token)?;
    server.set_streams(Arc::clone(&agent.agent) as Arc<dyn streams::PodStreams>);

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
                api: scheme("https", addresses.api),
                dns: addresses.dns.to_string(),
                kubeconfig: kubeconfig.display().to_string(),
                routes,
                not_ready: progress.not_ready,
            });
            false
        }
        () = &mut stop => true,
    };
    if !interrupted {
        stop.await;
    }
    let stopping = async {
        control.cancel();
        let _ = controllers.await;
        workers.drain(DRAIN).await;
        agent.stop().await;
        serving.cancel();
    };
    tokio::select! {
        () = stopping => {}
        () = signal::terminated() => console.warn("stopped at once"),
    }
    Ok(())
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
            && served::caught_up(client, reader)
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

/// Where pods reach the API.
struct ApiInside {
    addr: SocketAddr,
    listener: Option<tokio::net::TcpListener>,
}

/// In the cluster's namespace the API needs a listener of its own.
fn api_for_pods(
    settings: &Settings,
    network: &PodNetwork,
    host: SocketAddr,
    node: std::net::IpAddr,
) -> Result<ApiInside, Failure> {
    if settings.pod_network == PodNetworkMode::Loopback {
        return Ok(ApiInside {
            addr: host,
            listener: None,
        });
    }
    let network = network.clone();
    let listener = std::thread::spawn(move || {
        super::enter(&network)?;
        let addr = SocketAddr::new(node, host.port());
        Ok::<_, anyhow::Error>(sealane_config::sockets::tcp_listener(addr)?)
    })
    .join()
    .map_err(|_panicked| anyhow::anyhow!("the thread that listens for pods failed"))?
    .context("cannot listen for pods' calls to the API")?;
    let listener = tokio::net::TcpListener::from_std(listener.into())
        .context("cannot listen for pods' calls to the API")?;
    Ok(ApiInside {
        addr: listener
            .local_addr()
            .context("the API's listener has no address")?,
        listener: Some(listener),
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
        client: kube::Client,
        network: PodNetwork,
        token: String,
    ) -> Result<Self, Failure> {
        let addresses = settings.pod_network.addresses();
        let options = AgentOptions {
            cluster_dns: Some(addresses.dns),
            images: settings.images.clone(),
            stop_deadline: STOP_PODS,
            api_token: Some(token),
            ..AgentOptions::new(NODE, data_dir.path(), addresses.node.into())
        };
        let agent = NodeAgent::new(client, network.clone(), options);
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
