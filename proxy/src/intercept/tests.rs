mod since;

use std::sync::Arc;

use sealane_config::model::{
    AppProtocol, Endpoint, Protocol, Scope, Service, ServiceKey, ServiceKind, ServicePort,
    TrafficPolicy,
};

use super::rule::Family;
use super::state::{Change, Element, Elements, Set};
use super::*;

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 1, 1));
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1));
const DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));

fn options() -> InterceptOptions {
    InterceptOptions {
        node_ips: vec![NODE].into(),
        local_addresses: vec![DNS],
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        egress: true,
        ..InterceptOptions::default()
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
        everywhere: None,
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
        let service = service(&port, vec![ip]);
        insert(&mut snapshot, service, |_| Arc::clone(&port));
    }
    snapshot
}

/// A Service with one port on these addresses.
fn service(port: &Arc<ServicePort>, cluster_ips: Vec<IpAddr>) -> Service {
    Service {
        key: port.service.clone(),
        kind: ServiceKind::ClusterIp,
        cluster_ips,
        load_balancer_ips: Vec::new(),
        external_ips: Vec::new(),
        policy: Arc::clone(&port.policy),
        ports: vec![Arc::clone(port)],
        listed_ports: Arc::default(),
        endpoints: Arc::default(),
    }
}

/// Puts a Service into the tables; `port` gives its port as it is on an address.
fn insert(snapshot: &mut Snapshot, service: Service, port: impl Fn(IpAddr) -> Arc<ServicePort>) {
    let any = &service.ports[0];
    let (protocol, number) = (any.protocol, any.port);
    for &ip in &service.cluster_ips {
        snapshot.cluster_ips.insert_mut(ip, service.key.clone());
    }
    let addresses = [
        &service.cluster_ips,
        &service.load_balancer_ips,
        &service.external_ips,
    ];
    for &ip in addresses.into_iter().flatten() {
        snapshot.vips.insert_mut((ip, protocol, number), port(ip));
    }
    if let Some(node_port) = any.node_port {
        let any = Arc::clone(any);
        snapshot.node_ports.insert_mut((protocol, node_port), any);
    }
    let key = service.key.clone();
    snapshot.services.insert_mut(key, Arc::new(service));
}

/// What the kernel has after these snapshots, and the last changes.
fn after(snapshots: &[Snapshot]) -> (Elements, Vec<Change>) {
    let (mut elements, mut changes) = (Elements::new(), Vec::new());
    for snapshot in snapshots {
        changes = Wanted::new(snapshot, &options()).difference(&elements);
        record(&mut elements, &changes);
        let again = Wanted::new(snapshot, &options()).difference(&elements);
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
fn proxy_s8_s21_node_ports_are_served_on_the_nodes_addresses_of_each_family() {
    let v6 = |last: u16| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    let mut snapshot = snapshot(&[]);
    for (name, node_port, cluster_ips, endpoints_v4, endpoints_v6) in [
        ("both", 30080, vec![VIP, v6(1)], 1, 1),
        ("one empty", 30081, vec![VIP, v6(1)], 1, 0),
        ("empty", 30082, vec![VIP, v6(1)], 0, 0),
        ("IPv4 only", 30083, vec![VIP], 1, 1),
    ] {
        let with = |endpoints| {
            let mut port = ServicePort::clone(&port(Protocol::Tcp, node_port - 30000, endpoints));
            port.service.name = name.into();
            port.node_port = Some(node_port);
            Arc::new(port)
        };
        let ports = (with(endpoints_v4), with(endpoints_v6));
        let service = service(&ports.0, cluster_ips);
        insert(&mut snapshot, service, |ip| {
            Arc::clone(if ip.is_ipv4() { &ports.0 } else { &ports.1 })
        });
    }
    let (own_v6, other_v6) = (v6(100), v6(101));
    let mut options = options();
    options.node_ips = vec![NODE, own_v6, other_v6].into();
    options.node_port_cidrs = vec![NODE.into(), own_v6.into()];
    let mut elements = Elements::new();
    let changes = Wanted::new(&snapshot, &options).difference(&elements);
    record(&mut elements, &changes);
    let set = |ip, number| elements.get(&Element::Service(ip, Protocol::Tcp, number));
    let (served, refused) = (Set::Capture, Set::Refuse);
    for (number, on_v4, on_v6) in [
        (30080, Some(served(Family::V4)), Some(served(Family::V6))),
        (30081, Some(served(Family::V4)), Some(refused(Family::V6))),
        (30082, Some(refused(Family::V4)), Some(refused(Family::V6))),
        (30083, Some(served(Family::V4)), None),
    ] {
        assert_eq!(set(NODE, number).copied(), on_v4, "{number}");
        assert_eq!(set(own_v6, number).copied(), on_v6, "{number}");
        assert_eq!(set(other_v6, number), None, "{number}: not chosen");
    }
}

#[test]
fn proxy_s21_families_have_sets_of_their_own() {
    let v6: IpAddr = "fd00::1".parse().unwrap();
    let elements = elements(&[(VIP, Protocol::Tcp, 80, 1), (v6, Protocol::Tcp, 80, 0)]);
    let set = |ip| elements[&Element::Service(ip, Protocol::Tcp, 80)];
    assert_eq!(set(VIP), Set::Capture(Family::V4));
    assert_eq!(set(v6), Set::Refuse(Family::V6));
}

const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80));
const EXTERNAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 81));

/// A Service with an address of each kind, of whose endpoints some are here.
fn of_every_kind(policy: TrafficPolicy, all: usize, here: usize) -> Snapshot {
    let mut with = ServicePort::clone(&port(Protocol::Tcp, 80, all));
    with.local = Some(with.endpoints.iter().take(here).cloned().collect());
    with.policy = Arc::new(policy);
    with.node_port = Some(30080);
    let port = Arc::new(with);
    let service = Service {
        load_balancer_ips: vec![BALANCER],
        external_ips: vec![EXTERNAL],
        ..service(&port, vec![VIP])
    };
    let mut snapshot = snapshot(&[]);
    insert(&mut snapshot, service, |_| Arc::clone(&port));
    snapshot
}

#[test]
fn proxy_s5_s6_s7_s9_s10_policies_and_kinds_of_addresses_choose_the_set() {
    let f = Family::V4;
    let (served, refused) = (Set::Capture(f), Set::Refuse(f));
    let (cut_off, inside) = (Set::CutOff(f), Set::InsideOnly(f));
    let (cluster, local) = (Scope::Cluster, Scope::Local);
    for (name, (internal, external), (all, here), by_cluster_ip, by_others) in [
        ("no policy", (cluster, cluster), (2, 0), served, served),
        ("both here", (local, local), (2, 1), served, served),
        (
            "internal elsewhere",
            (local, cluster),
            (2, 0),
            cut_off,
            served,
        ),
        (
            "external elsewhere",
            (cluster, local),
            (2, 0),
            served,
            inside,
        ),
        ("both elsewhere", (local, local), (2, 0), cut_off, inside),
        ("nowhere", (local, local), (0, 0), refused, refused),
    ] {
        let policy = TrafficPolicy {
            internal,
            external,
            ..TrafficPolicy::default()
        };
        let (elements, _) = after(&[of_every_kind(policy, all, here)]);
        let set = |ip, number| elements[&Element::Service(ip, Protocol::Tcp, number)];
        assert_eq!(set(VIP, 80), by_cluster_ip, "{name}");
        for (ip, number) in [(BALANCER, 80), (EXTERNAL, 80), (NODE, 30080)] {
            assert_eq!(set(ip, number), by_others, "{name}: {ip}");
        }
    }
}

#[test]
fn proxy_s10_external_ips_can_be_switched_off() {
    let snapshot = of_every_kind(TrafficPolicy::default(), 1, 0);
    let options = InterceptOptions {
        external_ips: false,
        ..options()
    };
    let mut elements = Elements::new();
    let changes = Wanted::new(&snapshot, &options).difference(&elements);
    record(&mut elements, &changes);
    let is_known = |ip| elements.contains_key(&Element::Service(ip, Protocol::Tcp, 80));
    assert!(!is_known(EXTERNAL));
    assert!(is_known(VIP) && is_known(BALANCER));
}

#[test]
fn proxy_s9_source_ranges_hold_for_the_balancers_address_only() {
    let v6_only = ["fd00::/8"];
    for (name, ranges, expected) in [
        ("not given", None, None),
        (
            "given",
            Some(&["203.0.113.0/24"][..]),
            Some(&["203.0.113.0/24"][..]),
        ),
        (
            "joined",
            Some(&["203.0.113.0/24", "203.0.113.7/32", "203.0.112.0/24"]),
            Some(&["203.0.112.0/23"]),
        ),
        ("nothing that can be used", Some(&[]), Some(&[])),
        ("the other family's", Some(&v6_only), None),
        (
            "with the node's own",
            Some(&["10.244.0.0/16"]),
            Some(&["10.244.0.0/16", "192.0.2.80/32"]),
        ),
    ] {
        let nets =
            |list: &[&str]| -> Vec<IpNet> { list.iter().map(|net| net.parse().unwrap()).collect() };
        let policy = TrafficPolicy {
            source_ranges: ranges.map(|list| nets(list).into()),
            ..TrafficPolicy::default()
        };
        let (elements, _) = after(&[of_every_kind(policy, 1, 0)]);
        let mut admitted = Vec::new();
        let mut restricted = false;
        for element in elements.keys() {
            match *element {
                Element::Source(ip, Protocol::Tcp, 80, net) => {
                    assert_eq!(ip, BALANCER, "{name}");
                    admitted.push(net);
                }
                Element::Restricted(ip, Protocol::Tcp, 80) => {
                    assert_eq!(ip, BALANCER, "{name}");
                    restricted = true;
                }
                _ => {}
            }
        }
        admitted.sort();
        assert_eq!(restricted, expected.is_some(), "{name}");
        assert_eq!(admitted, nets(expected.unwrap_or_default()), "{name}");
    }
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
    let mut empty = ServicePort::clone(&port(Protocol::Tcp, 80, 0));
    empty.service.name = "other".into();
    empty.node_port = Some(30080);
    let empty = Arc::new(empty);
    let service = service(&empty, vec![VIP]);
    insert(&mut snapshot, service, |_| Arc::clone(&empty));
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

#[test]
fn proxy_o1_writes_are_timed_and_refusals_counted_as_kube_proxy_does() {
    use ::metrics_exporter_prometheus::PrometheusBuilder;
    let figures = |options: &InterceptOptions| {
        let recorder = PrometheusBuilder::new().build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            let metrics = metrics::Metrics::new(options);
            let Some(kube_proxy) = &metrics.kube_proxy else {
                return;
            };
            for write in [Write::Full, Write::Partial, Write::Partial, Write::CleanUp] {
                kube_proxy.wrote(write, Duration::from_millis(2));
            }
            for write in [Write::Full, Write::Partial, Write::CleanUp] {
                kube_proxy.failed(write);
            }
        });
        recorder.handle().render()
    };
    let on_a_node = InterceptOptions {
        egress: false,
        ..options()
    };
    let page = figures(&on_a_node);
    for family in ["IPv4", "IPv6"] {
        for (name, value) in [
            ("sync_proxy_rules_duration_seconds_count", 4),
            ("sync_full_proxy_rules_duration_seconds_count", 1),
            ("sync_partial_proxy_rules_duration_seconds_count", 3),
            ("sync_proxy_rules_nftables_sync_failures_total", 2),
            ("sync_proxy_rules_nftables_cleanup_failures_total", 1),
        ] {
            let line = format!("kubeproxy_{name}{{ip_family=\"{family}\"}} {value}\n");
            assert!(page.contains(&line), "{line}{page}");
        }
    }
    let elsewhere = figures(&options());
    assert!(!elsewhere.contains("kubeproxy_"), "{elsewhere}");
}

#[test]
fn proxy_o1_a_write_that_only_removes_is_a_clean_up() {
    let element = Element::Address(VIP);
    let set = Set::ServiceAddresses(Family::V4);
    let change = |add| Change { set, element, add };
    for (name, changes, expected) in [
        ("added", vec![change(true)], Write::Partial),
        ("moved", vec![change(false), change(true)], Write::Partial),
        ("removed", vec![change(false)], Write::CleanUp),
    ] {
        assert_eq!(kind(&changes), expected, "{name}");
    }
}
