//! Connections to endpoints for flows: one pick each, from the client's address where that works.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use sealane_config::model::{ClientAddr, EndpointAddr};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::balance::{Balancer, Flight};
use crate::connect::{CONNECT_TIMEOUT, Connector, tune};
use crate::http::Target;

/// Endpoints that one flow is tried on.
const MAX_ATTEMPTS: usize = 5;

/// Why a flow got no endpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    /// The Service port has none.
    #[error("the Service has no endpoints")]
    NoEndpoints,
    /// None of those that were tried took the connection.
    #[error("no endpoint took the connection, {endpoint} as the last of {tried}")]
    Connect {
        /// The last one.
        endpoint: EndpointAddr,
        /// How many were tried.
        tried: usize,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

/// Connects flows to endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Flows {
    connector: Connector,
    /// Where client addresses can be kept: from a pod to another one. Empty if the node's rules do
    /// not bring the replies back.
    pods: Arc<[IpNet]>,
    /// Addresses of this node, which are never kept: their replies would not leave it.
    node: Arc<[IpAddr]>,
}

impl Flows {
    /// Keeps the address of clients in `pods`, except `node`, when connecting to endpoints in there.
    pub(crate) fn new(connector: Connector, pods: Arc<[IpNet]>, node: Arc<[IpAddr]>) -> Self {
        Self {
            connector,
            pods,
            node,
        }
    }

    /// Connects to an endpoint of a target, and to another one if that fails, which is safe
    /// because no byte was sent yet. The flow counts as in flight until the second value is dropped.
    pub(crate) async fn connect(
        &self,
        client: ClientAddr,
        target: &Target,
        balancer: &Balancer,
    ) -> Result<(TcpStream, Flight), FlowError> {
        let mut tried: Vec<EndpointAddr> = Vec::new();
        let mut failure = FlowError::NoEndpoints;
        while tried.len() < MAX_ATTEMPTS {
            let (ip, port) = (Some(client.0.ip()), &target.port);
            let picked = balancer.pick_for(ip, port, target.endpoints(), &tried);
            let Some(endpoint) = picked else {
                break;
            };
            let flight = Flight::start(endpoint);
            let begun = Instant::now();
            match self.open(client, endpoint.addr).await {
                Ok(stream) => {
                    flight.succeeded(begun.elapsed());
                    return Ok((stream, flight));
                }
                Err(source) => {
                    flight.failed(target.endpoints(), &port.http.balancing);
                    balancer.not_connected(ip, port, endpoint);
                    tried.push(endpoint.addr);
                    failure = FlowError::Connect {
                        endpoint: endpoint.addr,
                        tried: tried.len(),
                        source,
                    };
                }
            }
        }
        Err(failure)
    }

    async fn open(&self, client: ClientAddr, endpoint: EndpointAddr) -> io::Result<TcpStream> {
        if !self.keeps_source(client, endpoint) {
            return self.connector.connect(endpoint).await;
        }
        let connecting = connect_from(client.0.ip(), endpoint.0);
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                // The client's address has no free port left; the node's own has.
                self.connector.connect(endpoint).await
            }
            Ok(connected) => connected,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// An endpoint that is the client itself would take a packet from its own address for a forgery.
    pub(crate) fn keeps_source(&self, client: ClientAddr, endpoint: EndpointAddr) -> bool {
        let is_pod = |ip: IpAddr| {
            self.pods.iter().any(|cidr| cidr.contains(&ip)) && !self.node.contains(&ip)
        };
        let (client, endpoint) = (client.0.ip(), endpoint.0.ip());
        client != endpoint && is_pod(client) && is_pod(endpoint)
    }
}

/// Connects from an address that is not this node's (`IP_TRANSPARENT`).
async fn connect_from(source: IpAddr, endpoint: SocketAddr) -> io::Result<TcpStream> {
    let domain = Domain::for_address(endpoint);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if source.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
    }
    // The port is chosen when connecting, so that it has to be free for this endpoint only.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let stream = socket.connect(endpoint).await?;
    tune(&stream)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
