//! Traffic policies, topology hints and what else decides who of a Service's endpoints is chosen.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::world::{World, problems, service, slice, targets, vip};
use crate::Snapshot;
use crate::model::{AddressKind, Endpoint, HttpPolicy, ProblemKind, Protocol, Scope, ServicePort};

/// A Service `web` with these fields besides its address and port.
fn web(world: &mut World, fields: Value) {
    let mut spec = json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    world.service("web", spec);
}

/// An endpoint 10.1.0.LAST as `LAST@NODE`, followed by `-` if it is not ready, `~` if it is serving
/// and terminating, `!` if it is terminating.
fn endpoint(text: &str) -> Value {
    let (last, node) = text.split_once('@').unwrap();
    let conditions = match text.chars().last().unwrap() {
        '-' => json!({"ready": false, "serving": false}),
        '~' => json!({"ready": false, "serving": true, "terminating": true}),
        '!' => json!({"ready": false, "serving": false, "terminating": true}),
        _ => json!({"ready": true}),
    };
    let node = node.trim_end_matches(['-', '~', '!']);
    json!({"addresses": [format!("10.1.0.{last}")], "nodeName": node, "conditions": conditions})
}

fn endpoints(list: &[&str]) -> Value {
    list.iter().map(|text| endpoint(text)).collect()
}

fn port(snapshot: &Snapshot) -> Arc<ServicePort> {
    let web = service(snapshot, "web").unwrap();
    Arc::clone(web.port(80, Protocol::Tcp).unwrap())
}

/// The last bytes of endpoints' addresses.
fn lasts(endpoints: &[Arc<Endpoint>]) -> Vec<u8> {
    let last = |endpoint: &Arc<Endpoint>| match endpoint.addr.ip() {
        std::net::IpAddr::V4(v4) => v4.octets()[3],
        std::net::IpAddr::V6(v6) => v6.octets()[15],
    };
    endpoints.iter().map(last).collect()
}

/// A name, endpoints, who takes traffic of either scope.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [u8],
    &'static [u8],
);

const SCOPES: [Case; 7] = [
    ("ready ones", &["1@here", "2@there"], &[1, 2], &[1]),
    ("nobody here", &["1@there", "2@there"], &[1, 2], &[]),
    ("nobody anywhere", &["1@here-", "2@there!"], &[], &[]),
    (
        "local falls back while the cluster does not",
        &["1@here~", "2@there", "3@here-"],
        &[2],
        &[1],
    ),
    (
        "both fall back",
        &["1@here~", "2@there~", "3@here!"],
        &[1, 2],
        &[1],
    ),
    (
        "a draining one does not join a ready one",
        &["1@here~", "2@here", "3@there~"],
        &[2],
        &[2],
    ),
    ("draining elsewhere", &["1@there~", "2@here-"], &[1], &[]),
];

#[test]
fn proxy_s5_internal_traffic_stays_on_the_node() {
    for (name, list, cluster, local) in SCOPES {
        let mut world = World::on_node();
        web(&mut world, json!({"internalTrafficPolicy": "Local"}));
        world.slice("a", "web", endpoints(list));
        let port = port(&world.build());
        assert_eq!(port.policy.internal, Scope::Local);
        assert_eq!(lasts(port.within(Scope::Local)), local, "{name}");
        assert_eq!(lasts(port.within(Scope::Cluster)), cluster, "{name}");
        let dropped = local.is_empty() && !cluster.is_empty();
        let refused = port.endpoints.is_empty();
        assert!(!(dropped && refused), "{name}: one or the other");
    }
}

#[test]
fn proxy_s3_cluster_and_local_fall_back_independently() {
    for (name, list, cluster, local) in SCOPES {
        let mut world = World::on_node();
        let fields = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
        web(&mut world, fields);
        world.slice("a", "web", endpoints(list));
        let port = port(&world.build());
        let local_set = port.local.as_ref().unwrap();
        assert_eq!(lasts(local_set), local, "{name}");
        assert_eq!(lasts(&port.endpoints), cluster, "{name}");
        for endpoint in local_set.iter() {
            let shared = port.endpoints.iter().find(|e| e.addr == endpoint.addr);
            assert!(shared.is_none_or(|shared| Arc::ptr_eq(shared, endpoint)));
        }
    }
}

#[test]
fn proxy_s5_without_knowing_the_node_nothing_is_local() {
    let mut world = World::new();
    web(&mut world, json!({"internalTrafficPolicy": "Local"}));
    world.slice("a", "web", endpoints(&["1@here", "2@there"]));
    let port = port(&world.build());
    assert!(port.local.is_none());
    assert_eq!(lasts(port.within(Scope::Local)), [1, 2]);
}

#[test]
fn proxy_s6_external_policy_needs_a_way_in_from_outside() {
    let cases = [
        (json!({}), false),
        (json!({"type": "ClusterIP"}), false),
        (json!({"type": "NodePort"}), true),
        (json!({"type": "LoadBalancer"}), true),
        (json!({"externalIPs": ["203.0.113.1"]}), true),
    ];
    for (mut fields, is_local) in cases {
        fields["externalTrafficPolicy"] = json!("Local");
        let mut world = World::on_node();
        let name = fields.to_string();
        web(&mut world, fields);
        world.slice("a", "web", endpoints(&["1@there"]));
        let port = port(&world.build());
        assert_eq!(port.policy.external == Scope::Local, is_local, "{name}");
        assert_eq!(port.local.is_some(), is_local, "{name}");
        assert_eq!(port.policy.internal, Scope::Cluster, "{name}");
        assert_eq!(lasts(&port.endpoints), [1], "pods and the node: {name}");
    }
}

#[test]
fn proxy_l12_l16_annotations_set_the_policy_and_bad_ones_are_reported() {
    let mut world = World::on_node();
    let annotated = |annotations: Value| {
        json!({
            "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]},
        })
    };
    world.service_object(annotated(json!({"example.com/request-timeout": "1s"})));
    let before = port(&world.build());
    assert!(Arc::ptr_eq(&before.http, &HttpPolicy::shared()));
    world.service_object(annotated(json!({
        "sealane.dev/request-timeout": "5s",
        "sealane.dev/retries": "many",
        "sealane.dev/retry": "3",
    })));
    let snapshot = world.build();
    let http = Arc::clone(&port(&snapshot).http);
    assert_eq!(http.timeouts.request, Duration::from_secs(5));
    assert_eq!(http.retries, HttpPolicy::default().retries);
    let [bad] = problems(&snapshot, ProblemKind::BadAnnotation)[..] else {
        panic!("{:?}", snapshot.problems);
    };
    assert_eq!(bad.object.to_string(), "Service shop/web");
    assert_eq!(bad.field, "metadata.annotations[sealane.dev/retries]");
    let [unknown] = problems(&snapshot, ProblemKind::UnknownAnnotation)[..] else {
        panic!("{:?}", snapshot.problems);
    };
    assert_eq!(unknown.field, "metadata.annotations[sealane.dev/retry]");
    world.service_object(annotated(json!({})));
    let snapshot = world.build();
    assert!(snapshot.problems.is_empty());
    assert!(Arc::ptr_eq(&port(&snapshot).http, &HttpPolicy::shared()));
}

#[test]
fn proxy_s15_health_check_port_and_what_it_counts() {
    let balancer = |policy: &str| {
        json!({"type": "LoadBalancer", "externalTrafficPolicy": policy,
            "healthCheckNodePort": 32000})
    };
    let cases = [
        ("Local", balancer("Local"), Some(32000)),
        ("Cluster", balancer("Cluster"), None),
        (
            "NodePort",
            json!({"type": "NodePort", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 32000}),
            None,
        ),
    ];
    for (name, fields, want) in cases {
        let mut world = World::on_node();
        web(&mut world, fields);
        let snapshot = world.build();
        let policy = Arc::clone(&port(&snapshot).policy);
        assert_eq!(policy.health_check_node_port, want, "{name}");
        let asked: Vec<u16> = snapshot.health_ports.keys().copied().collect();
        assert_eq!(asked, Vec::from_iter(want), "{name}");
        web(&mut world, json!({}));
        assert!(world.build().health_ports.is_empty(), "{name}: no more");
    }
    let mut world = World::on_node();
    web(&mut world, balancer("Local"));
    for (list, want) in [
        (&["1@here", "2@here", "3@there"][..], 2),
        (&["1@here~", "3@there"], 0),
        (&["1@here", "2@here-", "4@here~"], 1),
        (&[], 0),
    ] {
        world.slice("a", "web", endpoints(list));
        world.build();
        world.wait(1_000);
        let snapshot = world.build();
        let web = service(&snapshot, "web").unwrap();
        assert_eq!(web.local_ready(), want, "{list:?}");
    }
}

#[test]
fn proxy_s9_s21_source_ranges_of_load_balancers() {
    let ranges = |list: Value| {
        let mut world = World::new();
        let fields = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": list});
        web(&mut world, fields);
        let snapshot = world.build();
        let found = problems(&snapshot, ProblemKind::BadField).len();
        (Arc::clone(&port(&snapshot).policy), found)
    };
    let clients = [
        "192.0.2.7",
        "198.51.100.1",
        "2001:db8::1",
        "::ffff:192.0.2.7",
    ];
    let cases = [
        (json!([]), [true, true, true, true], 0),
        (json!([" 192.0.2.0/24 "]), [true, false, true, true], 0),
        (json!(["192.0.2.9/24"]), [true, false, true, true], 0),
        (json!(["2001:db8::/32"]), [true, true, true, true], 0),
        (
            json!(["2001:db9::/32", "198.51.100.1/32"]),
            [false, true, false, false],
            0,
        ),
        (json!(["192.0.2.0"]), [false, false, false, false], 1),
        (
            json!(["nonsense", "192.0.2.0/24"]),
            [true, false, true, true],
            1,
        ),
    ];
    for (list, want, wrong) in cases {
        let name = list.to_string();
        let (policy, found) = ranges(list);
        let admitted = clients.map(|client| policy.admits(client.parse().unwrap()));
        assert_eq!(admitted, want, "{name}");
        assert_eq!(found, wrong, "{name}");
    }
}

#[test]
fn proxy_s9_load_balancer_addresses_come_and_go() {
    let mut world = World::new();
    let object = |ingress: Value| {
        json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1",
                "externalIPs": ["203.0.113.1"],
                "ports": [{"name": "http", "port": 80, "nodePort": 0}]},
            "status": {"loadBalancer": {"ingress": ingress}}})
    };
    world.slice("a", "web", endpoints(&["1@there"]));
    let steps = [
        (json!([]), None),
        (
            json!([{"ip": "198.51.100.1", "ipMode": "VIP"}]),
            Some(AddressKind::LoadBalancer),
        ),
        (json!([{"ip": "198.51.100.1", "ipMode": "Proxy"}]), None),
        (
            json!([{"hostname": "lb.test"}, {"ip": "198.51.100.1"}]),
            Some(AddressKind::LoadBalancer),
        ),
        (json!([{"ip": "198.51.100.2"}]), None),
    ];
    for (ingress, kind) in steps {
        let name = ingress.to_string();
        world.service_object(object(ingress));
        let snapshot = world.build();
        let web = service(&snapshot, "web").unwrap();
        let kind_of = |ip: &str| web.address_kind(ip.parse().unwrap());
        assert_eq!(kind_of("198.51.100.1"), kind, "{name}");
        assert_eq!(
            kind_of("203.0.113.1"),
            Some(AddressKind::External),
            "{name}"
        );
        assert_eq!(kind_of("10.96.0.1"), Some(AddressKind::ClusterIp), "{name}");
        let found = vip(&snapshot, "198.51.100.1:80");
        assert_eq!(found.is_some(), kind.is_some(), "{name}");
        assert_eq!(snapshot.node_ports.size(), 0, "node port 0 is none: {name}");
    }
}

#[test]
fn proxy_s12_affinity_and_its_timeout() {
    let timeout = |seconds: Value| json!({"clientIP": {"timeoutSeconds": seconds}});
    let cases = [
        ("none", json!({}), None, 0),
        ("None", json!({"sessionAffinity": "None"}), None, 0),
        (
            "default",
            json!({"sessionAffinity": "ClientIP"}),
            Some(10_800),
            0,
        ),
        (
            "own",
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": timeout(json!(5))}),
            Some(5),
            0,
        ),
        (
            "a day",
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": timeout(json!(86_400))}),
            Some(86_400),
            0,
        ),
        (
            "too long",
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": timeout(json!(86_401))}),
            Some(10_800),
            1,
        ),
        (
            "zero",
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": timeout(json!(0))}),
            Some(10_800),
            1,
        ),
    ];
    for (name, fields, want, wrong) in cases {
        let mut world = World::new();
        web(&mut world, fields);
        let snapshot = world.build();
        let affinity = port(&snapshot).policy.affinity;
        assert_eq!(affinity, want.map(Duration::from_secs), "{name}");
        let found = problems(&snapshot, ProblemKind::BadField).len();
        assert_eq!(found, wrong, "{name}");
    }
}

/// An endpoint with hints, as `LAST@NODE:NODES:ZONES`.
fn hinted(text: &str) -> Value {
    let mut parts = text.split(':');
    let mut endpoint = endpoint(parts.next().unwrap());
    let mut hint = |field: &str| {
        let names = parts.next().unwrap_or_default();
        let names = names.split(',').filter(|name| !name.is_empty());
        let names: Vec<Value> = names.map(|name| json!({"name": name})).collect();
        (!names.is_empty()).then(|| endpoint["hints"][field] = json!(names));
    };
    hint("forNodes");
    hint("forZones");
    endpoint
}

#[test]
fn proxy_s13_hints() {
    // Endpoints, and who takes traffic in zone `a`, in zone `b`, and in none.
    type Case = (&'static str, &'static [&'static str], [&'static [u8]; 3]);
    let cases: [Case; 9] = [
        ("none", &["1@x", "2@y"], [&[1, 2], &[1, 2], &[1, 2]]),
        ("zones", &["1@x::a", "2@y::b"], [&[1], &[2], &[1, 2]]),
        (
            "several zones",
            &["1@x::a,b", "2@y::b"],
            [&[1], &[1, 2], &[1, 2]],
        ),
        (
            "one has none",
            &["1@x::a", "2@y::b", "3@z"],
            [&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]],
        ),
        (
            "one that is not ready has none",
            &["1@x::a", "2@y::b", "3@z-"],
            [&[1], &[2], &[1, 2]],
        ),
        (
            "nobody for us",
            &["1@x::c", "2@y::d"],
            [&[1, 2], &[1, 2], &[1, 2]],
        ),
        (
            "nodes before zones",
            &["1@x:there:a", "2@y:here:b", "3@z:here:a"],
            [&[2, 3], &[2, 3], &[2, 3]],
        ),
        (
            "nodes, but not ours: zones",
            &["1@x:there:a", "2@y:there:b"],
            [&[1], &[2], &[1, 2]],
        ),
        (
            "only one has a node",
            &["1@x:here:a", "2@y::b"],
            [&[1], &[2], &[1, 2]],
        ),
    ];
    for (name, list, want) in cases {
        for (zone, want) in [Some("a"), Some("b"), None].into_iter().zip(want) {
            let mut world = World::on_node();
            world.node(zone);
            web(&mut world, json!({"trafficDistribution": "PreferSameZone"}));
            world.slice("a", "web", list.iter().map(|text| hinted(text)).collect());
            let port = port(&world.build());
            assert_eq!(lasts(&port.endpoints), want, "{name} in {zone:?}");
        }
    }
}

#[test]
fn proxy_l23_what_hints_leave_out_is_kept_for_when_the_others_fail() {
    // Endpoints, and those to spill over to, for zone `a`.
    type Case = (&'static str, &'static [&'static str], Option<&'static [u8]>);
    let cases: [Case; 5] = [
        ("no hints", &["1@x", "2@y"], None),
        ("zones", &["1@x::a", "2@y::b", "3@z::a"], Some(&[1, 2, 3])),
        ("all are ours", &["1@x::a", "2@y::a,b"], None),
        ("not those that are not ready", &["1@x::a", "2@y-::b"], None),
        ("nodes", &["1@x:there:a", "2@y:here:b"], Some(&[1, 2])),
    ];
    for (name, list, want) in cases {
        let mut world = World::on_node();
        world.node(Some("a"));
        web(&mut world, json!({"trafficDistribution": "PreferSameZone"}));
        world.slice("a", "web", list.iter().map(|text| hinted(text)).collect());
        let port = port(&world.build());
        let everywhere = port.everywhere.as_deref().map(lasts);
        assert_eq!(everywhere.as_deref(), want, "{name}");
        assert_eq!(
            lasts(port.everywhere_within(Scope::Cluster)),
            want.map_or_else(|| lasts(&port.endpoints), <[u8]>::to_vec),
            "{name}"
        );
    }
}

#[test]
fn proxy_s13_hints_end_with_the_last_ready_endpoint() {
    let mut world = World::on_node();
    world.node(Some("a"));
    web(&mut world, json!({"internalTrafficPolicy": "Local"}));
    let list = ["1@there~::a", "2@here~::b"];
    world.slice("a", "web", list.iter().map(|text| hinted(text)).collect());
    let port = port(&world.build());
    assert_eq!(
        lasts(&port.endpoints),
        [1, 2],
        "not only those hinted at us"
    );
    assert_eq!(
        lasts(port.within(Scope::Local)),
        [2],
        "hints are not for Local"
    );
}

#[test]
fn proxy_s13_a_change_of_the_nodes_zone_is_followed() {
    let mut world = World::on_node();
    web(&mut world, json!({}));
    world.service(
        "plain",
        json!({"clusterIP": "10.96.0.2", "ports": [{"name": "http", "port": 80}]}),
    );
    let list = ["1@x::a", "2@y::b"];
    world.slice("a", "web", list.iter().map(|text| hinted(text)).collect());
    world.slice("b", "plain", endpoints(&["3@x"]));
    assert_eq!(
        lasts(&port(&world.build()).endpoints),
        [1, 2],
        "not known yet"
    );
    for (zone, want) in [(Some("b"), &[2][..]), (Some("a"), &[1]), (None, &[1, 2])] {
        world.node(zone);
        let (snapshot, work) = world.build_counted();
        assert_eq!(lasts(&port(&snapshot).endpoints), want, "{zone:?}");
        assert_eq!(work.services, 1, "the one with hints");
        world.node(zone);
        assert_eq!(world.build_counted().1.services, 0, "the same again");
    }
}

#[test]
fn proxy_s13_hints_name_this_node_per_family_and_port() {
    let mut world = World::on_node();
    world.node(Some("a"));
    world.service(
        "web",
        json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "ports": [{"name": "http", "port": 80}]}),
    );
    let list = ["1@x::a", "2@y::b"];
    world.slice("v4", "web", list.iter().map(|text| hinted(text)).collect());
    let mut v6 = slice(
        "v6",
        "web",
        json!([{"addresses": ["fd01::1"]}, {"addresses": ["fd01::2"]}]),
    );
    v6["addressType"] = json!("IPv6");
    world.slice_object(v6);
    let snapshot = world.build();
    assert_eq!(vip(&snapshot, "10.96.0.1:80").unwrap(), ["10.1.0.1:8080"]);
    assert_eq!(vip(&snapshot, "[fd00::1]:80").unwrap().len(), 2);
}

#[test]
fn proxy_s2_a_copy_on_this_node_goes_before_others() {
    let mut world = World::on_node();
    web(&mut world, json!({"internalTrafficPolicy": "Local"}));
    world.slice("a", "web", endpoints(&["1@there"]));
    world.slice("b", "web", endpoints(&["1@here"]));
    let port = port(&world.build());
    assert_eq!(targets(&port), ["10.1.0.1:8080"]);
    assert_eq!(lasts(port.within(Scope::Local)), [1]);
    assert_eq!(port.endpoints[0].node().map(AsRef::as_ref), Some("here"));
}

#[test]
fn proxy_s21_each_family_has_its_own_sets() {
    let mut world = World::on_node();
    world.service(
        "web",
        json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "externalIPs": ["203.0.113.1", "2001:db8::1"], "externalTrafficPolicy": "Local",
            "ports": [{"name": "http", "port": 80}]}),
    );
    world.slice("v4", "web", endpoints(&["1@there"]));
    let mut v6 = slice(
        "v6",
        "web",
        json!([{"addresses": ["fd01::2"], "nodeName": "here"}]),
    );
    v6["addressType"] = json!("IPv6");
    world.slice_object(v6);
    let snapshot = world.build();
    let sets = |addr: &str| {
        let addr: std::net::SocketAddr = addr.parse().unwrap();
        let port = snapshot.vip(addr.into(), Protocol::Tcp).unwrap();
        (lasts(&port.endpoints), lasts(port.within(Scope::Local)))
    };
    for v4 in ["10.96.0.1:80", "203.0.113.1:80"] {
        assert_eq!(sets(v4), (vec![1], vec![]), "{v4}");
    }
    for v6 in ["[fd00::1]:80", "[2001:db8::1]:80"] {
        assert_eq!(sets(v6), (vec![2], vec![2]), "{v6}");
    }
}

#[test]
fn proxy_s24_policies_change_live() {
    let mut world = World::on_node();
    world.slice("a", "web", endpoints(&["1@here", "2@there"]));
    let steps = [
        (json!({"internalTrafficPolicy": "Local"}), Some(&[1][..])),
        (json!({"internalTrafficPolicy": "Cluster"}), None),
        (
            json!({"type": "NodePort", "externalTrafficPolicy": "Local"}),
            Some(&[1]),
        ),
        (json!({"externalTrafficPolicy": "Local"}), None),
    ];
    for (fields, want) in steps {
        let name = fields.to_string();
        web(&mut world, fields);
        let port = port(&world.build());
        let local = port.local.as_ref().map(|local| lasts(local));
        assert_eq!(local.as_deref(), want, "{name}");
        assert_eq!(lasts(&port.endpoints), [1, 2], "{name}");
    }
}

#[test]
fn proxy_s16_a_node_that_is_about_to_go_is_known() {
    let taint = |key: &str| json!([{"key": key, "effect": "NoSchedule"}]);
    let cases = [
        (
            "another node",
            json!({"name": "there"}),
            taint("ToBeDeletedByClusterAutoscaler"),
            false,
        ),
        ("nothing", json!({"name": "here"}), json!([]), false),
        ("another taint", json!({"name": "here"}), taint("x"), false),
        (
            "taint",
            json!({"name": "here"}),
            taint("ToBeDeletedByClusterAutoscaler"),
            true,
        ),
        (
            "deleted",
            json!({"name": "here", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
            json!([]),
            true,
        ),
    ];
    let mut world = World::on_node();
    for (name, metadata, taints, want) in cases {
        let was = world.build().node_is_leaving;
        world.node_object(json!({"metadata": metadata, "spec": {"taints": taints}}));
        let built = world.compiler.build(world.now, world.epoch);
        assert_eq!(built.snapshot.node_is_leaving, want, "{name}");
        assert_eq!(built.is_changed, was != want, "{name}");
    }
}
