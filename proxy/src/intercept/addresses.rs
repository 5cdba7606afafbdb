//! The node's addresses, which come and go while it runs.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use tokio::sync::watch;

/// Addresses are looked at without being told to after this time.
const LOOK: Duration = Duration::from_secs(10);

/// The node's addresses as they are now. Clones see the same.
#[derive(Clone, Debug)]
pub struct NodeAddresses(watch::Receiver<Arc<[IpAddr]>>);

impl NodeAddresses {
    /// Those that others can reach on devices of the calling thread's namespace, neither loopback
    /// nor link-local ones. A thread follows their changes until all clones are gone.
    ///
    /// # Errors
    /// The kernel does not tell, or no thread could be started.
    pub fn of_devices() -> io::Result<Self> {
        // Listening begins first, so that no change is missed in between.
        let events = address_events()?;
        let (sender, receiver) = watch::channel(device_addresses()?);
        std::thread::Builder::new()
            .name("node-addresses".into())
            .spawn(move || {
                while !sender.is_closed() {
                    if let Err(error) = wait_for_event(&events).and_then(|()| update(&sender)) {
                        tracing::warn!(%error, "cannot look at the node's addresses");
                        std::thread::park_timeout(LOOK);
                    }
                }
            })?;
        Ok(Self(receiver))
    }

    /// All of them.
    pub fn current(&self) -> Arc<[IpAddr]> {
        Arc::clone(&self.0.borrow())
    }

    /// Whether this is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.borrow().contains(&ip)
    }

    /// Waits for the next change; forever if nobody follows them.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl From<Vec<IpAddr>> for NodeAddresses {
    /// Addresses that stay.
    fn from(addresses: Vec<IpAddr>) -> Self {
        Self(watch::channel(addresses.into()).1)
    }
}

/// Returns when an address came or went, and now and then without a reason.
fn wait_for_event(events: &OwnedFd) -> io::Result<()> {
    let mut event = [0; 4096];
    match recv(events.as_raw_fd(), &mut event, MsgFlags::empty()) {
        // What the events say does not matter, and more of them than fit are no error either.
        Ok(_) | Err(nix::Error::ENOBUFS | nix::Error::EINTR | nix::Error::EAGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn update(sender: &watch::Sender<Arc<[IpAddr]>>) -> io::Result<()> {
    let now = device_addresses()?;
    sender.send_if_modified(|known| {
        let changed = *known != now;
        if changed {
            tracing::info!(addresses = ?now, "the node's addresses have changed");
            *known = now;
        }
        changed
    });
    Ok(())
}

/// A socket that gets a message when an address comes or goes, and waits for it no longer than
/// [`LOOK`].
fn address_events() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let route = SockProtocol::NetlinkRoute;
    let events = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
    let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, groups as u32))?;
    let look = TimeVal::seconds(LOOK.as_secs() as i64);
    setsockopt(&events, ReceiveTimeout, &look)?;
    Ok(events)
}

/// Addresses of the devices of the calling thread's namespace that others can reach, sorted, each once.
///
/// # Errors
/// The system call's error.
pub fn device_addresses() -> io::Result<Arc<[IpAddr]>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|device| {
        let address = device.address?;
        let v4 = address.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))
    });
    let mut addresses: Vec<IpAddr> = addresses
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses.into())
}
