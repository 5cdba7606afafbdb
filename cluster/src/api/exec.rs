//! `…/pods/NAME/exec` over WebSocket (Z1, Z2).
//!
//! Everything that can fail fails before the upgrade, so the client gets a Status. Afterwards each
//! message carries a channel number and data: 0 input, 1 output, 2 error output, 3 the Status at
//! the end, 4 terminal sizes, 255 the number of a channel that the client closes (v5).

mod protocol;
mod session;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::header::{SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::body::ApiBody;
use super::log::{container, no_agent, pod_key, stream_failed};
use super::query::Query;
use super::server::{ApiServer, Call};
use super::status::ApiError;
use super::watch::shutdown_of;
use crate::streams::{ExecOptions, PodStreams};
use protocol::Protocol;

impl ApiServer {
    pub(super) async fn exec(&self, call: Call) -> Result<Response<ApiBody>, ApiError> {
        let name = call.path.name();
        let pod = self
            .store()
            .get(&call.path.key())
            .ok_or_else(|| ApiError::not_found(call.path.resource, name))?;
        let flags = ["stdin", "stdout", "stderr"];
        let asked = call.query.non_empty("container");
        let options = exec_options(&call.query, flags, container(name, &pod, asked)?)?;
        let streams = self.streams().ok_or_else(no_agent)?;
        answer(call.parts, &pod, options, &*streams).await
    }
}

/// Starts the command and turns the connection into its WebSocket.
pub(super) async fn answer(
    parts: Parts,
    pod: &Value,
    options: ExecOptions,
    streams: &dyn PodStreams,
) -> Result<Response<ApiBody>, ApiError> {
    let key = check_upgrade(&parts)?;
    let offered = parts.headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let protocol = Protocol::choose(offered.iter().filter_map(|value| value.to_str().ok()))?;
    let session = streams
        .exec(pod_key(pod), options.clone())
        .await
        .map_err(stream_failed)?;

    let shutdown = shutdown_of(&parts);
    let upgrade = hyper::upgrade::on(Request::from_parts(parts, ()));
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let relay = session::run(upgraded, protocol, &options, session);
                tokio::select! {
                    () = relay => {}
                    () = shutdown.cancelled() => {}
                }
            }
            Err(error) => tracing::debug!(%error, "exec connection was not upgraded"),
        }
    });
    switching_protocols(protocol, &key)
}

/// Checks that the request is a WebSocket handshake on a connection that can be upgraded; gives
/// its key.
fn check_upgrade(parts: &Parts) -> Result<Vec<u8>, ApiError> {
    let upgrade = parts
        .headers
        .get(UPGRADE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if upgrade.to_ascii_lowercase().starts_with("spdy/") {
        return Err(ApiError::bad_request(
            "SPDY is not supported here; use a client that streams over WebSocket (kubectl 1.31 or later)",
        ));
    }
    let key = parts.headers.get(SEC_WEBSOCKET_KEY);
    let version = parts.headers.get(SEC_WEBSOCKET_VERSION);
    let upgradable = parts.extensions.get::<OnUpgrade>().is_some();
    match key {
        Some(key)
            if upgrade.eq_ignore_ascii_case("websocket")
                && version.is_some_and(|version| version == "13")
                && upgradable =>
        {
            Ok(key.as_bytes().to_vec())
        }
        _ => Err(ApiError::bad_request("Upgrade request required")),
    }
}

/// Names of the query's parameters for the three streams: the API server and the kubelet differ.
pub(super) type StreamFlags = [&'static str; 3];

/// Reads the query of an exec request.
pub(super) fn exec_options(
    query: &Query,
    [stdin, stdout, stderr]: StreamFlags,
    container: String,
) -> Result<ExecOptions, ApiError> {
    let tty = query.flag("tty");
    let options = ExecOptions {
        container,
        command: query.all("command").map(str::to_owned).collect(),
        stdin: query.flag(stdin),
        stdout: query.flag(stdout),
        stderr: query.flag(stderr) && !tty,
        tty,
    };
    if !(options.stdin || options.stdout || options.stderr) {
        return Err(ApiError::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    if options.command.is_empty() {
        return Err(ApiError::bad_request("you must specify a command"));
    }
    Ok(options)
}

fn switching_protocols(protocol: Protocol, key: &[u8]) -> Result<Response<ApiBody>, ApiError> {
    let accept = HeaderValue::from_str(&derive_accept_key(key))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut response = Response::new(ApiBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.name().is_empty() {
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(protocol.name()),
        );
    }
    Ok(response)
}
