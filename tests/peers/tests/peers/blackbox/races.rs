//! One side ends while the other is still busy.

use std::time::Duration;

use sealane_proxy::testing::full;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::*;

/// Longer than what sockets on the way hold.
const BIG: usize = 8 * 1024 * 1024;

fn upload(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n")
}

/// Listens while it sends, up to the end of the answer or of the connection.
async fn answer_during_upload(addr: SocketAddr, end: &str) -> String {
    let (mut receiver, mut sender) = TcpStream::connect(addr).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        sender.write_all(upload(BIG).as_bytes()).await?;
        sender.write_all(&vec![b'x'; BIG]).await?;
        // Open until the answer is there.
        Ok::<_, std::io::Error>(sender)
    });
    let mut answer = Vec::new();
    let hear = async {
        while !answer.ends_with(end.as_bytes()) {
            if !matches!(receiver.read_buf(&mut answer).await, Ok(1..)) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), hear)
        .await
        .expect("an answer");
    let sent = timeout(Duration::from_secs(10), sending).await;
    // The proxy may close instead of reading what nobody needs; it must not stall.
    let _ = sent.expect("no stall");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn proxy_t6_an_endpoint_may_refuse_an_upload_before_it_is_complete() {
    // Refuses at the head, tells so, and reads on for a while as RFC 9112, 9.6 asks for.
    const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\
        Connection: close\r\n\r\nbig";
    for entry in ENTRIES {
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                if read_head(&mut stream).await.is_some() {
                    stream.write_all(ANSWER).await.unwrap();
                    let _ = stream.shutdown().await;
                    let mut rest = Vec::new();
                    let read = stream.read_to_end(&mut rest);
                    let _ = timeout(Duration::from_secs(2), read).await;
                }
            })
        })
        .await;
        let (front, _client) = connected(entry, &[origin.addr]).await;
        let answer = answer_during_upload(entry.addr(&front), "big").await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{entry:?}: {answer}");
        assert!(answer.ends_with("big"), "{entry:?}: {answer}");
    }
}

#[tokio::test]
async fn proxy_t6_an_answer_that_overtakes_its_upload_arrives() {
    for entry in ENTRIES {
        // Answers at once, then takes the rest.
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                if read_head(&mut stream).await.is_some() {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
                    stream.write_all(answer).await.unwrap();
                    let mut left = BIG;
                    let mut buffer = vec![0; 64 * 1024];
                    while left > 0 {
                        match stream.read(&mut buffer).await {
                            Ok(read @ 1..) => left -= read,
                            Ok(0) | Err(_) => return,
                        }
                    }
                }
            })
        })
        .await;
        let (front, _client) = connected(entry, &[origin.addr]).await;
        let answer = answer_during_upload(entry.addr(&front), "early").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{entry:?}: {answer}");
        assert!(answer.ends_with("early"), "{entry:?}: {answer}");
    }
}

#[tokio::test]
async fn proxy_t6_clients_that_drop_their_connections_leave_nothing_behind() {
    for entry in ENTRIES {
        let origin = Origin::start(|_| http::Response::new(full(vec![b'x'; BIG]))).await;
        let (front, client) = connected(entry, &[origin.addr]).await;
        drop(client);
        for (name, bytes) in [
            ("half a head", "GET / HTTP/1.1\r\nHos".to_owned()),
            ("a head", get("/")),
            ("half an upload", format!("{}half", upload(100))),
        ] {
            for _ in 0..20 {
                let mut client = RawClient::connect(entry.addr(&front)).await;
                client.send(&bytes).await;
            }
            // Others are served meanwhile and afterwards.
            let mut next = RawClient::connect(entry.addr(&front)).await;
            next.send(get("/")).await;
            let seen = next.response().await;
            assert_eq!(
                (seen.status, seen.body.len()),
                (200, BIG),
                "{entry:?}, {name}"
            );
        }
    }
}

#[tokio::test]
async fn proxy_t6_l4_an_endpoint_that_says_close_is_not_asked_on_that_connection_again() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    for entry in ENTRIES {
        // It keeps the connection open nevertheless and would answer a second request wrongly.
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                let _ = read_head(&mut stream).await;
                let _ = stream.write_all(ANSWER).await;
                if read_head(&mut stream).await.is_some() {
                    let wrong = b"HTTP/1.1 500 Asked Again\r\nContent-Length: 0\r\n\r\n";
                    let _ = stream.write_all(wrong).await;
                }
            })
        })
        .await;
        let (_front, mut client) = connected(entry, &[origin.addr]).await;
        for _ in 0..10 {
            let seen = client.get(HOST, "/").await;
            assert_eq!((seen.status, seen.text()), (200, "ok"), "{entry:?}");
            assert_eq!(seen.header("connection"), "", "{entry:?}: a hop of its own");
        }
    }
}
