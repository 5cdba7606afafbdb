//! Connections that the proxy of a node makes.
//!
//! A client's address is kept if packets for it come back through this node. That is so for pods of
//! this node, which are the ones that dial cluster IPs here, and for any client if the endpoint is a
//! pod of this node; the caller knows which of the two holds, and says so by naming the client. Not
//! for an endpoint that is the client itself: it would take a packet from its own address for a
//! forgery (S22). Not for one with an address of the node either: its replies would not leave it.
//!
//! Some addresses are never dialled, whoever wrote them into an EndpointSlice: those that mean this
//! machine or its link (B19), and the listener for intercepted connections (I5).

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sealane_config::model::EndpointAddr;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::{Connector, barred};
use crate::intercept::{InterceptOptions, Method, may_be_outside};

/// Ports for connections from a client's address: below those that Linux gives to the client itself
/// (`net.ipv4.ip_local_port_range`) and below node ports. With one that the client takes for a
/// connection of its own to the same endpoint, the endpoint's answers would be taken for ours.
const SOURCE_PORTS: Range<u16> = 10_000..30_000;

/// Ports that are tried until one is free for an endpoint.
const PORT_ATTEMPTS: usize = 8;

/// How the proxy of a node connects.
#[derive(Clone, Debug)]
pub struct NodeConnector {
    way: Connector,
    options: InterceptOptions,
}

impl NodeConnector {
    pub(super) fn new(way: Connector, options: InterceptOptions) -> Self {
        Self { way, options }
    }

    /// The address to connect from for this client, if it is kept.
    pub(super) fn source(&self, client: IpAddr, endpoint: EndpointAddr) -> Option<IpAddr> {
        let to = endpoint.ip();
        let kept = self.options.method == Method::Transparent
            && client != to
            && client.is_ipv4() == to.is_ipv4()
            && self.options.is_pod(to)
            && !self.options.is_own(client);
        kept.then_some(client)
    }

    pub(super) async fn open(
        &self,
        source: Option<IpAddr>,
        endpoint: EndpointAddr,
    ) -> io::Result<TcpStream> {
        self.check(endpoint)?;
        let Some(source) = source else {
            return self.way.open(endpoint, self.options.own_mark).await;
        };
        match self.open_from(source, endpoint.socket()).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                // The client's address has no free port left; the node's own has.
                self.way.open(endpoint, self.options.own_mark).await
            }
            opened => opened,
        }
    }

    /// A UDP socket that is connected to the endpoint.
    pub(super) async fn udp(&self, endpoint: EndpointAddr) -> io::Result<std::net::UdpSocket> {
        self.check(endpoint)?;
        let socket = self.way.udp(endpoint).await?;
        if let Some(mark) = self.options.own_mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        Ok(socket)
    }

    fn check(&self, endpoint: EndpointAddr) -> io::Result<()> {
        let addr = endpoint.socket();
        let ip = addr.ip().to_canonical();
        if !may_be_outside(ip) {
            Err(barred::no_endpoint())
        } else if addr.port() == self.options.port && self.options.is_own(ip) {
            Err(barred::itself())
        } else {
            Ok(())
        }
    }

    /// Connects from an address that is not this node's, from a port that its owner does not choose.
    async fn open_from(&self, source: IpAddr, endpoint: SocketAddr) -> io::Result<TcpStream> {
        for _ in 0..PORT_ATTEMPTS {
            let socket = self.transparent(endpoint)?;
            let from = SocketAddr::new(source, next_port());
            let opened = match socket.bind(&SockAddr::from(from)) {
                Ok(()) => {
                    let socket = TcpSocket::from_std_stream(socket.into());
                    socket.connect(endpoint).await
                }
                Err(error) => Err(error),
            };
            match opened {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
                    ) => {}
                opened => return opened,
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    /// A socket that can be bound to any address (`IP_TRANSPARENT`), and to a port that connections
    /// to other endpoints have.
    fn transparent(&self, endpoint: SocketAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(endpoint);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if endpoint.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        } else {
            socket.set_ip_transparent_v6(true)?;
        }
        if let Some(mark) = self.options.own_mark {
            socket.set_mark(mark)?;
        }
        Ok(socket)
    }
}

/// One port after the other, so that each rests for as long as possible; from a different one at
/// each start, because the kernel remembers those of an earlier run for a minute.
fn next_port() -> u16 {
    static TURN: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new(RandomState::new().hash_one(0) as u32));
    let count = u32::from(SOURCE_PORTS.end - SOURCE_PORTS.start);
    let turn = TURN.fetch_add(1, Ordering::Relaxed) % count;
    SOURCE_PORTS.start + turn as u16
}
