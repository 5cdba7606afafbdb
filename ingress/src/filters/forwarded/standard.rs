//! `Forwarded` (RFC 7239): who the request is from, in the field that has a standard.

use std::net::IpAddr;

use http::HeaderValue;

/// One hop: who sent a request, to which host, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop<'a> {
    pub(super) from: IpAddr,
    pub(super) host: Option<&'a HeaderValue>,
    pub(super) scheme: &'a HeaderValue,
}

/// The list `before`, if any, and the hops behind it.
pub(super) fn list<'a>(
    before: impl Iterator<Item = &'a HeaderValue>,
    hops: &[Hop<'_>],
) -> Option<HeaderValue> {
    let mut bytes = Vec::with_capacity(64);
    for value in before.filter(|value| !value.is_empty()) {
        separate(&mut bytes);
        bytes.extend_from_slice(value.as_bytes());
    }
    for hop in hops {
        separate(&mut bytes);
        hop.write(&mut bytes);
    }
    HeaderValue::from_bytes(&bytes).ok()
}

fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.extend_from_slice(b", ");
    }
}

impl Hop<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let from = match self.from {
            IpAddr::V4(address) => format!("for={address}"),
            // Section 6: in brackets, and therefore quoted.
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        out.extend_from_slice(from.as_bytes());
        let host = self.host.and_then(|host| host.to_str().ok());
        if let Some(host) = host.filter(|host| super::is_authority(host) && !host.is_empty()) {
            // A colon or bracket is no part of a token.
            let is_token = !host.contains([':', '[', ']']);
            let quote = if is_token { "" } else { "\"" };
            out.extend_from_slice(format!(";host={quote}{host}{quote}").as_bytes());
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(self.scheme.as_bytes());
    }
}
