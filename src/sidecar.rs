//! `sealane sidecar`: the proxy of one pod.
//!
//! Runs in the pod's network namespace without any privilege, on connections that the rules of
//! `sealane init` redirect to it. It must not get its own: the rules know them by the user that it runs
//! as, or by a mark where it may set one. It finds that out with a real connection before it serves.

mod app;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::FutureExt as _;
use sealane_config::snapshot;
use sealane_config::sockets::HostSockets;
use sealane_config::watch::WatchOptions;
use sealane_proxy::admission::{Connections, Limits};
use sealane_proxy::connect::Connector;
use sealane_proxy::intercept;
use sealane_proxy::intercept::redirect::{self, Probe, RedirectOptions};
use sealane_proxy::sidecar::{OPAQUE_PORTS, PodOptions};
use tokio::sync::watch;

pub(crate) use self::app::leave;
use crate::admin::{MetricsHandle, Readiness};
use crate::exit::Failure;
use crate::init::{MARK, PortOptions};
use crate::mode::{self, Mode, ModeOptions};
use crate::serve::bind::Binder;
use crate::serve::workers::{Pod, Work, distribute};

/// How long a connection that comes back to us may take; it does so in microseconds.
const PATIENCE: Duration = Duration::from_millis(30);

/// Options as given.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SidecarOptions {
    /// The pod's addresses, status.podIPs (repeatable, or separated by commas) [default: those of all
    /// devices]
    #[arg(long, env = "POD_IPS", value_name = "IP", value_delimiter = ',')]
    pod_ip: Vec<IpAddr>,
    /// The pod's namespace, for metrics
    #[arg(long, env = "POD_NAMESPACE", default_value = "", value_name = "NAME")]
    namespace: String,
    /// Name of the pod's Node, for traffic policies and topology hints [default: they do not count]
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    #[command(flatten)]
    ports: PortOptions,
    /// Ports that carry no HTTP, of the pod and of Services without appProtocol
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_values_t = OPAQUE_PORTS)]
    opaque_ports: Vec<u16>,
    /// This is a native sidecar (an init container with restartPolicy Always): at SIGTERM the
    /// application is gone already and need not be waited for
    #[arg(long)]
    native: bool,
    #[command(flatten)]
    mode: ModeOptions,
}

/// Runs the sidecar until SIGTERM or Ctrl-C.
///
/// # Errors
/// Options that cannot be used, connections that would come back, no cluster, or a part that failed.
pub(crate) fn run(options: SidecarOptions, metrics: MetricsHandle) -> Result<(), Failure> {
    options.ports.check()?;
    let workers = options.mode.workers()?;
    let mut binder = Binder::default();
    let admin = options.mode.bind(&mut binder);
    let admin = binder.finish(admin)?;
    let pod = options.pod()?;
    let sockets = match HostSockets::marked(MARK) {
        Ok(sockets) => sockets,
        // Then the rules have to know our user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => HostSockets::here(),
        Err(error) => return Err(anyhow::Error::new(error).into()),
    };
    do_not_come_back(&pod, &sockets)?;

    let (publisher, reader) = snapshot::channel();
    let work = Work {
        reader,
        network: None,
        sockets: sockets.clone(),
        connector: Connector::from_sockets(sockets),
        access_log: None,
        connections: Connections::new(Limits::none()),
        applied: watch::Sender::default(),
        gateway: None,
        dns: None,
        services: None,
        pod: Some(Pod {
            options: pod,
            waits_for_app: !options.native,
        }),
    };
    mode::run(Mode {
        name: "sidecar",
        options: options.mode,
        admin,
        metrics,
        readiness: Readiness::default(),
        corefile: None,
        watch: Some(WatchOptions {
            node: options.node_name,
            ..WatchOptions::services_only()
        }),
        health: None,
        publisher,
        work,
        addresses: BTreeMap::new(),
        sockets: distribute(workers, Vec::new(), Vec::new()),
        report: None,
    })
}

impl SidecarOptions {
    fn pod(&self) -> Result<PodOptions, Failure> {
        let addresses = if self.pod_ip.is_empty() {
            let found = intercept::device_addresses();
            found
                .context("cannot list the pod's addresses; give them with --pod-ip")?
                .to_vec()
        } else {
            self.pod_ip.clone()
        };
        Ok(PodOptions {
            namespace: self.namespace.as_str().into(),
            addresses,
            inbound_port: self.ports.inbound_port,
            outbound_port: self.ports.outbound_port,
            opaque_ports: self.opaque_ports.clone(),
        })
    }
}

/// Dials as the proxy will, and makes sure that the connection does not arrive at the proxy (I5).
fn do_not_come_back(pod: &PodOptions, sockets: &HostSockets) -> Result<(), Failure> {
    let rules = RedirectOptions {
        inbound_port: pod.inbound_port,
        outbound_port: pod.outbound_port,
        proxy_uid: rustix::process::geteuid().as_raw(),
        mark: MARK,
        skip_inbound_ports: Vec::new(),
        skip_outbound_ports: Vec::new(),
        skip_outbound_cidrs: Vec::new(),
    };
    let socket = |peer: SocketAddr| {
        let made = sockets.tcp(peer).now_or_never();
        made.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    };
    let probes = redirect::probe(&rules, socket, PATIENCE).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::Input(vec![format!(
            "port {} is taken by another program: stop it, or give another --outbound-port here and \
             to `sealane init`",
            rules.outbound_port
        )]),
        _ => Failure::Other(anyhow!(error).context("cannot listen for the pod's connections")),
    })?;
    if probes.contains(&Probe::Redirected) {
        return Err(Failure::Machine(format!(
            "connections of user {} come back to this process: run it as the user that \
             `sealane init --proxy-uid` names, 65532 unless given, or with CAP_NET_ADMIN so that it \
             can mark them",
            rules.proxy_uid
        )));
    }
    Ok(())
}
