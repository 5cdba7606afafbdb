//! What can go wrong with a request, and what its client is told.

use std::error::Error as StdError;

use http::StatusCode;

/// A cause that is kept for the log.
pub(crate) type Source = Box<dyn StdError + Send + Sync>;

/// Why a request was not answered by a backend.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", kind.label())]
pub struct Error {
    kind: ErrorKind,
    detail: &'static str,
    #[source]
    source: Option<Source>,
}

impl Error {
    /// An error of this kind; `detail` says in a few words, for people, what exactly is wrong.
    pub fn new(kind: ErrorKind, detail: &'static str) -> Self {
        Self {
            kind,
            detail,
            source: None,
        }
    }

    /// The same with its cause.
    pub(crate) fn with(kind: ErrorKind, detail: &'static str, source: impl Into<Source>) -> Self {
        Self {
            kind,
            detail,
            source: Some(source.into()),
        }
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// A few words for people.
    pub fn detail(&self) -> &'static str {
        self.detail
    }
}

/// The kinds of [`Error`]. The label is stable: it is the `sealane-error` header of the answer and
/// a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request breaks HTTP's rules, or is ambiguous (400, and the connection is closed).
    BadRequest,
    /// `CONNECT`, `TRACE` (405).
    MethodNotAllowed,
    /// The target is too long (414).
    TargetTooLong,
    /// An expectation other than `100-continue` (417).
    ExpectationFailed,
    /// A transfer coding other than `chunked` (501, and the connection is closed).
    UnknownCoding,
    /// The request's body comes too slowly (408, and the connection is closed).
    SlowBody,
    /// No rule takes the request (404).
    NoRoute,
    /// The rule that takes the request cannot be served as it is written (503).
    InvalidRoute,
    /// The Service does not exist (503).
    NoService,
    /// The Service has no such port (503).
    NoPort,
    /// The Service has no endpoint that is ready (503).
    NoEndpoints,
    /// We have no port or address left to connect to an endpoint from (503).
    NoLocalPorts,
    /// No endpoint could be connected to (502).
    ConnectFailed,
    /// No endpoint accepted a connection in time (504).
    ConnectTimeout,
    /// The endpoint closed the connection before it answered (502).
    UpstreamReset,
    /// The endpoint's answer breaks HTTP's rules (502).
    BadResponse,
    /// The endpoint did not answer in time (504).
    ResponseTimeout,
    /// The request would come back to the proxy that it came from (508).
    Loop,
}

impl ErrorKind {
    /// A stable label.
    pub fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TargetTooLong => "target_too_long",
            Self::ExpectationFailed => "expectation_failed",
            Self::UnknownCoding => "unknown_coding",
            Self::SlowBody => "slow_body",
            Self::NoRoute => "no_route",
            Self::InvalidRoute => "invalid_route",
            Self::NoService => "no_service",
            Self::NoPort => "no_port",
            Self::NoEndpoints => "no_endpoints",
            Self::NoLocalPorts => "no_local_ports",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::BadResponse => "bad_response",
            Self::ResponseTimeout => "response_timeout",
            Self::Loop => "loop",
        }
    }

    /// The status of the answer (proxy L20).
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::InvalidRoute
            | Self::NoService
            | Self::NoPort
            | Self::NoEndpoints
            | Self::NoLocalPorts => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectFailed | Self::UpstreamReset | Self::BadResponse => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout | Self::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    /// The connection cannot be trusted to be in step any more.
    pub(crate) fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::SlowBody
                | Self::UnknownCoding
                | Self::ExpectationFailed
                | Self::TargetTooLong
        )
    }
}
