//! The node proxy with its rules, as pods and the host see it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_config::model::{AppProtocol, TrafficPolicy};
use socket2::{Domain, Socket, Type};

use crate::world::{
    DNS, PORT, Pod, Proxy, TIMEOUT, World, ask, eventually, read_line, service_port, snapshot_of,
};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 1, 1));

fn opaque(endpoints: &[SocketAddr]) -> sealane_config::Snapshot {
    snapshot_of([(VIP, service_port(80, AppProtocol::Tcp, endpoints))])
}

/// What a pod gets for one line, or how it is turned away.
fn answer(pod: &Pod, addr: impl Into<SocketAddr>) -> Result<String, ErrorKind> {
    let mut stream = pod.connect(addr).map_err(|(kind, _)| kind)?;
    ask(&mut stream, "hello").map_err(|error| error.kind())
}

#[test]
fn proxy_s23_pod_to_service_keeps_the_clients_address() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    server.serve_lines("server", 8000);
    let _proxy = Proxy::start(&world, opaque(&[(server.ip, 8000).into()]));
    let expected = format!("server {} hello", client.ip);
    assert_eq!(answer(&client, (VIP, 80)), Ok(expected));
}

#[test]
fn proxy_s22_a_pod_reaches_itself_through_its_service() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("pod");
    pod.serve_lines("itself", 8000);
    let node_ip = world.node_ip();
    let _proxy = Proxy::start(&world, opaque(&[(pod.ip, 8000).into()]));
    let expected = format!("itself {node_ip} hello");
    assert_eq!(answer(&pod, (VIP, 80)), Ok(expected));
}

#[test]
fn proxy_s1_flows_are_spread_over_all_endpoints() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    let names = ["a", "b", "c"];
    let servers = names.map(|name| world.pod(name));
    for (name, server) in names.into_iter().zip(&servers) {
        server.serve_lines(name, 8000);
    }
    let addrs: Vec<SocketAddr> = servers.iter().map(|s| (s.ip, 8000).into()).collect();
    let _proxy = Proxy::start(&world, opaque(&addrs));
    for name in names {
        eventually(
            || answer(&client, (VIP, 80)).unwrap(),
            |answer| answer.starts_with(name),
        );
    }
}

#[test]
fn proxy_s19_s24_changes_are_for_new_connections_only() {
    let Some(world) = World::new() else { return };
    let (client, old, new) = (world.pod("client"), world.pod("old"), world.pod("new"));
    old.serve_lines("old", 8000);
    new.serve_lines("new", 8000);
    let mut proxy = Proxy::start(&world, opaque(&[(old.ip, 8000).into()]));
    let mut kept = client.connect((VIP, 80)).unwrap();
    assert!(ask(&mut kept, "1").unwrap().starts_with("old"));

    for (snapshot, expected) in [
        (opaque(&[(new.ip, 8000).into()]), Ok("new")),
        (opaque(&[]), Err(ErrorKind::ConnectionRefused)),
        (snapshot_of([]), Err(ErrorKind::TimedOut)),
        (opaque(&[(new.ip, 8000).into()]), Ok("new")),
    ] {
        proxy.publish(snapshot);
        let begun = Instant::now();
        let seen = answer(&client, (VIP, 80));
        let name = seen
            .as_ref()
            .map(|answer| answer.split(' ').next().unwrap());
        assert_eq!(name.map_err(|kind| *kind), expected);
        let lost = expected == Err(ErrorKind::TimedOut);
        assert!(lost || begun.elapsed() < Duration::from_secs(1));
        let answer = ask(&mut kept, "still").unwrap();
        assert!(answer.starts_with("old"), "{answer}");
    }
}

/// The end of a handshake comes when there is nothing behind the address any more.
#[test]
fn proxy_s19_a_half_open_connection_is_reset_when_its_service_goes() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    server.serve_lines("server", 8000);
    let there = || opaque(&[(server.ip, 8000).into()]);
    let mut proxy = Proxy::start(&world, there());
    for (what, gone) in [
        ("no endpoints", opaque(&[])),
        ("no Service", snapshot_of([])),
    ] {
        proxy.publish(there());
        let mut stream = client.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            // The client's last segment of the handshake waits for what it says, or 200 ms.
            socket.set_tcp_quickack(false).unwrap();
            let vip = SocketAddr::new(VIP, 80);
            socket.connect_timeout(&vip.into(), TIMEOUT).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            TcpStream::from(socket)
        });
        proxy.publish(gone);
        match ask(&mut stream, "hello") {
            // A busy machine took longer.
            Ok(answer) => assert!(answer.starts_with("server"), "{what}: {answer}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}"),
        }
    }
}

#[test]
fn proxy_l13_an_endpoint_that_refuses_costs_no_connection() {
    let Some(world) = World::new() else { return };
    let (client, dead, server) = (world.pod("client"), world.pod("dead"), world.pod("server"));
    server.serve_lines("server", 8000);
    let addrs = [(dead.ip, 8000).into(), (server.ip, 8000).into()];
    let _proxy = Proxy::start(&world, opaque(&addrs));
    for _ in 0..10 {
        assert!(answer(&client, (VIP, 80)).unwrap().starts_with("server"));
    }
}

#[test]
fn proxy_l2_a_server_that_speaks_first_is_heard_at_once() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let ip = server.ip;
    let listener = server.run(move || TcpListener::bind((ip, 25)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"220 mail\n").unwrap();
            std::thread::spawn(move || {
                let line = read_line(&mut stream).unwrap();
                stream
                    .write_all(format!("250 {line}\n").as_bytes())
                    .unwrap();
            });
        }
    });
    let port = service_port(25, AppProtocol::Detect, &[(ip, 25).into()]);
    let _proxy = Proxy::start(&world, snapshot_of([(VIP, port)]));

    let mut fastest = TIMEOUT;
    for _ in 0..3 {
        let begun = Instant::now();
        let mut stream = client.connect((VIP, 25)).unwrap();
        assert_eq!(read_line(&mut stream).unwrap(), "220 mail");
        fastest = fastest.min(begun.elapsed());
        assert_eq!(ask(&mut stream, "EHLO a").unwrap(), "250 EHLO a");
    }
    assert!(fastest < Duration::from_millis(150), "{fastest:?}");
}

/// A server that answers each HTTP/1.1 request with its name and closes.
fn serve_http(pod: &Pod, name: &'static str) {
    let ip = pod.ip;
    let listener = pod.run(move || TcpListener::bind((ip, 8000)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut lines = 0;
                while read_line(&mut stream).is_ok_and(|line| line.len() > 1) {
                    lines += 1;
                }
                if lines > 0 {
                    let length = name.len();
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n");
                    let answer = format!("{head}connection: close\r\n\r\n{name}");
                    // The connection was a probe of the detection otherwise.
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
        }
    });
}

/// Sends a request in pieces with pauses between them, and returns the body of the answer.
fn request(stream: &mut TcpStream, pieces: &[&str]) -> String {
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            std::thread::park_timeout(Duration::from_millis(150));
        }
        stream.write_all(piece.as_bytes()).unwrap();
    }
    let status = read_line(stream).unwrap();
    let mut length = 0;
    loop {
        let line = read_line(stream).unwrap().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.len() <= 1 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    String::from_utf8(body).unwrap()
}

#[test]
fn proxy_l1_http_is_found_in_a_split_first_packet_and_after_silence() {
    let Some(world) = World::new() else { return };
    let (client, a, b) = (world.pod("client"), world.pod("a"), world.pod("b"));
    serve_http(&a, "a");
    serve_http(&b, "b");
    let addrs = [(a.ip, 8000).into(), (b.ip, 8000).into()];
    let port = service_port(80, AppProtocol::Detect, &addrs);
    let _proxy = Proxy::start(&world, snapshot_of([(VIP, port)]));
    let whole = "GET / HTTP/1.1\r\nhost: api\r\n\r\n";
    for (name, silence, pieces) in [
        ("whole", 0, vec![whole]),
        ("split", 0, vec![&whole[..1], &whole[1..]]),
        ("after silence", 250, vec![whole]),
    ] {
        let mut stream = client.connect((VIP, 80)).unwrap();
        std::thread::park_timeout(Duration::from_millis(silence));
        let mut seen = vec![request(&mut stream, &pieces)];
        let begun = Instant::now();
        // One connection is answered by both only if requests are balanced, not connections.
        while seen.len() < 2 {
            assert!(begun.elapsed() < TIMEOUT, "{name}: only {seen:?}");
            let next = request(&mut stream, &[whole]);
            if !seen.contains(&next) {
                seen.push(next);
            }
        }
    }
}

#[test]
fn proxy_l25_half_close_and_resets_pass_through() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let ip = server.ip;
    let listener = server.run(move || TcpListener::bind((ip, 8000)).unwrap());
    let _proxy = Proxy::start(&world, opaque(&[(ip, 8000).into()]));

    let mut stream = client.connect((VIP, 80)).unwrap();
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let mut question = String::new();
    accepted.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    accepted.write_all(b"answer").unwrap();
    drop(accepted);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");

    let mut stream = client.connect((VIP, 80)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    socket2::SockRef::from(&accepted)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(accepted);
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn proxy_i5_pods_reach_the_outside_but_never_our_own_listeners() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    // Another namespace stands for the host's, with an address that is outside the cluster.
    let outside: IpAddr = "192.0.2.7".parse().unwrap();
    let mut proxy = Proxy::start_with_outside(&world, opaque(&[]), outside);
    proxy.outside.serve_lines("outside", 443);
    let seen = answer(&client, (outside, 443)).unwrap();
    assert!(seen.starts_with("outside"), "{seen}");
    assert!(seen.ends_with("hello"), "{seen}");

    for (name, addr) in [
        ("nobody listens", (outside, 444).into()),
        ("our own listener", SocketAddr::new(world.node_ip(), PORT)),
        ("our own listener", (DNS, PORT).into()),
    ] {
        let kind = answer(&client, addr).unwrap_err();
        assert_eq!(kind, ErrorKind::ConnectionReset, "{name}");
    }
    let loopback = answer(&client, "169.254.169.254:80".parse::<SocketAddr>().unwrap());
    assert_eq!(loopback, Err(ErrorKind::ConnectionRefused));
    proxy.publish(opaque(&[]));
}

#[test]
fn proxy_s12_cluster_ip_and_node_port_lead_to_the_same_endpoint() {
    let Some(world) = World::new() else { return };
    let clients = ["a", "b", "c", "d"].map(|name| world.pod(name));
    let names = ["one", "two", "three", "four"];
    let servers = names.map(|name| world.pod(name));
    for (name, server) in names.into_iter().zip(&servers) {
        server.serve_lines(name, 8000);
    }
    let mut addrs = servers.each_ref().map(|pod| (pod.ip, 8000).into());
    addrs.sort_unstable();
    let mut port = service_port(80, AppProtocol::Tcp, &addrs);
    port.node_port = Some(30080);
    port.policy = Arc::new(TrafficPolicy {
        affinity: Some(Duration::from_secs(60)),
        ..TrafficPolicy::default()
    });
    let _proxy = Proxy::start(&world, snapshot_of([(VIP, port)]));
    for client in &clients {
        let server = |addr: (IpAddr, u16)| {
            let answer = answer(client, addr).unwrap();
            answer.split(' ').next().unwrap().to_owned()
        };
        let first = server((VIP, 80));
        for _ in 0..5 {
            assert_eq!(server((world.node_ip(), 30080)), first);
            assert_eq!(server((VIP, 80)), first);
        }
    }
}

#[test]
fn proxy_s8_node_ports_answer_on_the_hosts_loopback_and_to_pods() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    server.serve_lines("server", 8000);
    let with_node_port = |endpoints: &[SocketAddr]| {
        let mut port = service_port(80, AppProtocol::Tcp, endpoints);
        port.node_port = Some(30080);
        snapshot_of([(VIP, port)])
    };
    let endpoint = (server.ip, 8000).into();
    let mut proxy = Proxy::start(&world, with_node_port(&[endpoint]));

    let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, 30080));
    let from_host = |proxy: &Proxy| answer(&proxy.outside, localhost);
    let seen = eventually(|| from_host(&proxy), Result::is_ok);
    assert_eq!(seen, Ok(format!("server {} hello", world.node_ip())));
    let seen = answer(&client, (world.node_ip(), 30080));
    let by_the_node = format!("server {} hello", world.node_ip());
    assert_eq!(seen, Ok(by_the_node), "S7");

    proxy.publish(with_node_port(&[]));
    let refused = Err(ErrorKind::ConnectionRefused);
    let _ = eventually(|| from_host(&proxy), |seen| *seen == refused);
    assert_eq!(answer(&client, (world.node_ip(), 30080)), refused);

    proxy.publish(with_node_port(&[endpoint]));
    let _ = eventually(|| from_host(&proxy), Result::is_ok);
    proxy.publish(opaque(&[endpoint]));
    let _ = eventually(|| from_host(&proxy), |seen| *seen == refused);
}

#[test]
fn many_short_connections_all_get_their_answer() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let ip = server.ip;
    let listener = server.run(move || TcpListener::bind((ip, 8000)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let line = read_line(&mut stream).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
        }
    });
    let _proxy = Proxy::start(&world, opaque(&[(ip, 8000).into()]));
    let clients: Vec<_> = (0..4)
        .map(|thread| {
            client.spawn(move || {
                for number in 0..500 {
                    let mut stream = TcpStream::connect((VIP, 80)).unwrap();
                    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                    let line = format!("{thread} {number}");
                    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    assert_eq!(answer, line);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn the_kubernetes_service_leads_to_the_node() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    let node_ip = world.node_ip();
    let vip: IpAddr = "10.96.0.1".parse().unwrap();
    let port = service_port(443, AppProtocol::Tls, &[(node_ip, 6443).into()]);
    let _proxy = Proxy::start(&world, snapshot_of([(vip, port)]));
    let api = world.run(move || TcpListener::bind((node_ip, 6443)).unwrap());
    let mut stream = client.connect((vip, 443)).unwrap();
    stream.write_all(b"\x16\x03\x01").unwrap();
    let (mut accepted, _) = api.accept().unwrap();
    let mut hello = [0; 3];
    accepted.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"\x16\x03\x01");
}
