//! Connections to endpoints for flows: one pick each, from the client's address where that works.

use std::io;

use sealane_config::model::EndpointAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::announce::{self, Ends};
use crate::ErrorKind;
use crate::balance::{Balancer, Flight};
use crate::connect::Connector;
use crate::http::Target;

/// Endpoints that one flow is tried on.
const MAX_ATTEMPTS: usize = 5;

/// Why a flow got no endpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    /// The Service port has none.
    #[error("the Service has no endpoints")]
    NoEndpoints,
    /// This machine has no port left to connect from, or not to those that were tried.
    #[error("no local port is left to connect to {endpoint} from, the last of {tried}")]
    NoLocalPorts {
        /// The last one.
        endpoint: EndpointAddr,
        /// How many were tried.
        tried: usize,
    },
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

impl FlowError {
    /// The reason in metrics; that of HTTP where there is the same ([`ErrorKind::label`]).
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NoEndpoints => ErrorKind::NoEndpoints.label(),
            Self::NoLocalPorts { .. } => ErrorKind::NoLocalPorts.label(),
            Self::Connect { .. } => ErrorKind::ConnectFailed.label(),
        }
    }
}

/// Connects flows to endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Flows {
    connector: Connector,
}

impl Flows {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector }
    }

    /// Connects to an endpoint of a target, and to another one if that fails, which is safe
    /// because no byte of the client's was sent yet. An endpoint of a Service that wants it is told who
    /// the client is. The flow counts as in flight until the second value is dropped.
    pub(crate) async fn connect(
        &self,
        ends: Ends,
        target: &Target,
        balancer: &Balancer,
    ) -> Result<(TcpStream, Flight), FlowError> {
        let mut tried: Vec<EndpointAddr> = Vec::new();
        let mut failure = FlowError::NoEndpoints;
        while tried.len() < MAX_ATTEMPTS {
            let (ip, port) = (Some(ends.client.0.ip()), &target.port);
            let picked = balancer.pick_for(ip, port, target.scope, &tried);
            let Some(endpoint) = picked else {
                break;
            };
            let flight = Flight::start(endpoint);
            let begun = Instant::now();
            let source = self.connector.source(target.source, endpoint.addr);
            let limit = port.http.timeouts.connect;
            let connecting = self.connector.connect_from(source, endpoint.addr, limit);
            let connected = match connecting.await {
                Ok(stream) if port.http.sends_proxy_protocol => announced(stream, ends).await,
                connected => connected,
            };
            match connected {
                Ok(stream) => {
                    flight.succeeded(begun.elapsed());
                    return Ok((stream, flight));
                }
                // A port is taken for one destination only: to another there may be some left.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    tried.push(endpoint.addr);
                    failure = FlowError::NoLocalPorts {
                        endpoint: endpoint.addr,
                        tried: tried.len(),
                    };
                }
                Err(source) => {
                    flight.failed(target.everywhere(), &port.http.balancing);
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
}

/// A connection on which the endpoint was told who the client is.
async fn announced(mut stream: TcpStream, ends: Ends) -> io::Result<TcpStream> {
    // There is always room for so little on a new connection.
    stream.write_all(&announce::header(ends)).await?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
