//! The node proxy without namespaces: Services and pods on loopback addresses. Runs anywhere.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use sealane_config::model::{AppProtocol, HttpPolicy, Scope, TrafficPolicy};
use sealane_config::sockets::HostSockets;
use sealane_config::{Snapshot, snapshot};
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions};
use sealane_proxy::node::{Capture, NodeProxy};
use tokio_util::sync::CancellationToken;

use crate::world::{TIMEOUT, ask, block_on, eventually, read_line, service_port, snapshot_of};

fn answer(addr: SocketAddr) -> Result<String, ErrorKind> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT).map_err(|e| e.kind())?;
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    ask(&mut stream, "hello").map_err(|error| error.kind())
}

/// A pod's server on an address of its own; the port is the same for all.
fn serve(ip: &str, port: u16, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), port)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                if read_line(&mut stream).is_ok_and(|line| !line.is_empty()) {
                    stream.write_all(format!("{name}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    addr
}

#[test]
fn proxy_s5_local_policy_drops_what_only_others_could_serve() {
    let a = serve("127.244.78.2", 0, "a");
    let vip: SocketAddr = SocketAddr::new("127.96.78.1".parse().unwrap(), a.port());
    let with = |is_here: bool| {
        let mut port = service_port(vip.port(), AppProtocol::Tcp, &[a]);
        port.policy = Arc::new(TrafficPolicy {
            internal: Scope::Local,
            ..TrafficPolicy::default()
        });
        let here = port.endpoints.iter().filter(|_| is_here).cloned();
        port.local = Some(here.collect());
        snapshot_of([(vip.ip(), port)])
    };
    let (mut publisher, reader) = snapshot::channel();
    publisher.publish(with(true));
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let worker = std::thread::spawn(move || {
        block_on(async {
            let engine = Engine::new(Connector::Direct, EngineOptions::default());
            let host = HostSockets::here();
            let proxy =
                NodeProxy::bind(Capture::Listeners, reader, engine, Connector::Direct, host);
            proxy.unwrap().run(stop).await;
        });
    });
    let _ = eventually(|| answer(vip), |seen| *seen == Ok("a".into()));
    publisher.publish(with(false));
    let dropped = |seen: &Result<String, ErrorKind>| {
        let refused = *seen == Err(ErrorKind::ConnectionRefused);
        !refused && seen.as_deref() != Ok("a")
    };
    let _ = eventually(|| answer(vip), dropped);
    publisher.publish(with(true));
    let _ = eventually(|| answer(vip), |seen| *seen == Ok("a".into()));
    shutdown.cancel();
    worker.join().unwrap();
}

#[test]
fn ingress_t7_a_service_that_wants_it_is_told_who_the_client_is() {
    // What a TCP server that speaks first, and one that gets HTTP, read from each connection.
    let (tell, told) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.244.79.2:0").unwrap();
    let server = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut header = [0; 28];
            stream.read_exact(&mut header).unwrap();
            stream.write_all(b"ready\n").unwrap();
            let line = read_line(&mut stream).unwrap();
            tell.send((header, line)).unwrap();
        }
    });
    let vip: SocketAddr = SocketAddr::new("127.96.79.1".parse().unwrap(), server.port());
    let (mut publisher, reader) = snapshot::channel();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let mut port = service_port(vip.port(), AppProtocol::Detect, &[server]);
    port.http = Arc::new(HttpPolicy {
        sends_proxy_protocol: true,
        ..HttpPolicy::default()
    });
    publisher.publish(snapshot_of([(vip.ip(), port)]));
    let worker = std::thread::spawn(move || {
        block_on(async {
            let engine = Engine::new(Connector::Direct, EngineOptions::default());
            let host = HostSockets::here();
            let proxy =
                NodeProxy::bind(Capture::Listeners, reader, engine, Connector::Direct, host);
            proxy.unwrap().run(stop).await;
        });
    });
    let connect = || TcpStream::connect_timeout(&vip, TIMEOUT).map_err(|error| error.kind());
    let mut first = eventually(
        || Some(connect()),
        |seen| seen.as_ref().is_some_and(Result::is_ok),
    );
    // Of what looks like HTTP the client does not wait for the server.
    for (line, waits) in [("hello", true), ("GET / HTTP/1.1", false)] {
        let stream = first.take().unwrap_or_else(connect);
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let client = stream.local_addr().unwrap();
        let line_sent = format!("{line}\n");
        if !waits {
            stream.write_all(line_sent.as_bytes()).unwrap();
        }
        // The server speaks first, once it was told.
        assert_eq!(read_line(&mut stream).unwrap(), "ready");
        if waits {
            stream.write_all(line_sent.as_bytes()).unwrap();
        }
        let (header, got) = told.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(got, line);
        let mut wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        for ip in [client.ip(), vip.ip()] {
            let IpAddr::V4(ip) = ip else { panic!("{ip}") };
            wanted.extend(ip.octets());
        }
        wanted.extend(client.port().to_be_bytes());
        wanted.extend(vip.port().to_be_bytes());
        assert_eq!(header.to_vec(), wanted);
    }
    shutdown.cancel();
    worker.join().unwrap();
}

#[test]
fn proxy_s4_s24_loopback_services_follow_the_snapshot() {
    let a = serve("127.244.77.2", 0, "a");
    let b = serve("127.244.77.3", a.port(), "b");
    // An address of this test's own, with a port that is free on every loopback address.
    let vip: SocketAddr = SocketAddr::new("127.96.77.1".parse().unwrap(), a.port());
    let with = |endpoints: &[SocketAddr]| {
        let port = service_port(vip.port(), AppProtocol::Tcp, endpoints);
        snapshot_of([(vip.ip(), port)])
    };
    let (mut publisher, reader) = snapshot::channel();
    publisher.publish(with(&[a]));
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let worker = std::thread::spawn(move || {
        block_on(async {
            let engine = Engine::new(Connector::Direct, EngineOptions::default());
            let host = HostSockets::here();
            let proxy =
                NodeProxy::bind(Capture::Listeners, reader, engine, Connector::Direct, host);
            proxy.unwrap().run(stop).await;
        });
    });
    let _ = eventually(|| answer(vip), |seen| *seen == Ok("a".into()));
    let refused = || Err(ErrorKind::ConnectionRefused);
    for (snapshot, expected) in [
        (with(&[b]), Ok("b".to_owned())),
        (with(&[]), refused()),
        (with(&[a]), Ok("a".to_owned())),
        (Snapshot::default(), refused()),
    ] {
        publisher.publish(snapshot);
        let _ = eventually(|| answer(vip), |seen| *seen == expected);
    }

    publisher.publish(with(&[a]));
    let _ = eventually(|| answer(vip), Result::is_ok);
    let mut kept = TcpStream::connect_timeout(&vip, TIMEOUT).unwrap();
    shutdown.cancel();
    let _ = eventually(|| answer(vip), |seen| *seen == refused());
    assert_eq!(ask(&mut kept, "still").unwrap(), "a", "open flows go on");
    assert!(!worker.is_finished());
    drop(kept);
    worker.join().unwrap();
}
