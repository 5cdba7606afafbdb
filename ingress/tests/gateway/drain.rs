//! The end of the gateway's listeners.

use std::io::Write as _;
use std::time::Duration;

use http::Response;
use sealane_proxy::testing::{Origin, eventually, full};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::{Edge, on_worker, prefix};

#[tokio::test]
async fn ingress_t17_the_listeners_end_when_their_connections_have() {
    on_worker(async {
        let web = Origin::slow(|_| {
            Box::pin(async {
                sleep(Duration::from_millis(200)).await;
                Response::new(full("done"))
            })
        })
        .await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let (mut busy, mut idle) = (edge.client().await, edge.client().await);
        busy.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        eventually("the request is in flight", || web.hits() == 1).await;
        edge.shutdown.cancel();
        assert!(idle.closed().await.is_empty());
        let response = busy.response().await;
        assert_eq!(
            (response.text(), response.header("connection")),
            ("done", "close")
        );
        for listener in edge.listeners.drain(..) {
            listener.await.unwrap();
        }
        assert!(TcpStream::connect(edge.http).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn ingress_t17_who_waits_in_the_queue_of_a_listener_is_served() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        // Nothing else runs on this thread meanwhile, so that nobody is accepted.
        let connect = |_| {
            let mut stream = std::net::TcpStream::connect(edge.http).unwrap();
            let head = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
            stream.write_all(head).unwrap();
            stream.set_nonblocking(true).unwrap();
            TcpStream::from_std(stream).unwrap()
        };
        let waiting: Vec<TcpStream> = (0..30).map(connect).collect();
        edge.shutdown.cancel();
        for mut client in waiting {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        assert_eq!(web.hits(), 30);
    })
    .await;
}
