//! Who the request is from, told to the backend.
//!
//! No peer is trusted, so nothing that a client says about itself is passed on under these names:
//! the fields are replaced, never appended to. What it claimed is kept as `X-Original-Forwarded-For`
//! and `-Host`.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

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

/// The longest request id that is taken over from a client.
const MAX_REQUEST_ID: usize = 128;

/// The client of a connection; values are made once and shared by its requests.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    address: HeaderValue,
    port: HeaderValue,
    scheme: HeaderValue,
    /// The connection came over TLS.
    pub(crate) secure: bool,
}

impl Peer {
    /// A client at `address` that came to our `port`.
    pub(crate) fn new(address: IpAddr, port: u16, secure: bool) -> Self {
        let address = address.to_canonical().to_string();
        Self {
            address: HeaderValue::try_from(address)
                .expect("an address is written in digits, letters, dots and colons"),
            port: HeaderValue::from(port),
            scheme: HeaderValue::from_static(if secure { "https" } else { "http" }),
            secure,
        }
    }

    /// Writes the fields. `random` is for the id of a request that brought none.
    pub(crate) fn write(&self, headers: &mut HeaderMap, random: impl FnOnce() -> [u64; 2]) {
        let claimed_for = headers.remove(FORWARDED_FOR);
        let claimed_host = headers.remove(FORWARDED_HOST);
        remove_claims(headers);
        if let Some(value) = claimed_for {
            headers.insert(ORIGINAL_FOR, value);
        }
        if let Some(value) = claimed_host {
            headers.insert(ORIGINAL_HOST, value);
        }
        headers.insert(FORWARDED_FOR, self.address.clone());
        headers.insert(REAL_IP, self.address.clone());
        headers.insert(FORWARDED_PORT, self.port.clone());
        for name in [FORWARDED_PROTO, FORWARDED_SCHEME, SCHEME] {
            headers.insert(name, self.scheme.clone());
        }
        if let Some(host) = headers.get(HOST).cloned() {
            headers.insert(FORWARDED_HOST, host);
        }
        if !headers.get(REQUEST_ID).is_some_and(is_request_id) {
            let [high, low] = random();
            if let Ok(id) = HeaderValue::try_from(format!("{high:016x}{low:016x}")) {
                headers.insert(REQUEST_ID, id);
            }
        }
    }
}

/// Removes what only a gateway may say: all of `X-Forwarded-*`, and the names of verified client
/// certificates.
fn remove_claims(headers: &mut HeaderMap) {
    headers.remove(FORWARDED);
    headers.remove(ORIGINAL_FOR);
    headers.remove(ORIGINAL_HOST);
    let is_claim = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded-") || name.starts_with("ssl-client-")
    };
    if headers.keys().any(is_claim) {
        let claims: Vec<HeaderName> = headers.keys().filter(|n| is_claim(n)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }
}

fn is_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=MAX_REQUEST_ID).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}

#[cfg(test)]
mod tests;
