//! What a DNS server has compiled, and what a proxy without names.

use serde_json::json;

use super::world::World;

fn cluster_ip(ip: &str) -> serde_json::Value {
    json!({"clusterIP": ip, "clusterIPs": [ip], "type": "NodePort",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
}

fn world() -> World {
    let mut world = World::new();
    world.compiler = world.compiler.without_traffic();
    world
}

#[test]
fn names_are_there_and_traffic_is_not() {
    let mut world = world();
    world.service("web", cluster_ip("10.96.0.1"));
    world.slice("web-1", "web", json!([{"addresses": ["10.1.0.1"]}]));
    let snapshot = world.build();
    let web = snapshot.service("shop", "web").unwrap();
    assert!(web.ports.is_empty() && snapshot.vips.is_empty() && snapshot.node_ports.is_empty());
    assert_eq!(
        (&*web.listed_ports[0].0, web.listed_ports[0].2),
        ("http", 80)
    );
    assert_eq!((web.endpoints.len(), web.cluster_ips.len()), (1, 1));
    assert_eq!(snapshot.endpoint_ips.size(), 1);
    world.delete_service("web");
    let snapshot = world.build();
    assert!(snapshot.service("shop", "web").is_none());
    assert_eq!(
        (snapshot.endpoint_ips.size(), snapshot.cluster_ips.size()),
        (0, 0)
    );
}

#[test]
fn where_no_names_are_answered_nothing_is_kept_for_reverse_dns() {
    let mut world = World::new();
    world.compiler = world.compiler.without_names();
    world.service("web", cluster_ip("10.96.0.1"));
    world.slice("web-1", "web", json!([{"addresses": ["10.1.0.1"]}]));
    let snapshot = world.build();
    assert_eq!(snapshot.endpoint_ips.size(), 0);
    let web = snapshot.service("shop", "web").unwrap();
    assert_eq!((web.ports[0].endpoints.len(), snapshot.vips.size()), (1, 1));
}

#[test]
fn dns_r1_a_cluster_ip_may_change_hands_within_a_batch() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let mut world = world();
        world.service(from, cluster_ip("10.96.0.1"));
        world.build();
        world.delete_service(from);
        world.service(to, cluster_ip("10.96.0.1"));
        let snapshot = world.build();
        let owner = snapshot.cluster_ips.get(&"10.96.0.1".parse().unwrap());
        assert_eq!(&*owner.unwrap().name, to);
        assert_eq!(snapshot.cluster_ips.size(), 1);
    }
}
