//! Which header fields end at us.
//!
//! Both legs are written, never copied: hyper frames a message from its body alone, and the fields
//! that describe a connection are dropped on one side and written anew on the other (RFC 9110,
//! 7.6.1).

use std::time::Duration;

use http::header::{
    self, AsHeaderName, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes the fields that describe the connection on which a message came, and those that its
/// `Connection` field names, except the ones that must not be taken out that way.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        remove_named(headers);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        if headers.contains_key(&name) {
            headers.remove(name);
        }
    }
}

/// Removes the `Connection` field and the fields that it names.
fn remove_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = list(headers, CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !is_protected(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

/// Fields that a client must not be able to remove by naming them in `Connection`: taking them away
/// would change who it is or where the message ends.
fn is_protected(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::AUTHORIZATION
            | header::COOKIE
            | CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::TRAILER
            | header::FORWARDED
    ) || name.as_str().starts_with("x-forwarded-")
        || matches!(name.as_str(), "x-real-ip" | "x-request-id" | "x-scheme")
}

/// The same for a name as it came.
pub(super) fn is_protected_name(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| is_protected(&name))
}

/// Whether a comma-separated field has this token, in any case.
pub(super) fn has_token(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    list(headers, name).any(|t| t.eq_ignore_ascii_case(token.as_bytes()))
}

/// For how long the sender keeps an idle connection (`Keep-Alive: timeout=5`).
pub(super) fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    if !headers.contains_key(KEEP_ALIVE) {
        return None;
    }
    let values = headers.get_all(KEEP_ALIVE);
    values
        .iter()
        .find_map(|value| keep_alive_parameter(value.as_bytes()))
}

/// The same of the value of one field.
pub(super) fn keep_alive_parameter(value: &[u8]) -> Option<Duration> {
    value.split(|&byte| byte == b',').find_map(|parameter| {
        let (name, value) = std::str::from_utf8(parameter).ok()?.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("timeout");
        let seconds = value.trim().parse().ok().filter(|_| is_it);
        seconds.map(Duration::from_secs)
    })
}

/// The client takes trailers (`TE: trailers`).
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(TE) && has_token(headers, TE, "trailers")
}

/// Asks the endpoint for trailers. Over HTTP/1.1 the field describes the connection and says so.
pub(super) fn ask_for_trailers(headers: &mut HeaderMap, http2: bool) {
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if !http2 {
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// The elements of a comma-separated field, over all of its lines, without blanks.
fn list(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}
