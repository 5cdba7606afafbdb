//! Services with an address in each family.

use std::net::Ipv6Addr;

use super::*;

const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 1));

/// Gives a pod an address in the other family, too, and returns it as the pod with that address.
fn with_v6(node: &Node, pod: &Pod, last: u8) -> Pod {
    let ip = Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, last.into());
    pod.ip(&format!("-6 addr add {ip}/128 dev eth0 nodad"));
    pod.ip("-6 route add fd64::1 dev eth0");
    pod.ip("-6 route add default via fd64::1 dev eth0");
    let device = format!("dev v{last}");
    node.host
        .ip(&format!("-6 addr add fd64::1/128 {device} nodad"));
    node.host.ip(&format!("-6 route add {ip}/128 {device}"));
    let mut second = pod.again();
    second.ip = ip.into();
    second
}

/// A Service in both families, whose endpoints each has for itself.
fn dual_stack(endpoints: [&[SocketAddr]; 2]) -> Snapshot {
    let [in_v4, in_v6] = endpoints.map(|endpoints| {
        Arc::new(ServicePort {
            node_port: Some(NODE_PORT),
            ..service_port(80, AppProtocol::Tcp, endpoints)
        })
    });
    let mut snapshot = service(&TrafficPolicy::default(), &[], &[]);
    let key = in_v4.service.clone();
    let mut service = Service::clone(&snapshot.services[&key]);
    service.cluster_ips = vec![VIP, VIP6];
    service.ports = vec![Arc::clone(&in_v4)];
    snapshot.cluster_ips.insert_mut(VIP6, key.clone());
    snapshot.services.insert_mut(key, Arc::new(service));
    for (ip, port) in [(VIP, &in_v4), (VIP6, &in_v6)] {
        let port = Arc::clone(port);
        snapshot.vips.insert_mut((ip, Protocol::Tcp, 80), port);
    }
    let node_port = (Protocol::Tcp, NODE_PORT);
    snapshot.node_ports.insert_mut(node_port, in_v4);
    snapshot
}

#[test]
fn proxy_s21_each_family_has_its_endpoints_and_may_have_none() {
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        eprintln!("skipped: no IPv6");
        return;
    }
    let Some(nodes) = Nodes::new() else { return };
    let node = &nodes.one;
    node.host.run(|| {
        let set = |name: &str, value| {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}"), value).unwrap();
        };
        set("all/forwarding", "1");
        // Link-local addresses would not be usable for some seconds, nor neighbours be asked for.
        set("default/accept_dad", "0");
    });
    // Any way out will do for what is led to the proxy.
    node.host.ip("-6 route add default dev eth0");
    let (client, server) = (node.pod(2), node.pod(3));
    let client6 = with_v6(node, &client, 2);
    let server6 = with_v6(node, &server, 3);
    server.serve_lines("four", 8000);
    server6.serve_lines("six", 8000);
    let options = InterceptOptions {
        pod_cidrs: vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd64::/64".parse().unwrap(),
        ],
        service_cidrs: vec![
            "10.96.0.0/16".parse().unwrap(),
            "fd96::/112".parse().unwrap(),
        ],
        ..node.options()
    };
    let node6: IpAddr = "fd64::1".parse().unwrap();
    let (four, six) = ([(server.ip, 8000).into()], [(server6.ip, 8000).into()]);
    let mut proxy = node.proxy_with(options, dual_stack([&[], &[]]));
    for (has_four, has_six) in [(true, true), (true, false), (false, true), (false, false)] {
        let v4 = if has_four { &four[..] } else { &[] };
        let v6 = if has_six { &six[..] } else { &[] };
        proxy.publish(dual_stack([v4, v6]));
        for (from, addr, is_served, name) in [
            (&client, (VIP, 80), has_four, "four"),
            (&client6, (VIP6, 80), has_six, "six"),
            (&client, (node.host.ip, NODE_PORT), has_four, "four"),
            (&client6, (node6, NODE_PORT), has_six, "six"),
            (&node.host, (VIP6, 80), has_six, "six"),
        ] {
            let server = seen(from, addr).map(|(server, _)| server);
            let refused = Err(ErrorKind::ConnectionRefused);
            let expected = if is_served {
                Ok(name.to_owned())
            } else {
                refused
            };
            assert_eq!(
                server, expected,
                "{addr:?}, IPv4 {has_four}, IPv6 {has_six}"
            );
        }
        if has_six {
            let (_, address) = seen(&client6, (VIP6, 80)).unwrap();
            assert_eq!(address, client6.ip.to_string(), "S23");
        }
    }
}
