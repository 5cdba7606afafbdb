//! How connections are reused, upgraded and ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::testing::{Origin, eventually, full};

#[tokio::test]
async fn proxy_l17_connections_are_reused() {
    on_worker(async {
        let origin = Origin::named("a").await;
        let front = Front::new(&[origin.addr]).await;
        for _ in 0..3 {
            let mut client = front.client().await;
            for _ in 0..10 {
                assert_eq!(client.get("a.test", "/").await.status, 200);
            }
        }
        assert!(origin.seen().iter().all(|s| s.connection == 0));
    })
    .await;
}

#[tokio::test]
async fn proxy_l26_an_endpoint_that_left_gets_nothing_new_and_finishes_its_work() {
    on_worker(async {
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        let leaving = Origin::raw(move |mut stream, _| {
            let open = Arc::clone(&count);
            Box::pin(async move {
                open.fetch_add(1, Ordering::Relaxed);
                let mut bytes = vec![0; 4096];
                while let Ok(n) = stream.read(&mut bytes).await
                    && n > 0
                {
                    if bytes[..n].starts_with(b"GET /slow") {
                        tokio::time::sleep(ms(300)).await;
                    }
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nleaving")
                        .await
                        .unwrap();
                }
                open.fetch_sub(1, Ordering::Relaxed);
            })
        })
        .await;
        let staying = Origin::named("staying").await;
        let mut front = Front::new(&[leaving.addr]).await;
        let maintain = front.engine.clone();
        let reader = front.world.reader.clone();
        let stop = front.shutdown.clone();
        tokio::task::spawn_local(async move { maintain.maintain(reader, stop).await });
        let (mut quick, mut slow) = (front.client().await, front.client().await);
        slow.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await;
        eventually("the slow request is there", || {
            open.load(Ordering::Relaxed) == 1
        })
        .await;
        assert_eq!(quick.get("a.test", "/").await.text(), "leaving");
        assert_eq!(open.load(Ordering::Relaxed), 2);
        front
            .world
            .service("api", AppProtocol::Detect, &[staying.addr]);
        eventually("the idle connection is closed", || {
            open.load(Ordering::Relaxed) == 1
        })
        .await;
        for _ in 0..10 {
            assert_eq!(quick.get("a.test", "/").await.text(), "staying");
        }
        assert_eq!(slow.response().await.text(), "leaving");
        eventually("the last connection is closed", || {
            open.load(Ordering::Relaxed) == 0
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn ingress_t17_draining_finishes_what_is_in_flight() {
    on_worker(async {
        let origin = Origin::slow(|_| {
            Box::pin(async {
                tokio::time::sleep(ms(200)).await;
                Response::new(full("done"))
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let (mut busy, mut idle, mut silent) = (
            front.client().await,
            front.client().await,
            front.client().await,
        );
        assert_eq!(idle.get("a.test", "/").await.text(), "done");
        busy.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        eventually("the request is in flight", || origin.hits() == 2).await;
        front.shutdown.cancel();
        assert!(idle.closed().await.is_empty());
        assert!(silent.closed().await.is_empty());
        let response = busy.response().await;
        assert_eq!(
            (response.text(), response.header("connection")),
            ("done", "close")
        );
        busy.closed().await;
        front.connections.close();
        front.connections.wait().await;
    })
    .await;
}

/// Serves one connection with these limits. The client sends the first text, waits for an answer if
/// there is a second, sends that, and returns what it got from then on.
async fn served_with(options: ServerOptions, first: &str, second: Option<&str>) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let handler = |_| async { respond::text(http::StatusCode::OK, "fine") };
        serve(stream, &options, handler, CancellationToken::new()).await;
    };
    let client = async {
        let mut client = RawClient::connect(addr).await;
        client.send(first).await;
        if let Some(second) = second {
            assert_eq!(client.response().await.status, 200);
            client.send(second).await;
        }
        String::from_utf8(client.closed().await).unwrap()
    };
    tokio::join!(Box::pin(server), client).1
}

#[tokio::test]
async fn reliability_b13_slow_clients_are_sent_away() {
    on_worker(async {
        let long = ms(60_000);
        let slow_head = || ServerOptions {
            head_timeout: ms(100),
            idle_timeout: long,
            stall_timeout: long,
            ..ServerOptions::default()
        };
        let head = "GET / HTTP/1.1\r\nHost: a.test\r\n";
        let whole = format!("{head}\r\n");
        for (name, first, second) in [
            ("no first byte", "", None),
            ("half a preface", "PRI * HT", None),
            ("half a head", head, None),
            ("half a second head", &*whole, Some(head)),
        ] {
            let rest = served_with(slow_head(), first, second).await;
            assert_eq!(rest, "", "{name}");
        }
        let idle = ServerOptions {
            head_timeout: long,
            idle_timeout: ms(100),
            stall_timeout: long,
            ..ServerOptions::default()
        };
        assert_eq!(served_with(idle, &whole, Some("")).await, "", "idle");
    })
    .await;
}

#[tokio::test]
async fn reliability_f42_a_client_that_takes_nothing_is_sent_away() {
    on_worker(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = RawClient::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        let options = ServerOptions {
            stall_timeout: ms(200),
            ..ServerOptions::default()
        };
        let big = vec![b'x'; 32 * 1024 * 1024];
        let handler = move |_| {
            let big = big.clone();
            async move { Response::new(Body::full(big)) }
        };
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let served = Box::pin(serve(stream, &options, handler, CancellationToken::new()));
        let served = tokio::time::timeout(Duration::from_secs(20), served);
        assert!(served.await.is_ok(), "the connection is still served");
    })
    .await;
}

#[tokio::test]
async fn a_connection_costs_little_memory() {
    on_worker(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stream = TcpStream::connect(addr).await.unwrap();
        let options = ServerOptions::default();
        let handler = |_| async { Response::new(Body::empty()) };
        let size = size_of_val(&serve(stream, &options, handler, CancellationToken::new()));
        assert!(size <= 4096, "a connection takes {size} bytes");
        let front = Front::new(&[]).await;
        let port = front
            .world
            .snapshot
            .backend(&backend("api"))
            .unwrap()
            .clone();
        let target = Target::new(port, Upstream::Http1);
        let request = http::Request::new(Body::empty());
        let size = size_of_val(&front.engine.forward(request, &target));
        assert!(size <= 3072, "a request takes {size} bytes");
    })
    .await;
}

#[tokio::test]
async fn reliability_f40_a_panic_ends_its_connection_and_no_other() {
    on_worker(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(async move {
                    let handler = |request: http::Request<Body>| async move {
                        assert_ne!(request.uri().path(), "/panic", "on purpose");
                        Response::new(Body::full("ok"))
                    };
                    let options = ServerOptions::default();
                    serve(stream, &options, handler, CancellationToken::new()).await;
                });
            }
        });
        let mut other = RawClient::connect(addr).await;
        assert_eq!(other.get("a.test", "/").await.status, 200);
        let mut client = RawClient::connect(addr).await;
        client
            .send("GET /panic HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await;
        assert!(client.closed().await.is_empty());
        assert_eq!(other.get("a.test", "/").await.status, 200);
        let mut new = RawClient::connect(addr).await;
        assert_eq!(new.get("a.test", "/").await.status, 200);
    })
    .await;
}
