//! The sidecar with its rules in a pod's namespace, as the application and others see it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sealane_config::model::AppProtocol;
use sealane_config::sockets::HostSockets;
use sealane_config::{Publisher, Snapshot, snapshot};
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions};
use sealane_proxy::intercept::redirect::install;
use sealane_proxy::sidecar::{Direction, Engines, OPAQUE_PORTS, PodOptions, SidecarProxy};
use tokio_util::sync::CancellationToken;

use crate::pod::{INBOUND, MARK, OUTBOUND, options};
use crate::world::{Pod, ask, block_on, eventually, read_line, service_port, snapshot_of, v6};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 1, 1));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 1));

/// How long an answer that is given at once may take.
const AT_ONCE: Duration = Duration::from_millis(10);

/// A pod with a sidecar, and somebody to talk to.
struct Sidecar {
    pod: Pod,
    peer: Pod,
    _publisher: Publisher,
    stop_inbound: CancellationToken,
    stop: CancellationToken,
    worker: Option<JoinHandle<()>>,
}

impl Sidecar {
    fn start(snapshot: impl FnOnce(&Pod, &Pod) -> Snapshot) -> Option<Self> {
        let (pod, peer) = Pod::with_peer()?;
        assert!(pod.run(|| install(&options()).unwrap()), "nft_socket");
        let (mut publisher, reader) = snapshot::channel();
        publisher.publish(snapshot(&pod, &peer));
        let (stop_inbound, stop) = (CancellationToken::new(), CancellationToken::new());
        let options = PodOptions {
            namespace: "default".into(),
            addresses: vec![pod.ip, v6(1)],
            inbound_port: INBOUND,
            outbound_port: OUTBOUND,
            opaque_ports: OPAQUE_PORTS.to_vec(),
        };
        let (bound, ready) = std::sync::mpsc::channel();
        let tokens = (stop_inbound.clone(), stop.clone());
        let worker = pod.spawn(move || {
            block_on(async {
                let sockets = HostSockets::marked(MARK).unwrap();
                let connector = Connector::Split {
                    cluster: Arc::new([]),
                    host: sockets.clone(),
                };
                let engine = |direction| {
                    let options = EngineOptions {
                        direction,
                        ..EngineOptions::default()
                    };
                    Engine::new(connector.clone(), options)
                };
                let engines = Engines {
                    inbound: engine(Direction::Inbound),
                    outbound: engine(Direction::Outbound),
                };
                let proxy = SidecarProxy::bind(&options, &reader, engines, &sockets).unwrap();
                bound.send(()).unwrap();
                let (stop_inbound, stop) = tokens;
                // Connections that tests leave open are cut off.
                tokio::select! {
                    () = proxy.run(stop_inbound, stop.clone()) => {}
                    () = stop.cancelled() => {}
                }
            });
        });
        ready.recv().unwrap();
        Some(Self {
            pod,
            peer,
            _publisher: publisher,
            stop_inbound,
            stop,
            worker: Some(worker),
        })
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(worker) = self.worker.take() {
            worker.join().unwrap();
        }
    }
}

fn no_services(_: &Pod, _: &Pod) -> Snapshot {
    snapshot_of([])
}

fn answer(pod: &Pod, addr: impl Into<SocketAddr>) -> Result<String, ErrorKind> {
    let mut stream = pod.connect(addr).map_err(|(kind, _)| kind)?;
    ask(&mut stream, "hello").map_err(|error| error.kind())
}

/// A server of HTTP/1.1 that answers every request with its name and keeps connections.
fn serve_http(pod: &Pod, addr: impl Into<SocketAddr>, name: &'static str) {
    let addr = addr.into();
    let listener = pod.run(move || TcpListener::bind(addr).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                while read_line(&mut stream).is_ok_and(|line| !line.is_empty()) {
                    while read_line(&mut stream).is_ok_and(|line| line.len() > 1) {}
                    let length = name.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// Sends a request; gives status line, head and body.
fn request(stream: &mut TcpStream) -> (String, String, String) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: api\r\n\r\n")
        .unwrap();
    let status = read_line(stream).unwrap().trim().to_owned();
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let line = read_line(stream).unwrap().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.len() <= 1 {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (status, head, String::from_utf8(body).unwrap())
}

#[test]
fn proxy_s11_what_is_no_service_goes_where_it_was_dialled() {
    let Some(it) = Sidecar::start(no_services) else {
        return;
    };
    it.peer.serve_lines("peer", 9000);
    let listener = it.peer.run(|| TcpListener::bind((v6(2), 9000)).unwrap());
    let expected = format!("peer {} hello", it.pod.ip);
    assert_eq!(answer(&it.pod, (it.peer.ip, 9000)), Ok(expected));

    let mut client = it.pod.connect((v6(2), 9000)).unwrap();
    client.write_all(b"six").unwrap();
    let (mut accepted, from) = listener.accept().unwrap();
    let mut said = [0; 3];
    accepted.read_exact(&mut said).unwrap();
    assert_eq!((&said, from.ip()), (b"six", v6(1)));
}

#[test]
fn proxy_i3_services_of_both_families_are_balanced_from_within_the_pod() {
    let Some(it) = Sidecar::start(|_, peer| {
        let addrs = [8001, 8002].map(|port| (peer.ip, port).into());
        let ports = [
            (VIP, service_port(80, AppProtocol::Detect, &addrs)),
            (VIP, service_port(90, AppProtocol::Tcp, &addrs)),
            (VIP6, service_port(80, AppProtocol::Detect, &addrs)),
        ];
        snapshot_of(ports)
    }) else {
        return;
    };
    for (port, name) in [(8001, "one"), (8002, "two")] {
        serve_http(&it.peer, (it.peer.ip, port), name);
    }
    for vip in [VIP, VIP6] {
        let mut stream = it.pod.connect((vip, 80)).unwrap();
        for name in ["one", "two"] {
            // One connection is answered by both: requests are balanced, not connections.
            eventually(|| request(&mut stream).2, |body| body == name);
        }
    }
    for name in ["one", "two"] {
        let flow = || request(&mut it.pod.connect((VIP, 90)).unwrap()).2;
        eventually(flow, |body| body == name);
    }
}

#[test]
fn proxy_s22_a_pod_reaches_itself_through_its_service_and_directly() {
    let Some(it) = Sidecar::start(|pod, _| {
        let port = service_port(80, AppProtocol::Tcp, &[(pod.ip, 8000).into()]);
        snapshot_of([(VIP, port)])
    }) else {
        return;
    };
    it.pod.serve_lines("itself", 8000);
    let expected = Ok(format!("itself {} hello", it.pod.ip));
    assert_eq!(answer(&it.pod, (VIP, 80)), expected);
    assert_eq!(answer(&it.pod, (it.pod.ip, 8000)), expected);
}

#[test]
fn proxy_i3_inbound_connections_reach_the_application_at_the_dialled_address() {
    let Some(it) = Sidecar::start(no_services) else {
        return;
    };
    it.pod.serve_lines("app", 8000);
    serve_http(&it.pod, (v6(1), 8080), "six");
    let expected = format!("app {} hello", it.pod.ip);
    assert_eq!(answer(&it.peer, (it.pod.ip, 8000)), Ok(expected));
    let mut stream = it.peer.connect((v6(1), 8080)).unwrap();
    for _ in 0..3 {
        assert_eq!(request(&mut stream).2, "six");
    }
    assert_eq!(
        answer(&it.peer, (it.pod.ip, 8001)),
        Err(ErrorKind::ConnectionRefused)
    );
}

#[test]
fn proxy_l1_inbound_http_is_found_in_a_split_first_packet() {
    let Some(it) = Sidecar::start(no_services) else {
        return;
    };
    // One that would answer anything, so that only the gate for HTTP can refuse.
    it.pod.serve_lines("app", 8000);
    let mut stream = it.peer.connect((it.pod.ip, 8000)).unwrap();
    for piece in ["G", "ET / HT", "TP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::park_timeout(Duration::from_millis(150));
    }
    let status = read_line(&mut stream).unwrap();
    assert!(status.starts_with("HTTP/1.1 400"), "{status}");

    let mut stream = it.peer.connect((it.pod.ip, 8000)).unwrap();
    let answer = ask(&mut stream, "get key").unwrap();
    assert!(answer.ends_with("get key"), "{answer}");
}

#[test]
fn proxy_l2_an_application_that_speaks_first_is_heard_at_once() {
    let Some(it) = Sidecar::start(no_services) else {
        return;
    };
    let greet = |port: u16| {
        let ip = it.pod.ip;
        let listener = it.pod.run(move || TcpListener::bind((ip, port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.write_all(b"220 mail\n").unwrap();
                // A second line only after the client's.
                std::thread::spawn(move || drop(read_line(&mut stream)));
            }
        });
        let fastest = (0..5).map(|_| {
            let begun = Instant::now();
            let mut stream = it.peer.connect((ip, port)).unwrap();
            assert_eq!(read_line(&mut stream).unwrap(), "220 mail");
            begun.elapsed()
        });
        fastest.min().unwrap()
    };
    let (unmarked, marked) = (greet(2525), greet(25));
    assert!(unmarked < Duration::from_millis(150), "{unmarked:?}");
    assert!(marked < AT_ONCE, "{marked:?}");
}

#[test]
fn proxy_i5_the_proxys_own_listeners_are_no_destination() {
    let Some(it) = Sidecar::start(|pod, _| {
        let itself = (pod.ip, INBOUND).into();
        snapshot_of([(VIP, service_port(80, AppProtocol::Detect, &[itself]))])
    }) else {
        return;
    };
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (name, from, addr) in [
        ("inbound, from outside", &it.peer, (it.pod.ip, INBOUND)),
        ("inbound, from within", &it.pod, (it.pod.ip, INBOUND)),
        ("inbound, by loopback", &it.pod, (loopback, INBOUND)),
        ("outbound, by loopback", &it.pod, (loopback, OUTBOUND)),
        ("as the endpoint of a Service", &it.pod, (VIP, 80)),
    ] {
        let (status, head, _) = request(&mut from.connect(addr).unwrap());
        assert!(status.starts_with("HTTP/1.1 508"), "{name}: {status}");
        assert!(head.contains("sealane-error: loop"), "{name}: {head}");
        if addr.0 != VIP {
            let mut stream = from.connect(addr).unwrap();
            stream.write_all(b"\x00junk").unwrap();
            let ended = stream.read(&mut [0]);
            assert_eq!(
                ended.unwrap_err().kind(),
                ErrorKind::ConnectionReset,
                "{name}"
            );
        }
    }
    let outside = it
        .peer
        .connect((it.pod.ip, OUTBOUND))
        .map_err(|(kind, _)| kind);
    assert_eq!(outside.unwrap_err(), ErrorKind::ConnectionRefused);
}

#[test]
fn proxy_s4_a_service_without_endpoints_answers_at_once() {
    let Some(it) = Sidecar::start(|_, _| {
        snapshot_of([
            (VIP, service_port(80, AppProtocol::Detect, &[])),
            (VIP, service_port(90, AppProtocol::Tcp, &[])),
        ])
    }) else {
        return;
    };
    let fastest = (0..5).map(|_| {
        let begun = Instant::now();
        let (status, head, _) = request(&mut it.pod.connect((VIP, 80)).unwrap());
        assert!(status.starts_with("HTTP/1.1 503"), "{status}");
        assert!(head.contains("sealane-error: no_endpoints"), "{head}");
        begun.elapsed()
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest < AT_ONCE, "{fastest:?}");
    // A sidecar has accepted by the time that it knows; the client may hear of both at once.
    let connected = it.pod.connect((VIP, 90)).map_err(|(kind, _)| kind);
    let ended = connected.and_then(|mut stream| {
        let read = stream.read(&mut [0]);
        read.map_err(|error| error.kind())
    });
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

#[test]
fn proxy_o6_outbound_goes_on_when_inbound_has_stopped() {
    let Some(it) = Sidecar::start(no_services) else {
        return;
    };
    it.pod.serve_lines("app", 8000);
    it.peer.serve_lines("peer", 9000);
    let mut kept = it.peer.connect((it.pod.ip, 8000)).unwrap();
    assert!(ask(&mut kept, "before").unwrap().ends_with("before"));
    it.stop_inbound.cancel();
    let refused = Err(ErrorKind::ConnectionRefused);
    let dial = || answer(&it.peer, (it.pod.ip, 8000));
    assert_eq!(eventually(dial, |answer| *answer == refused), refused);
    assert!(ask(&mut kept, "after").unwrap().ends_with("after"));
    assert!(answer(&it.pod, (it.peer.ip, 9000)).is_ok());
}
