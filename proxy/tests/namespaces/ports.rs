//! A node whose local ports are used up: to one endpoint, then to all of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};

use sealane_config::model::AppProtocol;
use sealane_config::snapshot;
use sealane_config::sockets::HostSockets;
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions};
use sealane_proxy::node::{Capture, NodeProxy};
use socket2::{Domain, Socket, Type};
use tokio_util::sync::CancellationToken;

use crate::world::{
    Pod, TIMEOUT, block_on, eventually, may_make_namespaces, service_port, snapshot_of,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// A server on an address of its own that answers each request with its name, and keeps the
/// connections on which nothing comes.
fn serve(last: u8, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 1, 0, last), 8000)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut byte) {
                        Ok(1) => head.push(byte[0]),
                        _ => return,
                    }
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{name}"
                );
                stream.write_all(answer.as_bytes()).unwrap();
            });
        }
    });
    addr
}

/// Takes all ports from which an address can be reached, for as long as the result lives.
fn use_up(addr: SocketAddr) -> Vec<TcpStream> {
    let mut taken = Vec::new();
    loop {
        match TcpStream::connect_timeout(&addr, TIMEOUT) {
            Ok(stream) => taken.push(stream),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => return taken,
            Err(error) => panic!("{addr}: {error}"),
        }
    }
}

/// What a client gets that has a port of its own, not one of the node's.
fn answer(vip: SocketAddr) -> Result<String, ErrorKind> {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let own = PORT.fetch_add(1, Ordering::Relaxed);
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, own));
    socket.bind(&own.into()).unwrap();
    let connected = socket.connect_timeout(&vip.into(), TIMEOUT);
    connected.map_err(|error| error.kind())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(REQUEST).map_err(|error| error.kind())?;
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(error.kind()),
    }
}

#[test]
fn reliability_f16_without_a_free_port_another_endpoint_is_taken_and_then_the_reason_told() {
    if !may_make_namespaces() {
        return;
    }
    let pod = Pod::empty(IpAddr::from(Ipv4Addr::LOCALHOST));
    let within = pod.again();
    pod.run(move || {
        for (name, value) in [
            ("ip_local_port_range", "42000 42015"),
            ("tcp_tw_reuse", "0"),
        ] {
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
        }
        let (a, b) = (serve(2, "a"), serve(3, "b"));
        let vip = |number| SocketAddr::from((Ipv4Addr::new(127, 96, 0, 1), number));
        let (tcp, http) = (vip(8001), vip(8002));
        let ports = [(tcp, AppProtocol::Tcp), (http, AppProtocol::Http)];
        let ports =
            ports.map(|(vip, protocol)| (vip.ip(), service_port(vip.port(), protocol, &[a, b])));
        let endpoints = ports.each_ref().map(|(_, port)| port.endpoints.clone());
        let (mut publisher, reader) = snapshot::channel();
        publisher.publish(snapshot_of(ports));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let worker = within.spawn(move || {
            block_on(async {
                let engine = Engine::new(Connector::Direct, EngineOptions::default());
                let host = HostSockets::here();
                let proxy =
                    NodeProxy::bind(Capture::Listeners, reader, engine, Connector::Direct, host);
                proxy.unwrap().run(stop).await;
            });
        });
        for vip in [tcp, http] {
            let _ = eventually(|| answer(vip), Result::is_ok);
        }

        let _to_a = use_up(a);
        for vip in [tcp, http].repeat(4) {
            let text = answer(vip).unwrap();
            assert!(text.ends_with("\r\n\r\nb"), "{vip}: {text}");
        }
        let _to_b = use_up(b);
        assert_eq!(answer(tcp), Err(ErrorKind::ConnectionReset));
        let text = answer(http).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("sealane-error: no_local_ports\r\n"), "{text}");
        for endpoint in endpoints.iter().flat_map(|all| all.iter()) {
            let failures = endpoint.stats.consecutive_failures.load(Ordering::Relaxed);
            assert_eq!(failures, 0, "{} is not to blame", endpoint.addr);
        }
        shutdown.cancel();
        worker.join().unwrap();
    });
}
