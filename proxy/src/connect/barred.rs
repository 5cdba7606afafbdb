//! Addresses that no connection is made to, whoever wrote them into an EndpointSlice (B19).
//!
//! Who may write EndpointSlices in a namespace could otherwise reach, from the outside and with the
//! proxy's rights on the network, what listens on the proxy's own loopback address or on its link,
//! such as a cloud's metadata service. The API server refuses such addresses, too, but not in every
//! version and not for every writer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::intercept::{NodeAddresses, may_be_outside};

/// What a proxy does not connect to.
#[derive(Clone, Debug)]
pub struct Barred {
    listeners: Arc<[SocketAddr]>,
    own: NodeAddresses,
    allowed: Arc<[IpNet]>,
}

impl Barred {
    /// Loopback, link-local, multicast, reserved and unspecified addresses, apart from those in
    /// `allowed`; and the proxy's own `listeners`, each on the address that it names or, if that is
    /// unspecified, on all addresses in `own`.
    pub fn new(
        listeners: impl IntoIterator<Item = SocketAddr>,
        own: NodeAddresses,
        allowed: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        Self {
            listeners: listeners.into_iter().collect(),
            own,
            allowed: allowed.into_iter().collect(),
        }
    }

    /// # Errors
    /// `PermissionDenied` for an address that no endpoint may have, `Deadlock` for a listener of the
    /// proxy.
    pub(super) fn check(&self, addr: SocketAddr) -> io::Result<()> {
        // An IPv4 address in an IPv6 coat is what it means.
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        if self.listeners.iter().any(|it| self.is_own(*it, addr)) {
            return Err(itself());
        }
        let is_allowed = self.allowed.iter().any(|net| net.contains(&addr.ip()));
        if is_allowed || may_be_outside(addr.ip()) {
            Ok(())
        } else {
            Err(no_endpoint())
        }
    }

    fn is_own(&self, listener: SocketAddr, addr: SocketAddr) -> bool {
        let ip = listener.ip().to_canonical();
        let is_here = || addr.ip().is_loopback() || self.own.contains(addr.ip());
        listener.port() == addr.port() && (ip == addr.ip() || (ip.is_unspecified() && is_here()))
    }
}

/// The address is one that no endpoint may have.
pub(super) fn no_endpoint() -> io::Error {
    let why = "no endpoint of a Service may have such an address";
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// The address is that of a listener of the proxy.
pub(super) fn itself() -> io::Error {
    io::Error::new(io::ErrorKind::Deadlock, "the endpoint is the proxy itself")
}
