//! The head of an endpoint's answer, and what the client gets of it.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use httparse::{Header, Status};

use super::OwnField;
use super::connections::Keep;
use super::framing::Framing;
use super::request::{decimal, is, write_field, write_length};
use crate::clock;

/// The longest head of an answer, bytes.
pub(super) const HEAD: usize = 64 * 1024;

/// Most fields of an answer.
const FIELDS: usize = 256;

/// Where the fields of an answer are put while it is looked at.
pub(in super::super) type Fields<'a> = [MaybeUninit<Header<'a>>; FIELDS];

/// Nothing yet.
pub(in super::super) const fn no_fields<'a>() -> Fields<'a> {
    [const { MaybeUninit::uninit() }; FIELDS]
}

/// The answer breaks HTTP's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Malformed;

/// What comes of the bytes read so far, before anything is written.
pub(in super::super) enum Parsed<'h, 'b> {
    /// The head is not complete.
    Partial,
    /// An interim answer of so many bytes (RFC 9110, 15.2), which is dropped.
    Interim(usize),
    /// The answer's head.
    Final(Head<'h, 'b>),
}

/// The head of an answer as it came.
pub(in super::super) struct Head<'h, 'b> {
    pub(in super::super) status: StatusCode,
    /// Bytes of the head.
    pub(in super::super) length: usize,
    fields: &'h [Header<'b>],
    /// How the body ends.
    pub(in super::super) framing: Framing,
    /// For how long the endpoint keeps the connection.
    pub(in super::super) keep: Keep,
    seen: Seen<'b>,
}

impl<'h, 'b> Head<'h, 'b> {
    /// The fields that the client gets; where there is no body by definition, the length of the one
    /// that another method or another time would have got is among them.
    pub(in super::super) fn passing(&self) -> impl Iterator<Item = &'h Header<'b>> {
        let tells = matches!(self.framing, Framing::Nothing)
            && self.status != StatusCode::NO_CONTENT
            && !self.seen.chunked;
        self.fields.iter().filter(move |field| {
            passes(field, &self.seen) || (tells && is(field.name, "content-length"))
        })
    }
}

/// What comes of the bytes read so far.
#[derive(Debug)]
pub(super) enum Read {
    /// The head is not complete.
    Partial,
    /// An interim answer of so many bytes (RFC 9110, 15.2), which is dropped.
    Interim(usize),
    /// The answer's head.
    Final(Answer),
}

/// The head of an answer, after it was written for the client.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Bytes of the head.
    pub(super) length: usize,
    /// How the body ends.
    pub(super) framing: Framing,
    /// For how long the endpoint keeps the connection.
    pub(super) keep: Keep,
    /// For how long it wants no traffic.
    pub(super) wait: Option<Duration>,
}

/// What the fields come to.
#[derive(Default)]
struct Seen<'a> {
    length: Option<u64>,
    chunked: bool,
    keep: bool,
    /// The `Keep-Alive` field.
    keep_alive: Option<&'a [u8]>,
    dated: bool,
    retry_after: Option<u64>,
    /// `Connection` fields that name others.
    named: Option<&'a [u8]>,
}

/// Parses the head of an answer.
pub(in super::super) fn parse<'h, 'b>(
    bytes: &'b [u8],
    is_head: bool,
    fields: &'h mut Fields<'b>,
) -> Result<Parsed<'h, 'b>, Malformed> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        fields,
    );
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() < HEAD => return Ok(Parsed::Partial),
        Ok(Status::Partial) | Err(_) => return Err(Malformed),
    };
    let is_11 = response.version == Some(1);
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Malformed)?;
    if status.is_informational() {
        // Nobody asked for an upgrade.
        return if status == StatusCode::SWITCHING_PROTOCOLS {
            Err(Malformed)
        } else {
            Ok(Parsed::Interim(length))
        };
    }
    let seen = look(response.headers, is_11)?;
    let nothing = is_head || matches!(status.as_u16(), 204 | 304);
    let framing = match (nothing, seen.chunked, seen.length) {
        (true, _, _) => Framing::Nothing,
        (false, true, _) => Framing::chunked(),
        (false, false, Some(length)) => Framing::Length(length),
        (false, false, None) => Framing::End,
    };
    Ok(Parsed::Final(Head {
        status,
        length,
        fields: response.headers,
        keep: if seen.keep && !matches!(framing, Framing::End) {
            Keep::hinted(seen.keep_alive)
        } else {
            Keep::NOT
        },
        framing,
        seen,
    }))
}

/// Reads the head of an answer, and writes the client's to `out`: with the field `own` in place of
/// the endpoint's of that name, and with `added` if the endpoint has none of that name. `close` says that the client's connection ends with it.
pub(super) fn read(
    bytes: &[u8],
    is_head: bool,
    close: bool,
    (own, added): (Option<OwnField<'_>>, Option<OwnField<'_>>),
    out: &mut Vec<u8>,
) -> Result<Read, Malformed> {
    let mut fields = no_fields();
    let head = match parse(bytes, is_head, &mut fields)? {
        Parsed::Partial => return Ok(Read::Partial),
        Parsed::Interim(length) => return Ok(Read::Interim(length)),
        Parsed::Final(head) => head,
    };
    let Head {
        status,
        length,
        fields,
        framing,
        keep,
        seen,
    } = head;
    write_status(status, out);
    for field in fields {
        if passes(field, &seen) && own.is_none_or(|(name, _)| !is(field.name, name)) {
            write_field(field.name, field.value, out);
        }
    }
    if let Some((name, value)) = own {
        write_field(name, value, out);
    }
    if let Some((name, value)) = added
        && !fields.iter().any(|field| is(field.name, name))
    {
        write_field(name, value, out);
    }
    match (&framing, seen.length) {
        (Framing::Nothing, Some(length)) if status != StatusCode::NO_CONTENT && !seen.chunked => {
            // Of the body that another method or another time would have got.
            write_length(length, out);
        }
        (Framing::Nothing, _) => {}
        (Framing::Length(length), _) => write_length(*length, out),
        (Framing::Chunked(_) | Framing::End, _) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
    }
    finish_head(seen.dated, close, out);
    Ok(Read::Final(Answer {
        status,
        length,
        keep,
        wait: seen
            .retry_after
            .filter(|_| status == StatusCode::SERVICE_UNAVAILABLE)
            .map(Duration::from_secs),
        framing,
    }))
}

impl Answer {
    /// It counts against the endpoint.
    pub(super) fn is_failure(&self) -> bool {
        super::super::failure::is_failing(self.status)
    }
}

/// RFC 9112, 6.3.
fn look<'a>(fields: &[Header<'a>], is_11: bool) -> Result<Seen<'a>, Malformed> {
    let mut seen = Seen {
        keep: is_11,
        ..Seen::default()
    };
    for field in fields {
        match field.name.len() {
            4 if is(field.name, "date") => seen.dated = true,
            10 if is(field.name, "keep-alive") => seen.keep_alive = Some(field.value),
            10 if is(field.name, "connection") => {
                let tokens = field
                    .value
                    .split(|&byte| byte == b',')
                    .map(<[u8]>::trim_ascii);
                for token in tokens {
                    if token.eq_ignore_ascii_case(b"close") {
                        seen.keep = false;
                    } else if !token.eq_ignore_ascii_case(b"keep-alive") {
                        if seen.named.is_some_and(|named| named != field.value) {
                            return Err(Malformed);
                        }
                        seen.named = Some(field.value);
                    }
                }
            }
            11 if is(field.name, "retry-after") => seen.retry_after = decimal(field.value),
            14 if is(field.name, "content-length") => {
                let length = decimal(field.value).ok_or(Malformed)?;
                if seen
                    .length
                    .replace(length)
                    .is_some_and(|other| other != length)
                {
                    return Err(Malformed);
                }
            }
            17 if is(field.name, "transfer-encoding") => {
                let only = !seen.chunked && field.value.eq_ignore_ascii_case(b"chunked");
                if !only || !is_11 {
                    return Err(Malformed);
                }
                seen.chunked = true;
            }
            _ => {}
        }
    }
    Ok(seen)
}

/// Fields that are about the endpoint's connection, or that are written anew, do not pass.
fn passes(field: &Header<'_>, seen: &Seen<'_>) -> bool {
    let own = match field.name.len() {
        2 => is(field.name, "te"),
        7 => is(field.name, "upgrade"),
        10 => is(field.name, "connection") || is(field.name, "keep-alive"),
        14 => is(field.name, "content-length"),
        16 => is(field.name, "proxy-connection"),
        17 => is(field.name, "transfer-encoding"),
        _ => false,
    };
    let named = |list: &[u8]| {
        let mut tokens = list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        tokens.any(|token| token.eq_ignore_ascii_case(field.name.as_bytes()))
            && !super::super::headers::is_protected_name(field.name)
    };
    !own && !seen.named.is_some_and(named)
}

/// Writes the first line.
pub(super) fn write_status(status: StatusCode, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes what is missing of a head: `Date` (RFC 9110, 6.6.1), the end of the connection.
pub(super) fn finish_head(dated: bool, close: bool, out: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    if !dated {
        let second = clock::now() / 1_000_000_000 + 1;
        DATE.with_borrow_mut(|(since, text)| {
            if *since != second {
                *since = second;
                *text = httpdate::fmt_http_date(SystemTime::now());
            }
            write_field("date", text.as_bytes(), out);
        });
    }
    if close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
