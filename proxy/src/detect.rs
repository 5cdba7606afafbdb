//! What a client speaks, from its first bytes.
//!
//! A verdict is given as soon as a prefix decides and not before: `P` may become `POST`, `PUT` or the
//! HTTP/2 preface, so more bytes are needed, while a first byte that starts none of the known
//! protocols decides at once. A split first packet is thus never mistaken for something else.

/// The client preface of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method that is looked at; longer ones are no HTTP here. The longest registered one,
/// `UPDATEREDIRECTREF`, has 17 letters.
const LONGEST_METHOD: usize = 20;

/// No verdict needs more bytes than this.
pub(crate) const ENOUGH: usize = LONGEST_METHOD + 1 + "https://".len();

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// HTTP/1.x in plain text.
    Http1,
    /// HTTP/2 with prior knowledge, in plain text.
    Http2,
    /// Something else, TLS included: bytes to relay.
    Opaque,
}

/// Decides from the bytes read so far; `None` if they do not suffice. With [`ENOUGH`] bytes there is
/// always a verdict.
pub(crate) fn detect(bytes: &[u8]) -> Option<Detected> {
    if bytes.len() >= HTTP2_PREFACE.len() && bytes.starts_with(HTTP2_PREFACE) {
        return Some(Detected::Http2);
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return None;
    }
    http1(bytes)
}

/// A request line begins with a method, one space and a target, which is a path, `*` or an absolute
/// URI (RFC 9112, section 3.2). `CONNECT`, whose target is an authority, asks for a tunnel and is
/// relayed as it is.
fn http1(bytes: &[u8]) -> Option<Detected> {
    let letters = bytes
        .iter()
        .take(LONGEST_METHOD + 1)
        .take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-')
        .count();
    if letters > LONGEST_METHOD {
        return Some(Detected::Opaque);
    }
    match bytes.get(letters) {
        None => None,
        Some(b' ') if letters > 0 => target(&bytes[letters + 1..]),
        Some(_) => Some(Detected::Opaque),
    }
}

fn target(bytes: &[u8]) -> Option<Detected> {
    match bytes.first() {
        None => return None,
        Some(b'/' | b'*') => return Some(Detected::Http1),
        Some(_) => {}
    }
    for scheme in ["http://", "https://"] {
        let length = bytes.len().min(scheme.len());
        if bytes[..length].eq_ignore_ascii_case(&scheme.as_bytes()[..length]) {
            return (length == scheme.len()).then_some(Detected::Http1);
        }
    }
    Some(Detected::Opaque)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Detected::{Http1, Http2, Opaque};

    #[test]
    fn proxy_l1_a_prefix_decides_as_early_as_it_can() {
        for (name, bytes, at, expected) in [
            ("GET", &b"GET / HTTP/1.1\r\n"[..], 5, Http1),
            ("POST", b"POST /a HTTP/1.1\r\n", 6, Http1),
            ("a registered method", b"PROPFIND /dav HTTP/1.1", 10, Http1),
            ("OPTIONS *", b"OPTIONS * HTTP/1.1", 9, Http1),
            ("absolute form", b"GET http://a/ HTTP/1.1", 11, Http1),
            (
                "absolute form, https",
                b"GET HTTPS://a/ HTTP/1.1",
                12,
                Http1,
            ),
            ("the HTTP/2 preface", HTTP2_PREFACE, 24, Http2),
            ("not quite the preface", b"PRI / HTTP/1.1", 5, Http1),
            ("TLS", b"\x16\x03\x01\x02\x00\x01", 1, Opaque),
            ("Redis", b"*1\r\n$4\r\nPING\r\n", 1, Opaque),
            ("Redis, typed in", b"PING\r\n", 5, Opaque),
            ("Redis, a get that is typed in", b"GET key\r\n", 5, Opaque),
            ("SMTP", b"EHLO relay.example\r\n", 6, Opaque),
            ("NATS", b"CONNECT {\"verbose\"", 9, Opaque),
            ("a tunnel", b"CONNECT a:443 HTTP/1.1", 9, Opaque),
            ("memcached", b"get key\r\n", 1, Opaque),
            ("PostgreSQL", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 1, Opaque),
            ("shouting", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAA", 21, Opaque),
            ("a space first", b" / HTTP/1.1", 1, Opaque),
        ] {
            for length in 0..at {
                assert_eq!(detect(&bytes[..length]), None, "{name} at {length}");
            }
            for length in at..=bytes.len() {
                assert_eq!(
                    detect(&bytes[..length]),
                    Some(expected),
                    "{name} at {length}"
                );
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_verdict_is_never_taken_back_and_always_reached(
            bytes in proptest::collection::vec(0u8..128, ENOUGH..64),
        ) {
            let mut verdict = None;
            for length in 0..=bytes.len() {
                let now = detect(&bytes[..length]);
                if verdict.is_some() {
                    assert_eq!(now, verdict);
                }
                verdict = now;
            }
            assert!(verdict.is_some());
        }
    }
}
