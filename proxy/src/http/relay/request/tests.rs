use std::cell::RefCell;

use sealane_config::model::HttpPolicy;

use super::*;
use crate::http::{Target, Upstream};
use crate::testing::World;

/// Takes everything, and writes down what it was asked.
struct Anything {
    target: Target,
    seen: RefCell<Vec<(String, String)>>,
}

impl Anything {
    fn new() -> Self {
        let port = World::new().service("api", sealane_config::model::AppProtocol::Http, &[]);
        assert!(std::sync::Arc::ptr_eq(&port.http, &HttpPolicy::shared()));
        Self {
            target: Target::new(port, Upstream::Http1),
            seen: RefCell::default(),
        }
    }
}

impl Front for Anything {
    const STREAMS: bool = true;

    type Route = Target;

    fn route(&self, head: &PlainHead<'_>) -> Option<Target> {
        let seen = (head.host.to_owned(), head.path().to_owned());
        self.seen.borrow_mut().push(seen);
        Some(self.target.clone())
    }

    fn passes(&self, name: &str) -> bool {
        name != "X-Own"
    }

    fn write_fields(&self, _: &PlainHead<'_>, out: &mut Vec<u8>) {
        write_field("x-own", b"ours", out);
    }
}

fn verdict(request: &str) -> (&'static str, String) {
    let mut out = Vec::new();
    let verdict = match read(request.as_bytes(), &Anything::new(), &mut out) {
        Read::Partial => "partial",
        Read::Other => "other",
        Read::Plain(plain) if plain.length == request.len() => "plain",
        Read::Plain(_) => "plain, and more",
    };
    (verdict, String::from_utf8(out).unwrap())
}

#[test]
fn proxy_l3_only_what_is_plain_beyond_doubt_is_relayed() {
    for (name, request, expected) in [
        ("GET", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "plain"),
        (
            "a query",
            "GET /a?b=c&d=%20 HTTP/1.1\r\nHost: a\r\n\r\n",
            "plain",
        ),
        ("a port", "GET / HTTP/1.1\r\nHost: a:80\r\n\r\n", "plain"),
        ("HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "plain"),
        (
            "a body",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok",
            "plain",
        ),
        ("half a head", "GET / HTTP/1.1\r\nHost: a\r\n", "partial"),
        (
            "half a body",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nok",
            "other",
        ),
        (
            "pipelined",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
            "plain, and more",
        ),
        (
            "keep-alive",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
            "plain",
        ),
        (
            "close",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "plain",
        ),
        ("HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "other"),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "other"),
        ("no host", "GET / HTTP/1.1\r\n\r\n", "other"),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "other",
        ),
        (
            "a host that is none",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "other",
        ),
        (
            "absolute form",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "other",
        ),
        ("a fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", "other"),
        (
            "OPTIONS *",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "other",
        ),
        (
            "CONNECT",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "other",
        ),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "other"),
        (
            "a method of its own",
            "PURGE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "other",
        ),
        (
            "chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "other",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "other",
        ),
        (
            "a signed length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n",
            "other",
        ),
        (
            "an upgrade",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "other",
        ),
        (
            "a named field",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nX: y\r\n\r\n",
            "other",
        ),
        (
            "an expectation",
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
            "other",
        ),
        (
            "TE",
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
            "other",
        ),
        (
            "an alias",
            "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: b\r\n\r\n",
            "other",
        ),
        (
            "gRPC",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
            "other",
        ),
        (
            "a blank before the colon",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "other",
        ),
        (
            "a folded field",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "other",
        ),
        ("nonsense", "\x16\x03\x01", "other"),
    ] {
        assert_eq!(verdict(request).0, expected, "{name}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "a".repeat(HEAD));
    assert_eq!(
        verdict(&long).0,
        "other",
        "a head that is too long to wait for"
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(FIELDS)
    );
    assert_eq!(verdict(&many).0, "other", "too many fields");
}

#[test]
fn proxy_l3_fields_about_the_connection_end_here() {
    let (_, out) = verdict(
        "POST /a?b HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: close\r\nProxy: evil\r\nX-Own: theirs\r\nAccept: */*\r\n\
         CONTENT-LENGTH: 02\r\n\r\nok",
    );
    assert_eq!(
        out,
        "POST /a?b HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nx-own: ours\r\ncontent-length: 2\r\n\r\nok"
    );
}

proptest::proptest! {
    #[test]
    fn reliability_b3_any_bytes_get_a_verdict(bytes in proptest::collection::vec(0u8.., 0..512)) {
        let _ = read(&bytes, &Anything::new(), &mut Vec::new());
    }
}
