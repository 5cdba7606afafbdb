//! Upgrades, the tunnels behind them, and their ends.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::testing::Origin;

/// Agrees to every upgrade, says what it read before that, and sends everything back.
pub(super) async fn upgrading() -> Origin {
    Origin::raw(|mut stream, _| {
        Box::pin(async move {
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let head = String::from_utf8(head).unwrap();
            let complete = head.ends_with("\r\n\r\n");
            let asked = head.contains("upgrade: websocket") && head.contains("connection: upgrade");
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 X-Complete: {complete}\r\nX-Asked: {asked}\r\n\r\nhello"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
    })
    .await
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

#[tokio::test]
async fn proxy_l5_an_upgrade_becomes_a_tunnel() {
    on_worker(async {
        let origin = upgrading().await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client.send(format!("{UPGRADE}early")).await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.header("upgrade")),
            (101, "websocket")
        );
        assert_eq!(response.header("x-asked"), "true");
        // Nothing behind the head reached the endpoint before it agreed (reliability B6).
        assert_eq!(response.header("x-complete"), "true");
        assert_eq!(client.bytes(10).await, b"helloearly");
        client.send("more").await;
        assert_eq!(client.bytes(4).await, b"more");
        let drained = front.engine.drained();
        client.finish().await;
        assert!(client.closed().await.is_empty());
        drained.await;
    })
    .await;
}

#[tokio::test]
async fn ingress_t17_a_websocket_is_told_that_we_go_away() {
    on_worker(async {
        let (told, mut endpoint_read) = tokio::sync::mpsc::channel(1);
        let (go_on, rest) = tokio::sync::mpsc::channel::<()>(1);
        let rest = Arc::new(tokio::sync::Mutex::new(rest));
        // Sends half a frame, the other half when told to, and then another frame.
        let origin = Origin::raw(move |mut stream, _| {
            let (told, rest) = (told.clone(), Arc::clone(&rest));
            Box::pin(async move {
                read_head(&mut stream).await;
                let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                              Upgrade: websocket\r\n\r\n\x02\x04ab";
                stream.write_all(switch.as_bytes()).await.unwrap();
                rest.lock().await.recv().await.unwrap();
                stream.write_all(b"cd\x02\x01x").await.unwrap();
                let mut read = Vec::new();
                stream.read_to_end(&mut read).await.unwrap();
                told.send(read).await.unwrap();
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client.send(UPGRADE).await;
        assert_eq!(client.response().await.status, 101);
        assert_eq!(client.bytes(4).await, b"\x02\x04ab");
        front.farewell.cancel();
        go_on.send(()).await.unwrap();
        // The frame's rest, and then a Close with the code 1001 instead of the next frame.
        assert_eq!(client.closed().await, b"cd\x88\x02\x03\xe9");
        client.finish().await;
        let read = endpoint_read.recv().await.unwrap();
        assert_eq!(read, b"\x88\x82\0\0\0\0\x03\xe9");
        front.engine.drained().await;
    })
    .await;
}

#[tokio::test]
async fn ingress_t17_a_websocket_that_does_not_answer_is_cut_off() {
    on_worker(async {
        let origin = upgrading().await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client.send(UPGRADE).await;
        assert_eq!(client.response().await.status, 101);
        // The endpoint's greeting is no whole frame, so nothing can be said behind it.
        assert_eq!(client.bytes(5).await, b"hello");
        front.farewell.cancel();
        let ended = tokio::time::timeout(ms(20_000), front.engine.drained());
        ended.await.expect("the tunnel ends");
        assert!(client.closed().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn proxy_l5_a_refused_upgrade_is_an_ordinary_answer() {
    on_worker(async {
        let origin = Origin::named("no").await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client
            .send(format!(
                "{UPGRADE}GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n"
            ))
            .await;
        for _ in 0..2 {
            assert_eq!(client.response().await.text(), "no");
        }
        assert_eq!(origin.seen()[1].target, "/next");
    })
    .await;
}

#[tokio::test]
async fn reliability_b10_an_upgrade_that_nobody_asked_for_is_a_502() {
    on_worker(async {
        let origin = upgrading().await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        let h2c = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
        for request in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", h2c] {
            client.send(request).await;
            let response = client.response().await;
            assert_eq!(
                (response.status, response.header("sealane-error")),
                (502, "bad_response")
            );
        }
    })
    .await;
}
