use std::net::{Ipv4Addr, SocketAddr};

use tokio::task::LocalSet;

use super::*;
use crate::testing::{Origin, endpoint, full};

const WISH: Wish<'_> = Wish {
    upstream: Upstream::Http2,
    tls: None,
    client: None,
    reuse: Reuse::Any,
    limit: Duration::from_secs(1),
};

#[tokio::test]
async fn proxy_l17_waiting_for_a_shared_connection_that_fails_fails_once() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let refused: SocketAddr = {
                let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                listener.local_addr().unwrap()
            };
            let pool = Rc::new(Pool::new(Connector::Direct));
            let endpoint = endpoint(refused);
            let leases = (0..50).map(|_| pool.lease(&endpoint, WISH));
            let failed = futures_util::future::join_all(leases).await;
            assert!(failed.iter().all(Result::is_err));
        })
        .await;
}

#[tokio::test]
async fn proxy_l17_a_http2_connection_is_shared() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let origin = Origin::named("a").await;
            let pool = Rc::new(Pool::new(Connector::Direct));
            let endpoint = endpoint(origin.addr);
            let leases = (0..50).map(|_| pool.lease(&endpoint, WISH));
            let leases = futures_util::future::join_all(leases).await;
            let made = leases.iter().filter(|l| !l.as_ref().unwrap().is_reused());
            assert_eq!(made.count(), 1);
            pool.sweep();
            assert_eq!(pool.slots.borrow().len(), 1);
            endpoint.stats.removed.store(true, Relaxed);
            pool.sweep();
            assert_eq!(pool.slots.borrow().len(), 0);
        })
        .await;
}

/// An HTTP/2 endpoint that allows so many streams a connection.
async fn allowing(streams: u32) -> Origin {
    Origin::raw(move |stream, _| {
        Box::pin(async move {
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(http::Response::new(full("ok")))
            });
            let executor = hyper_util::rt::TokioExecutor::new();
            // How a connection ends is seen by the other side.
            let _ = hyper::server::conn::http2::Builder::new(executor)
                .max_concurrent_streams(streams)
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                .await;
        })
    })
    .await
}

#[tokio::test]
async fn proxy_l17_another_http2_connection_is_made_when_streams_run_out() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let origin = allowing(2).await;
            let pool = Rc::new(Pool::new(Connector::Direct));
            let endpoint = endpoint(origin.addr);
            let mut first = pool.lease(&endpoint, WISH).await.unwrap();
            // The endpoint's settings come with the first answer and are looked at with the second.
            for _ in 0..2 {
                let mut request = http::Request::new(Body::empty());
                *request.uri_mut() = "http://a.test/".parse().unwrap();
                let answer = first.sender().send(request).await.ok().unwrap();
                assert_eq!(answer.status(), 200);
            }
            let second = pool.lease(&endpoint, WISH).await.unwrap();
            let third = pool.lease(&endpoint, WISH).await.unwrap();
            assert_eq!((second.is_reused(), third.is_reused()), (true, false));
            drop((first, third));
            let fourth = pool.lease(&endpoint, WISH).await.unwrap();
            assert!(fourth.is_reused(), "a stream has ended");
        })
        .await;
}
