use std::net::{Ipv4Addr, SocketAddr};

use tokio::task::LocalSet;

use super::*;
use crate::testing::{Origin, endpoint};

const WISH: Wish = Wish {
    upstream: Upstream::Http2,
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
