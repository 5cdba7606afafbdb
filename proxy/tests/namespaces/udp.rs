//! UDP Services as pods and the host see them.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_config::Snapshot;
use sealane_config::model::{
    AppProtocol, Conditions, EndpointInfo, Protocol, Scope, Service, ServiceEndpoint, TrafficPolicy,
};
use sealane_proxy::intercept::Method;

use crate::datagrams::{ask_once, datagrams, udp_port, who, who_answers};
use crate::world::{DNS, Pod, Proxy, TIMEOUT, World, eventually, service_port, snapshot_of};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 1, 1));
const AT_ONCE: Duration = Duration::from_millis(10);

fn one_service(endpoints: &[SocketAddr]) -> Snapshot {
    snapshot_of([(VIP, udp_port(53, endpoints))])
}

fn refused_in(socket: &UdpSocket) -> Duration {
    let begun = Instant::now();
    assert_eq!(ask_once(socket, "?"), Err(ErrorKind::ConnectionRefused));
    begun.elapsed()
}

#[test]
fn proxy_s17_s23_a_flow_has_one_endpoint_and_both_addresses_are_kept() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    let pods = ["a", "b", "c"].map(|name| world.pod(name));
    let _servers = [("a", &pods[0]), ("b", &pods[1]), ("c", &pods[2])]
        .map(|(name, pod)| pod.serve_datagrams(name, 5353));
    let endpoints = pods.each_ref().map(|pod| (pod.ip, 5353).into());
    let _proxy = Proxy::start(&world, one_service(&endpoints));
    let mut seen = HashSet::new();
    for _ in 0..30 {
        // It is connected: an answer from anywhere but the cluster IP would not be delivered.
        let socket = client.datagrams((VIP, 53));
        let port = socket.local_addr().unwrap().port();
        let first = ask_once(&socket, "1").unwrap();
        let name = who(&first).to_owned();
        for text in ["1", "2", "3"] {
            let expected = format!("{name} {}:{port} {text}", client.ip);
            assert_eq!(ask_once(&socket, text), Ok(expected));
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), 3, "flows are spread: {seen:?}");
}

#[test]
fn datagrams_of_all_sizes_pass_and_many_at_once() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let _server = server.serve_datagrams("s", 5353);
    let _proxy = Proxy::start(&world, one_service(&[(server.ip, 5353).into()]));
    let socket = client.datagrams((VIP, 53));
    for size in [0, 1, 1400, 1500, 9000, 60_000] {
        let text = "x".repeat(size);
        let answer = ask_once(&socket, &text).unwrap();
        assert!(answer.ends_with(&text) && answer.len() > size, "{size}");
    }
    let mut answers = HashSet::new();
    for number in 0..200 {
        socket.send(format!("{number}").as_bytes()).unwrap();
    }
    let mut buffer = [0; 256];
    while answers.len() < 200 {
        let length = socket.recv(&mut buffer).unwrap();
        answers.insert(buffer[..length].to_vec());
    }
}

#[test]
fn proxy_s18_flows_move_with_the_next_datagram_and_are_refused_without_endpoints() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    let pods = ["a", "b"].map(|name| world.pod(name));
    let _servers = [
        pods[0].serve_datagrams("a", 5353),
        pods[1].serve_datagrams("b", 5353),
    ];
    let [a, b]: [SocketAddr; 2] = pods.each_ref().map(|pod| (pod.ip, 5353).into());
    let mut proxy = Proxy::start(&world, one_service(&[a, b]));
    let sockets: Vec<_> = (0..20).map(|_| client.datagrams((VIP, 53))).collect();
    for socket in &sockets {
        ask_once(socket, "1").unwrap();
    }
    for (name, endpoint) in [("a", a), ("b", b), ("a", a)] {
        proxy.publish(one_service(&[endpoint]));
        for socket in &sockets {
            assert_eq!(who(&ask_once(socket, "next").unwrap()), name);
        }
    }

    proxy.publish(one_service(&[]));
    let fastest = sockets[..5].iter().map(refused_in).min();
    assert!(fastest.unwrap() < AT_ONCE, "{fastest:?}");
    proxy.publish(one_service(&[b]));
    for socket in &sockets {
        assert_eq!(who_answers(socket), "b");
    }

    proxy.publish(snapshot_of([]));
    let socket = &sockets[0];
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert_eq!(ask_once(socket, "lost"), Err(ErrorKind::WouldBlock), "S1");
    proxy.publish(one_service(&[a]));
    assert_eq!(who_answers(socket), "a");
}

#[test]
fn proxy_s3_s18_flows_stay_with_an_endpoint_that_terminates_but_serves() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    let pods = ["a", "b"].map(|name| world.pod(name));
    let _servers = [
        pods[0].serve_datagrams("a", 5353),
        pods[1].serve_datagrams("b", 5353),
    ];
    let [a, b]: [SocketAddr; 2] = pods.each_ref().map(|pod| (pod.ip, 5353).into());
    let mut proxy = Proxy::start(&world, one_service(&[a]));
    let old = client.datagrams((VIP, 53));
    assert_eq!(who_answers(&old), "a");

    let with_terminating = |serving: bool| {
        let mut snapshot = one_service(&[b]);
        let (key, service) = snapshot.services.iter().next().unwrap();
        let conditions = Conditions {
            ready: Some(false),
            serving: Some(serving),
            terminating: true,
        };
        let terminating = ServiceEndpoint {
            info: Arc::new(EndpointInfo {
                conditions,
                ..EndpointInfo::at(a.ip())
            }),
            ready: false,
            ports: Arc::new(vec![("".into(), Protocol::Udp, a.port())]),
        };
        let service = Service {
            endpoints: Arc::new([terminating]),
            ..Service::clone(service)
        };
        snapshot.services = snapshot.services.insert(key.clone(), Arc::new(service));
        snapshot
    };
    proxy.publish(with_terminating(true));
    for _ in 0..5 {
        assert_eq!(who(&ask_once(&old, "old").unwrap()), "a");
        let new = client.datagrams((VIP, 53));
        assert_eq!(who(&ask_once(&new, "new").unwrap()), "b");
    }
    proxy.publish(with_terminating(false));
    assert_eq!(who(&ask_once(&old, "old").unwrap()), "b");
}

#[test]
fn proxy_s18_s25_a_restart_keeps_endpoints_and_source_ports() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    let pods = ["a", "b", "c"].map(|name| world.pod(name));
    let _servers = [("a", &pods[0]), ("b", &pods[1]), ("c", &pods[2])]
        .map(|(name, pod)| pod.serve_datagrams(name, 5353));
    let endpoints = pods.each_ref().map(|pod| (pod.ip, 5353).into());
    let sockets: Vec<_> = (0..30).map(|_| client.datagrams((VIP, 53))).collect();
    let ask_all = || -> Vec<String> {
        let answers = sockets.iter().map(|s| ask_once(s, "?").unwrap());
        answers.collect()
    };
    let before = {
        let _proxy = Proxy::start(&world, one_service(&endpoints));
        ask_all()
    };
    let _proxy = Proxy::start(&world, one_service(&endpoints));
    assert_eq!(ask_all(), before);
}

#[test]
fn proxy_s18_what_a_closed_port_refuses_goes_to_another_endpoint() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    let names = ["a", "b", "c"];
    let pods = names.map(|name| world.pod(name));
    for pod in &pods {
        // A kernel tells one peer of six closed ports at once and of one a second from then on.
        pod.run(|| std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap());
    }
    let both = names.into_iter().zip(&pods);
    let mut servers: Vec<_> = both
        .map(|(name, pod)| (name, pod.serve_datagrams(name, 5353)))
        .collect();
    let endpoints = pods.each_ref().map(|pod| (pod.ip, 5353).into());
    let _proxy = Proxy::start(&world, one_service(&endpoints));
    let sockets: Vec<_> = (0..10).map(|_| client.datagrams((VIP, 53))).collect();
    for socket in &sockets {
        ask_once(socket, "1").unwrap();
    }
    // They stay endpoints, as crashed containers do for a while.
    for left in [2, 1] {
        servers.truncate(left);
        for (number, socket) in sockets.iter().enumerate() {
            let text = "x".repeat(50 * number);
            let answer = ask_once(socket, &text).unwrap();
            assert!(answer.ends_with(&text), "{answer}");
            let expected = servers.iter().any(|(name, _)| *name == who(&answer));
            assert!(expected, "{answer}");
        }
    }
    // Whoever is back is found.
    servers.clear();
    for socket in &sockets {
        assert_eq!(ask_once(socket, "?"), Err(ErrorKind::ConnectionRefused));
    }
    let _back = pods[2].serve_datagrams("c", 5353);
    for socket in &sockets {
        assert_eq!(who_answers(socket), "c");
    }
}

#[test]
fn proxy_s4_a_client_is_told_that_the_only_endpoint_refuses() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let endpoint = (server.ip, 5353).into();
    let _proxy = Proxy::start(&world, one_service(&[endpoint]));
    let socket = client.datagrams((VIP, 53));
    let fastest = (0..3).map(|_| refused_in(&socket)).min();
    assert!(fastest.unwrap() < AT_ONCE, "{fastest:?}");
    let _server = server.serve_datagrams("s", 5353);
    assert_eq!(who_answers(&socket), "s");
}

#[test]
fn proxy_s22_a_pod_reaches_itself_by_udp() {
    let Some(world) = World::new() else { return };
    let pod = world.pod("pod");
    let _server = pod.serve_datagrams("itself", 5353);
    let _proxy = Proxy::start(&world, one_service(&[(pod.ip, 5353).into()]));
    let answer = ask_once(&pod.datagrams((VIP, 53)), "hello").unwrap();
    let prefix = format!("itself {}:", world.node_ip());
    assert!(answer.starts_with(&prefix), "{answer}");
}

#[test]
fn one_socket_of_a_client_can_use_two_services_with_the_same_endpoint() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let _server = server.serve_datagrams("s", 5353);
    let other: IpAddr = "10.96.1.2".parse().unwrap();
    let endpoint = (server.ip, 5353).into();
    let ports = [VIP, other].map(|vip| (vip, udp_port(53, &[endpoint])));
    let _proxy = Proxy::start(&world, snapshot_of(ports));
    client.run(move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut buffer = [0; 256];
        for _ in 0..5 {
            for vip in [VIP, other] {
                socket.send_to(b"x", (vip, 53)).unwrap();
                let (_, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(from, (vip, 53).into());
            }
        }
    });
}

#[test]
fn proxy_s8_udp_node_ports_answer_on_the_hosts_loopback_and_to_pods() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let _server = server.serve_datagrams("s", 5353);
    let with = |endpoints: &[SocketAddr]| {
        let mut port = udp_port(53, endpoints);
        port.node_port = Some(30053);
        snapshot_of([(VIP, port)])
    };
    let mut proxy = Proxy::start(&world, with(&[(server.ip, 5353).into()]));
    let ask_host = |proxy: &Proxy| {
        proxy.outside.run(|| {
            let socket = datagrams((Ipv4Addr::LOCALHOST, 30053).into());
            // A datagram that arrives while its listener is closed is lost.
            socket
                .set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            ask_once(&socket, "hello")
        })
    };
    let answer = eventually(|| ask_host(&proxy), Result::is_ok).unwrap();
    let node = format!("s {}:", world.node_ip());
    assert!(answer.starts_with(&node), "{answer}");
    let socket = client.datagrams((world.node_ip(), 30053));
    let answer = ask_once(&socket, "hello").unwrap();
    assert!(answer.starts_with(&node), "S7: {answer}");

    proxy.publish(with(&[]));
    let refused = Err(ErrorKind::ConnectionRefused);
    let _ = eventually(|| ask_host(&proxy), |seen| *seen == refused);
    assert!(refused_in(&socket) < TIMEOUT);
}

#[test]
fn proxy_s20_s24_tcp_and_udp_of_one_number_are_independent_and_change() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let _server = server.serve_datagrams("udp", 5353);
    server.serve_lines("tcp", 5353);
    let endpoint: SocketAddr = (server.ip, 5353).into();
    let with = |by_tcp: bool, by_udp: bool| {
        let tcp = service_port(53, AppProtocol::Tcp, &[endpoint]);
        let mut snapshot = snapshot_of(by_tcp.then_some((VIP, tcp)));
        for (key, port) in &one_service(&[endpoint]).vips {
            if by_udp {
                snapshot.vips.insert_mut(*key, Arc::clone(port));
            }
        }
        snapshot.cluster_ips = one_service(&[]).cluster_ips;
        snapshot
    };
    let mut proxy = Proxy::start(&world, with(true, false));
    let ask_tcp = || {
        let connected = client.connect((VIP, 53));
        connected.map_err(|(kind, _)| kind).map(drop)
    };
    let ask_udp = || ask_once(&client.datagrams((VIP, 53)), "?").map(|a| who(&a).to_owned());
    let refused = ErrorKind::ConnectionRefused;
    for (snapshot, by_tcp, by_udp) in [
        (with(true, false), Ok(()), Err(refused)),
        (with(true, true), Ok(()), Ok("udp".to_owned())),
        (with(false, true), Err(refused), Ok("udp".to_owned())),
        (with(true, false), Ok(()), Err(refused)),
    ] {
        proxy.publish(snapshot);
        assert_eq!(ask_tcp(), by_tcp);
        assert_eq!(ask_udp(), by_udp);
    }
}

#[test]
fn proxy_s5_local_policy_drops_datagrams_that_only_others_could_serve() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    let _server = server.serve_datagrams("s", 5353);
    let with = |is_here: bool| {
        let mut port = udp_port(53, &[(server.ip, 5353).into()]);
        port.policy = Arc::new(TrafficPolicy {
            internal: Scope::Local,
            ..TrafficPolicy::default()
        });
        let here = port.endpoints.iter().filter(|_| is_here).cloned();
        port.local = Some(here.collect());
        snapshot_of([(VIP, port)])
    };
    let mut proxy = Proxy::start(&world, with(true));
    let socket = client.datagrams((VIP, 53));
    assert_eq!(who_answers(&socket), "s");
    proxy.publish(with(false));
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert_eq!(ask_once(&socket, "lost"), Err(ErrorKind::WouldBlock));
    proxy.publish(with(true));
    assert_eq!(who_answers(&socket), "s");
}

#[test]
fn proxy_s12_udp_flows_of_a_client_come_to_one_endpoint() {
    let Some(world) = World::new() else { return };
    let clients = ["a", "b", "c"].map(|name| world.pod(name));
    let names = ["one", "two", "three", "four"];
    let pods = names.map(|name| world.pod(name));
    let both = names.into_iter().zip(&pods);
    let _servers: Vec<_> = both
        .map(|(name, pod)| pod.serve_datagrams(name, 5353))
        .collect();
    let endpoints = pods.each_ref().map(|pod| (pod.ip, 5353).into());
    let mut port = udp_port(53, &endpoints);
    port.node_port = Some(30053);
    port.policy = Arc::new(TrafficPolicy {
        affinity: Some(Duration::from_secs(60)),
        ..TrafficPolicy::default()
    });
    let _proxy = Proxy::start(&world, snapshot_of([(VIP, port)]));
    let of = |client: &Pod, addr: (IpAddr, u16)| who_answers(&client.datagrams(addr));
    for client in &clients {
        let first = of(client, (VIP, 53));
        for _ in 0..5 {
            assert_eq!(of(client, (VIP, 53)), first);
            assert_eq!(of(client, (world.node_ip(), 30053)), first);
        }
    }
}

#[test]
fn cluster_dns_can_be_pods() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("coredns"));
    let _server = server.serve_datagrams("coredns", 53);
    let port = udp_port(53, &[(server.ip, 53).into()]);
    let _proxy = Proxy::start(&world, snapshot_of([(DNS.into(), port)]));
    assert_eq!(who_answers(&client.datagrams((DNS, 53))), "coredns");
}

#[test]
fn proxy_s1_s18_udp_is_served_where_tproxy_does_not_work() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.method = Method::Redirect;
    let client = world.pod("client");
    let pods = ["a", "b"].map(|name| world.pod(name));
    let _servers = [
        pods[0].serve_datagrams("a", 5353),
        pods[1].serve_datagrams("b", 5353),
    ];
    let [a, b]: [SocketAddr; 2] = pods.each_ref().map(|pod| (pod.ip, 5353).into());
    let with = |endpoints: &[SocketAddr]| {
        let mut port = udp_port(53, endpoints);
        port.node_port = Some(30053);
        snapshot_of([(VIP, port)])
    };
    let mut proxy = Proxy::start(&world, with(&[a]));
    for addr in [(VIP, 53), (world.node_ip(), 30053)] {
        proxy.publish(with(&[a]));
        let socket = client.datagrams(addr);
        assert_eq!(who_answers(&socket), "a");
        proxy.publish(with(&[b]));
        assert_eq!(who_answers(&socket), "b");
        proxy.publish(with(&[]));
        assert!(refused_in(&socket) < TIMEOUT);
    }
}
