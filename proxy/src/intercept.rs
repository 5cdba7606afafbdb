//! Getting connections to the proxy: nf_tables rules that deliver packets for Services and for the
//! outside to one listener (TPROXY), and that listener.
//!
//! The kernel also refuses what has no endpoints. A proxy that has accepted a connection can only
//! reset it, which clients see as "connected, then reset" instead of "connection refused".
//!
//! Rules and sets are written over netlink, in transactions; nothing is ever listed.

mod addresses;
mod bridge;
mod metrics;
mod netlink;
mod original;
pub mod redirect;
mod rule;
mod state;
mod table;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sealane_config::{Place, Reader, Snapshot};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

pub use addresses::{NodeAddresses, device_addresses};
pub use bridge::bridge_between_pods;
use metrics::Write;
use netlink::NfTables;
pub use original::original_destination;
use state::{Change, Elements, Wanted, record};

/// Backlog of the listener; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Changes in one transaction. A datagram has to fit into the socket's send buffer (208 KiB by
/// default, and only root can raise it), and one change is 36 bytes at most.
const CHANGES_PER_TRANSACTION: usize = 2000;

/// Publications that follow each other faster are taken together; the first one after a quiet time
/// is applied at once.
const GATHER: Duration = Duration::from_millis(20);

/// The first and the longest pause after a refused transaction.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often the kernel's counters are read.
const COUNT: Duration = Duration::from_secs(5);

/// Addresses that are never a destination outside the cluster: "this network", loopback, link-local
/// (with cloud metadata services), multicast and reserved ones.
const NEVER_OUTSIDE: [IpNet; 7] = [
    v4([0, 0, 0, 0], 8),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([224, 0, 0, 0], 3),
    // The unspecified address, loopback and IPv4 addresses in an IPv6 coat; not 64:ff9b::/96, NAT64.
    v6([0, 0, 0, 0, 0, 0, 0, 0], 16),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, c, d, e, f, g, h),
        prefix,
    ))
}

/// Whether an address can be a destination outside the cluster at all.
pub(crate) fn may_be_outside(ip: IpAddr) -> bool {
    !NEVER_OUTSIDE.iter().any(|net| net.contains(&ip))
}

/// Why interception could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// The netlink socket failed.
    #[error("cannot talk to nf_tables")]
    Netlink(#[source] io::Error),
    /// The kernel refused a transaction; nothing of it took effect.
    #[error("nf_tables refused change {change} of a transaction")]
    Refused {
        /// Its place in the transaction, from 1.
        change: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel has no support for something that the table needs.
    #[error(
        "the kernel lacks an nf_tables feature that interception needs \
         (modules nft_tproxy, nft_socket, nft_reject_inet)"
    )]
    Unsupported(#[source] io::Error),
    /// The kernel did not say whether it applied a transaction.
    #[error("nf_tables did not answer")]
    Unanswered,
}

/// An expression that is unknown is "not found" (`nf_tables_expr_parse`).
fn unsupported(error: InterceptError) -> InterceptError {
    match error {
        InterceptError::Refused { source, .. }
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::Unsupported
            ) =>
        {
            InterceptError::Unsupported(source)
        }
        other => other,
    }
}

/// How the kernel gives packets to the listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// TPROXY: the connection's local address is what the client dialled.
    #[default]
    Transparent,
    /// REDIRECT, where TPROXY does not work (see [`bridge_between_pods`]): connection tracking knows what the client dialled, see
    /// [`original_destination`]. Clients' addresses are not kept.
    Redirect,
}

impl Method {
    /// Its name in metrics and on the command line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Transparent => "tproxy",
            Self::Redirect => "redirect",
        }
    }
}

/// Where to intercept.
#[derive(Clone, Debug)]
pub struct InterceptOptions {
    /// How.
    pub method: Method,
    /// The port of the [listener].
    pub port: u16,
    /// The mark that routes packets to local sockets; a routing rule for it has to exist.
    pub mark: u32,
    /// The mark of the proxy's own connections. If it is given, connections to Services that start
    /// on the node itself are intercepted, too, apart from these.
    pub own_mark: Option<u32>,
    /// The node's addresses, on which node ports are served.
    pub node_ips: NodeAddresses,
    /// Serve node ports only on the node's addresses in these (`--nodeport-addresses` of
    /// kube-proxy); empty: on all of them.
    pub node_port_cidrs: Vec<IpNet>,
    /// More addresses of the node, such as the cluster DNS's: what is no Service port with
    /// endpoints there is left alone.
    pub local_addresses: Vec<IpAddr>,
    /// Where pods are: left alone.
    pub pod_cidrs: Vec<IpNet>,
    /// Where Services are: what no Service has is lost.
    pub service_cidrs: Vec<IpNet>,
    /// The proxy is also the way out of the cluster for TCP, of each family that has pods. Not on a
    /// real node, which has a way out and sees connections that are none of ours.
    pub egress: bool,
    /// Serve Services on their `externalIPs` (KEP-5707).
    pub external_ips: bool,
    /// Refuse what a `Local` traffic policy or `loadBalancerSourceRanges` turn away. kube-proxy
    /// loses it, which makes clients wait.
    pub refuse_instead_of_drop: bool,
}

impl Default for InterceptOptions {
    fn default() -> Self {
        Self {
            method: Method::default(),
            port: 15001,
            mark: 1,
            own_mark: None,
            node_ips: NodeAddresses::from(Vec::new()),
            node_port_cidrs: Vec::new(),
            local_addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            egress: false,
            external_ips: true,
            refuse_instead_of_drop: false,
        }
    }
}

impl InterceptOptions {
    /// Whether node ports are served on an address of the node. Never on loopback ones, for which
    /// there are listeners.
    pub(crate) fn serves_node_ports(&self, ip: IpAddr) -> bool {
        let chosen = &self.node_port_cidrs;
        let is_chosen = chosen.is_empty() || chosen.iter().any(|cidr| cidr.contains(&ip));
        is_chosen && !ip.is_loopback()
    }

    /// Whether this is an address of the node.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        self.node_ips.contains(ip) || self.local_addresses.contains(&ip)
    }

    /// Whether this is an address of a pod, as opposed to one of the node within the pods' range.
    pub(crate) fn is_pod(&self, ip: IpAddr) -> bool {
        self.pod_cidrs.iter().any(|cidr| cidr.contains(&ip)) && !self.is_own(ip)
    }
}

/// Packets that the kernel turns away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// `internalTrafficPolicy: Local` without an endpoint on this node.
    NoLocalInternal,
    /// `externalTrafficPolicy: Local` without an endpoint on this node.
    NoLocalExternal,
    /// Not from within `loadBalancerSourceRanges`.
    SourceRanges,
}

impl Lost {
    const ALL: [Self; 3] = [
        Self::NoLocalInternal,
        Self::NoLocalExternal,
        Self::SourceRanges,
    ];

    /// The counter's name in the kernel, and the reason in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoLocalInternal => "no-local-endpoints-internal",
            Self::NoLocalExternal => "no-local-endpoints-external",
            Self::SourceRanges => "outside-source-ranges",
        }
    }
}

/// Keeps the kernel's table in step with the snapshot.
#[derive(Debug)]
pub struct Interceptor {
    options: InterceptOptions,
    kernel: NfTables,
    /// What the kernel has; `None` before the first write and after a failed one.
    written: Option<Written>,
    /// What the kernel was given last, whether it took it or not.
    last: Write,
    applied: watch::Sender<u64>,
}

/// What the kernel was last brought to.
#[derive(Debug)]
struct Written {
    elements: Elements,
    /// The node's addresses that it was for.
    node_ips: Arc<[IpAddr]>,
    /// The compilation that it comes from, if that is known.
    place: Option<Place>,
}

impl Written {
    /// What has to change in the kernel.
    fn difference(&self, wanted: &Wanted<'_>, snapshot: &Snapshot) -> Vec<Change> {
        let touched = snapshot.history.since(self.place.as_ref());
        match touched.filter(|_| self.node_ips == *wanted.node_ips()) {
            Some(touched) => wanted.difference_since(&self.elements, touched),
            None => wanted.difference(&self.elements),
        }
    }
}

impl Interceptor {
    /// Works on the namespace of the calling thread, also when it is moved to another thread
    /// later. Checks that the kernel can intercept and leaves it as it was.
    ///
    /// # Errors
    /// [`InterceptError::Unsupported`], or no netlink socket could be made.
    pub fn open(options: InterceptOptions) -> Result<Self, InterceptError> {
        let mut kernel = NfTables::open().map_err(InterceptError::Netlink)?;
        let probed = kernel.transaction(|batch| table::probe(batch, &options));
        probed.map_err(unsupported)?;
        Ok(Self {
            options,
            kernel,
            written: None,
            last: Write::Full,
            applied: watch::Sender::new(0),
        })
    }

    /// The generation of the last snapshot that is in force in the kernel; 0 before the first.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Makes the kernel do what the snapshot says and returns how many set elements were written.
    /// Before the first sync nothing is written, so that an earlier run's table stays (S25).
    ///
    /// # Errors
    /// The kernel refused. The next call then writes the whole table again.
    pub fn apply(&mut self, snapshot: &Snapshot) -> Result<usize, InterceptError> {
        if !snapshot.synced {
            return Ok(0);
        }
        let wanted = Wanted::new(snapshot, &self.options);
        let written = self.written.take();
        let create = written.is_none();
        let (changes, mut elements) = match written {
            Some(written) => (written.difference(&wanted, snapshot), written.elements),
            None => (wanted.difference(&Elements::new()), Elements::new()),
        };
        let node_ips = Arc::clone(wanted.node_ips());
        let mut parts = changes.chunks(CHANGES_PER_TRANSACTION);
        self.last = Write::Partial;
        if create {
            self.last = Write::Full;
            let first = parts.next().unwrap_or_default();
            let options = &self.options;
            self.kernel.transaction(|batch| {
                table::create(batch, options);
                table::change(batch, first);
            })?;
        }
        for part in parts {
            if !create {
                self.last = kind(part);
            }
            self.kernel
                .transaction(|batch| table::change(batch, part))?;
        }
        record(&mut elements, &changes);
        self.written = Some(Written {
            elements,
            node_ips,
            place: snapshot.history.place(),
        });
        self.applied.send_replace(snapshot.generation);
        Ok(changes.len())
    }

    /// How many packets the kernel has turned away since the table was written. Reads one counter;
    /// no rule or set is listed.
    ///
    /// # Errors
    /// There is no table, or the kernel does not tell.
    pub fn lost(&mut self, what: Lost) -> Result<u64, InterceptError> {
        table::count(&mut self.kernel, what)
    }

    /// Follows the snapshot until `shutdown` or the end of the publisher. The table stays in force
    /// afterwards.
    pub async fn run(mut self, mut reader: Reader, shutdown: CancellationToken) {
        let mut metrics = metrics::Metrics::new(&self.options);
        let mut addresses = self.options.node_ips.clone();
        let mut count = interval(COUNT);
        let mut pause = RETRY.0;
        loop {
            let created = self.written.is_none();
            let begun = Instant::now();
            let applied = self.apply(&reader.load());
            if created && self.written.is_some() {
                metrics.start_over();
            }
            match (&metrics.kube_proxy, &applied) {
                (Some(kube_proxy), Err(_)) => kube_proxy.failed(self.last),
                // Before the first sync there is nothing to write.
                (Some(kube_proxy), Ok(_)) if self.written.is_some() => {
                    kube_proxy.wrote(self.last, begun.elapsed());
                }
                _ => {}
            }
            let next = async {
                match applied {
                    Ok(written) => {
                        tracing::debug!(written, "interception is up to date");
                        pause = RETRY.0;
                        sleep(GATHER).await;
                        reader.changed().await.is_some()
                    }
                    Err(error) => {
                        let error = &error as &(dyn std::error::Error + 'static);
                        tracing::warn!(error, "interception is out of date, trying again");
                        sleep(pause).await;
                        pause = (2 * pause).min(RETRY.1);
                        true
                    }
                }
            };
            let mut next = std::pin::pin!(next);
            loop {
                tokio::select! {
                    more = &mut next => if more { break } else { return },
                    () = addresses.changed() => {
                        if self.options.method == Method::Redirect {
                            // The node's address is in a rule.
                            self.written = None;
                        }
                        break;
                    }
                    _ = count.tick() => {
                        let elements = self.written.as_ref().map(|written| &written.elements);
                        metrics.update(&mut self.kernel, elements);
                    }
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }
}

/// What a transaction of changes to the table is.
fn kind(changes: &[Change]) -> Write {
    if changes.iter().all(|change| !change.add) {
        Write::CleanUp
    } else {
        Write::Partial
    }
}

/// Removes the table from the calling thread's namespace: nothing is intercepted any more, and another
/// program's rules for Services take effect again. Not having it is no error.
///
/// # Errors
/// The kernel refused, or no netlink socket could be made.
pub fn remove() -> Result<(), InterceptError> {
    let mut kernel = NfTables::open().map_err(InterceptError::Netlink)?;
    kernel.transaction(|batch| table::remove(batch, table::TABLE))
}

/// A listener for intercepted connections, made by the calling thread in its namespace: their local
/// address is what the client dialled. Each worker can have its own on the same address. Needs
/// `CAP_NET_ADMIN`.
///
/// # Errors
/// The system call's error.
pub fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
    }
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
