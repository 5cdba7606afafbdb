//! Connections to endpoints, made in the network namespace that leads to them.

use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sealane_config::model::EndpointAddr;
use sealane_config::sockets::HostSockets;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

/// How long a connection attempt may take: pods are at most a few milliseconds away, and a second
/// endpoint is usually at hand.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A peer that vanished without a word is found after 10 s of silence and three probes 5 s apart.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(10))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// An address block, as in `10.244.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether the address is in the block; never true across address families.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.network, addr) {
            (IpAddr::V4(network), IpAddr::V4(addr)) => {
                let shift = 32 - u32::from(self.prefix);
                let differs = network.to_bits() ^ addr.to_bits();
                differs.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(addr)) => {
                let shift = 128 - u32::from(self.prefix);
                let differs = network.to_bits() ^ addr.to_bits();
                differs.checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The text is not an address block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address block such as 10.244.0.0/16")]
pub struct BadCidr(String);

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (network, prefix) = text.split_once('/').ok_or_else(bad)?;
        let network: IpAddr = network.parse().map_err(|_not_an_address| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_not_a_number| bad())?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(bad());
        }
        Ok(Self { network, prefix })
    }
}

/// Connects to endpoints. Cheap to clone; each worker has one.
#[derive(Clone, Debug)]
pub enum Connector {
    /// From the calling thread's namespace: on a real cluster, and in loopback mode.
    Direct,
    /// The calling thread lives in the cluster's namespace.
    Split {
        /// Addresses that are reached from there: pods and Services.
        cluster: Arc<[Cidr]>,
        /// Makes the sockets for all other addresses.
        host: HostSockets,
    },
}

impl Connector {
    /// A connection to the endpoint, with `TCP_NODELAY` and keepalive probes on.
    ///
    /// # Errors
    /// The system call's error; `TimedOut` after one second.
    pub async fn connect(&self, endpoint: EndpointAddr) -> io::Result<TcpStream> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.open(endpoint))
            .await
            .map_err(|_elapsed| {
                io::Error::new(io::ErrorKind::TimedOut, "no connection within 1 s")
            })??;
        tune(&stream)?;
        Ok(stream)
    }

    async fn open(&self, endpoint: EndpointAddr) -> io::Result<TcpStream> {
        match self {
            Self::Split { cluster, host }
                if !cluster.iter().any(|c| c.contains(endpoint.0.ip())) =>
            {
                let socket = host.tcp(endpoint.0).await?;
                TcpSocket::from_std_stream(socket.into())
                    .connect(endpoint.0)
                    .await
            }
            Self::Direct | Self::Split { .. } => TcpStream::connect(endpoint.0).await,
        }
    }
}

/// `TCP_NODELAY` and keepalive probes on.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

#[cfg(test)]
mod tests;
