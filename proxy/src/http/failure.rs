//! Attempts that failed: what the client is told, whether there may be another, and whether it was
//! the endpoint's fault.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::body::Body;
use super::retry::Retry;
use crate::pool::{ConnectError, Lease};
use crate::{Error, ErrorKind};

/// One attempt that failed.
pub(super) struct Failure {
    /// What the client is told if there is no other attempt.
    pub(super) error: Error,
    /// Whether there may be one.
    pub(super) retry: Retry,
    /// The endpoint is to blame.
    pub(super) blame: bool,
}

impl Failure {
    /// There was no connection.
    pub(super) fn is_connect(&self) -> bool {
        let kind = self.error.kind();
        matches!(kind, ErrorKind::ConnectFailed | ErrorKind::ConnectTimeout)
    }
}

impl Failure {
    /// There is nobody to try, or to try again.
    pub(super) fn last(error: Error) -> Self {
        Self {
            error,
            retry: Retry::Never,
            blame: false,
        }
    }
}

/// There is no connection.
pub(super) fn not_connected(error: &ConnectError) -> Failure {
    let error = if error.is_timeout() {
        Error::new(
            ErrorKind::ConnectTimeout,
            "no endpoint accepted a connection in time",
        )
    } else {
        tracing::debug!(%error, "no connection to an endpoint");
        Error::new(
            ErrorKind::ConnectFailed,
            "no endpoint could be connected to",
        )
    };
    Failure {
        error,
        retry: Retry::Free,
        blame: true,
    }
}

/// The endpoint took too long.
pub(super) fn timed_out() -> Failure {
    let detail = "the endpoint did not answer in time";
    Failure {
        error: Error::new(ErrorKind::ResponseTimeout, detail),
        retry: Retry::Never,
        blame: true,
    }
}

/// The answer breaks HTTP's rules.
pub(super) fn malformed() -> Failure {
    Failure {
        error: Error::new(ErrorKind::BadResponse, "the endpoint's answer is malformed"),
        retry: Retry::Never,
        blame: true,
    }
}

/// A connection ended before any byte of an answer.
pub(super) fn closed(retry: Retry) -> Failure {
    let detail = "the endpoint closed the connection before it answered";
    Failure {
        error: Error::new(ErrorKind::UpstreamReset, detail),
        retry,
        // An idle connection that was closed says nothing about the endpoint.
        blame: retry != Retry::Stale,
    }
}

/// A connection ended before the head of the answer was there.
pub(super) fn broke(error: TrySendError<Request<Body>>, lease: &Lease) -> Failure {
    let unsent = error.message().is_some();
    let error = error.into_error();
    let retry = if unsent && lease.is_reused() {
        // Nothing was written: the connection was already closed when it was taken.
        Retry::Stale
    } else if unsent {
        // The endpoint takes connections and closes them: as good as refused.
        Retry::Free
    } else if is_unprocessed(&error) {
        Retry::Free
    } else if error.is_parse() || error.is_body_write_aborted() || error.is_user() {
        Retry::Never
    } else if lease.is_reused() {
        Retry::Stale
    } else {
        Retry::Broken
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
        retry,
        // An idle connection that was closed says nothing about the endpoint.
        blame: matches!(retry, Retry::Broken | Retry::Never),
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

/// Answers that count against an endpoint: server errors, except those that say that the request
/// asks for something nobody has, and "slow down".
pub(super) fn is_failure(response: &Response<Incoming>) -> bool {
    is_failing(response.status())
        || response
            .headers()
            .get("grpc-status")
            .is_some_and(|code| matches!(code.as_bytes(), b"4" | b"13" | b"14" | b"15"))
}

/// The same by status alone.
pub(super) fn is_failing(status: StatusCode) -> bool {
    let server_error = status.is_server_error()
        && status != StatusCode::NOT_IMPLEMENTED
        && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED;
    server_error || status == StatusCode::TOO_MANY_REQUESTS
}
