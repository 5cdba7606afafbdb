//! Protocols that the proxy does not know, or stops knowing.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::*;

const GREETING: &[u8] = b"220 mail.example ESMTP\r\n";

/// Speaks first, then answers lines.
async fn greeter() -> Origin {
    Origin::raw(|mut stream, _| {
        Box::pin(async move {
            let _ = stream.write_all(GREETING).await;
            let mut line = [0; 6];
            while stream.read_exact(&mut line).await.is_ok() {
                let _ = stream.write_all(b"250 ok\r\n").await;
            }
        })
    })
    .await
}

#[tokio::test]
async fn proxy_t5_l2_a_server_that_speaks_first_is_heard_at_once() {
    let origin = greeter().await;
    let (front, first) = connected(Entry::Node, &[origin.addr]).await;
    drop(first);
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let mut client = RawClient::connect(front.vip).await;
        assert_eq!(client.bytes(GREETING.len()).await, GREETING);
        quickest = quickest.min(started.elapsed());
        client.send("NOOP\r\n").await;
        assert_eq!(client.bytes(8).await, b"250 ok\r\n");
    }
    // The best of a few: these machines are busy.
    assert!(quickest <= Duration::from_millis(150), "{quickest:?}");
}

#[tokio::test]
async fn proxy_t5_l5_a_websocket_passes_in_both_directions_and_to_its_end() {
    const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    for entry in ENTRIES {
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                let head = read_head(&mut stream).await.unwrap().to_lowercase();
                assert!(head.contains("upgrade: websocket"), "{head}");
                // The first frame comes in the same packet.
                let both = [SWITCHED, b"hello"].concat();
                stream.write_all(&both).await.unwrap();
                let mut heard = [0; 4];
                while stream.read_exact(&mut heard).await.is_ok() {
                    stream.write_all(&heard).await.unwrap();
                }
            })
        })
        .await;
        let (_front, mut client) = connected(entry, &[origin.addr]).await;
        client
            .send(format!(
                "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .await;
        let switched = client.response().await;
        assert_eq!(switched.status, 101, "{entry:?}");
        assert_eq!(switched.header("upgrade"), "websocket", "{entry:?}");
        assert_eq!(client.bytes(5).await, b"hello", "{entry:?}");
        for _ in 0..20 {
            client.send("ping").await;
            assert_eq!(client.bytes(4).await, b"ping", "{entry:?}");
        }
        client.finish().await;
        assert_eq!(client.closed().await, b"", "{entry:?}");
    }
}

#[tokio::test]
async fn proxy_t5_l1_what_only_begins_like_http_is_passed_on_as_it_is() {
    let origin = Origin::raw(|mut stream, _| {
        Box::pin(async move {
            let mut heard = vec![0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut heard).await {
                let _ = stream.write_all(&heard[..read]).await;
            }
        })
    })
    .await;
    let (front, first) = connected(Entry::Node, &[origin.addr]).await;
    drop(first);
    for bytes in [
        &b"PING\r\n"[..],
        b"GET key\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"CONNECT {\"verbose\":false}\r\n",
    ] {
        let mut client = RawClient::connect(front.vip).await;
        client.send(bytes).await;
        assert_eq!(client.bytes(bytes.len()).await, bytes);
    }
}
