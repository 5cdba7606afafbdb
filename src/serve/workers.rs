//! The data plane's threads: one worker a core, each with its own runtime, listeners and pools.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use sealane_cluster::network::PodNetwork;
use sealane_config::Reader;
use sealane_config::sockets::{HostSockets, tcp_listener};
use sealane_dns::{DnsConfig, DnsServer, Listener};
use sealane_ingress::{Gateway, GatewayOptions};
use sealane_proxy::FlowBudget;
use sealane_proxy::access::{AccessLog, Format};
use sealane_proxy::admission::Connections;
use sealane_proxy::balance::Affinity;
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions, Hop, Shared};
use sealane_proxy::intercept::Interceptor;
use sealane_proxy::node::{Capture, NodeProxy};
use sealane_proxy::sidecar::{Direction, Engines, PodOptions, SidecarProxy};
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::bind::{DnsSockets, GatewaySockets};
use super::names::{DnsChange, Names};
use super::watchdog::{Beat, Watchdog};
use crate::exit::Failure;

/// Most workers that can be asked for.
const MAX_WORKERS: usize = 64;

/// How long before the end of a drain WebSockets that are still open are told to go.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often is looked whether a worker has ended that should not.
const LIVENESS: Duration = Duration::from_secs(1);

/// How often is looked whether workers have ended that should.
const LOOK: Duration = Duration::from_millis(5);

/// The number of workers, as an option or one a core.
///
/// # Errors
/// A number that cannot be.
pub(crate) fn count(wanted: Option<usize>) -> Result<usize, String> {
    let workers = wanted.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS))
    });
    if (1..=MAX_WORKERS).contains(&workers) {
        Ok(workers)
    } else {
        Err(format!("--workers {workers}: give 1 to {MAX_WORKERS}"))
    }
}

/// Whether there is an access log, and what its fields are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct AccessLogOptions {
    /// One line of JSON on standard output for each request, with field names of our own or those of
    /// nginx
    #[arg(
        long,
        value_name = "NAMES",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "sealane"
    )]
    access_log: Option<AccessLogNames>,
}

/// Field names of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AccessLogNames {
    /// Of our own
    Sealane,
    /// nginx's variables: `remote_addr`, `request_uri`, `upstream_addr`
    Nginx,
}

/// The access log, if it is wanted.
///
/// # Errors
/// There is no thread for it.
pub(crate) fn access_log(options: AccessLogOptions) -> Result<Option<AccessLog>, Failure> {
    let format = options.access_log.map(|names| match names {
        AccessLogNames::Sealane => Format::Sealane,
        AccessLogNames::Nginx => Format::Nginx,
    });
    let log = format.map(|format| AccessLog::start(format, std::io::stdout()));
    let log = log.transpose().context("cannot start the access log")?;
    Ok(log)
}

/// What every worker does; one clone each.
#[derive(Clone)]
pub(crate) struct Work {
    /// The state of the world.
    pub(crate) reader: Reader,
    /// The namespace that workers live in; `None` for that of the process.
    pub(crate) network: Option<PodNetwork>,
    /// Makes sockets that lead out of it.
    pub(crate) sockets: HostSockets,
    /// Connects to endpoints.
    pub(crate) connector: Connector,
    /// Where each request gets a line.
    pub(crate) access_log: Option<AccessLog>,
    /// The connections of clients.
    pub(crate) connections: Connections,
    /// Told of the last generation that is in force in the kernel.
    pub(crate) applied: watch::Sender<u64>,
    /// Serves Ingresses on sockets of [`Sockets::gateway`].
    pub(crate) gateway: Option<GatewayOptions>,
    /// Answers names on sockets of [`Sockets::dns`].
    pub(crate) dns: Option<Dns>,
    /// Serves Services.
    pub(crate) services: Option<Capture>,
    /// Serves the pod that this is in.
    pub(crate) pod: Option<Pod>,
}

/// A pod with a sidecar.
#[derive(Clone)]
pub(crate) struct Pod {
    /// The pod.
    pub(crate) options: PodOptions,
    /// The sidecar has to see for itself when the application has ended.
    pub(crate) waits_for_app: bool,
}

/// DNS of a worker.
#[derive(Clone)]
pub(crate) struct Dns {
    /// What is answered.
    pub(crate) config: Arc<DnsConfig>,
    /// Where it reports to.
    pub(crate) observe: sealane_dns::Observe,
    /// The connections of clients, counted for all workers together.
    pub(crate) connections: sealane_dns::Connections,
    /// More addresses, in the workers' namespace.
    pub(crate) inside: Vec<SocketAddr>,
    /// Go on without those of them that cannot be had.
    pub(crate) inside_is_optional: bool,
}

/// The sockets of one worker.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Of the gateway.
    pub(crate) gateway: Option<GatewaySockets>,
    /// Of DNS.
    pub(crate) dns: Vec<DnsSockets>,
    /// Other listeners and another configuration of DNS, as they come.
    pub(crate) dns_changes: Option<mpsc::Receiver<DnsChange>>,
}

/// Sockets for `workers`, from listeners that have as many or that there are none of.
pub(crate) fn distribute(
    workers: usize,
    gateway: Vec<GatewaySockets>,
    dns: Vec<DnsSockets>,
) -> Vec<Sockets> {
    let (mut gateway, mut dns) = (gateway.into_iter(), dns.into_iter());
    let sets = (0..workers).map(|_| Sockets {
        gateway: gateway.next(),
        dns: dns.next().into_iter().collect(),
        dns_changes: None,
    });
    sets.collect()
}

/// The running workers.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Cancelled: stop accepting, finish what is in flight.
    drain: CancellationToken,
    /// The same for connections to the pod; cancelled by `drain`, too.
    inbound: CancellationToken,
    /// Cancelled: WebSockets end.
    farewell: CancellationToken,
    failures: mpsc::Receiver<String>,
    watchdog: Watchdog,
    /// A worker that is stuck is a failure.
    pub(crate) fails_when_stuck: bool,
}

/// Starts a worker for each set of sockets, and waits until all of them serve.
///
/// # Errors
/// A worker could not be started or lacks something that it needs.
pub(crate) fn start(sets: Vec<Sockets>, work: &Work) -> Result<Workers, Failure> {
    let drain = CancellationToken::new();
    let inbound = drain.child_token();
    let farewell = CancellationToken::new();
    let (bound, started) = std_mpsc::sync_channel(sets.len());
    let (failed, failures) = mpsc::channel(1);
    let (affinity, shared) = (Affinity::default(), Shared::default());
    let flows = FlowBudget::default();
    let watchdog = Watchdog::new(sets.len());
    let mut threads = Vec::with_capacity(sets.len());
    for (index, set) in sets.into_iter().enumerate() {
        let worker = Worker {
            work: work.clone(),
            index,
            affinity: affinity.clone(),
            beat: watchdog.beat(index),
            shared: shared.clone(),
            flows: flows.clone(),
            drain: drain.clone(),
            inbound: inbound.clone(),
            farewell: farewell.clone(),
            failed: failed.clone(),
        };
        let bound = bound.clone();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || worker.run(set, bound))
            .context("cannot start a worker thread")?;
        threads.push(thread);
    }
    drop(bound);
    for _ in &threads {
        let outcome = started.recv().context("a worker ended at its start");
        outcome.and_then(std::convert::identity)?;
    }
    Ok(Workers {
        threads,
        drain,
        inbound,
        farewell,
        failures,
        watchdog,
        fails_when_stuck: false,
    })
}

impl Workers {
    /// Resolves when a part of a worker has failed for good, and says which.
    pub(crate) async fn failure(&mut self) -> String {
        loop {
            match timeout(LIVENESS, self.failures.recv()).await {
                Ok(Some(failure)) => return failure,
                Ok(None) => return "the workers ended".to_owned(),
                Err(_elapsed) => {
                    if self.threads.iter().any(JoinHandle::is_finished) {
                        return "a worker ended".to_owned();
                    }
                    if let [worker, ..] = self.watchdog.look()[..]
                        && self.fails_when_stuck
                    {
                        return format!("worker {worker} is stuck");
                    }
                }
            }
        }
    }

    /// Takes no more connections to the pod; those from it go on being taken.
    pub(crate) fn stop_inbound(&self) {
        self.inbound.cancel();
    }

    /// Stops accepting and waits until everything in flight is done, at most `deadline`; shortly
    /// before that WebSockets are closed. Workers that are not done by then end with the process.
    pub(crate) async fn drain(self, deadline: Duration) {
        self.drain.cancel();
        let until = Instant::now() + deadline;
        for thread in self.threads {
            while !thread.is_finished() {
                if until.saturating_duration_since(Instant::now()) <= FAREWELL {
                    self.farewell.cancel();
                }
                if Instant::now() >= until {
                    tracing::warn!("requests were still in flight at the end of the drain");
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Told once by each worker, which then lets go of it: one that panics tells nothing.
type Bound = std_mpsc::SyncSender<anyhow::Result<()>>;

/// A part of a worker, until it is drained or fails.
type Part = LocalBoxFuture<'static, anyhow::Result<()>>;

struct Worker {
    work: Work,
    index: usize,
    beat: Arc<Beat>,
    affinity: Affinity,
    shared: Shared,
    flows: FlowBudget,
    drain: CancellationToken,
    inbound: CancellationToken,
    farewell: CancellationToken,
    failed: mpsc::Sender<String>,
}

impl Worker {
    fn run(self, set: Sockets, bound: Bound) {
        let runtime = self.enter().and_then(|()| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build_local(LocalOptions::default());
            runtime.context("cannot start a runtime")
        });
        match runtime {
            Ok(runtime) => runtime.block_on(self.serve(set, bound)),
            // `start` waits for as many answers as there are workers.
            Err(error) => drop(bound.send(Err(error))),
        }
    }

    fn enter(&self) -> anyhow::Result<()> {
        match &self.work.network {
            Some(PodNetwork::Namespaces(network)) => network
                .enter()
                .context("cannot enter the cluster's network"),
            Some(PodNetwork::Loopback(_)) | None => Ok(()),
        }
    }

    async fn serve(self, set: Sockets, bound: Bound) {
        let options = EngineOptions {
            affinity: self.affinity.clone(),
            connections: self.work.connections.clone(),
            access_log: self.work.access_log.clone(),
            shared: self.shared.clone(),
            farewell: self.farewell.clone(),
            hop: if self.work.pod.is_some() {
                Hop::Sidecar
            } else {
                Hop::Node
            },
            ..EngineOptions::default()
        };
        let engine = Engine::new(self.connector(), options);
        let parts = match self.parts(set, &engine) {
            Ok(parts) => parts,
            Err(error) => return drop(bound.send(Err(error))),
        };
        // Fails only if `start` has given up because of another worker.
        let _ = bound.send(Ok(()));
        drop(bound);
        // Each a task of its own: joined in one, each would be looked after when one of them is.
        let mut tasks = JoinSet::new();
        for part in parts {
            tasks.spawn_local(watch_over(part, self.index, self.failed.clone()));
        }
        let (reader, drain) = (self.work.reader.clone(), self.drain.clone());
        let maintained = engine.clone();
        tasks.spawn_local(async move { maintained.maintain(reader, drain).await });
        let (beat, drain) = (self.beat.clone(), self.drain.clone());
        tasks.spawn_local(async move { beat.run(drain).await });
        // Ends the thread if one of them panics, which `Workers::failure` notices.
        tasks.join_all().await;
        engine.drained().await;
    }

    fn connector(&self) -> Connector {
        let connector = self.work.connector.clone();
        match &self.work.services {
            Some(Capture::Transparent(options)) => connector.of_node(options),
            Some(Capture::Listeners | Capture::Pod(..)) | None => connector,
        }
    }

    fn parts(&self, set: Sockets, engine: &Engine) -> anyhow::Result<Vec<Part>> {
        let mut parts = Vec::new();
        if let (Some(options), Some(sockets)) = (&self.work.gateway, set.gateway) {
            let reader = self.work.reader.clone();
            let gateway = Gateway::new(reader, engine.clone(), options.clone());
            let http = tokio::net::TcpListener::from_std(sockets.http)?;
            let https = tokio::net::TcpListener::from_std(sockets.https)?;
            let (measured, drain) = (gateway.clone(), self.drain.clone());
            let upkeep = async move { measured.maintain(drain).await };
            parts.push(upkeep.map(Ok).boxed_local());
            let (plain, drain) = (gateway.clone(), self.drain.clone());
            let plain = async move {
                let served = plain.serve_http(http, drain).await;
                served.context("cannot accept HTTP connections")
            };
            parts.push(plain.boxed_local());
            if let Some(share) = sockets.http3 {
                let (quic, drain) = (gateway.clone(), self.drain.clone());
                let quic = async move {
                    let served = quic.serve_http3(share, drain).await;
                    served.context("cannot serve HTTP/3")
                };
                parts.push(quic.boxed_local());
            }
            let drain = self.drain.clone();
            let tls = async move {
                let served = gateway.serve_https(https, drain).await;
                served.context("cannot accept HTTPS connections")
            };
            parts.push(tls.boxed_local());
        }
        if let Some(dns) = &self.work.dns {
            self.names(dns, set.dns, set.dns_changes, &mut parts)?;
        }
        if let Some(capture) = &self.work.services {
            self.services(capture, engine, &mut parts)?;
        }
        if let Some(pod) = &self.work.pod {
            self.pod(&pod.options, engine, &mut parts)?;
        }
        Ok(parts)
    }

    fn names(
        &self,
        dns: &Dns,
        mut sockets: Vec<DnsSockets>,
        changes: Option<mpsc::Receiver<DnsChange>>,
        parts: &mut Vec<Part>,
    ) -> anyhow::Result<()> {
        let (reader, host) = (self.work.reader.clone(), self.work.sockets.clone());
        let server = DnsServer::observed(reader, host, &dns.config, dns.observe.clone());
        for addr in &dns.inside {
            match dns_pair(*addr) {
                Ok(pair) => sockets.push(pair),
                Err(error) if dns.inside_is_optional => {
                    tracing::warn!("no DNS on {addr}: {error:#}");
                }
                Err(error) => return Err(error),
            }
        }
        let names = Names::new(server, dns.connections.clone(), self.drain.clone());
        parts.push(names.run(sockets, changes).boxed_local());
        Ok(())
    }

    fn pod(&self, pod: &PodOptions, engine: &Engine, parts: &mut Vec<Part>) -> anyhow::Result<()> {
        let (reader, drain) = (self.work.reader.clone(), self.drain.clone());
        let options = EngineOptions {
            connections: self.work.connections.clone(),
            shared: self.shared.clone(),
            hop: Hop::Sidecar,
            direction: Direction::Inbound,
            farewell: self.farewell.clone(),
            ..EngineOptions::default()
        };
        let inbound = Engine::new(self.work.connector.clone(), options);
        let engines = Engines {
            inbound: inbound.clone(),
            outbound: engine.clone(),
        };
        let proxy = SidecarProxy::bind(pod, &reader, engines, &self.work.sockets)
            .context("cannot listen for the pod's connections")?;
        let stop_inbound = self.inbound.clone();
        let serving = async move {
            let maintenance = inbound.maintain(reader, drain.clone());
            tokio::join!(proxy.run(stop_inbound, drain), maintenance);
            inbound.drained().await;
            Ok(())
        };
        parts.push(serving.boxed_local());
        Ok(())
    }

    fn services(
        &self,
        capture: &Capture,
        engine: &Engine,
        parts: &mut Vec<Part>,
    ) -> anyhow::Result<()> {
        let (reader, drain) = (self.work.reader.clone(), self.drain.clone());
        let (connector, host) = (self.connector(), self.work.sockets.clone());
        let node = NodeProxy::bind(
            capture.clone(),
            reader.clone(),
            engine.clone(),
            connector,
            host,
        )
        .context("cannot intercept connections to Services")?
        .with_flow_budget(self.flows.clone());
        parts.push(node.run(drain.clone()).map(Ok).boxed_local());
        if let Capture::Transparent(options) = capture
            && self.index == 0
        {
            let kernel = Interceptor::open(options.clone()).context("cannot program the kernel")?;
            let (mut in_force, applied) = (kernel.applied(), self.work.applied.clone());
            let telling = async move {
                while in_force.changed().await.is_ok() {
                    applied.send_replace(*in_force.borrow_and_update());
                }
                Ok(())
            };
            parts.push(telling.boxed_local());
            parts.push(kernel.run(reader, drain).map(Ok).boxed_local());
        }
        Ok(())
    }
}

/// Runs a part of a worker to its end, and tells if that is a failure.
async fn watch_over(part: Part, worker: usize, failed: mpsc::Sender<String>) {
    if let Err(error) = part.await {
        let failure = format!("worker {worker}: {error:#}");
        tracing::error!("{failure}");
        // The first failure is enough.
        let _ = failed.try_send(failure);
    }
}

/// Sockets of DNS, made in the namespace of the calling thread.
fn dns_pair(addr: SocketAddr) -> anyhow::Result<DnsSockets> {
    let failed = || format!("cannot listen on the cluster's DNS address {addr}");
    let udp = sealane_dns::bind_udp(addr).with_context(failed)?;
    let tcp = tcp_listener(addr).with_context(failed)?;
    Ok(DnsSockets {
        listener: Listener::CLUSTER,
        addr,
        udp: Some(udp),
        tcp: Some(tcp.into()),
        timeouts: None,
        identity: None,
    })
}
