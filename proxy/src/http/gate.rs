//! The message gate: what every request has to pass before anything looks at it.
//!
//! hyper parses; it leaves to a proxy what RFC 9110 and 9112 ask of one. After the gate a request
//! has one authority (in `Host`), a target in origin form (or `*`), one way to find its end, and no
//! field that pretends to be one of ours. Whatever is ambiguous is refused, never repaired: two
//! parsers that repair differently are how requests are smuggled.

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::serve::HeadLimits;
use super::upgrade::is_extended_connect;
use crate::{Error, ErrorKind};

/// The longest target, bytes.
pub(super) const MAX_TARGET: usize = 16 * 1024;

/// What common gateways take from a client's `_` when it stands for the `-` of a field of theirs.
const SPOOFABLE: [&str; 4] = ["x-forwarded-", "x-real-ip", "x-request-id", "x-scheme"];

/// Fields that describe a connection of HTTP/1. The gate has seen to `Transfer-Encoding` by then.
const OF_CONNECTIONS: [HeaderName; 4] = [
    CONNECTION,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Checks a request and puts it into the one form described above.
///
/// # Errors
/// What is wrong with it; the answer's status and whether the connection ends follow from the kind.
pub fn admit<B>(request: &mut Request<B>) -> Result<(), Error> {
    check_method(request)?;
    check_framing(request.version(), request.headers())?;
    check_connection_fields(request.version(), request.headers())?;
    check_authority(request)?;
    check_target(request.method(), request.uri())?;
    check_expectation(request.headers_mut())?;
    if request.version() >= Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    drop_impostors(request.headers_mut());
    Ok(())
}

/// Bytes of names and values, and fields (proxy L19).
pub(super) fn check_size(headers: &HeaderMap, limits: HeadLimits) -> Result<(), Error> {
    let sum: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let detail = if headers.len() > usize::try_from(limits.fields).unwrap_or(usize::MAX) {
        "the request has too many header fields"
    } else if u64::try_from(sum).unwrap_or(u64::MAX) > limits.bytes {
        "the request's header fields are too long"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::HeadersTooLarge, detail))
}

/// Whether a head says in two ways where its body ends, by `Transfer-Encoding` and `Content-Length`
/// (RFC 9112, 6.3); `None` if it is not complete.
pub(super) fn ends_twice(head: &[u8]) -> Option<bool> {
    let begins = head
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let (mut coded, mut counted) = (false, false);
    let named = |line: &[u8], name: &[u8]| {
        let start = line.get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let mut lines = head[begins..]
        .split_inclusive(|&byte| byte == b'\n')
        .skip(1);
    loop {
        let line = lines.next()?;
        match line.first() {
            Some(b'\r' | b'\n') => return line.ends_with(b"\n").then_some(coded && counted),
            Some(b't' | b'T') => coded |= named(line, b"transfer-encoding:"),
            Some(b'c' | b'C') => counted |= named(line, b"content-length:"),
            _ => {}
        }
    }
}

/// Refuses a request whose head [ends twice](ends_twice).
pub(super) fn check_ends(twice: bool) -> Result<(), Error> {
    if twice {
        return Err(bad("both Transfer-Encoding and Content-Length"));
    }
    Ok(())
}

fn bad(detail: &'static str) -> Error {
    Error::new(ErrorKind::BadRequest, detail)
}

fn check_method<B>(request: &Request<B>) -> Result<(), Error> {
    let (version, method) = (request.version(), request.method());
    // CONNECT would make an open relay of us, TRACE shows a client's fields to scripts. That a
    // WebSocket over HTTP/2 begins with a CONNECT is another matter: it goes where requests go.
    let is_connect =
        *method == Method::CONNECT && !is_extended_connect(version, method, request.extensions());
    if is_connect || *method == Method::TRACE {
        return Err(Error::new(
            ErrorKind::MethodNotAllowed,
            "CONNECT and TRACE are not served",
        ));
    }
    Ok(())
}

/// RFC 9112, 6.1 and 6.3. hyper has already refused what it cannot frame.
fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), Error> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if version != Version::HTTP_11 {
            return Err(bad("Transfer-Encoding outside HTTP/1.1"));
        }
        check_ends(headers.contains_key(CONTENT_LENGTH))?;
        if codings.next().is_some() {
            return Err(bad("more than one Transfer-Encoding"));
        }
        let coding = coding.as_bytes();
        if !coding.eq_ignore_ascii_case(b"chunked") {
            let listed = coding.iter().any(|b| matches!(b, b',' | b' ' | b'\t'));
            return Err(if listed {
                bad("Transfer-Encoding is not exactly `chunked`")
            } else {
                Error::new(ErrorKind::UnknownCoding, "unknown Transfer-Encoding")
            });
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |value: &HeaderValue| {
        let digits = value.as_bytes();
        !digits.is_empty() && digits.len() < 20 && digits.iter().all(u8::is_ascii_digit)
    };
    if lengths.next().is_some_and(|length| !is_number(length)) {
        return Err(bad("Content-Length is not a number"));
    }
    if lengths.next().is_some() {
        return Err(bad("more than one Content-Length"));
    }
    Ok(())
}

/// RFC 9114, 4.2: such a request is malformed. hyper has already refused it over HTTP/2.
fn check_connection_fields(version: Version, headers: &HeaderMap) -> Result<(), Error> {
    if version != Version::HTTP_3 {
        return Ok(());
    }
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    if OF_CONNECTIONS.iter().any(|name| headers.contains_key(name))
        || !headers.get_all(TE).iter().all(is_plain)
    {
        return Err(bad(
            "a field about the connection, which HTTP/3 has none of",
        ));
    }
    Ok(())
}

/// RFC 9112, 3.2 and RFC 9113, 8.3.1: one authority, in `Host` and in the target alike.
fn check_authority<B>(request: &mut Request<B>) -> Result<(), Error> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one Host"));
    }
    let Some(authority) = request.uri().authority() else {
        return match host {
            Some(host) if is_authority(host.as_bytes()) => Ok(()),
            Some(_) => Err(bad("Host is not a host and a port")),
            None if request.version() < Version::HTTP_11 => Ok(()),
            None => Err(bad("no Host")),
        };
    };
    if !is_authority(authority.as_str().as_bytes()) {
        return Err(bad("the target's authority is not a host and a port"));
    }
    match host {
        Some(host)
            if host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes()) => {}
        Some(_) => return Err(bad("Host and the target's authority differ")),
        None => {
            let value = HeaderValue::from_str(authority.as_str())
                .map_err(|_not_a_value| bad("the target's authority is not a host and a port"))?;
            request.headers_mut().insert(HOST, value);
        }
    }
    let known = [Scheme::HTTP, Scheme::HTTPS];
    if !request.uri().scheme().is_some_and(|s| known.contains(s)) {
        return Err(bad("the target is neither http nor https"));
    }
    to_origin_form(request);
    Ok(())
}

/// Leaves path and query of an absolute target.
fn to_origin_form<B>(request: &mut Request<B>) {
    let target = request.uri().path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
}

fn check_target(method: &Method, target: &Uri) -> Result<(), Error> {
    let Some(path_and_query) = target.path_and_query() else {
        return Err(bad("the target has no path"));
    };
    if path_and_query.as_str().len() > MAX_TARGET {
        return Err(Error::new(
            ErrorKind::TargetTooLong,
            "the target is longer than 16 KiB",
        ));
    }
    match target.path() {
        path if path.starts_with('/') => Ok(()),
        "*" if *method == Method::OPTIONS => Ok(()),
        _ => Err(bad("the target has no path")),
    }
}

/// hyper answers `100-continue` by itself when the body is read; nothing else is defined.
fn check_expectation(headers: &mut HeaderMap) -> Result<(), Error> {
    let expected = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !headers.get_all(EXPECT).iter().all(expected) {
        return Err(Error::new(
            ErrorKind::ExpectationFailed,
            "the only expectation that is met is 100-continue",
        ));
    }
    if headers.contains_key(EXPECT) {
        headers.remove(EXPECT);
    }
    Ok(())
}

/// HTTP/2 and 3 may split `Cookie` into several fields; everything behind us expects one (RFC 9113,
/// 8.2.3; RFC 9114, 4.2.1).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = Bytes::from(crumbs.join(&b"; "[..]));
    if let Ok(value) = HeaderValue::from_maybe_shared(joined) {
        headers.insert(COOKIE, value);
    }
}

/// Drops `Proxy` (it becomes `HTTP_PROXY` in CGI programs) and fields that become one of the
/// forwarding fields where `_` and `-` are the same.
fn drop_impostors(headers: &mut HeaderMap) {
    if headers.contains_key("proxy") {
        headers.remove("proxy");
    }
    if !headers.keys().any(|name| name.as_str().contains('_')) {
        return;
    }
    let impostors: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let plain = name.as_str().replace('_', "-");
            name.as_str() != plain
                && (plain == "forwarded" || SPOOFABLE.iter().any(|s| plain.starts_with(s)))
        })
        .cloned()
        .collect();
    for name in impostors {
        headers.remove(name);
    }
}

/// A host name, IPv4 address or bracketed IPv6 address and perhaps a port; or nothing at all.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let (host, port) = if text.starts_with(b"[") {
        let Some(end) = text.iter().position(|&b| b == b']') else {
            return false;
        };
        let (literal, rest) = text.split_at(end + 1);
        let address = literal
            .get(1..end)
            .and_then(|a| std::str::from_utf8(a).ok());
        if address.is_none_or(|a| a.parse::<Ipv6Addr>().is_err()) {
            return false;
        }
        match rest {
            [] => return true,
            [b':', port @ ..] => return is_port(port),
            _ => return false,
        }
    } else {
        match text.iter().position(|&b| b == b':') {
            Some(colon) => {
                let (host, port) = text.split_at(colon);
                (host, port.get(1..))
            }
            None => (text, None),
        }
    };
    port.is_none_or(is_port) && (is_name(host) || (host.is_empty() && port.is_none()))
}

fn is_port(text: &[u8]) -> bool {
    std::str::from_utf8(text)
        .is_ok_and(|t| t.bytes().all(|b| b.is_ascii_digit()) && t.parse::<u16>().is_ok())
}

/// Labels of letters, digits, `-` and `_`, none empty but a last one behind a trailing dot.
fn is_name(text: &[u8]) -> bool {
    let text = text.strip_suffix(b".").unwrap_or(text);
    text.len() <= 253
        && text.split(|&b| b == b'.').all(|label| {
            !label.is_empty()
                && label
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests;
