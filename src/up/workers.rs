//! The data plane's threads: one worker a core, each with its own runtime, listeners and pools.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::IpNet;
use sealane_cluster::network::{INTERCEPT_MARK, PodNetwork};
use sealane_config::Reader;
use sealane_config::sockets::{HostSockets, tcp_listener};
use sealane_dns::{DnsServer, DnsSettings};
use sealane_ingress::{Gateway, GatewayOptions, tls};
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions, ServerOptions};
use sealane_proxy::intercept::{InterceptOptions, Interceptor};
use sealane_proxy::node::{Capture, NodeProxy};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::bind::WorkerSockets;
use super::settings::{Addresses, Settings};
use super::system::DNS_PORT;
use crate::exit::Failure;

/// Port of the listeners for intercepted connections, in the cluster's namespace.
const INTERCEPT_PORT: u16 = 15001;

/// The running workers.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Cancelled: stop accepting, finish what is in flight.
    drain: CancellationToken,
}

/// What every worker needs; one clone each.
#[derive(Clone)]
struct Shared {
    reader: Reader,
    network: PodNetwork,
    sockets: HostSockets,
    dns: Arc<DnsSettings>,
    addresses: Addresses,
    gateway: GatewayOptions,
    drain: CancellationToken,
}

/// Starts a worker for each set of sockets.
///
/// # Errors
/// A thread could not be started.
pub(crate) fn start(
    sets: Vec<WorkerSockets>,
    reader: &Reader,
    network: &PodNetwork,
    sockets: &HostSockets,
    settings: &Settings,
    https: SocketAddr,
) -> Result<Workers, Failure> {
    let addresses = settings.pod_network.addresses();
    let drain = CancellationToken::new();
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let own = [settings.dns, SocketAddr::new(addresses.dns, DNS_PORT)];
    let fallback = tls::self_signed().context("cannot make the default certificate")?;
    let server = tls::server_config(reader.clone(), fallback).context("cannot set up TLS")?;
    let shared = Shared {
        reader: reader.clone(),
        network: network.clone(),
        sockets: sockets.clone(),
        dns: Arc::new(DnsSettings {
            upstreams: sealane_dns::upstreams_from_resolv_conf(&resolv_conf, &own),
            own_addresses: vec![addresses.dns],
            ..DnsSettings::default()
        }),
        addresses,
        gateway: GatewayOptions {
            tls: server,
            https_port: https.port(),
            server: ServerOptions::default(),
            access_log: false,
        },
        drain: drain.clone(),
    };
    let mut threads = Vec::with_capacity(sets.len());
    for (index, set) in sets.into_iter().enumerate() {
        let shared = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                if let Err(error) = work(shared, set, index) {
                    tracing::error!("worker {index} could not start: {error:#}");
                }
            })
            .context("cannot start a worker thread")?;
        threads.push(thread);
    }
    Ok(Workers { threads, drain })
}

impl Workers {
    /// Stops accepting and waits until everything in flight is done, at most `deadline`. Workers
    /// that are not done by then end with the process.
    pub(crate) async fn drain(self, deadline: Duration) {
        self.drain.cancel();
        let until = Instant::now() + deadline;
        for thread in self.threads {
            while !thread.is_finished() {
                if Instant::now() >= until {
                    tracing::warn!("requests were still in flight at the end of the drain");
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

fn work(shared: Shared, set: WorkerSockets, index: usize) -> anyhow::Result<()> {
    super::enter(&shared.network).context("cannot enter the cluster's network")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let local = LocalSet::new();
    local.block_on(&runtime, serve(shared, set, index))
}

async fn serve(shared: Shared, set: WorkerSockets, index: usize) -> anyhow::Result<()> {
    let Shared {
        reader,
        network,
        sockets,
        dns,
        addresses,
        gateway,
        drain,
    } = shared;
    let namespaces = matches!(network, PodNetwork::Namespaces(_));
    let (capture, connector) = if namespaces {
        let cluster = [addresses.pods, addresses.services].map(IpNet::V4);
        let connector = Connector::Split {
            cluster: Arc::new(cluster),
            host: sockets.clone(),
        };
        (
            Capture::Transparent(intercept_options(&addresses)),
            connector,
        )
    } else {
        (Capture::Listeners, Connector::Direct)
    };
    let engine = Engine::new(connector.clone(), EngineOptions::default());
    let gateway = Gateway::new(reader.clone(), engine.clone(), gateway);
    let resolver = DnsServer::new(reader.clone(), sockets.clone(), dns);
    let node = NodeProxy::bind(capture, reader.clone(), engine.clone(), connector, sockets)
        .context("cannot intercept connections to Services")?;
    let interceptor = if namespaces && index == 0 {
        let options = intercept_options(&addresses);
        let interceptor = Interceptor::open(options).context("cannot program the kernel")?;
        Some(interceptor.run(reader.clone(), drain.clone()))
    } else {
        None
    };
    let (inner_udp, inner_tcp) = match cluster_dns(&addresses) {
        Ok(sockets) => sockets,
        Err(error) if !namespaces => {
            tracing::warn!("pods cannot use the cluster's DNS: {error}");
            (Vec::new(), Vec::new())
        }
        Err(error) => return Err(error).context("cannot listen on the cluster's DNS address"),
    };
    let inner_udp = inner_udp
        .into_iter()
        .map(|s| resolver.serve_udp(s, drain.clone()));
    let inner_tcp = inner_tcp
        .into_iter()
        .map(|s| resolver.serve_tcp(s, drain.clone()));
    let http = tokio::net::TcpListener::from_std(set.http)?;
    let https = tokio::net::TcpListener::from_std(set.https)?;
    let names = async {
        tokio::try_join!(
            resolver.serve_udp(set.dns_udp, drain.clone()),
            resolver.serve_tcp(set.dns_tcp, drain.clone()),
            futures_util::future::try_join_all(inner_udp),
            futures_util::future::try_join_all(inner_tcp),
        )
    };
    let (names, ..) = tokio::join!(
        names,
        gateway.serve_http(http, drain.clone()),
        gateway.serve_https(https, drain.clone()),
        node.run(drain.clone()),
        engine.maintain(reader, drain.clone()),
        futures_util::future::OptionFuture::from(interceptor),
    );
    engine.drained().await;
    names.context("cannot serve DNS").map(drop)
}

fn intercept_options(addresses: &Addresses) -> InterceptOptions {
    InterceptOptions {
        port: INTERCEPT_PORT,
        mark: INTERCEPT_MARK,
        node_ips: vec![addresses.node.into()],
        local_addresses: vec![addresses.dns],
        pod_cidrs: vec![addresses.pods.into()],
        service_cidrs: vec![addresses.services.into()],
    }
}

type DnsSockets = (Vec<std::net::UdpSocket>, Vec<std::net::TcpListener>);

/// Sockets of cluster DNS on its own address and on the node's, made in the cluster's namespace.
fn cluster_dns(addresses: &Addresses) -> io::Result<DnsSockets> {
    let mut udp = Vec::new();
    let mut tcp = Vec::new();
    for ip in [addresses.dns, addresses.node.into()] {
        let addr = SocketAddr::new(ip, DNS_PORT);
        udp.push(sealane_dns::bind_udp(addr)?);
        tcp.push(tcp_listener(addr)?.into());
    }
    Ok((udp, tcp))
}
