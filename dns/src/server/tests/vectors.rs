//! Malformed and odd messages with the outcome that is wanted for each, from `tests/data`.

use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::testing::World;
use crate::testing::secure::{self, Certificate, Secure};
use crate::testing::upstream::{Upstream, web};

/// After each message the server has to answer a good query within this time; generous, because
/// tests share the machine.
const ALIVE: Duration = Duration::from_secs(1);
/// How long a stream is waited for that should bring nothing.
const SILENCE: Duration = Duration::from_millis(300);

fn bytes(vector: &Value) -> Vec<u8> {
    let hex = |text: &Value| {
        let text = text.as_str().unwrap().as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
        text.chunks(2)
            .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
            .collect::<Vec<u8>>()
    };
    match vector.get("parts") {
        None => hex(&vector["hex"]),
        Some(parts) => {
            let parts = parts.as_array().unwrap().iter();
            let part =
                |part: &Value| hex(&part["hex"]).repeat(part["times"].as_u64().unwrap() as usize);
            parts.flat_map(part).collect()
        }
    }
}

fn rcode(reply: &[u8]) -> &'static str {
    match reply[3] & 15 {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        9 => "NOTAUTH",
        other => panic!("code {other}"),
    }
}

/// The replies are what the vector's own column asks for.
fn is_as_chosen(ours: &str, replies: &[Vec<u8>]) -> bool {
    let word = ours.split([',', ';', ' ']).next().unwrap();
    match (word, replies) {
        ("silence" | "close", replies) => replies.is_empty(),
        ("NODATA", [reply]) => rcode(reply) == "NOERROR" && reply[7] == 0,
        (code, [reply]) => rcode(reply) == code,
        _ => false,
    }
}

/// The replies match one of the outcomes that are acceptable.
fn is_acceptable(outcome: &Value, query: &[u8], replies: &[Vec<u8>]) -> bool {
    let outcome = outcome.as_object().unwrap();
    if outcome.contains_key("silence") {
        return replies.is_empty();
    }
    let [reply] = replies else {
        return false;
    };
    let holds = |(key, value): (&String, &Value)| match key.as_str() {
        "rcode" => rcode(reply) == value.as_str().unwrap(),
        "an" => u64::from(reply[7]) == value.as_u64().unwrap(),
        "max" => reply.len() as u64 <= value.as_u64().unwrap(),
        "messages" => value.as_u64() == Some(1),
        "echo" => reply.get(12..query.len()) == query.get(12..),
        "not_hex" => {
            let hex: String = reply.iter().map(|byte| format!("{byte:02x}")).collect();
            !hex.contains(value.as_str().unwrap())
        }
        other => panic!("unknown key {other}"),
    };
    outcome.iter().all(holds)
}

async fn over_udp(server: &Running, query: &[u8], silent: bool) -> Vec<Vec<u8>> {
    let socket = client(server.udp).await;
    socket.send(query).await.unwrap();
    if !silent {
        return vec![receive(&socket).await];
    }
    // Datagrams of one client are taken in order: what was answered comes before this reply.
    let marker = self::query("svc1.testns.svc.cluster.local.", "A");
    socket.send(&marker.to_vec().unwrap()).await.unwrap();
    let first = receive(&socket).await;
    match first[..2] == marker.metadata.id.to_be_bytes() {
        true => Vec::new(),
        false => vec![first],
    }
}

async fn over_tcp(server: &Running, stream_bytes: &[u8], silent: bool) -> Vec<Vec<u8>> {
    let mut stream = TcpStream::connect(server.tcp).await.unwrap();
    // The server may have closed already.
    let _ = stream.write_all(stream_bytes).await;
    let mut replies = Vec::new();
    let wait = if silent { SILENCE } else { DEADLINE };
    let first = timeout(wait, stream.read_u16()).await;
    let mut next = first.ok().and_then(Result::ok);
    while let Some(length) = next {
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await.unwrap();
        replies.push(reply);
        next = timeout(Duration::from_millis(20), stream.read_u16())
            .await
            .ok()
            .and_then(Result::ok);
    }
    replies
}

#[tokio::test]
async fn reliability_b26_vectors() {
    let text = include_str!("../../../tests/data/dns-vectors.json");
    let data: Value = serde_json::from_str(text).unwrap();
    local(async {
        let upstream = Upstream::start(web).await;
        let settings = forwarding_to(&upstream);
        let snapshot = World::new().cluster_ip("svc1", &["10.0.0.1"], &[]).build();
        let server = Running::start(snapshot, settings).await;
        let mut failed = Vec::new();
        for vector in data["vectors"].as_array().unwrap() {
            let (id, ours) = (&vector["id"], vector["ours"].as_str().unwrap());
            let query = bytes(vector);
            let silent = ours.starts_with("silence") || ours.starts_with("close");
            let replies = match vector["transport"].as_str() {
                Some("udp") => over_udp(&server, &query, silent).await,
                _ => over_tcp(&server, &query, silent).await,
            };
            let outcomes = vector["acceptable"].as_array().unwrap();
            let acceptable = outcomes
                .iter()
                .any(|outcome| is_acceptable(outcome, &query, &replies));
            if !acceptable || !is_as_chosen(ours, &replies) {
                failed.push(format!("{id}: wanted {ours}, got {replies:02x?}"));
            }
            let start = Instant::now();
            assert_eq!(
                server.ask("web.test.", "A").await.answers.len(),
                1,
                "after {id}"
            );
            assert!(start.elapsed() < ALIVE, "after {id}");
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        server.stop().await;
    })
    .await;
}

/// The replies to what arrives over TLS, over HTTPS and over QUIC.
async fn encrypted(
    server: &Secure,
    certificate: &Certificate,
    query: &[u8],
) -> [(&'static str, Vec<Vec<u8>>); 3] {
    let mut tls = secure::connect(server.tls, certificate.client("dot"))
        .await
        .unwrap();
    tls.write_all(&secure::framed(query)).await.unwrap();
    tls.shutdown().await.unwrap();
    let mut by_tls = Vec::new();
    timeout(DEADLINE, tls.read_to_end(&mut by_tls))
        .await
        .unwrap()
        .unwrap();
    let by_tls = by_tls.get(2..).map(<[u8]>::to_vec);

    let mut https = secure::connect(server.https, certificate.client("http/1.1"))
        .await
        .unwrap();
    let head = format!(
        "POST /dns-query HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/dns-message\r\ncontent-length: {}\r\n\r\n",
        query.len()
    );
    https.write_all(head.as_bytes()).await.unwrap();
    https.write_all(query).await.unwrap();
    let mut by_https = Vec::new();
    timeout(DEADLINE, https.read_to_end(&mut by_https))
        .await
        .unwrap()
        .unwrap();
    let body = by_https.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let by_https = by_https
        .starts_with(b"HTTP/1.1 200")
        .then(|| by_https.split_off(body.unwrap() + 4));

    // Over QUIC the id is 0.
    let mut without_id = query.to_vec();
    without_id.iter_mut().take(2).for_each(|byte| *byte = 0);
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(certificate.client("doq"));
    let config = quinn::ClientConfig::new(Arc::new(config.unwrap()));
    let connecting = endpoint.connect_with(config, server.quic, "localhost");
    let connection = timeout(DEADLINE, connecting.unwrap())
        .await
        .unwrap()
        .unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&secure::framed(&without_id)).await.unwrap();
    // The server may have closed the connection.
    let _ = send.finish();
    let by_quic = timeout(DEADLINE, receive.read_to_end(70_000))
        .await
        .unwrap();
    let by_quic = by_quic.ok().and_then(|reply| {
        let message = reply.get(2..)?;
        Some([&query[..2], &message[2..]].concat())
    });
    [("TLS", by_tls), ("HTTPS", by_https), ("QUIC", by_quic)]
        .map(|(transport, reply)| (transport, reply.into_iter().collect()))
}

/// What carries a message changes nothing in how it is checked.
#[tokio::test]
async fn reliability_b31_vectors_over_encrypted_transports() {
    let text = include_str!("../../../tests/data/dns-vectors.json");
    let data: Value = serde_json::from_str(text).unwrap();
    local(async {
        let upstream = Upstream::start(web).await;
        let certificate = Certificate::new();
        let limits = ConnectionLimits::default();
        let server = Secure::start(certificate.files(), Some(upstream.addr), limits);
        let mut failed = Vec::new();
        for vector in data["vectors"].as_array().unwrap() {
            let (id, ours) = (&vector["id"], vector["ours"].as_str().unwrap());
            let query = bytes(vector);
            // The rest are about frames of TCP.
            if vector["transport"] != "udp" || query.is_empty() {
                continue;
            }
            for (transport, replies) in encrypted(&server, &certificate, &query).await {
                // There edns-tcp-keepalive ends the connection (RFC 9250 section 5.5.2).
                if transport == "QUIC" && id == "keepalive-udp" {
                    assert!(replies.is_empty(), "{replies:02x?}");
                    continue;
                }
                let outcomes = vector["acceptable"].as_array().unwrap();
                let acceptable = outcomes
                    .iter()
                    .any(|outcome| is_acceptable(outcome, &query, &replies));
                if !acceptable || !is_as_chosen(ours, &replies) {
                    failed.push(format!(
                        "{id} over {transport}: wanted {ours}, got {replies:02x?}"
                    ));
                }
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b27_reflectors_get_silence() {
    local(async {
        let snapshot = World::new().cluster_ip("svc1", &["10.0.0.1"], &[]).build();
        let server = Running::start(snapshot, DnsSettings::default()).await;
        // Low ports take a privilege that a test may not have.
        let Ok(chargen) = UdpSocket::bind("127.0.0.1:19").await else {
            return server.stop().await;
        };
        chargen.connect(server.udp).await.unwrap();
        let message = query("svc1.testns.svc.cluster.local.", "A")
            .to_vec()
            .unwrap();
        chargen.send(&message).await.unwrap();
        // By the time of this answer the datagram before it was dealt with.
        server.ask("svc1.testns.svc.cluster.local.", "A").await;
        let none = chargen.try_recv(&mut [0; 512]).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        server.stop().await;
    })
    .await;
}
