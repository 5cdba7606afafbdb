//! Which requests the relay takes, and what endpoints get of them.
//!
//! The relay takes what is plain beyond doubt and leaves everything else to hyper and the
//! [gate]: that way there is one place that refuses, and being stricter here
//! than there costs a little speed and nothing else. Plain is a request of HTTP/1.1 with a usual
//! method, a target in origin form, one valid `Host`, and no body or one whose `Content-Length` bytes
//! are all here; nothing that is about the connection but `keep-alive` and `close`.

use std::mem::MaybeUninit;

use http::Version;
use httparse::{Header, Status};

use super::super::gate;
use super::Front;
use crate::scratch;

/// Most fields of a plain request.
const FIELDS: usize = 64;

/// The longest head of a plain request that is waited for, bytes.
pub(super) const HEAD: usize = 16 * 1024;

/// The longest body of a plain request, bytes: it is kept to be sent again.
const BODY: u64 = 48 * 1024;

/// A plain request's head, as far as it decides where it goes.
#[derive(Clone, Copy, Debug)]
pub struct PlainHead<'a> {
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The `Host` field.
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    pub(super) fields: &'a [Header<'a>],
}

impl<'a> PlainHead<'a> {
    /// The path, without the query.
    pub fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or(self.target)
    }

    /// The first value of a field, by its lower-case name.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.fields.iter().find(|f| is(f.name, name));
        found.map(|field| field.value)
    }

    /// The values of all fields of a name, in the order in which they came.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let found = self.fields.iter().filter(move |f| is(f.name, name));
        found.map(|field| field.value)
    }
}

/// What comes of the bytes read so far.
pub(super) enum Read<R> {
    /// The head, or the body behind it, is not complete.
    Partial,
    /// Nothing for the relay.
    Other,
    /// A plain request.
    Plain(Plain<R>),
}

/// A plain request, and what its endpoint gets.
pub(super) struct Plain<R> {
    /// Where it goes.
    pub(super) route: R,
    /// Bytes of it.
    pub(super) length: usize,
    /// It asks for a head only.
    pub(super) is_head: bool,
    /// It can be repeated, RFC 9110, 9.2.2.
    pub(super) idempotent: bool,
    /// It has a body.
    pub(super) has_body: bool,
    /// The client wants the connection closed.
    pub(super) close: bool,
}

/// What the fields come to.
#[derive(Default)]
pub(super) struct Seen<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) length: Option<u64>,
    close: bool,
}

/// Reads a request, and writes what an endpoint gets to `out` if it is plain. As long as there is no
/// request there is no buffer.
pub(super) fn read<F: Front>(bytes: &[u8], front: &F, out: &mut Vec<u8>) -> Read<F::Route> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let head = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) if bytes.len() < HEAD => return Read::Partial,
        Ok(Status::Partial) | Err(_) => return Read::Other,
    };
    let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version)
    else {
        return Read::Other;
    };
    let Some(kind) = Kind::of(method) else {
        return Read::Other;
    };
    let Some(seen) = look(request.headers) else {
        return Read::Other;
    };
    let host = seen.host.filter(|host| gate::is_authority(host));
    let Some(host) = host.and_then(|host| std::str::from_utf8(host).ok()) else {
        return Read::Other;
    };
    if !is_plain_target(target.as_bytes()) {
        return Read::Other;
    }
    let body = seen.length.unwrap_or(0);
    let body = if body <= BODY {
        body as usize
    } else {
        return Read::Other;
    };
    let length = head + body;
    let Some(sent) = bytes.get(head..length) else {
        // It may be long in coming, or never if the client waits for us.
        return Read::Other;
    };
    let head = PlainHead {
        version: Version::HTTP_11,
        host,
        target,
        fields: request.headers,
    };
    let Some(route) = front.route(&head) else {
        return Read::Other;
    };
    *out = scratch::take();
    write(method, &head, seen.length, front, out);
    out.extend_from_slice(sent);
    Read::Plain(Plain {
        route,
        length,
        is_head: kind == Kind::Head,
        idempotent: kind != Kind::Other,
        has_body: body > 0,
        close: seen.close,
    })
}

/// What a usual method asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Head,
    Idempotent,
    Other,
}

impl Kind {
    pub(super) fn of(method: &str) -> Option<Self> {
        match method {
            "HEAD" => Some(Self::Head),
            "GET" | "PUT" | "DELETE" | "OPTIONS" => Some(Self::Idempotent),
            "POST" | "PATCH" => Some(Self::Other),
            _ => None,
        }
    }
}

/// Looks at every field; `None` if one of them is not for the relay.
pub(super) fn look<'a>(fields: &[Header<'a>]) -> Option<Seen<'a>> {
    let mut seen = Seen::default();
    for field in fields {
        match field.name.len() {
            2 if is(field.name, "te") => return None,
            4 if is(field.name, "host") && seen.host.replace(field.value).is_some() => {
                return None;
            }
            6 if is(field.name, "expect") => return None,
            7 if is(field.name, "upgrade") => return None,
            10 if is(field.name, "connection") => seen.close |= closes(field.value)?,
            12 if is(field.name, "content-type")
                && field.value.starts_with(b"application/grpc") =>
            {
                return None;
            }
            14 if is(field.name, "content-length")
                && seen.length.replace(decimal(field.value)?).is_some() =>
            {
                return None;
            }
            14 if is(field.name, "http2-settings") => return None,
            17 if is(field.name, "transfer-encoding") => return None,
            _ => {}
        }
        if field.name.bytes().any(|byte| byte == b'_') {
            return None;
        }
    }
    Some(seen)
}

/// Whether a `Connection` field asks for an end; `None` if it asks for something else, too.
fn closes(value: &[u8]) -> Option<bool> {
    let mut close = false;
    for token in value.split(|&byte| byte == b',') {
        let token = token.trim_ascii();
        if token.eq_ignore_ascii_case(b"close") {
            close = true;
        } else if !token.is_empty() && !token.eq_ignore_ascii_case(b"keep-alive") {
            return None;
        }
    }
    Some(close)
}

/// A path that begins with `/` and a query, in characters that RFC 3986 has for them.
pub(super) fn is_plain_target(target: &[u8]) -> bool {
    target.first() == Some(&b'/')
        && target.iter().all(|byte| {
            matches!(byte,
                b'a'..=b'z' | b'A'..=b'Z' | b'/'..=b';' | b'?' | b'@' | b'=' | b'~' | b'_' | b'!'
                | b'$'..=b'.')
        })
}

/// Writes what an endpoint gets, but for the body.
pub(super) fn write<F: Front>(
    method: &str,
    head: &PlainHead<'_>,
    length: Option<u64>,
    front: &F,
    out: &mut Vec<u8>,
) {
    for part in [method, " ", head.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for field in head.fields {
        let own = match field.name.len() {
            5 => is(field.name, "proxy"),
            10 => is(field.name, "connection") || is(field.name, "keep-alive"),
            14 => is(field.name, "content-length"),
            16 => is(field.name, "proxy-connection"),
            _ => false,
        };
        if !own && front.passes(field.name) {
            write_field(field.name, field.value, out);
        }
    }
    front.write_fields(head, out);
    if let Some(length) = length {
        write_length(length, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes one field.
pub fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_length(length: u64, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to a vector does not fail.
    let _ = write!(out, "content-length: {length}\r\n");
}

/// Whether a field's name is this one, which is in lower case.
pub(super) fn is(name: &str, known: &str) -> bool {
    name.eq_ignore_ascii_case(known)
}

/// Digits only (RFC 9110, 8.6).
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests;
