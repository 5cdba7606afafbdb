//! Connections to endpoints, made in the network namespace that leads to them.

mod barred;
mod node;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sealane_config::model::EndpointAddr;
use sealane_config::sockets::HostSockets;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

pub use barred::Barred;
pub use node::NodeConnector;

use crate::intercept::InterceptOptions;

/// A peer that vanished without a word is found after 10 s of silence and three probes 5 s apart.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(10))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// Connects to endpoints. Cheap to clone; each worker has one.
#[derive(Clone, Debug)]
pub enum Connector {
    /// From the calling thread's namespace, to any address.
    Direct,
    /// The same, but not to everything: a gateway on a real cluster, and loopback mode.
    Barring(Arc<Barred>),
    /// The calling thread lives in the cluster's namespace.
    Split {
        /// Addresses that are reached from there: pods and Services.
        cluster: Arc<[IpNet]>,
        /// Makes the sockets for all other addresses.
        host: HostSockets,
    },
    /// One of these, as the proxy of a node.
    Node(Arc<NodeConnector>),
}

impl Connector {
    /// As the proxy of a node connects that is intercepted like this: from clients' addresses where
    /// they can be kept, with its own mark, and not to everything.
    #[must_use]
    pub fn of_node(self, options: &InterceptOptions) -> Self {
        Self::Node(Arc::new(NodeConnector::new(self, options.clone())))
    }

    /// Every connection with a socket that `sockets` makes.
    pub fn from_sockets(sockets: HostSockets) -> Self {
        Self::Split {
            cluster: Arc::new([]),
            host: sockets,
        }
    }

    /// A connection to the endpoint, with `TCP_NODELAY` and keepalive probes on.
    ///
    /// # Errors
    /// The system call's error; `TimedOut` after `limit`; `PermissionDenied` for an address that no
    /// endpoint may have, `Deadlock` for that of the proxy itself.
    pub async fn connect(&self, endpoint: EndpointAddr, limit: Duration) -> io::Result<TcpStream> {
        self.connect_from(None, endpoint, limit).await
    }

    /// The same from a source that [`Self::source`] gave.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub async fn connect_from(
        &self,
        source: Option<IpAddr>,
        endpoint: EndpointAddr,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let opening = async {
            match self {
                Self::Node(node) => Box::pin(node.open(source, endpoint)).await,
                Self::Direct | Self::Barring(_) | Self::Split { .. } => {
                    self.open(endpoint, None).await
                }
            }
        };
        let stream = tokio::time::timeout(limit, opening)
            .await
            .map_err(|_elapsed| {
                io::Error::new(io::ErrorKind::TimedOut, "no connection in time")
            })??;
        tune(&stream)?;
        Ok(stream)
    }

    /// A UDP socket that is connected to the endpoint.
    ///
    /// # Errors
    /// The system call's.
    pub(crate) async fn udp(&self, endpoint: EndpointAddr) -> io::Result<std::net::UdpSocket> {
        let host = match self {
            Self::Node(node) => return Box::pin(node.udp(endpoint)).await,
            Self::Split { cluster, host }
                if !cluster.iter().any(|c| c.contains(&endpoint.ip())) =>
            {
                host.clone()
            }
            Self::Barring(barred) => {
                barred.check(endpoint.socket())?;
                HostSockets::here()
            }
            Self::Direct | Self::Split { .. } => HostSockets::here(),
        };
        let socket = host.udp(endpoint.socket()).await?;
        socket.connect(endpoint.socket())?;
        Ok(socket)
    }

    /// The address to connect from to this endpoint for a client whose address is to be kept; `None`
    /// if it cannot be.
    pub fn source(&self, client: Option<IpAddr>, endpoint: EndpointAddr) -> Option<IpAddr> {
        match self {
            Self::Node(node) => node.source(client?, endpoint),
            Self::Direct | Self::Barring(_) | Self::Split { .. } => None,
        }
    }

    async fn open(&self, endpoint: EndpointAddr, mark: Option<u32>) -> io::Result<TcpStream> {
        let socket = match self {
            Self::Split { cluster, host }
                if !cluster.iter().any(|c| c.contains(&endpoint.ip())) =>
            {
                host.tcp(endpoint.socket()).await?
            }
            Self::Direct | Self::Barring(_) | Self::Split { .. } | Self::Node(_) => {
                if let Self::Barring(barred) = self {
                    barred.check(endpoint.socket())?;
                }
                let domain = Domain::for_address(endpoint.socket());
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_nonblocking(true)?;
                if let Some(mark) = mark {
                    socket.set_mark(mark)?;
                }
                socket
            }
        };
        TcpSocket::from_std_stream(socket.into())
            .connect(endpoint.socket())
            .await
    }
}

/// `TCP_NODELAY` and keepalive probes on.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

#[cfg(test)]
mod tests;
