//! `sealane dns`: answers the names of a cluster's Services and pods, and forwards the rest.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sealane_config::snapshot;
use sealane_config::sockets::HostSockets;
use sealane_config::watch::WatchOptions;
use sealane_dns::{DnsConfig, DnsSettings, Name};
use sealane_proxy::admission::{Connections, Limits};
use sealane_proxy::connect::Connector;

use tokio::sync::watch;

use crate::admin::PrometheusHandle;
use crate::exit::Failure;
use crate::mode::{self, Mode, ModeOptions};
use crate::serve::bind::Binder;
use crate::serve::workers::{Dns, Work, distribute};

/// The port of DNS servers.
const DNS_PORT: u16 = 53;

/// Options as given.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DnsOptions {
    /// Address to answer on, UDP and TCP
    #[arg(long, default_value = "0.0.0.0:53", value_name = "ADDR")]
    dns: SocketAddr,
    #[command(flatten)]
    names: NameOptions,
    #[command(flatten)]
    mode: ModeOptions,
}

/// What is answered.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NameOptions {
    /// The cluster's domain
    #[arg(long, default_value = "cluster.local", value_name = "NAME")]
    cluster_domain: Name,
    /// Where other names are asked for: IP or IP:PORT (repeatable) [default: those of
    /// /etc/resolv.conf]
    #[arg(long, value_name = "ADDR", value_parser = upstream)]
    upstream: Vec<SocketAddr>,
}

impl NameOptions {
    /// What a server on `addr` does.
    pub(crate) fn config(&self, addr: SocketAddr) -> DnsConfig {
        let upstreams = if self.upstream.is_empty() {
            let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            sealane_dns::upstreams_from_resolv_conf(&resolv_conf, &[addr])
        } else {
            self.upstream.clone()
        };
        let settings = DnsSettings {
            zones: vec![self.cluster_domain.clone()],
            own_addresses: sealane_dns::own_addresses(&[addr.ip()]),
            ..DnsSettings::default()
        };
        DnsConfig::cluster(settings, upstreams)
    }
}

/// Runs DNS until SIGTERM or Ctrl-C.
///
/// # Errors
/// Options that cannot be used, no cluster, or a part that failed.
pub(crate) fn run(options: DnsOptions, metrics: PrometheusHandle) -> Result<(), Failure> {
    let workers = options.mode.workers()?;
    let mut binder = Binder::default();
    let listeners = binder.dns(options.dns, workers);
    let admin = options.mode.bind(&mut binder);
    let (listeners, admin) = binder.finish(listeners.zip(admin))?;
    let (publisher, reader) = snapshot::channel();
    let work = Work {
        reader,
        network: None,
        sockets: HostSockets::here(),
        connector: Connector::Direct,
        access_log: None,
        connections: Connections::new(Limits::none()),
        applied: watch::Sender::default(),
        gateway: None,
        dns: Some(Dns {
            config: Arc::new(options.names.config(listeners.addr)),
            connections: sealane_dns::Connections::default(),
            inside: Vec::new(),
            inside_is_optional: false,
        }),
        services: None,
        pod: None,
    };
    mode::run(Mode {
        name: "dns",
        options: options.mode,
        admin,
        metrics,
        watch: WatchOptions {
            ..WatchOptions::names_only()
        },
        health: None,
        publisher,
        work,
        sockets: distribute(workers, Vec::new(), listeners.sockets),
        addresses: BTreeMap::from([("dns", listeners.addr)]),
        report: None,
    })
}

/// An address with or without port.
fn upstream(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse();
    with_port
        .or_else(|_| {
            text.parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, DNS_PORT))
        })
        .map_err(|_neither| "give it as IP or IP:PORT".to_owned())
}
