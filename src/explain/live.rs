//! A running instance, asked over its admin listener.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::ExplainOptions;
use super::model::Explanation;
use crate::exit::Failure;
use crate::up::settings::default_data_dir;

/// File of the data directory in which `sealane up` says where its admin listener is.
pub(crate) const ADMIN_FILE: &str = "admin";

/// Where answers come from.
const PATH: &str = "/debug/explain";

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for an instance that may not be there.
const PROBE: Duration = Duration::from_millis(500);

/// Largest answer.
const MAX_ANSWER: usize = 4 << 20;

/// The instance to ask: the one that is named, or `sealane up` of this user if it runs and nothing
/// else is named.
pub(super) async fn instance(options: &ExplainOptions) -> Option<SocketAddr> {
    if options.admin.is_some() {
        return options.admin;
    }
    let source = &options.source;
    if !source.filename.is_empty() || source.kubeconfig.is_some() || source.context.is_some() {
        return None;
    }
    let addr = announced(&default_data_dir()?)?;
    let connected = tokio::time::timeout(PROBE, TcpStream::connect(addr)).await;
    matches!(connected, Ok(Ok(_))).then_some(addr)
}

fn announced(data_dir: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(data_dir.join(ADMIN_FILE)).ok()?;
    text.trim().parse().ok()
}

/// Asks an instance.
///
/// # Errors
/// It does not answer, or does not understand the question.
pub(super) async fn ask(addr: SocketAddr, query: &str) -> Result<Explanation, Failure> {
    let unreachable = |why: String| {
        Failure::Machine(format!(
            "no running instance answers at {addr}: {why}; see --admin"
        ))
    };
    let answer = tokio::time::timeout(TIMEOUT, get(addr, query)).await;
    let answer = answer.map_err(|_elapsed| unreachable("it takes too long".to_owned()))?;
    let (status, body) = answer.map_err(|error| unreachable(format!("{error:#}")))?;
    let text = String::from_utf8_lossy(&body);
    match status {
        StatusCode::OK => serde_json::from_slice(&body)
            .map_err(|error| unreachable(format!("its answer is no explanation ({error})"))),
        StatusCode::BAD_REQUEST => Err(Failure::Input(vec![text.trim().to_owned()])),
        status => Err(unreachable(format!("it answers {status}"))),
    }
}

async fn get(addr: SocketAddr, query: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(addr).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer, after which the connection is closed; its errors are the request's.
    tokio::spawn(connection);
    let request = Request::get(format!("{PATH}?{query}"))
        .header(HOST, addr.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    let body = body.map_err(anyhow::Error::from_boxed)?;
    Ok((status, body.to_bytes()))
}
