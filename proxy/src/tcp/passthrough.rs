//! Connections of a gateway's clients that are relayed as bytes.

use sealane_config::model::ServiceKey;
use tokio::net::TcpStream;

use super::announce::Ends;
use super::flow::Flows;
use super::metrics::Metrics;
use super::relay::relay_counted;
use crate::http::{Engine, Target};
use crate::sidecar::Direction;

/// Relays connections as bytes, each to one endpoint of a Service port.
pub struct Passthrough {
    engine: Engine,
    flows: Flows,
    metrics: Metrics,
}

impl Passthrough {
    /// One that chooses endpoints and connects to them as `engine` does.
    pub fn new(engine: Engine) -> Self {
        Self {
            flows: Flows::new(engine.connector().clone()),
            metrics: Metrics::new(Direction::Outbound),
            engine,
        }
    }

    /// Relays a connection of which `first` was read already, until both sides have ended their
    /// streams or nothing has moved for an hour. Without an endpoint it is reset.
    pub async fn serve(&self, mut stream: TcpStream, first: Vec<u8>, ends: Ends, target: &Target) {
        let service: &ServiceKey = &target.port.service;
        let metrics = self.metrics.of(Some(service));
        match self
            .flows
            .connect(ends, target, self.engine.balancer())
            .await
        {
            Ok((mut upstream, _flight)) => {
                relay_counted(&mut stream, &mut upstream, first, &metrics).await;
            }
            Err(error) => {
                metrics.failed(error.label());
                let client = ends.client;
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::debug!(%client, %service, error, "no endpoint");
                reset(&stream);
            }
        }
    }

    /// To be called every [`UPKEEP`](crate::live::UPKEEP).
    pub fn upkeep(&self) {
        self.metrics.upkeep();
    }
}

/// Has a connection reset once it is dropped.
pub fn reset(stream: &TcpStream) {
    // Fails only on a connection that is gone anyhow.
    let _ = stream.set_zero_linger();
}
