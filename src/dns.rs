//! `sealane dns`: answers the names of a cluster's Services and pods, and forwards the rest.
//!
//! With a Corefile it does what that says, on the ports that it names; otherwise what the flags say.

pub(crate) mod args;
pub(crate) mod files;
mod listeners;
mod ports;
pub(crate) mod serving;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use sealane_config::snapshot;
use sealane_config::sockets::HostSockets;
use sealane_config::watch::WatchOptions;
use sealane_dns::corefile::{self, Options};
use sealane_dns::{DnsConfig, DnsSettings, Name, PodsMode};
use sealane_proxy::admission::{Connections, Limits};
use sealane_proxy::connect::Connector;

use tokio::sync::watch;

use crate::admin::{MetricsHandle, Readiness};
use crate::exit::Failure;
use crate::log;
use crate::mode::{self, Mode, ModeOptions};
use crate::serve::bind::Binder;
use crate::serve::workers::{Dns, Sockets, Work, distribute};
use files::Source;
use listeners::Listeners;
use ports::Ports;
use serving::Prepared;

/// The port of DNS servers.
const DNS_PORT: u16 = 53;

/// The Corefile that is read if none is named, as with CoreDNS.
const COREFILE: &str = "Corefile";

/// The cluster's domain unless another one is given.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// What the log says with `debug` in the Corefile, and with `--quiet`.
const DEBUG_LOG: &str = "warn,sealane=debug,sealane_dns=debug,sealane_config=debug";
const QUIET_LOG: &str = "warn";

/// Options as given.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DnsOptions {
    /// Answer as this Corefile says, on the ports that it names [default: ./Corefile, if it exists]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dns", "cluster_domain", "upstream"])]
    conf: Option<PathBuf>,
    /// Port of the Corefile's blocks that name none
    #[arg(long = "dns.port", short = 'p', default_value_t = DNS_PORT, value_name = "PORT")]
    dns_port: u16,
    /// Skip what is not known in the Corefile, with a warning
    #[arg(long)]
    lenient: bool,
    /// Answer like this server where it departs from an RFC
    #[arg(long, value_enum, value_name = "SERVER")]
    compat: Option<Compat>,
    /// Share the Corefile's ports with an instance that is about to end
    #[arg(long)]
    take_over: bool,
    /// Log warnings and errors only
    #[arg(long)]
    quiet: bool,
    /// Write the process's id there
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Print the version
    #[arg(long)]
    version: bool,
    /// Print the directives that a Corefile may have
    #[arg(long)]
    plugins: bool,
    /// Address to answer on without a Corefile, UDP and TCP [default: 0.0.0.0:53]
    #[arg(long, value_name = "ADDR")]
    dns: Option<SocketAddr>,
    #[command(flatten)]
    names: NameOptions,
    #[command(flatten)]
    mode: ModeOptions,
}

/// A server whose answers are imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compat {
    /// CoreDNS
    Coredns,
}

/// What is answered.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NameOptions {
    /// The cluster's domain [default: cluster.local]
    #[arg(long, value_name = "NAME")]
    cluster_domain: Option<Name>,
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
        let zone = self.cluster_domain.clone();
        let usual = || CLUSTER_DOMAIN.parse().expect("a constant that is a name");
        let settings = DnsSettings {
            zones: vec![zone.unwrap_or_else(usual)],
            own_addresses: sealane_dns::own_addresses(&[addr.ip()]),
            ..DnsSettings::default()
        };
        DnsConfig::cluster(settings, upstreams)
    }
}

impl DnsOptions {
    /// The Corefile, if there is one.
    fn source(&self) -> Option<Source> {
        let has_flags = self.dns.is_some()
            || self.names.cluster_domain.is_some()
            || !self.names.upstream.is_empty();
        let usual = || Some(PathBuf::from(COREFILE)).filter(|file| !has_flags && file.exists());
        let path = self.conf.clone().or_else(usual)?;
        Some(Source {
            path,
            options: Options {
                lenient: self.lenient,
                dns_port: self.dns_port,
            },
            compat_coredns: self.compat == Some(Compat::Coredns),
        })
    }
}

/// Runs DNS until SIGTERM or Ctrl-C.
///
/// # Errors
/// Options that cannot be used, no cluster, or a part that failed.
pub(crate) fn run(options: DnsOptions, metrics: MetricsHandle) -> Result<(), Failure> {
    if options.version {
        anstream::println!("{}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if options.plugins {
        for directive in corefile::DIRECTIVES {
            anstream::println!("{directive}");
        }
        return Ok(());
    }
    if options.quiet {
        set_log(QUIET_LOG);
    }
    if let Some(file) = &options.pidfile {
        let id = format!("{}\n", std::process::id());
        std::fs::write(file, id)
            .with_context(|| format!("cannot write the process's id to {}", file.display()))?;
    }
    match options.source() {
        Some(source) => run_corefile(options, source, metrics),
        None => run_flags(options, metrics),
    }
}

/// Changes what is logged, unless `RUST_LOG` says what is.
fn set_log(directives: &str) {
    if std::env::var_os("RUST_LOG").is_none()
        && let Err(why) = log::set(directives)
    {
        tracing::warn!("the log stays as it is: {why}");
    }
}

fn run_flags(options: DnsOptions, metrics: MetricsHandle) -> Result<(), Failure> {
    let workers = options.mode.workers()?;
    let addr = options
        .dns
        .unwrap_or((Ipv4Addr::UNSPECIFIED, DNS_PORT).into());
    let mut binder = Binder::default();
    let listeners = binder.dns(addr, workers);
    let admin = options.mode.bind(&mut binder);
    let (listeners, admin) = binder.finish(listeners.zip(admin))?;
    let mut config = options.names.config(listeners.addr);
    if options.compat == Some(Compat::Coredns) {
        config = files::compat_coredns(config);
    }
    let (publisher, reader) = snapshot::channel();
    mode::run(Mode {
        name: "dns",
        options: options.mode,
        admin,
        metrics,
        readiness: Readiness::default(),
        corefile: None,
        watch: Some(watched(&config)?),
        health: None,
        publisher,
        work: work(reader, Arc::new(config)),
        sockets: distribute(workers, Vec::new(), listeners.sockets),
        addresses: BTreeMap::from([("dns", listeners.addr)]),
        report: None,
    })
}

fn run_corefile(
    options: DnsOptions,
    source: Source,
    metrics: MetricsHandle,
) -> Result<(), Failure> {
    let workers = options.mode.workers()?;
    let (config, digest) = serving::load(&source)?;
    if !options.quiet && config.blocks.iter().any(|block| block.plugins.debug) {
        set_log(DEBUG_LOG);
    }
    let readiness = Readiness::default();
    let (listeners, changes) = Listeners::new(workers, options.take_over);
    let ports = Ports::new(readiness.clone(), metrics.clone());
    let corefile = Prepared::bind(source, (Arc::clone(&config), digest), listeners, ports)?;
    let mut binder = Binder::default();
    let admin = options.mode.bind(&mut binder);
    let admin = binder.finish(admin)?;
    let needed = config.kubernetes().next().map(|_| watched(&config));
    let needed = needed.transpose()?;
    let api = config
        .kubernetes()
        .next()
        .map(|kubernetes| kubernetes.api.clone());
    let (publisher, reader) = snapshot::channel();
    let sockets = changes.into_iter().map(|changes| Sockets {
        dns_changes: Some(changes),
        ..Sockets::default()
    });
    mode::run(Mode {
        name: "dns",
        options: match &api {
            Some(api) => options.mode.or_cluster_of(api),
            None => options.mode,
        },
        admin,
        metrics,
        readiness,
        watch: needed,
        health: None,
        publisher,
        work: work(reader, config),
        sockets: sockets.collect(),
        addresses: corefile.addresses(),
        corefile: Some(corefile),
        report: None,
    })
}

/// What the configuration needs to know of a cluster.
///
/// # Errors
/// Its `kubernetes` plugins see different clusters: there is one state for all.
fn watched(config: &DnsConfig) -> Result<WatchOptions, Failure> {
    let mut all = config.kubernetes();
    let mut options = WatchOptions::names_only();
    let Some(first) = all.next() else {
        return Ok(options);
    };
    let same = |it: &&Arc<DnsSettings>| {
        (&it.labels, &it.namespace_labels, &it.api)
            == (&first.labels, &first.namespace_labels, &first.api)
    };
    if !all.all(|it| same(&it)) {
        let problem = "the Corefile's 'kubernetes' plugins must agree in labels, namespace_labels, \
                       endpoint, tls and kubeconfig";
        return Err(Failure::Input(vec![problem.to_owned()]));
    }
    options.labels.clone_from(&first.labels);
    options.namespace_labels.clone_from(&first.namespace_labels);
    options.pods = config
        .kubernetes()
        .any(|kubernetes| kubernetes.pods == PodsMode::Verified);
    Ok(options)
}

fn work(reader: sealane_config::Reader, config: Arc<DnsConfig>) -> Work {
    Work {
        reader,
        network: None,
        sockets: HostSockets::here(),
        connector: Connector::Direct,
        access_log: None,
        connections: Connections::new(Limits::none()),
        applied: watch::Sender::default(),
        gateway: None,
        dns: Some(Dns {
            config,
            connections: sealane_dns::Connections::default(),
            inside: Vec::new(),
            inside_is_optional: false,
        }),
        services: None,
        pod: None,
    }
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
