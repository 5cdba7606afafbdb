//! One of two endpoints is bad, and the other is there.

use std::net::Ipv4Addr;

use sealane_proxy::testing::Refusing;
use sealane_proxy::testing::faults::{Cut, Fault, FaultProxy, Faults};
use socket2::{Domain, Socket, Type};

use super::client::{End, get, post};
use super::*;

/// Requests to each pair: the bad endpoint is picked several times until it is ejected.
const REQUESTS: usize = 20;

fn dead(cut: Cut) -> Faults {
    Faults::response(Fault {
        cut: Some((0, cut)),
        ..Fault::default()
    })
}

#[tokio::test]
async fn proxy_l12_t9_a_get_is_repeated_where_a_connection_breaks() {
    for spoken in [Spoken::Http1, Spoken::Http2] {
        for how in [Cut::Reset, Cut::Close] {
            let (bad, good) = (origin(spoken).await, origin(spoken).await);
            let proxy = FaultProxy::start(bad.addr, dead(how)).await;
            let front = front(spoken, &[proxy.addr, good.addr]).await;
            for number in 0..REQUESTS {
                let seen = get(spoken, front.vip, 100, PATIENCE).await;
                let what = format!("{spoken:?}, {how:?}, request {number}: {seen:?}");
                assert_eq!(
                    (seen.status, seen.bytes, seen.end),
                    (200, 100, End::Clean),
                    "{what}"
                );
            }
            assert!(proxy.accepted() > 0, "{spoken:?}: never tried");
        }
    }
}

#[tokio::test]
async fn proxy_l13_t9_a_post_that_may_have_arrived_is_not_repeated() {
    for spoken in [Spoken::Http1, Spoken::Http2] {
        let (bad, good) = (origin(spoken).await, origin(spoken).await);
        let proxy = FaultProxy::start(bad.addr, dead(Cut::Reset)).await;
        let front = front(spoken, &[proxy.addr, good.addr]).await;
        let mut failed = 0;
        for number in 0..REQUESTS {
            let seen = post(spoken, front.vip, &format!("order {number}")).await;
            assert!(matches!(seen.status, 200 | 502), "{spoken:?}: {seen:?}");
            failed += usize::from(seen.status == 502);
        }
        let mut arrived: Vec<_> = [&bad, &good].iter().flat_map(|o| o.seen()).collect();
        arrived.retain(|seen| seen.body.is_some());
        let mut bodies: Vec<_> = arrived
            .iter()
            .filter_map(|seen| seen.body.clone())
            .collect();
        bodies.sort();
        let all = bodies.len();
        bodies.dedup();
        assert_eq!(bodies.len(), all, "{spoken:?}: an order came twice");
        // Until it is ejected, which takes five failures.
        assert!(failed <= 6, "{spoken:?}: {failed} failed");
    }
}

#[tokio::test]
async fn reliability_f7_an_endpoint_that_refuses_costs_nobody_anything() {
    for spoken in ALL {
        let refusing = Refusing::bind();
        let good = origin(spoken).await;
        let front = front(spoken, &[refusing.addr, good.addr]).await;
        for number in 0..REQUESTS {
            let seen = get(spoken, front.vip, 100, PATIENCE).await;
            let what = format!("{spoken:?}, request {number}: {seen:?}");
            assert_eq!((seen.bytes, seen.end), (100, End::Clean), "{what}");
            if spoken != Spoken::Tcp {
                let seen = post(spoken, front.vip, "an order").await;
                assert_eq!((seen.status, seen.end), (200, End::Clean), "{what}");
            }
            assert!(seen.took < ms(300), "{what}");
        }
    }
}

/// An address that answers no packet of a new connection: its queue is full.
fn unreachable() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut held = vec![listener];
    for _ in 0..4 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        // In progress, or waiting for a packet that is dropped.
        let _ = client.connect(&addr);
        held.push(client);
    }
    (addr.as_socket().unwrap(), held)
}

#[tokio::test]
async fn reliability_f6_an_endpoint_that_cannot_be_reached_costs_a_second_and_is_left_out() {
    for spoken in ALL {
        let (silent, _held) = unreachable();
        let good = origin(spoken).await;
        let front = front(spoken, &[silent, good.addr]).await;
        let mut waited = 0;
        for number in 0..REQUESTS {
            let seen = get(spoken, front.vip, 100, PATIENCE).await;
            let what = format!("{spoken:?}, request {number}: {seen:?}");
            assert_eq!((seen.bytes, seen.end), (100, End::Clean), "{what}");
            assert!(seen.took < ms(1_300), "{what}");
            waited += usize::from(seen.took > ms(500));
        }
        assert!(waited <= 6, "{spoken:?}: {waited} requests waited");
    }
}

#[tokio::test]
async fn reliability_f8_an_endpoint_that_hangs_takes_no_more_after_a_few() {
    for spoken in [Spoken::Http1, Spoken::Http2] {
        let (bad, good) = (origin(spoken).await, origin(spoken).await);
        let proxy = FaultProxy::start(bad.addr, dead(Cut::BlackHole)).await;
        let front = front(spoken, &[proxy.addr, good.addr]).await;
        let mut late = 0;
        for number in 0..REQUESTS {
            let seen = get(spoken, front.vip, 100, PATIENCE).await;
            let what = format!("{spoken:?}, request {number}: {seen:?}");
            assert!(matches!(seen.status, 200 | 504), "{what}");
            assert!(seen.took < RESPONSE_TIMEOUT + ms(400), "{what}");
            late += usize::from(seen.status == 504);
        }
        assert!(late <= 6, "{spoken:?}: {late} requests waited");
    }
}
