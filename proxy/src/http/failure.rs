//! Attempts that failed: what the client is told, whether there may be another, and whether it was
//! the endpoint's fault.

use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, StatusCode};
use hyper::client::conn::TrySendError;

use super::body::Body;
use super::patience::Limit;
use super::retry::Reason;
use crate::pool::{ConnectError, Lease};
use crate::{Error, ErrorKind};

/// One attempt that failed.
pub(super) struct Failure {
    /// What the client is told if there is no other attempt.
    pub(super) error: Error,
    /// Whether there may be one.
    pub(super) reason: Reason,
    /// The endpoint is to blame.
    pub(super) blame: bool,
}

impl Failure {
    /// There was no connection.
    pub(super) fn is_connect(&self) -> bool {
        let kind = self.error.kind();
        matches!(
            kind,
            ErrorKind::ConnectFailed | ErrorKind::ConnectTimeout | ErrorKind::AddressRefused
        )
    }

    /// There is nobody to try, or to try again.
    pub(super) fn last(error: Error) -> Self {
        Self {
            error,
            reason: Reason::Final,
            blame: false,
        }
    }
}

/// There is no connection.
pub(super) fn not_connected(error: &ConnectError) -> Failure {
    let error = if error.is_loop() {
        Error::new(ErrorKind::Loop, "the endpoint is the proxy itself")
    } else if error.is_barred() {
        Error::new(
            ErrorKind::AddressRefused,
            "the endpoint has an address that no endpoint may have",
        )
    } else if error.is_timeout() {
        Error::new(
            ErrorKind::ConnectTimeout,
            "no endpoint accepted a connection in time",
        )
    } else if error.is_out_of_ports() {
        // To another endpoint there may be some left: a port is taken for one destination only.
        return Failure {
            error: Error::new(
                ErrorKind::NoLocalPorts,
                "no local port is left to connect from",
            ),
            reason: Reason::NotConnected,
            blame: false,
        };
    } else {
        tracing::debug!(%error, "no connection to an endpoint");
        Error::new(
            ErrorKind::ConnectFailed,
            "no endpoint could be connected to",
        )
    };
    Failure {
        error,
        reason: Reason::NotConnected,
        blame: true,
    }
}

/// The request would be sent again, but too many are.
pub(super) fn over_budget(error: Error) -> Error {
    let detail = "the request failed, and too many have been sent again";
    Error::with(ErrorKind::RetryBudget, detail, error)
}

/// The endpoint took too long.
pub(super) fn timed_out(limit: Limit) -> Failure {
    let (kind, detail, reason) = match limit {
        Limit::Try => (
            ErrorKind::ResponseTimeout,
            "the endpoint did not answer in time",
            Reason::Expired,
        ),
        Limit::Response => (
            ErrorKind::ResponseTimeout,
            "the endpoint did not answer in time",
            Reason::TimedOut,
        ),
        Limit::Send => (
            ErrorKind::ResponseTimeout,
            "the endpoint did not take the request in time",
            Reason::TimedOut,
        ),
        Limit::Request => (
            ErrorKind::RequestTimeout,
            "the request took longer than it may",
            Reason::Final,
        ),
    };
    Failure {
        error: Error::new(kind, detail),
        reason,
        blame: true,
    }
}

/// The answer breaks HTTP's rules.
pub(super) fn malformed() -> Failure {
    Failure {
        error: Error::new(ErrorKind::BadResponse, "the endpoint's answer is malformed"),
        reason: Reason::Final,
        blame: true,
    }
}

/// A connection ended before any byte of an answer.
pub(super) fn closed(reason: Reason) -> Failure {
    let detail = "the endpoint closed the connection before it answered";
    Failure {
        error: Error::new(ErrorKind::UpstreamReset, detail),
        reason,
        // An idle connection that was closed says nothing about the endpoint.
        blame: reason != Reason::Stale,
    }
}

/// A connection ended before the head of the answer was there.
pub(super) fn broke(error: TrySendError<Request<Body>>, lease: &Lease) -> Failure {
    let unsent = error.message().is_some();
    let error = error.into_error();
    let reason = if unsent && lease.is_reused() {
        // Nothing was written: the connection was already closed when it was taken.
        Reason::Stale
    } else if unsent {
        // The endpoint takes connections and closes them: as good as refused.
        Reason::NotConnected
    } else if is_unprocessed(&error) {
        Reason::Refused
    } else if error.is_parse() || error.is_body_write_aborted() || error.is_user() {
        Reason::Final
    } else if lease.is_reused() {
        Reason::Stale
    } else {
        Reason::Broken
    };
    let kind = if error.is_parse() {
        ErrorKind::BadResponse
    } else {
        ErrorKind::UpstreamReset
    };
    let detail = if kind == ErrorKind::BadResponse {
        "the endpoint's answer is malformed"
    } else {
        "the endpoint closed the connection before it answered"
    };
    Failure {
        error: Error::with(kind, detail, error),
        reason,
        // An idle connection that was closed says nothing about the endpoint.
        blame: matches!(
            reason,
            Reason::NotConnected | Reason::Broken | Reason::Final
        ),
    }
}

/// HTTP/2: the endpoint says that it has not looked at the request (RFC 9113, 8.7).
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.is_remote()
                && (h2.is_go_away() || h2.reason() == Some(h2::Reason::REFUSED_STREAM));
        }
        source = cause.source();
    }
    false
}

/// What an answer says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quality {
    Good,
    Bad,
    /// A gRPC call: its status comes in the trailers.
    Open,
}

/// Judges an answer by its head.
pub(super) fn quality(status: StatusCode, headers: &HeaderMap) -> Quality {
    if is_failing(status) {
        return Quality::Bad;
    }
    match grpc_status(headers) {
        Some(code) => quality_of_code(code),
        None if is_grpc(headers) => Quality::Open,
        None => Quality::Good,
    }
}

/// Codes that count against an endpoint: deadline exceeded, resource exhausted, internal,
/// unavailable, data loss.
pub(super) fn quality_of_code(code: u32) -> Quality {
    if matches!(code, 4 | 8 | 13 | 14 | 15) {
        Quality::Bad
    } else {
        Quality::Good
    }
}

/// The `grpc-status` of an answer's head or trailers.
pub(super) fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields
        .get("grpc-status")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Whether a message is part of a gRPC call.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// Why an answer may be a reason to send the request again. One of another proxy of ours that has
/// shed the request is none: it would only have more to shed.
pub(super) fn reason(status: StatusCode, headers: &HeaderMap) -> Reason {
    let shed = headers
        .get(super::respond::ERROR_HEADER)
        .is_some_and(|cause| cause == ErrorKind::Overloaded.label());
    if shed {
        return Reason::Final;
    }
    match grpc_status(headers) {
        Some(0) => Reason::Final,
        Some(code) => Reason::Grpc(code),
        None => Reason::Status(status.as_u16()),
    }
}

/// For how long an endpoint that fails wants no traffic: `Retry-After` of a 503 (RFC 9110, 10.2.3;
/// seconds only), `grpc-retry-pushback-ms` of an unavailable one (gRFC A6). What 429 says is about
/// one client and not about the endpoint.
pub(super) fn asks_to_wait(status: StatusCode, fields: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| fields.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let wait = if grpc_status(fields) == Some(14) {
        number("grpc-retry-pushback-ms").map(Duration::from_millis)
    } else if status == StatusCode::SERVICE_UNAVAILABLE {
        number(RETRY_AFTER.as_str()).map(Duration::from_secs)
    } else {
        None
    };
    wait.filter(|wait| !wait.is_zero())
}

/// Statuses that count against an endpoint: server errors, except those that say that the request
/// asks for something nobody has, and "slow down".
pub(super) fn is_failing(status: StatusCode) -> bool {
    let server_error = status.is_server_error()
        && status != StatusCode::NOT_IMPLEMENTED
        && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED;
    server_error || status == StatusCode::TOO_MANY_REQUESTS
}
