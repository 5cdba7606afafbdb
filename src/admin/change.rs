//! What can be changed through the admin listener, by whoever is on this machine.
//!
//! `PUT /debug/log` sets the log level, with the directives of `RUST_LOG` as the body; GET tells it.
//! `POST /shutdown` ends the process as SIGTERM does.

use std::net::SocketAddr;

use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use nix::sys::signal::{Signal, raise};

use super::listener::{Answer, answer};
use super::only;
use crate::log;

/// Longest directives, bytes.
const DIRECTIVES: usize = 4 * 1024;

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The log level.
    Log,
    /// Whether the process runs.
    Shutdown,
}

impl Change {
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/debug/log" => Some(Self::Log),
            "/shutdown" => Some(Self::Shutdown),
            _ => None,
        }
    }

    pub(super) async fn respond(self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        match (self, request.method()) {
            (Self::Log, &Method::GET) => match log::directives() {
                Some(directives) => answer(StatusCode::OK, format!("{directives}\n")),
                None => answer(StatusCode::NOT_FOUND, "the log level is fixed\n"),
            },
            (_, &Method::PUT | &Method::POST) if !may_change(peer) => {
                answer(StatusCode::FORBIDDEN, "from this machine only\n")
            }
            (Self::Log, &Method::PUT) => set_log(request).await,
            (Self::Log, _) => only(HeaderValue::from_static("GET, PUT")),
            (Self::Shutdown, &Method::POST) => shut_down(peer),
            (Self::Shutdown, _) => only(HeaderValue::from_static("POST")),
        }
    }
}

/// It is on this machine.
pub(super) fn may_change(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

async fn set_log(request: Request<Incoming>) -> Answer {
    let body = Limited::new(request.into_body(), DIRECTIVES)
        .collect()
        .await;
    let directives = body.map(|body| String::from_utf8(body.to_bytes().into()));
    let Ok(Ok(directives)) = directives else {
        let what = format!("give directives of RUST_LOG, {DIRECTIVES} bytes at most\n");
        return answer(StatusCode::BAD_REQUEST, what);
    };
    match log::set(directives.trim()) {
        Ok(()) => answer(StatusCode::OK, "ok\n"),
        Err(why) => answer(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn shut_down(peer: SocketAddr) -> Answer {
    tracing::warn!(%peer, "asked to shut down");
    match raise(Signal::SIGTERM) {
        Ok(()) => answer(StatusCode::ACCEPTED, "shutting down\n"),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
