//! Between the client and the proxy.

use sealane_proxy::testing::eventually;
use sealane_proxy::testing::faults::{Cut, Fault, FaultProxy, Faults};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::client::{End, get, post};
use super::*;

#[tokio::test]
async fn proxy_l1_t9_clients_that_are_late_or_chopped_up_are_understood() {
    let late = Fault {
        latency: ms(30),
        ..Fault::default()
    };
    let chopped = Fault {
        slice: Some(1),
        ..Fault::default()
    };
    let slow = Fault {
        slice: Some(1),
        latency: ms(5),
        ..Fault::default()
    };
    for spoken in ALL {
        let origin = origin(spoken).await;
        // What is spoken has to be found out, even if it comes byte by byte.
        let mut front = front(spoken, &[origin.addr]).await;
        front.service(AppProtocol::Detect, &[origin.addr]);
        for (name, faults) in [
            ("late", Faults::both(late)),
            ("chopped", Faults::both(chopped)),
            ("a byte in 5 ms", Faults::request(slow)),
        ] {
            let proxy = FaultProxy::start(front.vip, faults).await;
            let seen = get(spoken, proxy.addr, 3_000, PATIENCE).await;
            let what = format!("{name}, {spoken:?}: {seen:?}");
            assert_eq!((seen.bytes, seen.end), (3_000, End::Clean), "{what}");
        }
    }
}

#[tokio::test]
async fn proxy_t9_an_upload_that_is_cut_off_does_not_look_complete_to_the_endpoint() {
    for spoken in [Spoken::Http1, Spoken::Http2] {
        for how in [Cut::Reset, Cut::Close] {
            let origin = origin(spoken).await;
            let front = front(spoken, &[origin.addr]).await;
            let fault = Fault {
                cut: Some((3_000, how)),
                ..Fault::default()
            };
            let proxy = FaultProxy::start(front.vip, Faults::request(fault)).await;
            let seen = post(spoken, proxy.addr, &"x".repeat(6_000)).await;
            assert_ne!(seen.status, 200, "{spoken:?}, {how:?}: {seen:?}");
            eventually("the endpoint sees an end", || {
                origin.seen().iter().all(|seen| seen.body.is_none())
            })
            .await;
            // The next client is served.
            let next = get(spoken, front.vip, 100, PATIENCE).await;
            assert_eq!((next.status, next.bytes), (200, 100), "{spoken:?}, {how:?}");
        }
    }
}

#[tokio::test]
async fn proxy_l25_t9_a_client_that_goes_away_takes_its_endpoints_connection_with_it() {
    // Reads and says nothing.
    let origin = Origin::raw(|mut stream, _| {
        Box::pin(async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
    })
    .await;
    let counter = FaultProxy::start(origin.addr, Faults::default()).await;
    // An endpoint has a minute to answer here.
    let mut front = Front::start();
    front.service(AppProtocol::Http, &[counter.addr]);
    client::listening(front.vip).await;
    for protocol in [AppProtocol::Http, AppProtocol::Detect, AppProtocol::Tcp] {
        front.service(protocol, &[counter.addr]);
        let mut stream = TcpStream::connect(front.vip).await.unwrap();
        let request = b"GET /1 HTTP/1.1\r\nHost: api.test\r\n\r\n";
        stream.write_all(request).await.unwrap();
        eventually("the endpoint is asked", || counter.open() == 1).await;
        // Gone without a goodbye: TCP that ends its stream may still wait for an answer.
        stream.set_zero_linger().unwrap();
        drop(stream);
        eventually(&format!("{protocol:?}: its connection is closed"), || {
            counter.open() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn proxy_l25_t9_nothing_is_lost_of_what_came_before_a_half_close() {
    let origin = Origin::raw(|mut stream, _| {
        Box::pin(async move {
            // Answers when it has heard everything.
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            let _ = stream
                .write_all(format!("{} bytes", heard.len()).as_bytes())
                .await;
        })
    })
    .await;
    for (name, fault) in [
        ("at once", Fault::default()),
        (
            "late",
            Fault {
                slow_close: ms(300),
                ..Fault::default()
            },
        ),
        (
            "half-closed on the way",
            Fault {
                cut: Some((150_000, Cut::HalfClose)),
                ..Fault::default()
            },
        ),
    ] {
        let to_endpoint = FaultProxy::start(origin.addr, Faults::default()).await;
        let front = front(Spoken::Tcp, &[to_endpoint.addr]).await;
        let proxy = FaultProxy::start(front.vip, Faults::request(fault)).await;
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        stream.write_all(&vec![b'x'; 150_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.expect("an end").unwrap();
        assert_eq!(answer, "150000 bytes", "{name}");
    }
}
