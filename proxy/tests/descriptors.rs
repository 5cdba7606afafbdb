//! A process whose file descriptors run out. Alone in its process: the limit is that of all threads.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealane_proxy::accept::{Acceptor, RESERVED};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// Processor time of this thread, which everything here runs on.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos: u64 = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

fn limit(descriptors: u64) {
    let limit = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: Some(descriptors),
        ..limit
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

async fn echo(listener: TcpListener) {
    let mut acceptor = Acceptor::default();
    loop {
        let (mut stream, _) = acceptor.accept(&listener).await.unwrap();
        tokio::task::spawn_local(async move {
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                stream.write_all(&byte).await.unwrap();
            }
        });
    }
}

async fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").await.unwrap();
    let mut byte = [0];
    let read = stream.read_exact(&mut byte);
    matches!(
        tokio::time::timeout(Duration::from_secs(1), read).await,
        Ok(Ok(_))
    )
}

/// Connects from a process-wide limit that leaves no room for more than the client's own socket.
async fn connect(addr: SocketAddr, room: u64) -> TcpStream {
    limit(room);
    TcpStream::connect(addr).await.unwrap()
}

#[tokio::test]
async fn reliability_f14_accepting_waits_for_descriptors_and_goes_on() {
    LocalSet::new().run_until(accepting()).await;
}

async fn accepting() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let before = getrlimit(Resource::Nofile).current.unwrap();
    tokio::task::spawn_local(echo(listener));
    let mut first = connect(addr, before).await;
    assert!(answers(&mut first).await);

    // Both ends are in this process: the client's is made while there is room.
    let waiting = connect(addr, before).await;
    let mut open = vec![waiting];
    open.extend(exhaust(addr).await);
    let (began, busy) = (Instant::now(), cpu());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = cpu() - busy;
    assert!(spent < began.elapsed() / 20, "{spent:?} of processor time");
    assert!(answers(&mut first).await, "an old connection goes on");
    let reserved = std::fs::File::open("/dev/null");
    assert!(reserved.is_ok(), "some are left for others: {reserved:?}");
    let mut last = open.pop().unwrap();
    assert!(!answers(&mut last).await, "it waits");

    // The best of three: a busy machine may be late itself.
    let mut took = vec![recovery(&mut last, before).await];
    while took.len() < 3 {
        open.extend(exhaust(addr).await);
        let mut last = open.pop().unwrap();
        assert!(!answers(&mut last).await, "it waits");
        took.push(recovery(&mut last, before).await);
    }
    let best = took.iter().min().unwrap();
    assert!(*best < Duration::from_millis(200), "late: {took:?}");
}

/// Connects clients, for which there are descriptors, until the acceptor may take no more.
async fn exhaust(addr: SocketAddr) -> Vec<TcpStream> {
    let next = std::fs::File::open("/dev/null").unwrap();
    let used = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap();
    drop(next);
    limit(used + RESERVED / 2);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(TcpStream::connect(addr).await.unwrap());
    }
    clients
}

/// The time from a limit with room until a connection that waits and has sent a byte is answered.
async fn recovery(waiting: &mut TcpStream, room: u64) -> Duration {
    limit(room);
    let began = Instant::now();
    let mut byte = [0];
    waiting.read_exact(&mut byte).await.unwrap();
    began.elapsed()
}
