//! `sealane node`: serves a cluster's Services on the node that it runs on.
//!
//! Works in the network namespace in which it is started: the node's own, for a pod with
//! `hostNetwork`. Connections of pods to Services, and of others to node ports, are intercepted on
//! their way in, connections that start on the node itself on their way out.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use sealane_config::snapshot;
use sealane_config::sockets::HostSockets;
use sealane_config::watch::WatchOptions;
use sealane_proxy::admission::{Connections, Limits};
use sealane_proxy::connect::Connector;
use sealane_proxy::intercept::{self, InterceptOptions, Method, NodeAddresses};
use sealane_proxy::node::Capture;

use tokio::sync::watch;

use crate::admin::{MetricsHandle, Readiness};
use crate::dns::NameOptions;
use crate::exit::Failure;
use crate::health::HealthOptions;
use crate::mode::{self, Mode, ModeOptions};
use crate::serve::bind::Binder;
use crate::serve::workers::{self, AccessLogOptions, Dns, Work, distribute};

/// Mark of intercepted packets; the routing table for them has the same number. Bits that kube-proxy
/// gives a meaning to (0x4000, 0x8000) are not in it, nor those of Calico (the upper half).
const MARK: u32 = 0x134c;

/// Mark of the proxy's own connections, which are not intercepted.
const OWN_MARK: u32 = 0x134d;

/// Options as given.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeOptions {
    /// Name of the Node that this is
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: String,
    /// The node's addresses (repeatable) [default: those of all devices, also as they change]
    #[arg(long, value_name = "IP")]
    node_ip: Vec<IpAddr>,
    /// Where Services get their addresses (repeatable): connections to addresses in there that no
    /// Service has are dropped
    #[arg(long, value_name = "CIDR")]
    service_cidr: Vec<IpNet>,
    /// Where pods get their addresses (repeatable): between them the client's address is kept
    #[arg(long, value_name = "CIDR")]
    pod_cidr: Vec<IpNet>,
    /// Serve node ports only on the node's addresses in these ranges (repeatable) [default: on all]
    #[arg(long, value_name = "CIDR")]
    nodeport_addresses: Vec<IpNet>,
    /// Do not serve Services on their externalIPs
    #[arg(long)]
    no_external_ips: bool,
    /// Refuse connections that a Local traffic policy or loadBalancerSourceRanges turn away, instead
    /// of losing their packets
    #[arg(long)]
    refuse_instead_of_drop: bool,
    /// How connections are intercepted
    #[arg(long, value_enum, default_value_t, value_name = "METHOD")]
    intercept_method: MethodOption,
    /// Port for intercepted connections
    #[arg(long, default_value_t = 15001, value_name = "PORT")]
    intercept_port: u16,
    /// Answer names, too, on this address, which the node must have (such as 169.254.20.10:53)
    #[arg(long, value_name = "ADDR")]
    dns: Option<SocketAddr>,
    #[command(flatten)]
    names: NameOptions,
    #[command(flatten)]
    access_log: AccessLogOptions,
    #[command(flatten)]
    health: HealthOptions,
    #[command(flatten)]
    mode: ModeOptions,
}

/// Runs the node proxy until SIGTERM or Ctrl-C.
///
/// # Errors
/// Options that cannot be used, missing privileges, no cluster, or a part that failed.
pub(crate) fn run(options: NodeOptions, metrics: MetricsHandle) -> Result<(), Failure> {
    let workers = options.mode.workers()?;
    may_intercept()?;
    let mut binder = Binder::default();
    let names = options.dns.map(|addr| binder.dns(addr, workers));
    let admin = options.mode.bind(&mut binder);
    let names_bound = names.as_ref().is_none_or(Option::is_some);
    let admin = binder.finish(admin.filter(|_| names_bound))?;
    let names = names.flatten();

    let (publisher, reader) = snapshot::channel();
    let dns = names.as_ref().map(|names| Dns {
        config: Arc::new(options.names.config(names.addr)),
        observe: sealane_dns::Observe::default(),
        connections: sealane_dns::Connections::default(),
        inside: Vec::new(),
        inside_is_optional: false,
    });
    let work = Work {
        reader,
        network: None,
        sockets: HostSockets::here(),
        connector: Connector::Direct,
        access_log: workers::access_log(options.access_log)?,
        connections: Connections::new(Limits::none()),
        applied: watch::Sender::default(),
        gateway: None,
        dns,
        pod: None,
        services: Some(Capture::Transparent(options.intercept()?)),
    };
    let watch = WatchOptions {
        node: Some(options.node_name),
        names: names.is_some(),
        ..WatchOptions::services_only()
    };
    let addresses = names.iter().map(|names| ("dns", names.addr));
    mode::run(Mode {
        name: "node",
        options: options.mode,
        admin,
        metrics,
        readiness: Readiness::default(),
        corefile: None,
        watch: Some(watch),
        health: Some(options.health),
        publisher,
        work,
        addresses: BTreeMap::from_iter(addresses),
        sockets: distribute(
            workers,
            Vec::new(),
            names.map_or_else(Vec::new, |names| names.sockets),
        ),
        report: None,
    })
}

impl NodeOptions {
    fn intercept(&self) -> Result<InterceptOptions, Failure> {
        let node_ips = if self.node_ip.is_empty() {
            NodeAddresses::of_devices()
                .context("cannot list the node's addresses; give them with --node-ip")?
        } else {
            self.node_ip.clone().into()
        };
        Ok(InterceptOptions {
            method: self.intercept_method.choose(&self.pod_cidr),
            port: self.intercept_port,
            mark: MARK,
            own_mark: Some(OWN_MARK),
            node_ips,
            node_port_cidrs: self.nodeport_addresses.clone(),
            local_addresses: self.dns.map(|addr| addr.ip()).into_iter().collect(),
            pod_cidrs: self.pod_cidr.clone(),
            service_cidrs: self.service_cidr.clone(),
            egress: false,
            external_ips: !self.no_external_ips,
            refuse_instead_of_drop: self.refuse_instead_of_drop,
        })
    }
}

/// How connections are intercepted.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum MethodOption {
    /// tproxy, unless there is a bridge between pods
    #[default]
    Auto,
    /// TPROXY: clients' addresses are kept
    Tproxy,
    /// Address translation: works behind any bridge, endpoints see the node's address
    Redirect,
}

impl MethodOption {
    fn choose(self, pods: &[IpNet]) -> Method {
        match self {
            Self::Tproxy => Method::Transparent,
            Self::Redirect => Method::Redirect,
            Self::Auto => match intercept::bridge_between_pods(pods) {
                None => Method::Transparent,
                Some(bridge) => {
                    tracing::warn!(
                        bridge,
                        "intercepting by redirection, so that endpoints see the node's address: \
                         transparent interception does not work for pods behind a bridge"
                    );
                    Method::Redirect
                }
            },
        }
    }
}

/// Finds out whether we have the privilege that interception takes, before anything starts.
fn may_intercept() -> Result<(), Failure> {
    match intercept::listener((Ipv4Addr::LOCALHOST, 0).into()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::Machine(
            "intercepting connections takes the capability CAP_NET_ADMIN: run as root, or add \
                 NET_ADMIN to securityContext.capabilities.add of the container"
                .to_owned(),
        )),
        Err(error) => Err(Failure::Machine(format!(
            "connections cannot be intercepted here: {error}"
        ))),
    }
}
