//! Listeners that come and go with Services: those of node ports in the host's namespace, and those
//! of Services' addresses where datagrams do not come to one listener for all.
//!
//! Only ports with endpoints are listened on, so that the kernel refuses the others at once (S4).

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use sealane_config::Reader;
use sealane_config::model::{Protocol, ServicePort, VipAddr};
use sealane_config::sockets::HostSockets;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Arrival, socket};
use crate::intercept::redirect::is_without_family;
use crate::node::Places;

/// Changes on their way to the worker's loop, which takes them at once.
pub(super) const CHANGES: usize = 64;

/// When an address that was taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Publications that follow each other faster are taken together.
const GATHER: Duration = Duration::from_millis(20);

/// What happens to a listener.
#[derive(Debug)]
pub(super) enum Change {
    /// It is there.
    Open(SocketAddr, UdpSocket),
    /// It has to go.
    Close(SocketAddr),
}

/// Where listeners are wanted, and where they are.
pub(super) struct Listeners {
    pub(super) arrival: Arrival,
    pub(super) places: Places,
    pub(super) reader: Reader,
    pub(super) host: HostSockets,
    pub(super) changes: mpsc::Sender<Change>,
}

impl Listeners {
    /// Follows the snapshot until `shutdown`.
    pub(super) async fn follow(mut self, shutdown: CancellationToken) {
        let mut open = HashSet::new();
        let mut taken = HashSet::new();
        let following = async {
            loop {
                let wanted = self.wanted();
                if self.update(wanted, &mut open, &mut taken).await.is_err() {
                    return;
                }
                let retry = async {
                    if taken.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    sleep(RETRY).await;
                };
                tokio::select! {
                    published = self.reader.changed() => if published.is_none() { return },
                    () = retry => {}
                }
                sleep(GATHER).await;
            }
        };
        tokio::select! {
            () = following => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// An error means that nobody listens to changes any more.
    async fn update(
        &self,
        wanted: HashSet<SocketAddr>,
        open: &mut HashSet<SocketAddr>,
        taken: &mut HashSet<SocketAddr>,
    ) -> Result<(), mpsc::error::SendError<Change>> {
        let gone: Vec<SocketAddr> = open.difference(&wanted).copied().collect();
        for addr in gone {
            open.remove(&addr);
            self.changes.send(Change::Close(addr)).await?;
        }
        taken.retain(|addr| wanted.contains(addr));
        for addr in wanted {
            if open.contains(&addr) {
                continue;
            }
            match self.make(addr).await {
                Ok(socket) => {
                    open.insert(addr);
                    taken.remove(&addr);
                    self.changes.send(Change::Open(addr, socket)).await?;
                }
                // A machine without IPv6.
                Err(error) if addr.is_ipv6() && is_without_family(&error) => {}
                Err(error) => {
                    if taken.insert(addr) {
                        tracing::warn!(%addr, %error, "cannot listen for a UDP Service");
                    }
                }
            }
        }
        Ok(())
    }

    async fn make(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        if self.arrival == Arrival::Delivered && !addr.ip().is_loopback() {
            socket::replying(VipAddr(addr))
        } else {
            self.host.udp_listener(addr).await
        }
    }

    fn wanted(&self) -> HashSet<SocketAddr> {
        let snapshot = self.reader.load();
        let is_served = |protocol: Protocol, port: &ServicePort| {
            protocol == Protocol::Udp && !port.endpoints.is_empty()
        };
        let mut wanted = HashSet::new();
        let node_ips = self.places.node_port_ips();
        for &(protocol, number) in snapshot.node_ports.keys() {
            for &ip in node_ips.iter().filter(|ip| self.has_node_ports(**ip)) {
                let port = snapshot.node_port(ip.is_ipv4(), protocol, number);
                if port.is_some_and(|port| is_served(protocol, port)) {
                    wanted.insert(SocketAddr::new(ip, number));
                }
            }
        }
        if !matches!(self.arrival, Arrival::Intercepted(_)) {
            for (&(ip, protocol, number), port) in &snapshot.vips {
                if is_served(protocol, port) {
                    wanted.insert(SocketAddr::new(ip, number));
                }
            }
        }
        wanted
    }

    /// What rules give to a listener for all needs none of its own.
    fn has_node_ports(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.arrival == Arrival::Delivered
    }
}
