//! The first message of a TLS connection: broken, hostile, or asking for what there is not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, SupportedProtocolVersion};
use sealane_proxy::testing::Origin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::certificates::Client;
use crate::support::{Edge, on_worker, prefix};
use crate::tls::certificate;

/// Records of an alert begin like this.
const ALERT: u8 = 21;
/// `protocol_version` and `handshake_failure` (RFC 8446, 6.2).
const PROTOCOL_VERSION: u8 = 70;
const HANDSHAKE_FAILURE: u8 = 40;

/// A gateway with two tenants.
async fn edge() -> (Edge, Origin) {
    let web = Origin::named("web").await;
    let mut edge = Edge::new().await;
    edge.service("web", &[web.addr]);
    edge.host("", true, vec![prefix("/", "web")]);
    let table = &mut edge.world.snapshot.certificates;
    for name in ["one.test", "two.test"] {
        table.exact.insert_mut(Arc::from(name), certificate(name));
    }
    edge.world.publish();
    (edge, web)
}

fn config(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// What a client that asks for `name` says first.
pub(crate) fn hello(name: &str, versions: &[&'static SupportedProtocolVersion]) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config(versions)), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same with another name of the same length.
fn hello_for(name: &[u8]) -> Vec<u8> {
    let stand_in = format!("{}.test", "x".repeat(name.len() - 5));
    let mut bytes = hello(&stand_in, &[&TLS12]);
    let at = bytes
        .windows(name.len())
        .position(|window| window == stand_in.as_bytes())
        .unwrap();
    bytes[at..at + name.len()].copy_from_slice(name);
    bytes
}

/// A hello that offers nothing but this version, `3.VERSION`.
fn hello_of_version(version: u8) -> Vec<u8> {
    let mut bytes = hello("one.test", &[&TLS12]);
    let supported = [0, 0x2b, 0, 3, 2, 3, 3];
    let found = bytes.windows(7).position(|window| window == supported);
    let offered = found.expect("TLS 1.2 alone is offered") + 6;
    // Behind the headers of record and message.
    for at in [10, offered] {
        bytes[at] = version;
    }
    bytes
}

/// A hello that offers nothing but this suite.
fn hello_of_suite(suite: [u8; 2]) -> Vec<u8> {
    let mut bytes = hello("one.test", &[&TLS12]);
    // Behind version, random and session id.
    let suites = 44 + usize::from(bytes[43]);
    let length = usize::from(bytes[suites + 1]);
    for offered in bytes[suites + 2..suites + 2 + length].chunks_mut(2) {
        offered.copy_from_slice(&suite);
    }
    bytes
}

/// What the gateway answers to these bytes until it waits or closes.
pub(crate) async fn answer(edge: &Edge, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(edge.https).await.unwrap();
    // A gateway that has heard enough may close before all is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut read = Vec::new();
    let end = timeout(Duration::from_secs(30), stream.read_to_end(&mut read)).await;
    // A reset is an end, too.
    let _ = end.expect("the gateway lets go of a client that has gone");
    read
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn reliability_b23_names_that_are_none_get_nobodys_certificate() {
    on_worker(async {
        let (edge, _web) = edge().await;
        let table = edge.world.snapshot.certificates.clone();
        let of = |name: &str| table.find(name).unwrap().key.cert[0].to_vec();
        let (one, two, nobody) = (
            of("one.test"),
            of("two.test"),
            edge.fallback.cert[0].to_vec(),
        );
        for (name, bytes, wanted) in [
            ("one", hello_for(b"one.test"), Some(&one)),
            ("the other", hello_for(b"two.test"), Some(&two)),
            ("other case", hello_for(b"TWO.Test"), Some(&two)),
            ("none", hello("127.0.0.1", &[&TLS12]), Some(&nobody)),
            ("unknown", hello_for(b"six.test"), Some(&nobody)),
            ("address", hello_for(b"127.0.0.1"), Some(&nobody)),
            ("NUL", hello_for(b"one.test\0.evil"), None),
            ("wildcard", hello_for(b"*.one.test"), None),
            ("spaces", hello_for(b" one.test "), None),
            ("not ASCII", hello_for("öne.test".as_bytes()), None),
        ] {
            let answer = answer(&edge, &bytes).await;
            for certificate in [&one, &two, &nobody] {
                assert_eq!(
                    contains(&answer, certificate),
                    wanted == Some(certificate),
                    "{name}"
                );
            }
            if wanted.is_none() {
                assert_eq!(answer.first(), Some(&ALERT), "{name}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn reliability_b23_garbage_is_refused_and_nobody_else_notices() {
    on_worker(async {
        let (edge, web) = edge().await;
        let good = hello("one.test", &[&TLS12, &TLS13]);
        let mut long = vec![22, 3, 1, 0x40, 0, 1, 1, 0, 0];
        long.resize(5 + 0x4000, 0);
        let more = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
        let endless = [long, more.repeat(8)].concat();
        let mut flipped = good.clone();
        let mut lengths = good.clone();
        lengths[6..9].copy_from_slice(&[0, 0, 1]);
        for byte in flipped.iter_mut().skip(9) {
            *byte ^= 0x55;
        }
        for (name, bytes) in [
            ("one byte", vec![22]),
            ("a record header", good[..5].to_vec()),
            ("half a hello", good[..good.len() / 2].to_vec()),
            ("zeroes", [&[22][..], &[0; 600]].concat()),
            ("ones", [&[22][..], &[255; 600]].concat()),
            ("flipped", flipped),
            ("a length that is none", lengths),
            ("a hello of 64 KiB and more", endless),
            ("empty records", [22, 3, 1, 0, 0].repeat(200)),
            ("an alert", vec![21, 3, 1, 0, 2, 2, 40]),
        ] {
            let hits = web.hits();
            let answer = answer(&edge, &bytes).await;
            let is_refused = answer.is_empty() || matches!(answer[0], ALERT | b'H');
            assert!(is_refused, "{name}: {answer:?}");
            let next = Client::new(None).get(&edge, "one.test", "one.test").await;
            assert_eq!((next.status, web.hits()), (200, hits + 1), "{name}");
        }
    })
    .await;
}

/// Writes a byte at a time.
pub(crate) struct Trickle(pub(crate) TcpStream);

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.0).poll_write(cx, &bytes[..1]))?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn reliability_b23_a_hello_in_pieces_is_one_hello() {
    on_worker(async {
        let (edge, _web) = edge().await;
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let mut config = Client::of_versions(None, versions).config;
            // The smallest that there is.
            config.max_fragment_size = Some(32);
            let stream = TcpStream::connect(edge.https).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let connector = TlsConnector::from(Arc::new(config));
            let name = ServerName::try_from("one.test").unwrap();
            let mut stream = Box::pin(connector.connect(name, Trickle(stream)))
                .await
                .unwrap();
            let head = "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn reliability_b23_protocols_that_are_not_spoken_are_refused() {
    on_worker(async {
        let (edge, web) = edge().await;
        let client = Client::new(None);
        for alpn in [&b"spdy/3"[..], b"h3", b"http/0.9"] {
            let error = client.connect(&edge, "one.test", alpn).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains("NoApplicationProtocol"), "{text}");
        }
        assert_eq!(web.hits(), 0);
    })
    .await;
}

#[tokio::test]
async fn ingress_t6_old_versions_and_suites_are_refused() {
    on_worker(async {
        let (edge, _web) = edge().await;
        for (name, bytes, refused) in [
            ("TLS 1.0", hello_of_version(1), Some(PROTOCOL_VERSION)),
            ("TLS 1.1", hello_of_version(2), Some(PROTOCOL_VERSION)),
            ("TLS 1.2", hello_of_version(3), None),
            ("ECDHE, AES-GCM", hello_of_suite([0xc0, 0x2b]), None),
            (
                "ECDHE, AES-CBC",
                hello_of_suite([0xc0, 0x09]),
                Some(HANDSHAKE_FAILURE),
            ),
            (
                "RSA, AES-GCM",
                hello_of_suite([0, 0x9c]),
                Some(HANDSHAKE_FAILURE),
            ),
            (
                "RSA, 3DES",
                hello_of_suite([0, 0x0a]),
                Some(HANDSHAKE_FAILURE),
            ),
        ] {
            let answer = answer(&edge, &bytes).await;
            let is_alert = answer.first() == Some(&ALERT);
            let description = answer.last().copied().filter(|_| is_alert);
            assert_eq!(description, refused, "{name}: {answer:?}");
        }
        for version in [&TLS12, &TLS13] {
            let client = Client::of_versions(None, &[version]);
            assert_eq!(client.get(&edge, "one.test", "one.test").await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t6_sessions_are_resumed_by_ticket_but_bring_no_early_data() {
    on_worker(async {
        let ((edge, _web), (other, _other_web)) = (edge().await, edge().await);
        let mut client = Client::new(None);
        client.config.enable_early_data = true;
        for is_resumed in [false, true] {
            let answer = client.get(&edge, "one.test", "one.test").await;
            assert_eq!(answer.handshake == HandshakeKind::Resumed, is_resumed);
        }
        // A ticket is there, but it does not allow early data, which could be replayed.
        let name = ServerName::try_from("one.test").unwrap();
        let mut next = ClientConnection::new(Arc::new(client.config.clone()), name).unwrap();
        assert!(next.early_data().is_none());
        // Nor is it one for another process, or for another name.
        let answer = client.get(&other, "one.test", "one.test").await;
        assert_ne!(answer.handshake, HandshakeKind::Resumed);
        let answer = client.get(&edge, "two.test", "two.test").await;
        assert_ne!(answer.handshake, HandshakeKind::Resumed);
    })
    .await;
}
