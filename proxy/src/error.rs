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
    /// The header fields are too many or too long (431, and the connection is closed).
    HeadersTooLarge,
    /// The body is longer than the Service takes (413, and the connection is closed).
    BodyTooLarge,
    /// An expectation other than `100-continue` (417).
    ExpectationFailed,
    /// A transfer coding other than `chunked` (501, and the connection is closed).
    UnknownCoding,
    /// The request's body comes too slowly (408, and the connection is closed).
    SlowBody,
    /// The client may not come in (403).
    AccessDenied,
    /// The client has to say who it is (401).
    Unauthorized,
    /// Whether the client may come in cannot be found out (500).
    AuthFailed,
    /// The client sends more requests, or has more of them in flight, than the rule lets it (503).
    RateLimited,
    /// The client has shown no certificate, or not one that is accepted (400).
    ClientCertificate,
    /// The request came through a connection for another host (421).
    Misdirected,
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
    /// As many requests are worked on as may be: the proxy's limit, or that of every endpoint (503).
    Overloaded,
    /// The request would be sent again if the retry budget were not used up (503).
    RetryBudget,
    /// The endpoint has an address that is never connected to, such as a loopback one (502).
    AddressRefused,
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
    /// The request as a whole took longer than it may (504).
    RequestTimeout,
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
            Self::HeadersTooLarge => "headers_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::ExpectationFailed => "expectation_failed",
            Self::UnknownCoding => "unknown_coding",
            Self::SlowBody => "slow_body",
            Self::AccessDenied => "access_denied",
            Self::Unauthorized => "unauthorized",
            Self::AuthFailed => "auth_failed",
            Self::RateLimited => "rate_limited",
            Self::ClientCertificate => "client_certificate",
            Self::Misdirected => "misdirected_request",
            Self::NoRoute => "no_route",
            Self::InvalidRoute => "invalid_route",
            Self::NoService => "no_service",
            Self::NoPort => "no_port",
            Self::NoEndpoints => "no_endpoints",
            Self::NoLocalPorts => "no_local_ports",
            Self::Overloaded => "overloaded",
            Self::RetryBudget => "retry_budget",
            Self::AddressRefused => "address_refused",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::BadResponse => "bad_response",
            Self::ResponseTimeout => "response_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::Loop => "loop",
        }
    }

    /// The status of the answer (proxy L20).
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::AccessDenied => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::AuthFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ClientCertificate => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::RateLimited
            | Self::InvalidRoute
            | Self::NoService
            | Self::NoPort
            | Self::NoEndpoints
            | Self::NoLocalPorts
            | Self::Overloaded
            | Self::RetryBudget => StatusCode::SERVICE_UNAVAILABLE,
            Self::AddressRefused
            | Self::ConnectFailed
            | Self::UpstreamReset
            | Self::BadResponse => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::ResponseTimeout | Self::RequestTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
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
                | Self::HeadersTooLarge
                | Self::BodyTooLarge
        )
    }

    /// The flag that Envoy's access log has for it, which dashboards know: `DPE` the client breaks
    /// the protocol, `NR` no route, `UH` no healthy upstream, `UO` overflow, `URX` retries exceeded,
    /// `UF` connect failure, `UAEX` unauthorized, `RL` rate limited, `UC` connection terminated, `UPE` the upstream breaks the protocol, `UT`
    /// upstream timeout.
    pub fn flag(self) -> &'static str {
        match self {
            Self::BadRequest
            | Self::MethodNotAllowed
            | Self::TargetTooLong
            | Self::HeadersTooLarge
            | Self::BodyTooLarge
            | Self::SlowBody
            | Self::ExpectationFailed
            | Self::UnknownCoding => "DPE",
            Self::AccessDenied
            | Self::Unauthorized
            | Self::AuthFailed
            | Self::ClientCertificate => "UAEX",
            Self::RateLimited => "RL",
            Self::Misdirected
            | Self::NoRoute
            | Self::InvalidRoute
            | Self::NoService
            | Self::NoPort
            | Self::Loop => "NR",
            Self::NoEndpoints => "UH",
            Self::Overloaded => "UO",
            Self::RetryBudget => "URX",
            Self::NoLocalPorts
            | Self::AddressRefused
            | Self::ConnectFailed
            | Self::ConnectTimeout => "UF",
            Self::UpstreamReset => "UC",
            Self::BadResponse => "UPE",
            Self::ResponseTimeout | Self::RequestTimeout => "UT",
        }
    }
}
