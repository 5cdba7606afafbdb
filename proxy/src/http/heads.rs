//! Heads are written anew on either leg.

use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, request};
use http_body::Body as _;
use sealane_config::model::Endpoint;

use super::body::Body;
use super::engine::Upstream;
use super::headers;
use super::upgrade::Wanted;
use crate::{Error, ErrorKind};

/// Turns a client's head into the one that endpoints get.
pub(super) fn write_request(
    parts: &mut request::Parts,
    upstream: Upstream,
    upgrade: Option<&Wanted>,
) -> Result<(), Error> {
    let trailers = headers::takes_trailers(&parts.headers);
    headers::remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(CONTENT_LENGTH);
    if let Some(wanted) = upgrade {
        wanted.write(&mut parts.headers);
    }
    if trailers {
        headers::ask_for_trailers(&mut parts.headers, upstream.is_http2());
    }
    if upstream.is_http2() {
        parts.version = Version::HTTP_2;
        parts.uri = absolute(parts, upstream)?;
    } else {
        parts.version = Version::HTTP_11;
    }
    Ok(())
}

/// HTTP/2 has the authority in the target; `Host` goes (RFC 9113, 8.3.1).
fn absolute(parts: &mut request::Parts, upstream: Upstream) -> Result<Uri, Error> {
    let bad = || Error::new(ErrorKind::BadRequest, "Host is not a host and a port");
    let host = parts.headers.remove(HOST).filter(|host| !host.is_empty());
    let authority = match &host {
        Some(host) => Authority::try_from(host.as_bytes()).map_err(|_invalid| bad())?,
        None => Authority::from_static("localhost"),
    };
    let scheme = if upstream == Upstream::Http2Tls {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let target = parts.uri.path_and_query().cloned();
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(target.unwrap_or_else(|| PathAndQuery::from_static("/")))
        .build()
        .map_err(|_invalid| bad())
}

/// The request for one attempt.
pub(super) fn rebuild(
    parts: &request::Parts,
    body: Body,
    endpoint: &Endpoint,
    upstream: Upstream,
) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.version_mut() = parts.version;
    *request.headers_mut() = parts.headers.clone();
    let body = request.body();
    if !upstream.is_http2() && !body.is_end_stream() && body.size_hint().exact().is_none() {
        // hyper takes it that GET and HEAD have no body unless it is told.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    // A client of HTTP/1.0 need not say which host it means.
    if !upstream.is_http2()
        && !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&endpoint.addr.to_string())
    {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// Turns an endpoint's head into the one that the client gets.
pub(super) fn write_response<B>(response: &mut Response<B>, method: &Method) {
    *response.version_mut() = Version::HTTP_11;
    headers::remove_hop_by_hop(response.headers_mut());
    // hyper frames from the body; where there is none by definition, the length is information.
    let bodiless = *method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED;
    if !bodiless {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}
