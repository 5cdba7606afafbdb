//! A process that is out of file descriptors. Alone in its process, because the limit is the
//! process's.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "gateway/support.rs"]
mod support;

use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealane_proxy::testing::Origin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use support::{Edge, on_worker, prefix};

/// Forbids descriptors beyond those that are open.
fn exhaust() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let lowest_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let limit = Rlimit {
        current: Some(u64::try_from(lowest_free).unwrap()),
        ..before
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    before
}

async fn ask(stream: &mut TcpStream) {
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
}

async fn answered(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    while !answer.ends_with(b"web") {
        if stream.read_buf(&mut answer).await.unwrap() == 0 {
            return false;
        }
    }
    answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn reliability_f14_out_of_descriptors_the_gateway_waits_and_recovers() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("", false, vec![prefix("/", "web")]);
        let mut old = TcpStream::connect(edge.http).await.unwrap();
        ask(&mut old).await;
        assert!(answered(&mut old).await);

        let sockets = [TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap()];
        let before = exhaust();
        let mut waiting = Vec::new();
        for socket in sockets {
            let mut stream = socket.connect(edge.http).await.unwrap();
            ask(&mut stream).await;
            waiting.push(stream);
        }
        let early = tokio::time::timeout(Duration::from_millis(300), answered(&mut waiting[0]));
        assert!(early.await.is_err(), "accepted without a descriptor");
        for _ in 0..10 {
            ask(&mut old).await;
            assert!(answered(&mut old).await, "an open connection is not served");
        }

        setrlimit(Resource::Nofile, before).unwrap();
        for stream in &mut waiting {
            let late = tokio::time::timeout(Duration::from_secs(10), answered(stream));
            assert!(late.await.unwrap());
        }
    })
    .await;
}
