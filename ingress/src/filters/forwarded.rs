//! Who the request is from, told to the backend.
//!
//! Nothing that a client says about itself is passed on under these names: the fields are replaced,
//! never appended to. What it claimed is kept as `X-Original-Forwarded-For` and `-Host`. Proxies that
//! are trusted are believed ([`Peer::behind`]).

use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use sealane_config::model::TrustedProxies;
use sealane_proxy::http::{PlainHead, write_field};

use crate::tls::Session;

mod origin;
mod standard;

use standard::Hop;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const ORIGINAL_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-original-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SCHEME: HeaderName = HeaderName::from_static("x-scheme");

/// What a client says of itself, and the name under which it is kept.
const CLAIMS: [(HeaderName, HeaderName); 2] = [
    (FORWARDED_FOR, ORIGINAL_FOR),
    (FORWARDED_HOST, ORIGINAL_HOST),
];

/// The fields of the schemes, as they are sent over HTTP/1.1.
const HTTP_LINES: &[u8] =
    b"x-forwarded-proto: http\r\nx-forwarded-scheme: http\r\nx-scheme: http\r\n";
const HTTPS_LINES: &[u8] =
    b"x-forwarded-proto: https\r\nx-forwarded-scheme: https\r\nx-scheme: https\r\n";

/// What an IPv4 client's other fields take at most, bytes.
const LINES: usize = 96;

/// The longest IPv6 address in text, bytes.
const LONGEST_ADDRESS: usize = 39;

/// The longest request id that is taken over from a client.
const MAX_REQUEST_ID: usize = 128;

/// The schemes' values.
static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");

/// The client of a connection, whose values are made once, when the first request asks for them, and
/// shared by all; or that of a request which a trusted proxy has passed on. Every connection has one, so
/// what few of them need is boxed.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address: the only one that is ever asked for.
    pub(crate) ip: IpAddr,
    port: u16,
    /// The client came over TLS.
    pub(crate) secure: bool,
    /// `Forwarded` is written, too.
    standard: bool,
    values: OnceCell<Box<Values>>,
    /// A trusted proxy has said who this is.
    told: Option<Box<Told>>,
    /// The fields that are the same for all requests, but for the scheme's, as they are sent over
    /// HTTP/1.1.
    lines: Vec<u8>,
    /// What the client has shown in a TLS handshake with us.
    pub(crate) session: Option<Rc<Session>>,
}

/// Address and port.
#[derive(Clone, Debug)]
struct Values {
    address: HeaderValue,
    port: HeaderValue,
}

/// What a trusted proxy has said.
#[derive(Clone, Debug)]
struct Told {
    /// The proxy's address, and whether it came to us over TLS.
    by: (IpAddr, bool),
    /// The list that backends get, if it is not the address alone.
    list: Option<HeaderValue>,
    /// The host that the client asked for.
    host: Option<HeaderValue>,
}

impl Peer {
    /// A client at `address` that came to our `port`.
    pub fn new(address: IpAddr, port: u16, secure: bool) -> Self {
        let ip = address.to_canonical();
        let mut lines = Vec::with_capacity(LINES);
        let mut number = Vec::with_capacity(LONGEST_ADDRESS);
        write_address(ip, &mut number);
        for name in [FORWARDED_FOR, REAL_IP] {
            write_field(name.as_str(), &number, &mut lines);
        }
        number.clear();
        write_decimal(port, &mut number);
        write_field(FORWARDED_PORT.as_str(), &number, &mut lines);
        Self {
            ip,
            port,
            secure,
            standard: false,
            values: OnceCell::new(),
            told: None,
            lines,
            session: None,
        }
    }

    /// The client of a request with these fields, if this is a trusted proxy: who it says that the
    /// client is, and how the client came to it. What it does not say, or not in order, is as it is
    /// here. `None`: the client is this one.
    pub(crate) fn behind(&self, proxies: &TrustedProxies, headers: &HeaderMap) -> Option<Self> {
        if !proxies.believes(self.ip) {
            return proxies.standard.then(|| Self {
                standard: true,
                ..self.clone()
            });
        }
        let ip = origin::client(self.ip, proxies, headers);
        let secure = match told(headers, &FORWARDED_PROTO) {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => true,
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => false,
            _ => self.secure,
        };
        let port = told(headers, &FORWARDED_PORT).and_then(|port| port.parse::<u16>().ok());
        let host = told(headers, &FORWARDED_HOST).filter(|host| is_authority(host));
        let list = || self.appended(headers.get_all(&proxies.forwarded_for).iter());
        Some(Self {
            ip,
            port: port.unwrap_or(self.port),
            secure,
            standard: proxies.standard,
            values: OnceCell::new(),
            told: Some(Box::new(Told {
                by: (self.ip, self.secure),
                list: proxies.appends.then(list).flatten(),
                host: host.and_then(|host| HeaderValue::from_str(host).ok()),
            })),
            // Such a request is never relayed.
            lines: Vec::new(),
            session: self.session.clone(),
        })
    }

    /// The client itself has a TLS session with us.
    pub(crate) fn is_over_tls(&self) -> bool {
        self.session.is_some() && self.told.is_none()
    }

    fn values(&self) -> &Values {
        self.values.get_or_init(|| {
            Box::new(Values {
                address: written(self.ip),
                port: self.port.into(),
            })
        })
    }

    fn host(&self) -> Option<&HeaderValue> {
        self.told.as_ref()?.host.as_ref()
    }

    /// A list with our own peer's address behind it.
    fn appended<'a>(&self, list: impl Iterator<Item = &'a HeaderValue>) -> Option<HeaderValue> {
        let mut bytes = Vec::new();
        for value in list.filter(|value| !value.is_empty()) {
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b", ");
        }
        bytes.extend_from_slice(self.values().address.as_bytes());
        HeaderValue::from_bytes(&bytes).ok()
    }

    /// `Forwarded` of a request with these fields: the list of a trusted proxy with the proxy behind
    /// it, or else the client, and the proxy if there is one.
    fn hops(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let host = headers.get(HOST);
        let client = Hop {
            from: self.ip,
            host: self.host().or(host),
            scheme: scheme(self.secure),
        };
        let Some(told) = &self.told else {
            return standard::list(std::iter::empty(), &[client]);
        };
        let (address, secure) = told.by;
        let proxy = Hop {
            from: address,
            host,
            scheme: scheme(secure),
        };
        let told = headers.get_all(FORWARDED).iter();
        if headers.contains_key(FORWARDED) || self.ip == address {
            standard::list(told, &[proxy])
        } else {
            standard::list(told, &[client, proxy])
        }
    }

    /// Whether a field, by its name as it came, is not passed on because it is written here or is a
    /// claim. `X-Request-Id` is: [`Self::write_plain`] writes it.
    pub(crate) fn owns(name: &str) -> bool {
        let begins = |prefix: &str| {
            let begin = name.get(..prefix.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
        };
        match name.as_bytes().first() {
            Some(b'x' | b'X') => {
                begins("x-forwarded-")
                    || [REAL_IP, REQUEST_ID, SCHEME, ORIGINAL_FOR, ORIGINAL_HOST]
                        .iter()
                        .any(|own| name.eq_ignore_ascii_case(own.as_str()))
            }
            Some(b'f' | b'F') => name.eq_ignore_ascii_case(FORWARDED.as_str()),
            Some(b's' | b'S') => begins("ssl-client-"),
            _ => false,
        }
    }

    /// As [`Self::write`], for a request that is relayed.
    pub(crate) fn write_plain(
        &self,
        head: &PlainHead<'_>,
        random: impl FnOnce() -> [u64; 2],
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(&self.lines);
        out.extend_from_slice(match self.secure {
            true => HTTPS_LINES,
            false => HTTP_LINES,
        });
        write_field(FORWARDED_HOST.as_str(), head.host.as_bytes(), out);
        for (claimed, kept) in CLAIMS {
            for value in head.fields(claimed.as_str()) {
                write_field(kept.as_str(), value, out);
            }
        }
        match head.field(REQUEST_ID.as_str()) {
            Some(id) if is_request_id(id) => write_field(REQUEST_ID.as_str(), id, out),
            _ => write_field(REQUEST_ID.as_str(), &hexadecimal(random()), out),
        }
    }

    /// Writes the fields. `random` is for the id of a request that brought none.
    pub fn write(&self, headers: &mut HeaderMap, random: impl FnOnce() -> [u64; 2]) {
        let standard = self.standard.then(|| self.hops(headers)).flatten();
        // Of most requests there are none, and an empty Vec allocates nothing.
        let claims = CLAIMS.map(|(claimed, kept)| {
            let values = headers.get_all(&claimed).iter().cloned();
            let values: Vec<HeaderValue> = values.collect();
            headers.remove(claimed);
            (kept, values)
        });
        remove_claims(headers, self.told.is_some());
        if let Some(standard) = standard {
            headers.insert(FORWARDED, standard);
        }
        for (kept, values) in claims {
            for value in values {
                headers.append(&kept, value);
            }
        }
        let Values { address, port } = self.values();
        let list = self.told.as_ref().and_then(|told| told.list.as_ref());
        headers.insert(FORWARDED_FOR, list.unwrap_or(address).clone());
        headers.insert(REAL_IP, address.clone());
        headers.insert(FORWARDED_PORT, port.clone());
        for name in [FORWARDED_PROTO, FORWARDED_SCHEME, SCHEME] {
            headers.insert(name, scheme(self.secure).clone());
        }
        let host = self.host().or_else(|| headers.get(HOST));
        if let Some(host) = host.cloned() {
            headers.insert(FORWARDED_HOST, host);
        }
        if !headers
            .get(REQUEST_ID)
            .is_some_and(|id| is_request_id(id.as_bytes()))
            && let Ok(id) = HeaderValue::from_bytes(&hexadecimal(random()))
        {
            headers.insert(REQUEST_ID, id);
        }
    }
}

fn scheme(secure: bool) -> &'static HeaderValue {
    if secure { &HTTPS } else { &HTTP }
}

/// The last entry of a list in a field: each proxy adds its own behind those of others.
fn told<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get_all(name).iter().next_back()?;
    let last = value.to_str().ok()?.rsplit(',').next()?.trim();
    Some(last).filter(|last| !last.is_empty())
}

/// What a host with or without a port is written in (RFC 3986, 3.2).
fn is_authority(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']'))
}

fn written(ip: IpAddr) -> HeaderValue {
    HeaderValue::try_from(ip.to_string())
        .expect("an address is written in digits, letters, dots and colons")
}

/// As [`IpAddr`] is displayed, which takes thousands of instructions for IPv4: many connections have one
/// request.
fn write_address(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                write_decimal(octet.into(), out);
            }
        }
        IpAddr::V6(ip) => out.extend_from_slice(ip.to_string().as_bytes()),
    }
}

fn write_decimal(number: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Removes what only a gateway may say: the names of verified client certificates, and all of
/// `X-Forwarded-*`, of which a trusted proxy may say more than is known here.
fn remove_claims(headers: &mut HeaderMap, is_told: bool) {
    headers.remove(FORWARDED);
    headers.remove(ORIGINAL_FOR);
    headers.remove(ORIGINAL_HOST);
    let is_claim = |name: &HeaderName| {
        let name = name.as_str();
        (!is_told && name.starts_with("x-forwarded-")) || name.starts_with("ssl-client-")
    };
    if headers.keys().any(is_claim) {
        let claims: Vec<HeaderName> = headers.keys().filter(|n| is_claim(n)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }
}

/// 32 digits.
fn hexadecimal(numbers: [u64; 2]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (half, number) in digits.chunks_mut(16).zip(numbers) {
        for (at, digit) in half.iter_mut().rev().enumerate() {
            let nibble = (number >> (4 * at)) & 0xf;
            *digit = DIGITS[nibble as usize];
        }
    }
    digits
}

fn is_request_id(bytes: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}

#[cfg(test)]
mod tests;
