//! The life of a process that serves a real cluster: `node`, `gateway`, `dns`, `sidecar`.
//!
//! Sockets are bound before anything starts. The API server need not be there: the process waits for
//! it, not ready, and once it has a state it keeps it whatever becomes of the API server.
//!
//! At SIGTERM it says that it is not ready, goes on accepting for the drain delay, in which the cluster
//! stops sending it anything new, then stops accepting and finishes what is in flight, up to the
//! grace. The second SIGTERM ends it at once.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kube::Client;
use sealane_config::report::lease::LeaseOptions;
use sealane_config::report::{self, Publish, ReportOptions};
use sealane_config::watch::{self, WatchOptions};
use sealane_config::{Publisher, Reader, Snapshot};
use sealane_dns::observe::{LogSink, watch_state};
use sealane_dns::{ApiServer, Observe};
use sealane_proxy::intercept;
use sealane_proxy::node::Capture;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, MetricsHandle, Pages, Pending, Readiness, Scope};
use crate::cluster_client::ClusterOptions;
use crate::dns::serving::Prepared;
use crate::exit::Failure;
use crate::explain::Explainer;
use crate::health::{self, HealthOptions};
use crate::serve::bind::Binder;
use crate::serve::workers::{self, Sockets, Work, Workers};
use crate::sidecar::leave;
use crate::signal;
use crate::up::settings::Output;

/// How long lines of the query log are still written at the end.
const LOG_GRACE: Duration = Duration::from_secs(1);

/// Threads for control work: watches, compile, admin.
const CONTROL_THREADS: usize = 2;

/// How long is accepted at the end: kubeadm's `lameduck`.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// How long what is in flight may take at the end.
const GRACE: Duration = Duration::from_secs(20);

/// The same of a DNS server with a Corefile: CoreDNS's.
const COREFILE_GRACE: Duration = Duration::from_secs(5);

/// How long a default certificate may keep us from being ready once everything else is there: one
/// that was deleted must not keep a whole gateway from coming back.
const CERTIFICATE_WAIT: Duration = Duration::from_secs(10);

/// How long the Lease may take to be given up at the end.
const REPORT_END: Duration = Duration::from_secs(3);

/// Flags that all modes have.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModeOptions {
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Address of the admin listener: /livez /readyz /metrics /version /debug
    #[arg(long, default_value = "127.0.0.1:9900", value_name = "ADDR")]
    admin: SocketAddr,
    /// One more address, for probes and metrics only, that others can reach
    #[arg(long, value_name = "ADDR")]
    probes: Option<SocketAddr>,
    /// Seconds to go on accepting after SIGTERM, until the cluster knows [default: 5, or what a
    /// Corefile's `lameduck` says]
    #[arg(long, value_name = "SECONDS")]
    drain_delay: Option<u64>,
    /// Seconds for what is in flight after that [default: what `worker-shutdown-timeout` in the
    /// gateway's ConfigMap says; 20, with a Corefile 5]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
    /// Worker threads of the data plane [default: one a core]
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// End, for a supervisor to start again, when a worker thread is stuck for 5 seconds
    #[arg(long)]
    exit_when_stuck: bool,
    /// How the addresses are told: in the log, or as a JSON object on standard output
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl ModeOptions {
    /// The number of workers.
    ///
    /// # Errors
    /// A number that cannot be.
    pub(crate) fn workers(&self) -> Result<usize, Failure> {
        workers::count(self.workers).map_err(|problem| Failure::Input(vec![problem]))
    }

    /// The same, for the API server of a Corefile where no flag names one.
    pub(crate) fn or_cluster_of(mut self, api: &ApiServer) -> Self {
        self.cluster = self.cluster.or(api);
        self
    }

    /// How long is accepted once the process is to end, and how long what is in flight may take then;
    /// with a Corefile as this one has it, and CoreDNS. `grace` is what a gateway's settings say.
    fn ending(&self, lameduck: Option<Duration>, grace: Option<Duration>) -> (Duration, Duration) {
        let seconds = |given: Option<u64>, otherwise| given.map_or(otherwise, Duration::from_secs);
        let grace = match lameduck {
            Some(_) => COREFILE_GRACE,
            None => grace.unwrap_or(GRACE),
        };
        let delay = seconds(self.drain_delay, lameduck.unwrap_or(DRAIN_DELAY));
        (delay, seconds(self.grace, grace))
    }

    /// Binds the admin listeners.
    pub(crate) fn bind(&self, binder: &mut Binder) -> Option<Vec<(TcpListener, Scope)>> {
        let admin = binder.control("--admin", self.admin)?;
        let mut listeners = vec![(admin, Scope::All)];
        if let Some(probes) = self.probes {
            listeners.push((binder.control("--probes", probes)?, Scope::Probes));
        }
        Some(listeners)
    }
}

/// A mode, ready to start.
pub(crate) struct Mode {
    /// The subcommand.
    pub(crate) name: &'static str,
    /// The common flags.
    pub(crate) options: ModeOptions,
    /// The admin listeners, from [`ModeOptions::bind`].
    pub(crate) admin: Vec<(TcpListener, Scope)>,
    /// The metrics.
    pub(crate) metrics: MetricsHandle,
    /// What keeps the process from being ready.
    pub(crate) readiness: Readiness,
    /// What is watched; nothing without an API server.
    pub(crate) watch: Option<WatchOptions>,
    /// The Corefile that names are answered by, if there is one.
    pub(crate) corefile: Option<Prepared>,
    /// Ports on which load balancers ask for the node's health.
    pub(crate) health: Option<HealthOptions>,
    /// Where snapshots go.
    pub(crate) publisher: Publisher,
    /// What workers do with them.
    pub(crate) work: Work,
    /// The workers' sockets.
    pub(crate) sockets: Vec<Sockets>,
    /// Where it is reached, by name.
    pub(crate) addresses: BTreeMap<&'static str, SocketAddr>,
    /// What is written back to the API.
    pub(crate) report: Option<Report>,
}

/// What is written back to the API.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Namespace of the Lease; that of the pod or the kubeconfig's context if there is none.
    pub(crate) namespace: Option<String>,
    /// Name of the Lease.
    pub(crate) lease: String,
    /// Status of Ingresses.
    pub(crate) publish: Publish,
}

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// There is no cluster, or a part failed.
pub(crate) fn run(mode: Mode) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let outcome = runtime.block_on(serve(mode));
    runtime.shutdown_background();
    outcome
}

async fn serve(mut mode: Mode) -> Result<(), Failure> {
    let observe = Observe {
        metrics: mode.metrics.names.clone(),
        // Other modes have no Corefile that would ask for lines.
        log: match &mode.corefile {
            Some(_) => LogSink::stdout().context("cannot write the log of queries")?,
            None => LogSink::default(),
        },
    };
    if let Some(dns) = &mut mode.work.dns {
        dns.observe = observe.clone();
        let state = watch_state(observe.metrics.clone(), mode.work.reader.clone());
        tokio::spawn(state);
    }
    let mut stop = std::pin::pin!(signal::terminated());
    let own_mark = match &mode.work.services {
        Some(Capture::Transparent(options)) => options.own_mark,
        _ => None,
    };
    let client = match &mode.watch {
        Some(_) => Some(mode.options.cluster.client(mode.name, own_mark).await?),
        None => None,
    };
    let readiness = mode.readiness.clone();
    let bound = readiness.wait_for("listeners bound");
    wait_for_state(&readiness, &mode);
    let serving = CancellationToken::new();
    let reader = mode.work.reader.clone();
    let addresses = with_admin(mode.addresses, &mode.admin);
    let pages = Pages {
        mode: mode.name,
        readiness: readiness.clone(),
        explainer: Explainer::of(&mode.work),
        metrics: mode.metrics.clone(),
        connections: mode.work.connections.clone(),
    };
    if let (Some(options), Some(client)) = (mode.health, &client) {
        let state = (reader.clone(), mode.work.applied.subscribe());
        let (client, stop) = (client.clone(), serving.clone());
        tokio::spawn(health::run(
            options,
            state,
            mode.metrics.clone(),
            client,
            stop,
        ));
    }
    let admin = tokio::spawn(admin::serve(mode.admin, pages, serving.clone()));
    let intercepts = matches!(mode.work.services, Some(Capture::Transparent(_)));
    if let Some(Capture::Transparent(options)) = &mode.work.services {
        sealane_cluster::network::deliver_marked_packets(options.mark)
            .await
            .context("cannot intercept connections to Services")?;
    }
    let mut workers = workers::start(mode.sockets, &mode.work)?;
    workers.fails_when_stuck = mode.options.exit_when_stuck;
    let watching = serving.child_token();
    // Without an API server nothing is ever published.
    let unused = match (&client, mode.watch) {
        (Some(client), Some(options)) => {
            let watch = watch::run(client.clone(), mode.publisher, options, watching.clone());
            tokio::spawn(watch);
            None
        }
        _ => Some(mode.publisher),
    };
    let lameduck = mode.corefile.as_ref().map(Prepared::lameduck);
    let names = match (mode.corefile, &lameduck) {
        (Some(corefile), Some(lameduck)) => {
            let names = mode.metrics.names.clone();
            let (reader, stop) = (reader.clone(), serving.clone());
            let running = corefile.run(reader, names, lameduck.clone(), bound, stop);
            futures_util::future::Either::Left(running)
        }
        _ => {
            drop(bound);
            futures_util::future::Either::Right(std::future::pending())
        }
    };
    announce(mode.name, mode.options.output, &addresses);
    let reporting = Reporting::start(client, reader, mode.report);

    let names = tokio::spawn(names);
    let failure = tokio::select! {
        () = &mut stop => None,
        failure = workers.failure() => Some(failure),
        ended = names => Some(format!("the Corefile's ports failed: {ended:?}")),
        ended = admin => Some(format!("the admin listener failed: {ended:?}")),
    };
    readiness.drain();
    let grace = mode.work.reader.load().gateway.grace;
    let lameduck = lameduck.map(|lameduck| lameduck.get());
    let (delay, grace) = mode.options.ending(lameduck, grace);
    let leaving = async {
        match &mode.work.pod {
            Some(pod) => leave(workers, pod.waits_for_app, (delay, grace), watching).await,
            None => drain(workers, delay, grace).await,
        }
    };
    let stopping = async {
        tokio::join!(leaving, reporting.end());
    };
    tokio::select! {
        () = stopping => {}
        () = signal::terminated() => tracing::warn!("stopped at once"),
    }
    observe.log.flush(LOG_GRACE);
    serving.cancel();
    drop(unused);
    if intercepts && let Err(error) = intercept::remove() {
        tracing::warn!("the rules that intercept connections are left: {error}");
    }
    match failure {
        None => Ok(()),
        Some(failure) => Err(Failure::Other(anyhow!(failure))),
    }
}

async fn drain(workers: Workers, delay: Duration, grace: Duration) {
    tracing::info!("draining: accepting for {delay:?} more, then up to {grace:?}");
    tokio::time::sleep(delay).await;
    workers.drain(grace).await;
}

/// Readiness waits for the first snapshot and, if one is named, for the default certificate.
fn wait_for_state(readiness: &Readiness, mode: &Mode) {
    let Some(watch) = &mode.watch else { return };
    // A Corefile's `ready` names the plugins that it waits for.
    let synced = readiness.wait_for(match mode.corefile {
        Some(_) => "kubernetes",
        None => "state synced",
    });
    let ingress = watch.ingress.as_ref();
    let certificate = ingress
        .and_then(|ingress| ingress.default_certificate.clone())
        .map(|name| (readiness.wait_for("certificate loaded"), name));
    let mut reader = mode.work.reader.clone();
    tokio::spawn(async move {
        until(&mut reader, synced, |snapshot| snapshot.synced).await;
        if let Some((pending, (namespace, name))) = certificate {
            let loaded = |snapshot: &Snapshot| snapshot.certificates.default.is_some();
            let loaded = until(&mut reader, pending, loaded);
            if tokio::time::timeout(CERTIFICATE_WAIT, loaded)
                .await
                .is_err()
            {
                tracing::warn!("no default certificate in Secret {namespace}/{name}");
            }
        }
    });
}

/// Waits for a snapshot, then gives the token back.
async fn until(reader: &mut Reader, pending: Pending, holds: impl Fn(&Snapshot) -> bool) {
    while !holds(&reader.load()) {
        if reader.changed().await.is_none() {
            // The process is ending; it does not become ready any more.
            return std::future::pending().await;
        }
    }
    drop(pending);
}

fn with_admin(
    mut addresses: BTreeMap<&'static str, SocketAddr>,
    listeners: &[(TcpListener, Scope)],
) -> BTreeMap<&'static str, SocketAddr> {
    for (listener, scope) in listeners {
        let name = match scope {
            Scope::All => "admin",
            Scope::Probes => "probes",
        };
        // A bound socket has an address.
        addresses.extend(listener.local_addr().map(|addr| (name, addr)));
    }
    addresses
}

fn announce(mode: &str, output: Output, addresses: &BTreeMap<&'static str, SocketAddr>) {
    match output {
        Output::Table => {
            let texts = addresses
                .iter()
                .map(|(name, addr)| format!("{name} {addr}"));
            let texts: Vec<String> = texts.collect();
            tracing::info!("{mode} serves: {}", texts.join(", "));
        }
        Output::Json => {
            let mut object = serde_json::json!(addresses);
            object["mode"] = mode.into();
            anstream::println!("{object}");
        }
    }
}

/// The task that writes back, if there is one.
struct Reporting(Option<(CancellationToken, tokio::task::JoinHandle<()>)>);

impl Reporting {
    fn start(client: Option<Client>, reader: Reader, report: Option<Report>) -> Self {
        Self(report.zip(client).map(|(report, client)| {
            let namespace = report.namespace;
            let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
            let options = ReportOptions {
                lease: LeaseOptions::new(&namespace, &report.lease, &instance()),
                publish: report.publish,
            };
            let stop = CancellationToken::new();
            let running = report::run(client, reader, options, stop.clone());
            (stop, tokio::spawn(running))
        }))
    }

    /// Gives the Lease up, so that another one takes over while we drain.
    async fn end(self) {
        if let Some((stop, running)) = self.0 {
            stop.cancel();
            // Without an API server the Lease runs out by itself.
            let _ = tokio::time::timeout(REPORT_END, running).await;
        }
    }
}

/// Who we are, for people: the pod's name is its host name.
fn instance() -> String {
    std::env::var("POD_NAME").unwrap_or_else(|_unset| {
        let name = nix::unistd::gethostname().unwrap_or_default();
        name.to_string_lossy().into_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: ModeOptions,
    }

    #[test]
    fn ingress_a21_the_grace_is_that_of_the_settings_unless_a_flag_says_another() {
        let long = Some(Duration::from_secs(240));
        for (args, settings, expected) in [
            (&["gateway"][..], None, GRACE),
            (&["gateway"], long, Duration::from_secs(240)),
            (&["gateway", "--grace", "7"], long, Duration::from_secs(7)),
        ] {
            let options = Command::parse_from(args).options;
            let ending = options.ending(None, settings);
            assert_eq!(ending, (DRAIN_DELAY, expected), "{args:?}");
        }
    }
}
