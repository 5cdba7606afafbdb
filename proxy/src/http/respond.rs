//! Errors become answers: the one place where a status is chosen.

use http::header::{CONNECTION, CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};

use super::body::Body;
use crate::access::Served;
use crate::{Error, ErrorKind};

/// Says why an answer was made by us and not by a backend.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("sealane-error");

/// Says which of the proxies on a request's way made an error answer.
pub const HOP_HEADER: HeaderName = HeaderName::from_static("sealane-hop");

/// A proxy on a request's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hop {
    /// The node's, in front of a Service.
    #[default]
    Node,
    /// The gateway.
    Gateway,
    /// A pod's own.
    Sidecar,
}

impl Hop {
    /// The value of [`HOP_HEADER`].
    pub fn label(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Gateway => "gateway",
            Self::Sidecar => "sidecar",
        }
    }
}

/// Names the hop in an answer that [`error`] made.
pub(super) fn name_hop(response: &mut Response<Body>, hop: Hop) {
    if response.extensions().get::<ErrorKind>().is_some() {
        let value = HeaderValue::from_static(hop.label());
        response.headers_mut().insert(HOP_HEADER, value);
    }
}

/// What of a request decides the form of an error answer. Taken before the request is given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// gRPC wants its own status codes, in an answer that is otherwise a success.
    pub grpc: bool,
    /// HTTP/2 or 3: only HTTP/1 has connections that can be closed.
    pub http2: bool,
}

impl Asked {
    /// From the request's head.
    pub fn new(version: Version, headers: &HeaderMap) -> Self {
        Self {
            grpc: headers
                .get(CONTENT_TYPE)
                .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc")),
            http2: version >= Version::HTTP_2,
        }
    }
}

/// The answer to a request that failed: a short text, and the kind of the error in `sealane-error`.
/// A gRPC client gets the status as `grpc-status` (proxy L20).
pub fn error(error: &Error, asked: Asked) -> Response<Body> {
    error_as(error.kind().status(), error, asked)
}

/// As [`error`], with this status instead of the kind's. A gRPC client gets the same as ever.
pub fn error_as(status: StatusCode, error: &Error, asked: Asked) -> Response<Body> {
    let kind = error.kind();
    let mut response = if asked.grpc && !kind.closes() {
        grpc(kind, error.detail())
    } else {
        text(status, error.detail())
    };
    // For whoever records the answer.
    response.extensions_mut().insert(kind);
    let headers = response.headers_mut();
    headers.insert(ERROR_HEADER, HeaderValue::from_static(kind.label()));
    if kind.closes() && !asked.http2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An answer of our own in plain text.
pub fn text(status: StatusCode, message: &str) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("");
    let body = format!("{} {reason}: {message}\n", status.as_u16());
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(SERVER, HeaderValue::from_static("sealane"));
    response
}

/// Has `by` go out in place of an error answer, such as a page that explains it. What was wrong, and
/// whose answer it was, is told and recorded as before, and a connection that had to be closed still
/// is.
pub fn replace(error: &Response<Body>, by: &mut Response<Body>) {
    let (from, to) = (error.extensions(), by.extensions_mut());
    match from.get::<Served>() {
        Some(served) => drop(to.insert(served.clone())),
        None => drop(to.remove::<Served>()),
    }
    if let Some(kind) = from.get::<ErrorKind>() {
        to.insert(*kind);
        for name in [ERROR_HEADER, CONNECTION] {
            if let Some(value) = error.headers().get(&name) {
                by.headers_mut().insert(name, value.clone());
            }
        }
    }
}

/// A trailers-only answer (gRPC over HTTP/2, "Responses").
fn grpc(kind: ErrorKind, message: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(grpc_status(kind)));
    // Our messages are plain ASCII without `%`, so there is nothing to escape.
    headers.insert("grpc-message", HeaderValue::from_static(message));
    response
}

/// gRPC's code for a kind: 14 unavailable, 12 unimplemented, 4 deadline exceeded, 8 resource
/// exhausted, 7 permission denied, 16 unauthenticated, 10 aborted, 13 internal. A call that nothing takes is unimplemented, as gRPC's own
/// servers say.
fn grpc_status(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ResponseTimeout
        | ErrorKind::RequestTimeout
        | ErrorKind::ConnectTimeout
        | ErrorKind::SlowBody => "4",
        ErrorKind::HeadersTooLarge | ErrorKind::BodyTooLarge | ErrorKind::RateLimited => "8",
        ErrorKind::AccessDenied => "7",
        ErrorKind::Unauthorized | ErrorKind::ClientCertificate => "16",
        ErrorKind::NoRoute | ErrorKind::MethodNotAllowed => "12",
        ErrorKind::Loop => "10",
        ErrorKind::BadRequest
        | ErrorKind::TargetTooLong
        | ErrorKind::ExpectationFailed
        | ErrorKind::AuthFailed
        | ErrorKind::UnknownCoding => "13",
        ErrorKind::Misdirected
        | ErrorKind::InvalidRoute
        | ErrorKind::NoService
        | ErrorKind::NoPort
        | ErrorKind::NoEndpoints
        | ErrorKind::NoLocalPorts
        | ErrorKind::Overloaded
        | ErrorKind::RetryBudget
        | ErrorKind::AddressRefused
        | ErrorKind::ConnectFailed
        | ErrorKind::UpstreamReset
        | ErrorKind::BadResponse => "14",
    }
}
