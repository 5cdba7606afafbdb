//! The rules alone, with a listener that only looks at what arrives.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use sealane_config::Snapshot;
use sealane_config::model::{AppProtocol, Protocol};
use sealane_proxy::intercept::{InterceptOptions, Interceptor, listener, remove};

use crate::world::{DNS, PORT, Pod, TIMEOUT, World, service_port, snapshot_of};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 1, 1));
/// What refusing at once means (S4).
const AT_ONCE: Duration = Duration::from_millis(10);

fn interceptor(world: &World) -> Interceptor {
    let options = world.options();
    world.run(move || Interceptor::open(options).unwrap())
}

/// Endpoints need not exist for the kernel to intercept.
fn snapshot(endpoints: u8) -> Snapshot {
    let addrs: Vec<SocketAddr> = (0..endpoints)
        .map(|last| (Ipv4Addr::new(10, 244, 9, last), 8000).into())
        .collect();
    snapshot_of([(VIP, service_port(80, AppProtocol::Tcp, &addrs))])
}

fn accept(listener: &std::net::TcpListener) -> TcpStream {
    let begun = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(begun.elapsed() < TIMEOUT, "nothing was intercepted");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Refused, and fast enough in the best of some tries: the machine may be busy.
fn assert_refused_at_once(pod: &Pod, addr: impl Into<SocketAddr>) {
    let addr = addr.into();
    let fastest = (0..5)
        .map(|_| pod.connect(addr).expect_err("it should be refused"))
        .inspect(|(kind, _)| assert_eq!(*kind, ErrorKind::ConnectionRefused, "{addr}"))
        .map(|(_, time)| time)
        .min();
    assert!(fastest.unwrap() < AT_ONCE, "{addr}: {fastest:?}");
}

#[test]
fn proxy_i4_the_original_destination_is_the_local_address() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("client");
    let mut interceptor = interceptor(&world);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = world.run(move || listener(everywhere).unwrap());
    interceptor.apply(&snapshot(1)).unwrap();

    for addr in ["10.96.1.1:80", "192.0.2.1:443"] {
        let addr: SocketAddr = addr.parse().unwrap();
        let client = pod.connect(addr).unwrap();
        let accepted = accept(&listener);
        assert_eq!(accepted.local_addr().unwrap(), addr);
        let client_addr = client.local_addr().unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), client_addr);
        assert_eq!(client_addr.ip(), pod.ip);
    }
}

#[test]
fn proxy_i5_without_egress_only_services_are_intercepted_and_nothing_once_removed() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("client");
    let options = InterceptOptions {
        egress: false,
        ..world.options()
    };
    let mut interceptor = world.run(move || Interceptor::open(options).unwrap());
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = world.run(move || listener(everywhere).unwrap());
    interceptor.apply(&snapshot(1)).unwrap();
    let try_to = |addr: &str| {
        let addr: SocketAddr = addr.parse().unwrap();
        pod.run(move || TcpStream::connect_timeout(&addr, Duration::from_millis(300)))
    };
    pod.connect((VIP, 80)).unwrap();
    accept(&listener);
    // This namespace has no way out, which a pod is told at once or never.
    try_to("192.0.2.1:443").unwrap_err();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

    for _ in 0..2 {
        world.run(|| remove().unwrap());
        try_to("10.96.1.1:80").unwrap_err();
    }
}

#[test]
fn proxy_s4_refused_without_endpoints() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("client");
    let mut interceptor = interceptor(&world);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let _listener = world.run(move || listener(everywhere).unwrap());
    let mut udp_port = service_port(53, AppProtocol::Detect, &[]);
    udp_port.protocol = Protocol::Udp;
    let mut node_port = service_port(81, AppProtocol::Detect, &[]);
    node_port.node_port = Some(30081);
    let empty = service_port(80, AppProtocol::Detect, &[]);
    interceptor
        .apply(&snapshot_of([
            (VIP, empty),
            (VIP, udp_port),
            (VIP, node_port),
        ]))
        .unwrap();

    assert_refused_at_once(&pod, (VIP, 80));
    assert_refused_at_once(&pod, (world.node_ip(), 30081));
    let refused = pod.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.connect((VIP, 53)).unwrap();
        socket.send(b"?").unwrap();
        socket.recv(&mut [0]).unwrap_err().kind()
    });
    assert_eq!(refused, ErrorKind::ConnectionRefused, "UDP");
}

#[test]
fn proxy_s1_unknown_ports_are_refused_and_unknown_addresses_lost() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("client");
    let mut interceptor = interceptor(&world);
    interceptor.apply(&snapshot(1)).unwrap();

    assert_refused_at_once(&pod, (VIP, 81));
    assert_refused_at_once(&pod, "169.254.169.254:80".parse::<SocketAddr>().unwrap());
    let lost = pod.run(|| {
        let addr = "10.96.200.200:80".parse().unwrap();
        TcpStream::connect_timeout(&addr, Duration::from_millis(300))
    });
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn proxy_s20_endpoint_churn_writes_nothing_and_transitions_take_effect() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("client");
    let mut interceptor = interceptor(&world);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = world.run(move || listener(everywhere).unwrap());
    assert_eq!(
        interceptor.apply(&Snapshot::default()).unwrap(),
        0,
        "nothing before the first sync"
    );
    assert_ne!(interceptor.apply(&snapshot(1)).unwrap(), 0);
    for endpoints in [2, 250, 3] {
        assert_eq!(interceptor.apply(&snapshot(endpoints)).unwrap(), 0);
    }
    pod.connect((VIP, 80)).unwrap();
    let kept = accept(&listener);

    assert_eq!(interceptor.apply(&snapshot(0)).unwrap(), 2);
    assert_refused_at_once(&pod, (VIP, 80));
    assert_eq!(interceptor.apply(&snapshot(1)).unwrap(), 2);
    pod.connect((VIP, 80)).unwrap();
    assert_eq!(interceptor.apply(&snapshot_of([])).unwrap(), 2);
    let gone =
        pod.run(|| TcpStream::connect_timeout(&(VIP, 80).into(), Duration::from_millis(300)));
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(kept.take_error().unwrap().map(|e| e.kind()), None);
}

#[test]
fn proxy_s25_a_table_of_an_earlier_run_is_replaced() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("client");
    let other: IpAddr = "10.96.1.2".parse().unwrap();
    let port = || service_port(80, AppProtocol::Tcp, &[]);
    let mut first = interceptor(&world);
    first.apply(&snapshot_of([(VIP, port())])).unwrap();
    drop(first);
    assert_refused_at_once(&pod, (VIP, 80));

    let mut second = interceptor(&world);
    second.apply(&snapshot_of([(other, port())])).unwrap();
    assert_refused_at_once(&pod, (other, 80));
    let gone =
        pod.run(|| TcpStream::connect_timeout(&(VIP, 80).into(), Duration::from_millis(300)));
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn what_listens_on_the_node_itself_is_left_alone() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("client");
    let neighbour = world.pod("neighbour");
    neighbour.serve_lines("neighbour", 80);
    let mut interceptor = interceptor(&world);
    interceptor
        .apply(&snapshot_of([(
            DNS.into(),
            service_port(53, AppProtocol::Detect, &[]),
        )]))
        .unwrap();
    let node_ip = world.node_ip();
    for (ip, port) in [(node_ip, 6443), (DNS.into(), 53)] {
        let local = world.run(move || std::net::TcpListener::bind((ip, port)).unwrap());
        let client = pod.connect((ip, port)).unwrap();
        let (_, peer) = local.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let own = world.run(move || TcpStream::connect((ip, port)).unwrap());
        assert_eq!(local.accept().unwrap().1, own.local_addr().unwrap());
    }
    let mut stream = pod.connect((neighbour.ip, 80)).unwrap();
    let answer = crate::world::ask(&mut stream, "direct").unwrap();
    assert_eq!(answer, format!("neighbour {} direct", pod.ip));
}

#[test]
fn proxy_i9_ten_thousand_services_are_written_in_batches() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("client");
    let mut interceptor = interceptor(&world);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = world.run(move || listener(everywhere).unwrap());
    let endpoint: SocketAddr = "10.244.9.9:80".parse().unwrap();
    let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a60_1000 + n));
    let services = (0..10_000).map(|n| (ip(n), service_port(80, AppProtocol::Tcp, &[endpoint])));
    let written = interceptor.apply(&snapshot_of(services)).unwrap();
    assert_eq!(written, 20_002);
    pod.connect((ip(9_999), 80)).unwrap();
    assert_eq!(accept(&listener).local_addr().unwrap().ip(), ip(9_999));
    assert_eq!(interceptor.apply(&snapshot_of([])).unwrap(), 20_000);
}
