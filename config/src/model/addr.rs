//! Address newtypes: a client's, a Service's, an endpoint's and a listener's address are different
//! types, so that swapped arguments do not compile.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub SocketAddr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<SocketAddr> for $name {
            fn from(addr: SocketAddr) -> Self {
                Self(addr)
            }
        }
    };
}

address! {
    /// Where a connection or datagram came from.
    ClientAddr
}
address! {
    /// The Service address that a client dialled: cluster IP, node port, load balancer or external IP.
    VipAddr
}
address! {
    /// Where one of our own listeners is bound.
    ListenAddr
}

/// Where one endpoint of a Service listens. There are very many of them: this takes 20 bytes, a
/// [`SocketAddr`] 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointAddr {
    ip: IpAddr,
    port: u16,
}

impl EndpointAddr {
    /// Its IP address.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Its port.
    pub fn port(self) -> u16 {
        self.port
    }

    /// Both.
    pub fn socket(self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket().fmt(f)
    }
}

impl From<SocketAddr> for EndpointAddr {
    fn from(addr: SocketAddr) -> Self {
        Self {
            ip: addr.ip(),
            port: addr.port(),
        }
    }
}
