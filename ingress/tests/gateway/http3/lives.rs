//! Connections that move, that end, and that are given up.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use sealane_proxy::testing::{Origin, eventually, full};
use tokio::time::sleep;

use super::client::{Client, answer};
use super::{HOST, edge_before};
use crate::support::on_worker;

/// One that takes its time.
async fn slow() -> Origin {
    Origin::slow(|_| {
        Box::pin(async {
            sleep(Duration::from_millis(500)).await;
            Response::new(full("done"))
        })
    })
    .await
}

fn get() -> Request<()> {
    Request::get("https://a.test/").body(()).unwrap()
}

#[tokio::test]
async fn ingress_t5_a_client_keeps_its_request_on_another_port() {
    on_worker(async {
        let web = slow().await;
        let (edge, _) = edge_before(&web, &[]).await;
        let client = Client::new(None);
        let mut connection = client.connect(&edge, HOST).await;
        let mut stream = connection.open(get()).await.unwrap();
        stream.finish().await.unwrap();
        eventually("the request is in flight", || web.hits() == 1).await;
        let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.endpoint.rebind(elsewhere).unwrap();
        assert_eq!(answer(&mut stream).await.unwrap().text(), "done");
        // The connection is the same, and goes on.
        assert_eq!(connection.get(HOST, "/").await.text(), "done");
        assert_eq!(web.hits(), 2);
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_a_client_at_another_address_comes_by_a_new_connection() {
    on_worker(async {
        let web = slow().await;
        let (edge, _) = edge_before(&web, &[]).await;
        let client = Client::new(None);
        let mut connection = client.connect(&edge, HOST).await;
        let mut stream = connection.open(get()).await.unwrap();
        stream.finish().await.unwrap();
        eventually("the request is in flight", || web.hits() == 1).await;
        let elsewhere = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
        client.endpoint.rebind(elsewhere).unwrap();
        assert_eq!(answer(&mut stream).await.unwrap().text(), "done");
        // The next one is the last; what it is from stays what the handshake has shown.
        assert_eq!(connection.get(HOST, "/").await.text(), "done");
        let from = |at: usize| web.seen()[at].header("x-real-ip").to_owned();
        assert_eq!([from(0), from(1)], ["127.0.0.1", "127.0.0.1"]);
        connection.closed().await;
        let again = client.connect(&edge, HOST).await.get(HOST, "/").await;
        assert_eq!((again.text(), from(2).as_str()), ("done", "127.0.0.2"));
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_a_running_answer_is_finished_at_the_end() {
    on_worker(async {
        let web = slow().await;
        let (mut edge, _) = edge_before(&web, &[]).await;
        let client = Client::new(None);
        let (mut busy, mut idle) = (
            client.connect(&edge, HOST).await,
            client.connect(&edge, HOST).await,
        );
        let mut stream = busy.open(get()).await.unwrap();
        stream.finish().await.unwrap();
        eventually("the request is in flight", || web.hits() == 1).await;
        edge.shutdown.cancel();
        // Its client was told that it would be the first that is not served.
        assert!(idle.send(get()).await.is_err());
        assert_eq!(answer(&mut stream).await.unwrap().text(), "done");
        for connection in [&idle, &busy] {
            let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
                panic!("it was not closed in order");
            };
            assert_eq!(close.error_code.into_inner(), 0x100, "H3_NO_ERROR");
        }
        // A request after the announcement is not taken.
        assert!(busy.open(get()).await.is_err());
        for listener in edge.listeners.drain(..) {
            listener.await.unwrap();
        }
        assert_eq!(web.hits(), 1);
        // Connections that were closed keep it for a few round trips.
        eventually("the socket is closed", || {
            UdpSocket::bind(edge.https).is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_a_request_that_is_given_up_ends_at_the_backend() {
    on_worker(async {
        let is_gone = Arc::new(AtomicBool::new(false));
        let gone = Gone(Arc::clone(&is_gone));
        let gone = Arc::new(Mutex::new(Some(gone)));
        let web = Origin::slow(move |_| {
            let held = gone.lock().unwrap().take();
            Box::pin(async move {
                let _held = held;
                sleep(Duration::from_secs(600)).await;
                Response::new(full("late"))
            })
        })
        .await;
        let (edge, _) = edge_before(&web, &[]).await;
        let mut connection = Client::new(None).connect(&edge, HOST).await;
        let mut stream = connection.open(get()).await.unwrap();
        stream.finish().await.unwrap();
        eventually("the request is in flight", || web.hits() == 1).await;
        stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
        eventually("the backend has heard", || is_gone.load(Relaxed)).await;
    })
    .await;
}

/// Says when it is dropped.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
