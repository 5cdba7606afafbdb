use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, WriteError};

use super::*;
use crate::limit::{ConnectionCaps, Connections};
use crate::testing::secure::{Certificate, DEADLINE, NAME, Secure, framed, local, query};
use crate::testing::upstream::{Upstream, slow_web};

fn client(certificate: &Certificate, protocol: &str) -> Endpoint {
    let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let tls = QuicClientConfig::try_from(certificate.client(protocol)).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
    endpoint
}

async fn connect(
    endpoint: &Endpoint,
    server: &Secure,
) -> Result<quinn::Connection, ConnectionError> {
    let connecting = endpoint.connect(server.quic, "localhost").unwrap();
    timeout(DEADLINE, connecting).await.unwrap()
}

/// Sends bytes on a stream of its own, and brings what comes back.
async fn exchange(connection: &quinn::Connection, bytes: &[u8]) -> Result<Vec<u8>, ReadToEndError> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    // The server may have stopped the stream or closed the connection.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    let read = receive.read_to_end(MAX_STREAM);
    timeout(DEADLINE, read).await.unwrap()
}

fn parsed(reply: &[u8]) -> Message {
    let length = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
    assert_eq!(length + PREFIX, reply.len());
    Message::from_vec(&reply[PREFIX..]).unwrap()
}

#[tokio::test]
async fn dns_doq_answers_a_query_a_stream() {
    local(async {
        let upstream = Upstream::start(slow_web(200)).await;
        let certificate = Certificate::new();
        let limits = ConnectionLimits::default();
        let server = Secure::start(certificate.files(), Some(upstream.addr), limits);
        let endpoint = client(&certificate, "doq");
        let connection = connect(&endpoint, &server).await.unwrap();
        let (slow, fast) = (framed(&query("web.test.", 0)), framed(&query(NAME, 0)));
        let start = Instant::now();
        let slow = exchange(&connection, &slow);
        let fast = async {
            let reply = exchange(&connection, &fast).await.unwrap();
            (parsed(&reply), start.elapsed())
        };
        let (slow, (fast, time)) = tokio::join!(slow, fast);
        assert_eq!(fast.metadata.id, 0);
        assert_eq!(fast.answers.len(), 1);
        assert!(time < Duration::from_millis(150), "in order: {time:?}");
        assert_eq!(parsed(&slow.unwrap()).answers.len(), 1);
        // More streams in all than may be open at once.
        for _ in 0..2 * MAX_IN_FLIGHT {
            let reply = exchange(&connection, &framed(&query(NAME, 0))).await.unwrap();
            assert_eq!(parsed(&reply).answers.len(), 1);
        }
        server.stop().await;
        let end = timeout(DEADLINE, connection.closed()).await.unwrap();
        assert!(
            matches!(&end, ConnectionError::ApplicationClosed(close) if close.error_code == NO_ERROR),
            "{end:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn dns_doq_what_the_protocol_forbids_closes_the_connection() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let endpoint = client(&certificate, "doq");
        let message = query(NAME, 0);
        let mut response = message.clone();
        response[2] |= 0x80;
        let mut keepalive = Message::from_vec(&message).unwrap();
        let mut edns = Edns::new();
        let option = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(11, Vec::new());
        edns.options_mut().insert(option);
        keepalive.edns = Some(edns);
        for (what, bytes) in [
            ("an id", framed(&query(NAME, 7))),
            ("two messages", framed(&message).repeat(2)),
            ("half a message", framed(&message)[..20].to_vec()),
            ("half a length", vec![0]),
            ("nothing", Vec::new()),
            ("a length of 0", vec![0, 0]),
            ("a response", framed(&response)),
            ("edns-tcp-keepalive", framed(&keepalive.to_vec().unwrap())),
            ("too much", vec![0; MAX_STREAM + 1]),
        ] {
            let connection = connect(&endpoint, &server).await.unwrap();
            assert!(exchange(&connection, &bytes).await.is_err(), "{what}");
            let end = timeout(DEADLINE, connection.closed()).await.unwrap();
            assert!(
                matches!(&end, ConnectionError::ApplicationClosed(close)
                    if close.error_code == PROTOCOL_ERROR),
                "{what}: {end:?}"
            );
        }
        // What is malformed further in is answered, as over any transport.
        let connection = connect(&endpoint, &server).await.unwrap();
        let mut cut = message.clone();
        cut.truncate(20);
        let reply = exchange(&connection, &framed(&cut)).await.unwrap();
        assert_eq!(reply[PREFIX + 3] & 15, 1, "FORMERR");
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_doq_needs_its_protocol_name() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        for protocol in ["h3", ""] {
            let endpoint = client(&certificate, protocol);
            assert!(connect(&endpoint, &server).await.is_err(), "{protocol:?}");
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_doq_a_new_certificate_serves_the_next_connection() {
    local(async {
        let mut certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let endpoint = client(&certificate, "doq");
        let old = connect(&endpoint, &server).await.unwrap();
        certificate.replace();
        assert!(server.identity.reload().unwrap());
        assert!(
            connect(&endpoint, &server).await.is_err(),
            "the old one is served"
        );
        let endpoint = client(&certificate, "doq");
        let new = connect(&endpoint, &server).await.unwrap();
        for connection in [old, new] {
            let reply = exchange(&connection, &framed(&query(NAME, 0)))
                .await
                .unwrap();
            assert_eq!(parsed(&reply).answers.len(), 1);
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b31_connections_over_quic_are_limited() {
    local(async {
        let certificate = Certificate::new();
        let limits = ConnectionLimits {
            connections: Connections::new(ConnectionCaps {
                total: 10,
                per_client: 2,
            }),
            read: Duration::from_millis(200),
            idle: Duration::from_millis(500),
            ..ConnectionLimits::default()
        };
        let server = Secure::start(certificate.files(), None, limits);
        let endpoint = client(&certificate, "doq");
        let first = connect(&endpoint, &server).await.unwrap();
        let second = connect(&endpoint, &server).await.unwrap();
        let refused = connect(&endpoint, &server).await.unwrap_err();
        assert!(
            matches!(refused, ConnectionError::ConnectionClosed(_)),
            "{refused:?}"
        );

        // A stream that does not end is given up, the connection goes on.
        let (mut send, mut receive) = first.open_bi().await.unwrap();
        send.write_all(&framed(&query(NAME, 0))[..20])
            .await
            .unwrap();
        let given_up = timeout(DEADLINE, receive.read_to_end(MAX_STREAM))
            .await
            .unwrap();
        assert!(given_up.is_err());
        assert!(
            matches!(
                send.write_all(&[0]).await,
                Err(WriteError::Stopped(UNSPECIFIED_ERROR))
            ),
            "the stream goes on"
        );
        let reply = exchange(&first, &framed(&query(NAME, 0))).await.unwrap();
        assert_eq!(parsed(&reply).answers.len(), 1);

        // Idle connections are closed, and make room.
        for connection in [first, second] {
            let end = timeout(DEADLINE, connection.closed()).await.unwrap();
            assert!(!matches!(end, ConnectionError::LocallyClosed), "{end:?}");
        }
        let empty = async {
            while server.limits.connections.open() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, empty).await.unwrap();
        assert!(connect(&endpoint, &server).await.is_ok());
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b31_clients_prove_their_address_when_many_come() {
    /// The type of a long header (RFC 9000 section 17.2.5).
    fn is_retry(packet: &[u8]) -> bool {
        packet[0] & 0xb0 == 0xb0
    }
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let endpoint = client(&certificate, "doq");
        // First packets of clients that never say anything more.
        let mut flood = Vec::new();
        let mut retries = 0;
        for _ in 0..2 * UNPROVEN_HANDSHAKES {
            let hole = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let connecting = endpoint
                .connect(hole.local_addr().unwrap(), "localhost")
                .unwrap();
            let mut packet = [0; 2048];
            let (length, _) = timeout(DEADLINE, hole.recv_from(&mut packet))
                .await
                .unwrap()
                .unwrap();
            drop(connecting);
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket
                .send_to(&packet[..length], server.quic)
                .await
                .unwrap();
            let mut answer = [0; 2048];
            timeout(DEADLINE, socket.recv(&mut answer))
                .await
                .unwrap()
                .unwrap();
            retries += usize::from(is_retry(&answer));
            flood.push(socket);
        }
        assert!(retries > 0, "every address was believed");
        assert!(server.limits.connections.open() <= UNPROVEN_HANDSHAKES);
        let connection = connect(&endpoint, &server).await.unwrap();
        let reply = exchange(&connection, &framed(&query(NAME, 0)))
            .await
            .unwrap();
        assert_eq!(parsed(&reply).answers.len(), 1);
        drop((connection, flood));
    })
    .await;
}
