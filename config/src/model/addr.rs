//! Address newtypes: a client's, a Service's, an endpoint's and a listener's address are different
//! types, so that swapped arguments do not compile.

use std::fmt;
use std::net::SocketAddr;

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
    /// Where one endpoint of a Service listens.
    EndpointAddr
}
address! {
    /// Where one of our own listeners is bound.
    ListenAddr
}
