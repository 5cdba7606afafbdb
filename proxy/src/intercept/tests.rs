use std::sync::Arc;

use sealane_config::model::{AppProtocol, Endpoint, Protocol, ServiceKey, ServicePort};

use super::rule::Family;
use super::state::{Change, Element, Elements, Set};
use super::*;

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 1, 1));
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1));
const DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));

fn options() -> InterceptOptions {
    InterceptOptions {
        method: Method::Transparent,
        port: 15001,
        mark: 1,
        node_ips: vec![NODE],
        local_addresses: vec![DNS],
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        egress: true,
    }
}

fn port(protocol: Protocol, number: u16, endpoints: usize) -> Arc<ServicePort> {
    let endpoint = |last: usize| {
        let ip = Ipv4Addr::new(10, 244, 0, last as u8 + 2);
        Arc::new(Endpoint::at((ip, 8000).into()))
    };
    Arc::new(ServicePort {
        service: ServiceKey {
            namespace: "default".into(),
            name: "api".into(),
        },
        name: "".into(),
        port: number,
        protocol,
        node_port: None,
        app_protocol: AppProtocol::Detect,
        endpoints: (0..endpoints).map(endpoint).collect(),
        local: None,
        policy: Arc::default(),
        http: Arc::default(),
    })
}

fn snapshot(vips: &[(IpAddr, Protocol, u16, usize)]) -> Snapshot {
    let mut snapshot = Snapshot {
        synced: true,
        ..Snapshot::default()
    };
    for &(ip, protocol, number, endpoints) in vips {
        let port = port(protocol, number, endpoints);
        let service = port.service.clone();
        snapshot.cluster_ips.insert_mut(ip, service);
        snapshot.vips.insert_mut((ip, protocol, number), port);
    }
    snapshot
}

/// What the kernel has after these snapshots, and the last changes.
fn after(snapshots: &[Snapshot]) -> (Elements, Vec<Change>) {
    let (mut elements, mut changes) = (Elements::new(), Vec::new());
    for snapshot in snapshots {
        changes = difference(&elements, snapshot, &options());
        record(&mut elements, &changes);
        let again = difference(&elements, snapshot, &options());
        assert_eq!(again, [], "nothing is left to do");
    }
    (elements, changes)
}

fn elements(vips: &[(IpAddr, Protocol, u16, usize)]) -> Elements {
    after(&[snapshot(vips)]).0
}

#[test]
fn proxy_s1_s4_a_port_is_captured_refused_or_left_alone() {
    use Protocol::{Tcp, Udp};
    let v4 = Family::V4;
    for (name, vip, expected) in [
        ("endpoints", (VIP, Tcp, 80, 2), Some(Set::Capture(v4))),
        ("no endpoints", (VIP, Tcp, 80, 0), Some(Set::Refuse(v4))),
        ("UDP without", (VIP, Udp, 53, 0), Some(Set::Refuse(v4))),
        ("UDP with", (VIP, Udp, 53, 1), Some(Set::Capture(v4))),
        ("the DNS's own address", (DNS, Tcp, 53, 0), None),
        ("DNS over TCP", (DNS, Tcp, 53, 1), Some(Set::Capture(v4))),
        ("DNS of pods", (DNS, Udp, 53, 1), Some(Set::Capture(v4))),
    ] {
        let (ip, protocol, number, _) = vip;
        let elements = elements(&[vip]);
        let element = Element::Service(ip, protocol, number);
        assert_eq!(elements.get(&element).copied(), expected, "{name}");
        let address = (ip == VIP).then_some(Set::ServiceAddresses(v4));
        let own = Some(Set::NodeAddresses(v4));
        let found = elements.get(&Element::Address(ip)).copied();
        assert_eq!(found, address.or(own), "{name}");
    }
}

#[test]
fn proxy_s8_node_ports_are_served_on_the_nodes_addresses() {
    let mut snapshot = snapshot(&[]);
    for (number, endpoints) in [(30080, 1), (30081, 0)] {
        let port = port(Protocol::Tcp, 80, endpoints);
        snapshot
            .node_ports
            .insert_mut((Protocol::Tcp, number), port);
    }
    let (elements, _) = after(&[snapshot]);
    let set = |number| elements.get(&Element::Service(NODE, Protocol::Tcp, number));
    assert_eq!(set(30080), Some(&Set::Capture(Family::V4)));
    assert_eq!(set(30081), Some(&Set::Refuse(Family::V4)));
    assert_eq!(elements.len(), 4, "two ports and two own addresses");
}

#[test]
fn proxy_s21_families_have_sets_of_their_own() {
    let v6: IpAddr = "fd00::1".parse().unwrap();
    let elements = elements(&[(VIP, Protocol::Tcp, 80, 1), (v6, Protocol::Tcp, 80, 0)]);
    let set = |ip| elements[&Element::Service(ip, Protocol::Tcp, 80)];
    assert_eq!(set(VIP), Set::Capture(Family::V4));
    assert_eq!(set(v6), Set::Refuse(Family::V6));
}

#[test]
fn proxy_s20_only_what_differs_is_written() {
    let tcp = Protocol::Tcp;
    let v4 = Family::V4;
    let element = Element::Service(VIP, tcp, 80);
    let change = |set, add| Change { set, element, add };
    let address = |add| Change {
        set: Set::ServiceAddresses(v4),
        element: Element::Address(VIP),
        add,
    };
    for (name, before, now, expected) in [
        ("endpoint churn", vec![1], vec![250], vec![]),
        (
            "the last endpoint goes",
            vec![1],
            vec![0],
            vec![
                change(Set::Capture(v4), false),
                change(Set::Refuse(v4), true),
            ],
        ),
        (
            "the first endpoint comes",
            vec![0],
            vec![1],
            vec![
                change(Set::Refuse(v4), false),
                change(Set::Capture(v4), true),
            ],
        ),
        (
            "the Service goes",
            vec![1],
            vec![],
            vec![change(Set::Capture(v4), false), address(false)],
        ),
        (
            "the Service comes",
            vec![],
            vec![1],
            vec![change(Set::Capture(v4), true), address(true)],
        ),
    ] {
        let with = |counts: &[usize]| {
            let vips: Vec<_> = counts.iter().map(|&n| (VIP, tcp, 80, n)).collect();
            snapshot(&vips)
        };
        let (_, mut found) = after(&[with(&before), with(&now)]);
        // Elements come in any order, the changes of one element in theirs.
        found.sort_by_key(|change| matches!(change.element, Element::Address(_)));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn addresses_outside_the_cluster_are_told_from_others() {
    for (ip, expected) in [
        ("192.0.2.1", true),
        ("10.0.0.1", true),
        ("2001:db8::1", true),
        ("64:ff9b::1", true),
        ("127.0.0.1", false),
        ("0.0.0.0", false),
        ("169.254.169.254", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("::1", false),
        ("::", false),
        ("::ffff:127.0.0.1", false),
        ("fe80::1", false),
        ("ff02::1", false),
    ] {
        assert_eq!(may_be_outside(ip.parse().unwrap()), expected, "{ip}");
    }
}

#[test]
fn an_external_ip_of_the_node_goes_before_a_node_port() {
    let mut snapshot = snapshot(&[(NODE, Protocol::Tcp, 30080, 1)]);
    let empty = port(Protocol::Tcp, 80, 0);
    snapshot
        .node_ports
        .insert_mut((Protocol::Tcp, 30080), empty);
    let (elements, _) = after(&[snapshot]);
    let element = Element::Service(NODE, Protocol::Tcp, 30080);
    assert_eq!(elements[&element], Set::Capture(Family::V4));
}

#[test]
fn proxy_s1_datagrams_to_our_own_dns_are_left_to_it_unless_pods_serve_them() {
    let element = Element::Service(DNS, Protocol::Udp, 53);
    let pod: SocketAddr = (Ipv4Addr::new(10, 244, 0, 9), 53).into();
    for (name, addrs, expected) in [
        ("our own", vec![(NODE, 53).into()], None),
        ("a pod's", vec![pod], Some(Set::Capture(Family::V4))),
        (
            "both",
            vec![(NODE, 53).into(), pod],
            Some(Set::Capture(Family::V4)),
        ),
    ] {
        let mut port = ServicePort::clone(&port(Protocol::Udp, 53, 0));
        let endpoint = |addr| Arc::new(Endpoint::at(addr));
        port.endpoints = addrs.into_iter().map(endpoint).collect();
        let mut snapshot = snapshot(&[]);
        let key = (DNS, Protocol::Udp, 53);
        snapshot.vips.insert_mut(key, Arc::new(port));
        let (elements, _) = after(&[snapshot]);
        assert_eq!(elements.get(&element).copied(), expected, "{name}");
    }
}
