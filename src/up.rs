//! `sealane up`: a cluster on this machine, from nothing to pods that answer.
//!
//! The order matters. Everything that can be wrong with the input is found before anything starts;
//! sockets of the host are bound while the process is still in the host's namespaces; a user
//! namespace can only be entered while there is a single thread.

pub(crate) mod settings;

pub(crate) mod apply;
mod console;
mod control;
mod data_dir;
mod plan;
mod plane;
mod preflight;
mod report;
pub(crate) mod served;
mod status;
pub(crate) mod system;

use std::time::Instant;

use anyhow::Context as _;
use sealane_cluster::network::{
    ClusterNetwork, ClusterNetworkOptions, LoopbackNetwork, PodNetwork,
};
use sealane_config::sockets::HostSockets;

use self::console::Console;
use self::data_dir::DataDir;
use self::settings::{PodNetworkMode, Settings, UpOptions};
use crate::admin::MetricsHandle;
use crate::exit::{self, Failure};
use crate::explain::Explainer;
use crate::serve::bind::Binder;
use crate::serve::workers::{self, distribute};

/// Threads for control work: API server, controllers, compile. The data plane has its own.
const CONTROL_THREADS: usize = 2;

/// Runs the cluster until SIGTERM or Ctrl-C.
///
/// # Errors
/// Input that cannot be used, a machine that cannot run it, or a part that failed.
pub(crate) fn run(options: UpOptions, metrics: MetricsHandle) -> Result<(), Failure> {
    let started = Instant::now();
    let settings = options.check()?;
    let mut console = Console::new(settings.quiet, settings.output, started);
    preflight::check(&settings)?;
    let data_dir = DataDir::lock(&settings.data_dir)?;
    let mut binder = Binder::default();
    let http3 = settings.gateway.http3();
    let gateway = binder.gateway(settings.http, settings.https, http3, settings.workers);
    let names = binder.dns(settings.dns, settings.workers);
    let api = binder.control("--api", settings.api);
    let admin = binder.control("--admin", settings.admin);
    let (gateway, (names, (api, admin))) = binder.finish(gateway.zip(names.zip(api.zip(admin))))?;
    let network = network(&settings)?;
    console.step("machine", network.description);

    let (publisher, reader) = sealane_config::snapshot::channel();
    let (pods, host) = (&network.pods, &network.sockets);
    let mut work = plan::work(&reader, pods, host, &settings, gateway.https)?;
    if let Some(dns) = &mut work.dns {
        dns.observe.metrics = metrics.names.clone();
    }
    let explainer = Explainer::of(&work);
    let sockets = distribute(settings.workers, gateway.sockets, names.sockets);
    let workers = workers::start(sockets, &work)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let outcome = runtime.block_on(control::run(control::Parts {
        settings,
        data_dir,
        api,
        admin,
        metrics,
        addresses: control::HostAddresses {
            http: gateway.http,
            https: gateway.https,
            dns: names.addr,
        },
        network: network.pods,
        publisher,
        reader,
        explainer,
        connections: work.connections.clone(),
        workers,
        console,
    }));
    runtime.shutdown_background();
    outcome
}

/// The network that pods will live in.
struct Network {
    pods: PodNetwork,
    sockets: HostSockets,
    description: &'static str,
}

fn network(settings: &Settings) -> Result<Network, Failure> {
    let addresses = settings.pod_network.addresses();
    let failed = |error| Failure::Machine(exit::chain(&anyhow::Error::new(error)));
    match settings.pod_network {
        PodNetworkMode::Loopback => Ok(Network {
            pods: PodNetwork::Loopback(LoopbackNetwork::new()),
            sockets: HostSockets::here(),
            description: "pods share the host's network, each on an address of its own",
        }),
        PodNetworkMode::Namespaces => {
            let root = rustix::process::geteuid().is_root();
            if !root {
                sealane_cluster::network::userns::become_root_in_user_namespace()
                    .map_err(failed)?;
            }
            let sockets = HostSockets::spawn().context("cannot start a thread")?;
            let network = ClusterNetwork::create(ClusterNetworkOptions {
                pod_cidr: addresses.pods,
                service_cidr: addresses.services,
                node_ip: addresses.node,
                local_addresses: vec![addresses.dns],
            })
            .map_err(failed)?;
            Ok(Network {
                pods: PodNetwork::Namespaces(network),
                sockets,
                description: if root {
                    "network namespaces, as root"
                } else {
                    "network namespaces in a user namespace, without root"
                },
            })
        }
    }
}

/// Moves the calling thread to where pods can be reached.
fn enter(network: &PodNetwork) -> Result<(), sealane_cluster::network::NetworkError> {
    match network {
        PodNetwork::Namespaces(network) => network.enter(),
        PodNetwork::Loopback(_) => Ok(()),
    }
}
