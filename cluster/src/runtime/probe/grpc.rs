//! `grpc`: asks `grpc.health.v1.Health/Check`; good is `SERVING`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::{Attempt, connect};

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u8 = 1;

/// The names of the states, by number.
const STATES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Asks once.
pub(super) async fn probe(address: SocketAddr, service: &str, limit: Duration) -> Attempt {
    match timeout(limit, Box::pin(check(address, service, limit))).await {
        Ok(Ok(SERVING)) => Attempt::Success,
        Ok(Ok(state)) => {
            let name = STATES.get(usize::from(state)).unwrap_or(&"UNKNOWN");
            Attempt::Failure(format!("service unhealthy (responded with {name:?})"))
        }
        Ok(Err(message)) => Attempt::Failure(message),
        Err(_elapsed) => {
            let seconds = limit.as_secs();
            Attempt::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {seconds}s: context deadline exceeded"
            ))
        }
    }
}

async fn check(address: SocketAddr, service: &str, limit: Duration) -> Result<u8, String> {
    let failed = |error: hyper::Error| format!("error: health rpc probe failed: {error}");
    let stream = connect(address, limit).await?;
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.map_err(failed)?;
    let request = ::http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message(service)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.map_err(failed)?;
        let status = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .or_else(|| headers.get("grpc-status"));
        match status.and_then(|status| status.to_str().ok()) {
            Some("0") => Ok(state(&body.to_bytes())),
            Some("12") => Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()),
            status => Err(format!("error: health rpc failed with status {}", status.unwrap_or("none"))),
        }
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(match ended {
            Ok(()) => "error: the connection was closed".to_owned(),
            Err(error) => failed(error),
        }),
    }
}

/// A `HealthCheckRequest` with its gRPC frame: no compression, length, field 1 = service.
fn message(service: &str) -> Bytes {
    let mut message = Vec::new();
    if let Ok(length @ 1..=127) = u8::try_from(service.len()) {
        message.extend([0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u8::try_from(message.len()).unwrap_or_default();
    let mut frame = vec![0, 0, 0, 0, length];
    frame.append(&mut message);
    frame.into()
}

/// Field 1 of the `HealthCheckResponse` behind the frame's head; it is 0 if it is not there.
fn state(frame: &[u8]) -> u8 {
    match frame.get(5..) {
        Some([0x08, state, ..]) => *state,
        _ => 0,
    }
}
