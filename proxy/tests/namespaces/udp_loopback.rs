//! UDP Services in loopback mode, which runs anywhere.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sealane_config::sockets::HostSockets;
use sealane_config::{Publisher, Snapshot, snapshot};
use sealane_proxy::FlowBudget;
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions};
use sealane_proxy::node::{Capture, NodeProxy};
use tokio_util::sync::CancellationToken;

use crate::datagrams::{DatagramServer, ask_once, datagrams, udp_port, who, who_answers};
use crate::world::{TIMEOUT, block_on, eventually, snapshot_of};

/// A node proxy in loopback mode, which ends when it is dropped.
struct Loopback {
    publisher: Publisher,
    shutdown: CancellationToken,
    workers: Vec<JoinHandle<()>>,
}

impl Loopback {
    /// One worker.
    fn start(snapshot: Snapshot) -> Self {
        Self::with(snapshot, 1, &FlowBudget::default())
    }

    fn with(snapshot: Snapshot, workers: usize, budget: &FlowBudget) -> Self {
        let (mut publisher, reader) = snapshot::channel();
        publisher.publish(snapshot);
        let shutdown = CancellationToken::new();
        let worker = |_| {
            let (reader, budget, stop) = (reader.clone(), budget.clone(), shutdown.clone());
            std::thread::spawn(move || {
                block_on(async {
                    let engine = Engine::new(Connector::Direct, EngineOptions::default());
                    let (capture, host) = (Capture::Listeners, HostSockets::here());
                    let proxy = NodeProxy::bind(capture, reader, engine, Connector::Direct, host);
                    let proxy = proxy.unwrap().with_flow_budget(budget);
                    proxy.run(stop).await;
                });
            })
        };
        let workers = (0..workers).map(worker).collect();
        Self {
            publisher,
            shutdown,
            workers,
        }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for worker in self.workers.drain(..) {
            worker.join().unwrap();
        }
    }
}

#[test]
fn proxy_s18_s24_loopback_udp_services_follow_the_snapshot() {
    let bind = |ip: &str| UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let a = DatagramServer::start("a", bind("127.244.79.2"));
    let b = DatagramServer::start("b", bind("127.244.79.3"));
    // An address of this test's own, with a port that is free on every loopback address.
    let vip = SocketAddr::new("127.96.79.1".parse().unwrap(), a.addr().port());
    let with =
        |endpoints: &[SocketAddr]| snapshot_of([(vip.ip(), udp_port(vip.port(), endpoints))]);
    let mut loopback = Loopback::start(with(&[a.addr()]));
    let socket = datagrams(vip);
    // A datagram that arrives while its listener is closed is lost.
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let refused = Err(ErrorKind::ConnectionRefused);
    let ask = || ask_once(&socket, "?").map(|answer| who(&answer).to_owned());
    for (snapshot, expected) in [
        (with(&[a.addr()]), Ok("a".to_owned())),
        (with(&[b.addr()]), Ok("b".to_owned())),
        (with(&[]), refused.clone()),
        (with(&[a.addr()]), Ok("a".to_owned())),
        (Snapshot::default(), refused),
    ] {
        loopback.publisher.publish(snapshot);
        let _ = eventually(ask, |seen| *seen == expected);
    }
}

#[test]
fn proxy_s21_ipv6_services_are_served_beside_ipv4_ones() {
    let six: IpAddr = Ipv6Addr::LOCALHOST.into();
    let four: IpAddr = "127.244.80.2".parse().unwrap();
    let [a, b] = [("six", six), ("four", four)]
        .map(|(name, ip)| DatagramServer::start(name, UdpSocket::bind((ip, 0)).unwrap()));
    // A port that is free in both families.
    let probe = UdpSocket::bind((six, 0)).unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let vip: IpAddr = "127.96.80.1".parse().unwrap();
    let both = [(six, a.addr()), (vip, b.addr())];
    let ports = both.map(|(vip, endpoint)| (vip, udp_port(port, &[endpoint])));
    let _loopback = Loopback::start(snapshot_of(ports));
    for _ in 0..3 {
        for (vip, name) in [(six, "six"), (vip, "four")] {
            assert_eq!(who_answers(&datagrams((vip, port).into())), name);
        }
    }
}

#[test]
fn reliability_f1_what_was_asked_before_the_end_is_answered() {
    let near = UdpSocket::bind("127.244.81.2:0").unwrap();
    let endpoint = near.local_addr().unwrap();
    near.set_read_timeout(Some(TIMEOUT)).unwrap();
    let vip = SocketAddr::new("127.96.81.1".parse().unwrap(), endpoint.port());
    let port = udp_port(vip.port(), &[endpoint]);
    let loopback = Loopback::start(snapshot_of([(vip.ip(), port)]));
    let client = datagrams(vip);
    let mut buffer = [0; 16];
    let (_, from) = eventually(
        || {
            // Refused until the listener is there.
            let _ = client.send(b"question");
            near.set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            near.recv_from(&mut buffer).map_err(|error| error.kind())
        },
        Result::is_ok,
    )
    .unwrap();
    loopback.shutdown.cancel();
    near.send_to(b"answer", from).unwrap();
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
    drop(loopback);
}

/// The source ports that an endpoint sees for these clients.
fn sources(clients: &[UdpSocket]) -> Vec<String> {
    let answers = clients.iter().map(|client| ask_once(client, "?").unwrap());
    let source = |answer: String| answer.split(' ').nth(1).unwrap().to_owned();
    answers.map(source).collect()
}

#[test]
fn reliability_f14_flows_are_bounded_and_the_longest_unused_makes_room() {
    for (limit, name, workers) in [(100, "enough", 1), (100, "enough", 2), (10, "too few", 2)] {
        let server = DatagramServer::start("s", UdpSocket::bind("127.244.82.2:0").unwrap());
        let vip = SocketAddr::new("127.96.82.1".parse().unwrap(), server.addr().port());
        let port = udp_port(vip.port(), &[server.addr()]);
        let snapshot = snapshot_of([(vip.ip(), port)]);
        let _loopback = Loopback::with(snapshot, workers, &FlowBudget::of(limit));
        who_answers(&datagrams(vip));
        // A second worker's listener changes which worker gets a client's datagrams.
        std::thread::park_timeout(Duration::from_millis(100));
        let clients: Vec<_> = (0..30).map(|_| datagrams(vip)).collect();
        let (first, second) = (sources(&clients), sources(&clients));
        let again = first.iter().zip(&second).filter(|(a, b)| a == b).count();
        if limit == 10 {
            assert!(
                again <= limit,
                "{name}, {workers} workers: {again} flows go on"
            );
        } else {
            assert_eq!(again, 30, "{name}, {workers} workers");
        }
    }
}

/// Prints what flows cost; run it alone for figures.
#[test]
fn ten_thousand_flows_take_little_memory() {
    const FLOWS: usize = 10_000;
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if descriptors
        .current
        .is_some_and(|limit| limit < 2 * FLOWS as u64)
    {
        eprintln!("skipped: fewer than 20000 descriptors");
        return;
    }
    let server = DatagramServer::start("s", UdpSocket::bind("127.244.83.2:0").unwrap());
    let vip = SocketAddr::new("127.96.83.1".parse().unwrap(), server.addr().port());
    let port = udp_port(vip.port(), &[server.addr()]);
    let budget = FlowBudget::of(2 * FLOWS);
    let _loopback = Loopback::with(snapshot_of([(vip.ip(), port)]), 1, &budget);
    who_answers(&datagrams(vip));
    let (memory, begun) = (resident(), Instant::now());
    let mut ports = HashSet::new();
    while ports.len() < FLOWS {
        let client = datagrams(vip);
        ask_once(&client, "?").unwrap();
        ports.insert(client.local_addr().unwrap().port());
    }
    let each = resident().saturating_sub(memory) / FLOWS;
    let time = begun.elapsed() / FLOWS as u32;
    eprintln!("{FLOWS} flows: {each} bytes of memory a flow, {time:?} to open and ask each");
    assert!(each < 2048, "{each} bytes a flow");
}

/// Memory of this process, bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
