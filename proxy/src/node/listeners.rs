//! Listeners that come and go with the snapshot: node ports on the host's loopback address, and
//! Service addresses where nothing can be intercepted.
//!
//! Only ports with endpoints are listened on, so that the kernel refuses the others at once (S4).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use sealane_config::Snapshot;
use sealane_config::model::Protocol;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::intercept::redirect::is_without_family;

/// When an address that was taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The listeners of one worker.
pub(super) struct Listeners {
    with_vips: bool,
    open: HashMap<SocketAddr, CancellationToken>,
    /// Could not be bound; the user has been told.
    taken: HashSet<SocketAddr>,
}

impl Listeners {
    /// Node ports, and Services' addresses if `with_vips`.
    pub(super) fn new(with_vips: bool) -> Self {
        Self {
            with_vips,
            open: HashMap::new(),
            taken: HashSet::new(),
        }
    }

    /// Opens and closes listeners until the worker's shutdown.
    pub(super) async fn follow(mut self, worker: Rc<Worker>) {
        let mut reader = worker.reader.clone();
        let shutdown = worker.shutdown.clone();
        loop {
            let wanted = wanted(&reader.load(), self.with_vips);
            self.update(wanted, &worker).await;
            let retry = async {
                if self.taken.is_empty() {
                    std::future::pending::<()>().await;
                }
                sleep(RETRY).await;
            };
            tokio::select! {
                published = reader.changed() => if published.is_none() {
                    return shutdown.cancelled().await;
                },
                () = retry => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Connections that were accepted go on when their listener is closed.
    async fn update(&mut self, wanted: HashSet<SocketAddr>, worker: &Rc<Worker>) {
        self.open.retain(|addr, stop| {
            let keep = wanted.contains(addr);
            if !keep {
                stop.cancel();
            }
            keep
        });
        self.taken.retain(|addr| wanted.contains(addr));
        for addr in wanted {
            if self.open.contains_key(&addr) {
                continue;
            }
            let listener = worker.host.tcp_listener(addr).await;
            match listener.and_then(TcpListener::from_std) {
                Ok(listener) => {
                    let stop = worker.shutdown.child_token();
                    let accept = Rc::clone(worker).accept(listener, stop.clone());
                    worker.connections.spawn_local(accept);
                    self.open.insert(addr, stop);
                    self.taken.remove(&addr);
                }
                // A machine without IPv6.
                Err(error) if addr.is_ipv6() && is_without_family(&error) => {}
                Err(error) => {
                    if self.taken.insert(addr) {
                        tracing::warn!(%addr, %error, "cannot listen for a Service");
                    }
                }
            }
        }
    }
}

/// Node ports are served on the loopback address of each family that they have endpoints in: the
/// kernel's rules leave loopback addresses alone (S8).
fn wanted(snapshot: &Snapshot, with_vips: bool) -> HashSet<SocketAddr> {
    let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let tcp = |(protocol, _): &&(Protocol, u16)| *protocol == Protocol::Tcp;
    let mut wanted = HashSet::new();
    for &(protocol, number) in snapshot.node_ports.keys().filter(tcp) {
        for ip in loopbacks {
            let port = snapshot.node_port(ip.is_ipv4(), protocol, number);
            if port.is_some_and(|port| !port.endpoints.is_empty()) {
                wanted.insert(SocketAddr::new(ip, number));
            }
        }
    }
    if with_vips {
        let vips = snapshot.vips.iter();
        wanted.extend(
            vips.filter(|((_, protocol, _), port)| {
                *protocol == Protocol::Tcp && !port.endpoints.is_empty()
            })
            .map(|((ip, _, number), _)| SocketAddr::new(*ip, *number)),
        );
    }
    wanted
}
