//! Before, between and after runs of the proxy; changes of a Service's type; how fast changes are.

use std::time::Instant;

use super::*;
use crate::world::{World, eventually, snapshot_of};

#[test]
fn proxy_s25_without_a_proxy_services_are_refused_and_nothing_else_changes() {
    let Some(nodes) = Nodes::new() else { return };
    let (client, there) = (nodes.one.pod(2), nodes.two.pod(3));
    there.serve_lines("there", 8000);
    let endpoint: SocketAddr = (there.ip, 8000).into();
    let snapshot = || service(&TrafficPolicy::default(), &[endpoint], &[]);
    let host = &nodes.one.host;
    let is = |from: &Pod, addr| seen(from, addr).map(|(server, _)| server);
    let (served, refused) = (Ok("there".to_owned()), Err(ErrorKind::ConnectionRefused));
    for life in ["first", "second"] {
        let proxy = nodes.one.proxy(snapshot());
        for from in [&client, host] {
            assert_eq!(is(from, (VIP, 80)), served, "{life}");
        }
        // As after kill -9: the sockets are gone, the rules are not.
        drop(proxy);
        for from in [&client, host] {
            let begun = Instant::now();
            assert_eq!(is(from, (VIP, 80)), refused, "after the {life}");
            assert!(begun.elapsed() < LOST, "after the {life}");
            assert_eq!(is(from, (there.ip, 8000)), served, "directly");
        }
        let node_port = (host.ip, NODE_PORT);
        assert_eq!(is(&nodes.outside, node_port), refused, "after the {life}");
    }
}

#[test]
fn proxy_s25_nothing_is_programmed_before_the_first_sync() {
    let Some(nodes) = Nodes::new() else { return };
    let client = nodes.one.pod(2);
    let _old = nodes
        .one
        .proxy(service(&TrafficPolicy::default(), &[], &[]));
    let refused = Err(ErrorKind::ConnectionRefused);
    assert_eq!(seen(&client, (VIP, 80)), refused);
    let options = nodes.one.options();
    let before_sync = nodes.one.host.run(move || {
        let mut next = Interceptor::open(options).unwrap();
        next.apply(&Snapshot::default()).unwrap()
    });
    assert_eq!(before_sync, 0);
    assert_eq!(seen(&client, (VIP, 80)), refused, "the last table stays");
}

#[test]
fn proxy_s24_types_change_and_addresses_come_back() {
    let Some(world) = World::new() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    server.serve_lines("server", 8000);
    let endpoint: SocketAddr = (server.ip, 8000).into();
    let cluster_ip = || service_port(80, AppProtocol::Tcp, &[endpoint]);
    let node_port = || ServicePort {
        node_port: Some(NODE_PORT),
        ..cluster_ip()
    };
    let node = (world.node_ip(), NODE_PORT);
    let vip = (VIP, 80);
    let (yes, gone) = (true, false);
    let mut proxy = Proxy::start(&world, snapshot_of([]));
    for (name, snapshot, by_cluster_ip, by_node_port) in [
        ("ClusterIP", snapshot_of([(VIP, cluster_ip())]), yes, gone),
        ("NodePort", snapshot_of([(VIP, node_port())]), yes, yes),
        ("ExternalName", snapshot_of([]), gone, gone),
        (
            "NodePort again",
            snapshot_of([(VIP, node_port())]),
            yes,
            yes,
        ),
        (
            "another port",
            snapshot_of([(VIP, service_port(81, AppProtocol::Tcp, &[endpoint]))]),
            gone,
            gone,
        ),
        (
            "the same address again",
            snapshot_of([(VIP, cluster_ip())]),
            yes,
            gone,
        ),
    ] {
        let begun = Instant::now();
        proxy.publish(snapshot);
        assert_eq!(seen(&client, vip).is_ok(), by_cluster_ip, "{name}");
        assert_eq!(seen(&client, node).is_ok(), by_node_port, "{name}");
        assert!(
            begun.elapsed() < Duration::from_secs(1) + 2 * LOST,
            "{name}"
        );
    }
}

#[test]
fn proxy_s27_new_connections_follow_a_change_among_ten_thousand_services() {
    let Some(world) = World::new() else { return };
    let client = world.pod("client");
    let servers = ["a", "b"].map(|name| {
        let pod = world.pod(name);
        pod.serve_lines(name, 8000);
        pod
    });
    let other: SocketAddr = "10.244.9.9:80".parse().unwrap();
    let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a60_1000 + n));
    let services = (0..10_000).map(|n| (ip(n), service_port(80, AppProtocol::Tcp, &[other])));
    let mut snapshot = snapshot_of(services);
    let mut with = |endpoints: &[SocketAddr]| {
        let port = service_port(80, AppProtocol::Tcp, endpoints);
        let one = snapshot_of([(VIP, port)]);
        for (key, service) in &one.services {
            let services = &mut snapshot.services;
            services.insert_mut(key.clone(), Arc::clone(service));
            snapshot.cluster_ips.insert_mut(VIP, key.clone());
        }
        for (key, port) in &one.vips {
            snapshot.vips.insert_mut(*key, Arc::clone(port));
        }
        snapshot.clone()
    };
    let mut proxy = Proxy::start(&world, with(&[]));
    let mut times = Vec::new();
    for round in 0..60 {
        let (name, pod) = [("a", &servers[0]), ("b", &servers[1])][round % 2];
        // Every third change takes the kernel's sets along.
        if round % 3 == 0 {
            proxy.publish(with(&[]));
        }
        let next = with(&[(pod.ip, 8000).into()]);
        let begun = Instant::now();
        proxy.announce(next);
        let _ = eventually(
            || seen(&client, (VIP, 80)),
            |seen| seen.as_ref().is_ok_and(|(server, _)| server == name),
        );
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    eprintln!(
        "S27: a change is seen after {:?} (median), {:?} (99 %)",
        at(50),
        at(99)
    );
}
