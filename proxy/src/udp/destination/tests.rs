use std::net::{Ipv4Addr, SocketAddr};

use sealane_config::model::{
    Conditions, Endpoint, EndpointInfo, Service, ServiceKey, ServiceKind, TrafficPolicy,
};

use super::*;
use crate::intercept::InterceptOptions;

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1));

const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 9));

fn places() -> Places {
    Places::Node(Arc::new(InterceptOptions {
        node_ips: vec![NODE].into(),
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..InterceptOptions::default()
    }))
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Service `default/api` with UDP port 53 and node port 30053 at 10.96.0.1 and 192.0.2.1.
fn snapshot(policy: TrafficPolicy, ready: &[&str], all: Vec<ServiceEndpoint>) -> Snapshot {
    let key = ServiceKey {
        namespace: "default".into(),
        name: "api".into(),
    };
    let policy = Arc::new(policy);
    let endpoint = |text: &&str| Arc::new(Endpoint::at(addr(text)));
    let port = Arc::new(ServicePort {
        service: key.clone(),
        name: "dns".into(),
        port: 53,
        protocol: Protocol::Udp,
        node_port: Some(30053),
        app_protocol: Default::default(),
        endpoints: ready.iter().map(endpoint).collect(),
        local: Some(Arc::new([])),
        everywhere: None,
        policy: Arc::clone(&policy),
        http: Arc::default(),
    });
    let service = Service {
        key: key.clone(),
        kind: ServiceKind::ClusterIp,
        cluster_ips: vec![addr("10.96.0.1:0").ip()],
        load_balancer_ips: Vec::new(),
        external_ips: vec![addr("192.0.2.1:0").ip()],
        policy,
        ports: vec![Arc::clone(&port)],
        listed_ports: Arc::default(),
        endpoints: all.into(),
    };
    let mut snapshot = Snapshot::default();
    for ip in service.cluster_ips.iter().chain(&service.external_ips) {
        let key = (*ip, Protocol::Udp, 53);
        snapshot.vips.insert_mut(key, Arc::clone(&port));
    }
    let node_port = (Protocol::Udp, 30053);
    snapshot.node_ports.insert_mut(node_port, port);
    snapshot.services.insert_mut(key, Arc::new(service));
    snapshot
}

#[test]
fn proxy_s5_s8_s10_every_address_leads_to_its_endpoints() {
    let policy = TrafficPolicy {
        internal: Scope::Local,
        ..TrafficPolicy::default()
    };
    let snapshot = snapshot(policy, &["10.244.0.2:53"], Vec::new());
    for (name, dialled, expected) in [
        ("cluster IP", "10.96.0.1:53", Some(Scope::Local)),
        ("external IP", "192.0.2.1:53", Some(Scope::Cluster)),
        ("node port", "10.244.0.1:30053", Some(Scope::Cluster)),
        ("another port", "10.96.0.1:54", None),
        ("node port of another address", "10.96.0.1:30053", None),
    ] {
        let found = find(&snapshot, POD, VipAddr(addr(dialled)), &places());
        assert_eq!(found.map(|found| found.scope), expected, "{name}");
    }
}

#[test]
fn proxy_s20_tcp_and_udp_of_one_number_are_independent() {
    let mut snapshot = snapshot(TrafficPolicy::default(), &["10.244.0.2:53"], Vec::new());
    let vip = VipAddr(addr("10.96.0.1:53"));
    let port = find(&snapshot, POD, vip, &places()).unwrap().port;
    snapshot.vips.remove_mut(&(vip.0.ip(), Protocol::Udp, 53));
    snapshot
        .vips
        .insert_mut((vip.0.ip(), Protocol::Tcp, 53), port);
    assert!(find(&snapshot, POD, vip, &places()).is_none());
}

#[test]
fn proxy_s18_flows_stay_with_what_serves() {
    let conditions = |ready, serving, terminating| Conditions {
        ready,
        serving,
        terminating,
    };
    let (yes, no) = (Some(true), Some(false));
    let table = [
        ("ready", conditions(yes, yes, false), true),
        ("nothing said", Conditions::default(), true),
        ("not ready", conditions(no, None, false), false),
        ("not serving", conditions(no, no, false), false),
        ("terminating", conditions(no, yes, true), true),
        ("terminated", conditions(no, no, true), false),
    ];
    for (name, conditions, expected) in table {
        let one = |ip: &str, number| ServiceEndpoint {
            info: Arc::new(EndpointInfo {
                conditions,
                ..EndpointInfo::at(ip.parse().unwrap())
            }),
            ready: conditions.is_ready(false),
            ports: Arc::new(vec![("dns".into(), Protocol::Udp, number)]),
        };
        // Others are chosen for new flows.
        let all = vec![
            one("10.244.0.2", 53),
            one("10.244.0.3", 53),
            one("10.244.0.3", 5353),
        ];
        let snapshot = snapshot(TrafficPolicy::default(), &["10.244.0.9:53"], all);
        let vip = VipAddr(addr("10.96.0.1:53"));
        let found = find(&snapshot, POD, vip, &places()).unwrap();
        let (port, scope) = (found.port, found.scope);
        let stays = |text: &str| serves(&snapshot, &port, scope, EndpointAddr::from(addr(text)));
        for endpoint in ["10.244.0.2:53", "10.244.0.3:53", "10.244.0.3:5353"] {
            assert_eq!(stays(endpoint), expected, "{name}, {endpoint}");
        }
        assert!(stays("10.244.0.9:53"), "{name}: chosen");
        assert!(!stays("10.244.0.4:53"), "{name}: gone");
        assert!(!stays("10.244.0.2:54"), "{name}: another port");
    }
}
