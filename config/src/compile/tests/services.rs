//! Services and slices.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::world::{World, problems, service, slice, targets, vip};
use crate::model::{AppProtocol, ProblemKind, Protocol, ServiceKind};

fn cluster_ip(ip: &str) -> Value {
    json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80}]})
}

/// Endpoints of one slice: address, conditions.
fn endpoints(list: &[(&str, Value)]) -> Value {
    let one =
        |(ip, conditions): &(&str, Value)| json!({"addresses": [ip], "conditions": conditions});
    Value::Array(list.iter().map(one).collect())
}

/// A name, endpoints with their conditions, and who takes traffic.
type Case = (
    &'static str,
    Vec<(&'static str, Value)>,
    &'static [&'static str],
);

#[test]
fn proxy_s2_conditions_decide_who_is_usable() {
    let ready = json!({"ready": true});
    let dead = json!({"ready": false, "serving": false, "terminating": true});
    let draining = json!({"ready": false, "serving": true, "terminating": true});
    let not_ready = json!({"ready": false});
    let cases: [Case; 8] = [
        (
            "missing conditions",
            vec![("10.1.0.1", json!({}))],
            &["10.1.0.1:8080"],
        ),
        ("not ready", vec![("10.1.0.1", not_ready.clone())], &[]),
        (
            "ready before draining",
            vec![("10.1.0.1", draining.clone()), ("10.1.0.2", ready.clone())],
            &["10.1.0.2:8080"],
        ),
        (
            "draining before nothing",
            vec![
                ("10.1.0.1", draining),
                ("10.1.0.2", not_ready),
                ("10.1.0.3", dead.clone()),
            ],
            &["10.1.0.1:8080"],
        ),
        ("gone", vec![("10.1.0.1", dead)], &[]),
        (
            "missing serving means ready",
            vec![("10.1.0.1", json!({"ready": false, "terminating": true}))],
            &[],
        ),
        (
            "missing ready while terminating",
            vec![
                ("10.1.0.1", json!({"terminating": true})),
                ("10.1.0.2", ready),
            ],
            &["10.1.0.2:8080"],
        ),
        (
            "never ready while terminating",
            vec![(
                "10.1.0.1",
                json!({"ready": true, "terminating": true, "serving": false}),
            )],
            &[],
        ),
    ];
    for (name, list, want) in cases {
        let mut world = World::new();
        world.service("web", cluster_ip("10.96.0.1"));
        world.slice("web-1", "web", endpoints(&list));
        let snapshot = world.build();
        assert_eq!(vip(&snapshot, "10.96.0.1:80").unwrap(), want, "{name}");
    }
}

#[test]
fn proxy_s2_slices_are_merged_and_foreign_ones_ignored() {
    let mut world = World::new();
    world.service("web", cluster_ip("10.96.0.1"));
    let ready = || json!({"ready": true});
    world.slice(
        "a",
        "web",
        endpoints(&[("10.1.0.2", ready()), ("10.1.0.1", ready())]),
    );
    world.slice(
        "b",
        "web",
        endpoints(&[("10.1.0.2", ready()), ("10.1.0.3", json!({"ready": false}))]),
    );
    let mut fqdn = slice("c", "web", json!([{"addresses": ["example.com"]}]));
    fqdn["addressType"] = json!("FQDN");
    world.slice_object(fqdn);
    let mut orphan = slice("d", "web", endpoints(&[("10.1.0.9", ready())]));
    orphan["metadata"]["labels"] = json!({});
    world.slice_object(orphan);
    let snapshot = world.build();
    assert_eq!(
        vip(&snapshot, "10.96.0.1:80").unwrap(),
        ["10.1.0.1:8080", "10.1.0.2:8080"]
    );
    let seen: Vec<(String, bool)> = service(&snapshot, "web")
        .unwrap()
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.addr().to_string(), endpoint.ready))
        .collect();
    let want = [("10.1.0.1", true), ("10.1.0.2", true), ("10.1.0.3", false)];
    assert_eq!(seen, want.map(|(addr, ready)| (addr.to_owned(), ready)));
}

#[test]
fn proxy_s2_bad_addresses_are_reported_and_the_others_used() {
    let mut world = World::new();
    world.service("web", cluster_ip("10.96.0.1"));
    let list = [
        "nonsense",
        "fd00::1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "10.1.0.1",
    ];
    let list = list.map(|ip| json!({"addresses": [ip]}));
    world.slice("a", "web", json!(list));
    let snapshot = world.build();
    assert_eq!(vip(&snapshot, "10.96.0.1:80").unwrap(), ["10.1.0.1:8080"]);
    assert_eq!(problems(&snapshot, ProblemKind::BadField).len(), 5);
    world.delete_slice("a");
    assert!(world.build().problems.is_empty());
}

#[test]
fn proxy_s3_families_fall_back_independently() {
    let mut world = World::new();
    world.service(
        "web",
        json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
        "ports": [{"name": "http", "port": 80}]}),
    );
    world.slice(
        "v4",
        "web",
        endpoints(&[("10.1.0.1", json!({"ready": true}))]),
    );
    let draining = json!({"ready": false, "serving": true, "terminating": true});
    let mut v6 = slice("v6", "web", endpoints(&[("fd01::1", draining)]));
    v6["addressType"] = json!("IPv6");
    world.slice_object(v6);
    let snapshot = world.build();
    assert_eq!(vip(&snapshot, "10.96.0.1:80").unwrap(), ["10.1.0.1:8080"]);
    assert_eq!(vip(&snapshot, "[fd00::1]:80").unwrap(), ["[fd01::1]:8080"]);
}

#[test]
fn proxy_s11_s10_addresses_and_who_has_none() {
    let mut world = World::new();
    let mut object = json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalIPs": ["203.0.113.1"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"hostname": "lb"}]}}});
    world.service_object(object.clone());
    world.slice("a", "web", endpoints(&[("10.1.0.1", json!({}))]));
    world.service(
        "headless",
        json!({"clusterIP": "None", "externalIPs": ["203.0.113.2"],
        "ports": [{"port": 80}]}),
    );
    world.service(
        "alias",
        json!({"type": "ExternalName", "externalName": "Db.Example.com.",
        "ports": [{"port": 80}]}),
    );
    let snapshot = world.build();
    for ip in ["10.96.0.1", "203.0.113.1", "198.51.100.1"] {
        let found = vip(&snapshot, &format!("{ip}:80"));
        assert_eq!(found.unwrap(), ["10.1.0.1:8080"], "{ip}");
    }
    assert_eq!(vip(&snapshot, "198.51.100.2:80"), None);
    assert_eq!(vip(&snapshot, "203.0.113.2:80"), None);
    assert_eq!(vip(&snapshot, "10.96.0.1:81"), None);
    let node_port = snapshot.node_ports.get(&(Protocol::Tcp, 30080)).unwrap();
    assert_eq!(targets(node_port), ["10.1.0.1:8080"]);
    assert_eq!(
        service(&snapshot, "headless").unwrap().kind,
        ServiceKind::Headless
    );
    let alias = &service(&snapshot, "alias").unwrap().kind;
    assert_eq!(*alias, ServiceKind::ExternalName("db.example.com".into()));

    object["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    world.service_object(object.clone());
    let snapshot = world.build();
    assert_eq!(vip(&snapshot, "10.96.0.1:80"), None, "another proxy's");
    assert_eq!(snapshot.node_ports.size(), 0);
    assert!(
        snapshot
            .cluster_ips
            .get(&"10.96.0.1".parse().unwrap())
            .is_some(),
        "DNS has it still"
    );
    object["metadata"]["labels"] = json!({});
    world.service_object(object);
    assert!(vip(&world.build(), "10.96.0.1:80").is_some(), "back again");
}

#[test]
fn proxy_s10_an_address_that_two_services_want_goes_to_the_older() {
    let mut world = World::new();
    let object = |name: &str, created: &str, ip: &str| {
        json!({"metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
            "spec": {"clusterIP": ip, "externalIPs": ["203.0.113.1"], "ports": [{"port": 80}]}})
    };
    world.service_object(object("young", "2026-01-02T00:00:00Z", "10.96.0.2"));
    world.service_object(object("old", "2026-01-01T00:00:00Z", "10.96.0.1"));
    let owner = |world: &mut World| {
        let snapshot = world.build();
        let addr = "203.0.113.1:80".parse::<std::net::SocketAddr>().unwrap();
        let port = snapshot.vip(addr.into(), Protocol::Tcp).unwrap();
        (port.service.name.to_string(), snapshot.problems.len())
    };
    assert_eq!(owner(&mut world), ("old".into(), 1));
    world.delete_service("old");
    assert_eq!(owner(&mut world), ("young".into(), 0));
}

#[test]
fn proxy_s14_not_ready_addresses_are_used_only_if_published() {
    for (publish, want) in [(false, 0), (true, 1)] {
        let mut world = World::new();
        let mut spec = cluster_ip("10.96.0.1");
        spec["publishNotReadyAddresses"] = json!(publish);
        world.service("web", spec);
        let terminating = json!({"ready": true, "serving": false, "terminating": true});
        world.slice("a", "web", endpoints(&[("10.1.0.1", terminating)]));
        let snapshot = world.build();
        assert_eq!(vip(&snapshot, "10.96.0.1:80").unwrap().len(), want);
        let ready = service(&snapshot, "web").unwrap().endpoints[0].ready;
        assert_eq!(ready, publish);
    }
}

#[test]
fn proxy_s20_ports_are_joined_by_name_and_protocol() {
    let mut world = World::new();
    world.service(
        "dns",
        json!({"clusterIP": "10.96.0.1", "ports": [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "sctp", "port": 54, "protocol": "SCTP"}]}),
    );
    let ports = |udp: i32| {
        json!([{"name": "dns", "protocol": "UDP", "port": udp},
            {"name": "dns-tcp", "protocol": "TCP", "port": 1053}, {"name": "none"}])
    };
    for (name, ip, udp) in [("a", "10.1.0.1", 1053), ("b", "10.1.0.2", 2053)] {
        let mut object = slice(name, "dns", endpoints(&[(ip, json!({}))]));
        object["ports"] = ports(udp);
        world.slice_object(object);
    }
    let snapshot = world.build();
    let dns = service(&snapshot, "dns").unwrap();
    let by_protocol = |protocol| targets(dns.port(53, protocol).unwrap());
    assert_eq!(
        by_protocol(Protocol::Udp),
        ["10.1.0.1:1053", "10.1.0.2:2053"]
    );
    assert_eq!(
        by_protocol(Protocol::Tcp),
        ["10.1.0.1:1053", "10.1.0.2:1053"]
    );
    let vips = snapshot
        .vips
        .keys()
        .map(|(_, protocol, port)| (*protocol, *port));
    let mut vips: Vec<_> = vips.collect();
    vips.sort_by_key(|(protocol, port)| (*port, *protocol == Protocol::Udp));
    assert_eq!(vips, [(Protocol::Tcp, 53), (Protocol::Udp, 53)]);
    assert_eq!(dns.ports.len(), 3, "SCTP has a name");
    assert_eq!(
        problems(&snapshot, ProblemKind::BadField)[0].field,
        "spec.ports[2].protocol"
    );

    world.service(
        "dns",
        json!({"clusterIP": "10.96.0.1", "ports": [
        {"name": "plain", "port": 53, "protocol": "UDP"}]}),
    );
    let snapshot = world.build();
    let dns = service(&snapshot, "dns").unwrap();
    assert!(
        targets(dns.port(53, Protocol::Udp).unwrap()).is_empty(),
        "renamed"
    );
    assert!(dns.port(53, Protocol::Tcp).is_none(), "removed");
    assert!(
        vip(&snapshot, "10.96.0.1:53").is_none(),
        "removed from the addresses too"
    );
}

#[test]
fn proxy_s21_one_family_may_be_empty() {
    let mut world = World::new();
    world.service(
        "web",
        json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.96.0.1"],
        "ports": [{"name": "http", "port": 80}]}),
    );
    world.slice("v4", "web", endpoints(&[("10.1.0.1", json!({}))]));
    let snapshot = world.build();
    assert_eq!(vip(&snapshot, "10.96.0.1:80").unwrap(), ["10.1.0.1:8080"]);
    assert!(vip(&snapshot, "[fd00::1]:80").unwrap().is_empty());
    let port = service(&snapshot, "web")
        .unwrap()
        .port(80, Protocol::Tcp)
        .unwrap();
    assert_eq!(
        targets(port),
        ["10.1.0.1:8080"],
        "who needs any family gets the one there is"
    );
}

#[test]
fn proxy_s24_type_changes_leave_nothing_behind() {
    let mut world = World::new();
    world.slice("a", "web", endpoints(&[("10.1.0.1", json!({}))]));
    let port = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
    let node_port = json!({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": port});
    let steps = [
        ("ClusterIP", cluster_ip("10.96.0.1"), (1, 0, 1)),
        ("NodePort", node_port.clone(), (1, 1, 1)),
        (
            "ExternalName",
            json!({"type": "ExternalName", "externalName": "x.test"}),
            (0, 0, 0),
        ),
        ("NodePort again", node_port, (1, 1, 1)),
        ("another address", cluster_ip("10.96.0.2"), (1, 0, 1)),
        (
            "headless",
            json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}),
            (0, 0, 0),
        ),
    ];
    for (name, spec, want) in steps {
        world.service("web", spec);
        let snapshot = world.build();
        let tables = (
            snapshot.vips.size(),
            snapshot.node_ports.size(),
            snapshot.cluster_ips.size(),
        );
        assert_eq!(tables, want, "{name}");
        let is_alias = matches!(
            service(&snapshot, "web").unwrap().kind,
            ServiceKind::ExternalName(_)
        );
        let seen = service(&snapshot, "web").unwrap().endpoints.len();
        assert_eq!(seen, usize::from(!is_alias), "{name}");
    }
    world.service("web", cluster_ip("10.96.0.1"));
    world.delete_service("web");
    world.service("other", cluster_ip("10.96.0.1"));
    let snapshot = world.build();
    let owner = snapshot.cluster_ips.get(&"10.96.0.1".parse().unwrap());
    assert_eq!(
        &*owner.unwrap().name,
        "other",
        "the same address for another"
    );
    assert!(vip(&snapshot, "10.96.0.1:80").unwrap().is_empty());
}

#[test]
fn proxy_s26_app_protocols() {
    let cases = [
        (json!(null), AppProtocol::Detect),
        (json!("http"), AppProtocol::Http),
        (json!("kubernetes.io/ws"), AppProtocol::Http),
        (json!("kubernetes.io/h2c"), AppProtocol::Http2),
        (json!("gRPC"), AppProtocol::Http2),
        (json!("https"), AppProtocol::Tls),
        (json!("kubernetes.io/wss"), AppProtocol::Tls),
        (json!("mysql"), AppProtocol::Tcp),
    ];
    for (text, want) in cases {
        let mut world = World::new();
        world.service("web", json!({"ports": [{"port": 80, "appProtocol": text}]}));
        let snapshot = world.build();
        let port = service(&snapshot, "web")
            .unwrap()
            .port(80, Protocol::Tcp)
            .unwrap();
        assert_eq!(port.app_protocol, want, "{text}");
    }
}

#[test]
fn counters_follow_an_endpoint_and_end_with_it() {
    let mut world = World::new();
    world.service("web", cluster_ip("10.96.0.1"));
    let pod = |uid: &str, ready: bool| {
        json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "shop", "uid": uid}}])
    };
    let stats = |world: &mut World| {
        let snapshot = world.build();
        let port = Arc::clone(
            service(&snapshot, "web")
                .unwrap()
                .port(80, Protocol::Tcp)
                .unwrap(),
        );
        port.endpoints
            .first()
            .map(|endpoint| Arc::clone(&endpoint.stats))
    };
    world.slice("a", "web", pod("1", true));
    let first = stats(&mut world).unwrap();
    first.in_flight.store(7, Ordering::Relaxed);
    world.slice("a", "web", pod("1", false));
    assert!(stats(&mut world).is_none());
    assert!(
        !first.removed.load(Ordering::Relaxed),
        "not ready is not removed"
    );
    world.slice("a", "web", pod("1", true));
    let again = stats(&mut world).unwrap();
    assert!(
        Arc::ptr_eq(&first, &again),
        "the same endpoint keeps its counters"
    );
    world.slice("a", "web", pod("2", true));
    let successor = stats(&mut world).unwrap();
    assert!(
        !Arc::ptr_eq(&first, &successor),
        "another pod has its own, at the same address"
    );
    assert!(first.removed.load(Ordering::Relaxed));
    world.delete_service("web");
    world.build();
    assert!(successor.removed.load(Ordering::Relaxed));
}

#[test]
fn dns_b1_b4_b7_endpoints_carry_what_names_need() {
    let mut world = World::new();
    world.service(
        "db",
        json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}),
    );
    world.slice(
        "a",
        "db",
        json!([
        {"addresses": ["10.1.0.2"], "hostname": "db-1", "conditions": {},
            "targetRef": {"kind": "Pod", "name": "db-1", "namespace": "shop"}},
        {"addresses": ["10.1.0.1"], "hostname": "db-0", "conditions": {"ready": false}}]),
    );
    world.slice(
        "b",
        "db",
        json!([{"addresses": ["10.1.0.2"], "hostname": "db-1"}]),
    );
    let snapshot = world.build();
    let db = service(&snapshot, "db").unwrap();
    assert_eq!(db.endpoints.len(), 2, "one entry an address");
    let (not_ready, ready) = (&db.endpoints[0], &db.endpoints[1]);
    assert_eq!(
        (not_ready.ready, not_ready.hostname()),
        (false, Some("db-0"))
    );
    assert_eq!((ready.ready, ready.hostname()), (true, Some("db-1")));
    assert_eq!(ready.pod().unwrap(), "db-1");
    assert_eq!(*ready.ports, [("http".into(), Protocol::Tcp, 8080)]);
}

#[test]
fn dns_r1_r2_reverse_tables_follow() {
    let mut world = World::new();
    world.service("web", cluster_ip("10.96.0.1"));
    world.service("all", json!({"clusterIP": "None", "ports": []}));
    world.slice("a", "web", endpoints(&[("10.1.0.1", json!({}))]));
    world.slice(
        "b",
        "all",
        endpoints(&[("10.1.0.1", json!({})), ("10.1.0.2", json!({}))]),
    );
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let snapshot = world.build();
    assert_eq!(
        &*snapshot.cluster_ips.get(&ip("10.96.0.1")).unwrap().name,
        "web"
    );
    let names = |snapshot: &crate::Snapshot, addr| -> Vec<String> {
        let services = snapshot.endpoint_ips.get(&ip(addr));
        services
            .iter()
            .flat_map(|s| s.iter())
            .map(|s| s.name.to_string())
            .collect()
    };
    assert_eq!(names(&snapshot, "10.1.0.1"), ["all", "web"]);
    assert_eq!(names(&snapshot, "10.1.0.2"), ["all"]);
    world.delete_service("all");
    let snapshot = world.build();
    assert_eq!(names(&snapshot, "10.1.0.1"), ["web"]);
    assert_eq!(snapshot.endpoint_ips.size(), 1);
    world.delete_service("web");
    let snapshot = world.build();
    assert_eq!((snapshot.cluster_ips.size(), snapshot.vips.size()), (0, 0));
    assert_eq!(snapshot.endpoint_ips.size(), 0);
}

#[test]
fn dns_a4_namespaces_come_and_go() {
    let mut world = World::new();
    world.namespace("shop", true);
    assert!(world.build().namespaces.contains_key("shop"));
    world.namespace("shop", false);
    assert!(!world.build().namespaces.contains_key("shop"));
}
