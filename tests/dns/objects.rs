//! The objects that both servers see: every kind of Service, with every kind of endpoint.

use std::net::IpAddr;

use serde_json::{Value, json};

/// The namespace of most of them.
pub(crate) const NAMESPACE: &str = "testns";
/// Endpoints of the largest Service.
pub(crate) const MANY: usize = 2000;
/// Endpoints of a Service whose addresses fit into the largest datagram that a client may ask for, but
/// into none that travels in one piece.
const SOME: usize = 150;
/// Written last: who knows its address knows all the others.
pub(crate) const LAST: &str = "last.zz-last.svc.cluster.local";

/// A Service in [`NAMESPACE`] with this `spec`.
pub(crate) fn service(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    })
}

pub(crate) fn external(name: &str, target: &str) -> Value {
    service(
        name,
        json!({"type": "ExternalName", "externalName": target}),
    )
}

pub(crate) fn headless(name: &str, families: &[&str]) -> Value {
    let policy = if families.len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    service(
        name,
        json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}],
            "ipFamilies": families, "ipFamilyPolicy": policy}),
    )
}

/// An EndpointSlice of a Service in [`NAMESPACE`].
pub(crate) fn slice(
    service: &str,
    part: &str,
    family: &str,
    ports: &Value,
    endpoints: &[Value],
) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-{part}"), "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

pub(crate) fn ready(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}})
}

pub(crate) fn host(address: &str, hostname: &str) -> Value {
    json!({"addresses": [address], "hostname": hostname, "conditions": {"ready": true}})
}

fn conditions(address: &str, hostname: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "hostname": hostname, "conditions": conditions})
}

/// Services with cluster IPs, and their endpoints.
fn cluster_ips() -> Vec<Value> {
    let http = json!([{"name": "http", "port": 80}]);
    let two = json!([
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    let single = |family: &str| json!({"ipFamilies": [family], "ipFamilyPolicy": "SingleStack", "ports": two});
    let dual = |first: &str, second: &str| {
        json!({"ipFamilies": [first, second], "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"name": "https", "port": 443}]})
    };
    let mut node_port = json!({"type": "NodePort"});
    node_port["ports"] = http.clone();
    let mut balancer = json!({"type": "LoadBalancer"});
    balancer["ports"] = http.clone();
    vec![
        service("svc-v4", single("IPv4")),
        service("svc-v6", single("IPv6")),
        service("svc-dual", dual("IPv4", "IPv6")),
        service("svc-dual6", dual("IPv6", "IPv4")),
        service("svc-unnamed", json!({"ports": [{"port": 8080}]})),
        service(
            "svc-sctp",
            json!({"ports": [{"name": "sig", "port": 3868, "protocol": "SCTP"}]}),
        ),
        service(
            "svc-noep",
            json!({"selector": {"app": "nobody"}, "ports": http}),
        ),
        service("svc-manual", json!({"ports": http})),
        service("node-port", node_port),
        service("balancer", balancer),
        slice(
            "svc-manual",
            "a",
            "IPv4",
            &http,
            &[
                host("172.16.1.1", "ep1a"),
                ready("172.16.1.2"),
                conditions("172.16.1.3", "ep1c", json!({"ready": false})),
            ],
        ),
    ]
}

/// Headless Services, and their endpoints.
fn headless_services() -> Vec<Value> {
    let http = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let many_ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "admin", "port": 81, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    let mut no_ports = headless("hd-noports", &["IPv4"]);
    no_ports["spec"]["ports"].take();
    let mut objects = vec![
        headless("hd-names", &["IPv4"]),
        slice(
            "hd-names",
            "a",
            "IPv4",
            &http,
            &[
                host("172.16.2.1", "web-0"),
                host("172.16.2.2", "web-1"),
                host("172.16.2.3", "web-2"),
            ],
        ),
        headless("hd-dash", &["IPv4", "IPv6"]),
        slice(
            "hd-dash",
            "a",
            "IPv4",
            &http,
            &[ready("172.16.3.1"), ready("172.16.3.2")],
        ),
        slice(
            "hd-dash",
            "b",
            "IPv6",
            &http,
            &[
                ready("fd00:3::1"),
                ready("5678:abcd::"),
                ready("5678:abcd::1"),
            ],
        ),
        headless("hd-v6", &["IPv6"]),
        slice(
            "hd-v6",
            "a",
            "IPv6",
            &http,
            &[host("fd00:4::1", "six-0"), ready("fd00:4::2")],
        ),
        headless("hd-dual", &["IPv4", "IPv6"]),
        slice(
            "hd-dual",
            "a",
            "IPv4",
            &http,
            &[host("172.16.5.1", "both-0")],
        ),
        slice(
            "hd-dual",
            "b",
            "IPv6",
            &http,
            &[host("fd00:5::1", "both-0")],
        ),
        headless("hd-none", &["IPv4"]),
        headless("hd-unready", &["IPv4"]),
        slice(
            "hd-unready",
            "a",
            "IPv4",
            &http,
            &[conditions("172.16.6.1", "off-0", json!({"ready": false}))],
        ),
        headless("hd-mixed", &["IPv4"]),
        slice(
            "hd-mixed",
            "a",
            "IPv4",
            &http,
            &[
                conditions("172.16.7.1", "on", json!({"ready": true})),
                conditions("172.16.7.2", "off", json!({"ready": false})),
                conditions(
                    "172.16.7.3",
                    "ending",
                    json!({"ready": false, "serving": true, "terminating": true}),
                ),
                conditions("172.16.7.4", "unknown", json!({})),
            ],
        ),
        headless("hd-same-host", &["IPv4"]),
        slice(
            "hd-same-host",
            "a",
            "IPv4",
            &http,
            &[host("172.16.8.1", "twin"), host("172.16.8.2", "twin")],
        ),
        slice(
            "hd-same-host",
            "b",
            "IPv4",
            &http,
            &[host("172.16.8.3", "twin")],
        ),
        headless("hd-same-ip", &["IPv4"]),
        slice(
            "hd-same-ip",
            "a",
            "IPv4",
            &http,
            &[ready("172.16.9.1"), ready("172.16.9.2")],
        ),
        slice("hd-same-ip", "b", "IPv4", &http, &[ready("172.16.9.1")]),
        no_ports,
        slice(
            "hd-noports",
            "a",
            "IPv4",
            &json!([]),
            &[host("172.16.10.1", "np-0")],
        ),
        headless("hd-ports", &["IPv4"]),
        slice(
            "hd-ports",
            "a",
            "IPv4",
            &many_ports,
            &[host("172.16.11.1", "p-0"), host("172.16.11.2", "p-1")],
        ),
        headless("hd-two-names", &["IPv4"]),
        slice("hd-two-names", "a", "IPv4", &http, &[ready("172.16.2.1")]),
        headless("hd-many", &["IPv4"]),
        headless("hd-some", &["IPv4"]),
    ];
    let some: Vec<Value> = (1..=SOME)
        .map(|index| ready(&format!("172.21.0.{index}")))
        .collect();
    objects.push(slice("hd-some", "a", "IPv4", &http, &some));
    let all: Vec<Value> = (0..MANY)
        .map(|index| ready(&format!("172.20.{}.{}", index / 250, index % 250 + 1)))
        .collect();
    for (index, part) in all.chunks(100).enumerate() {
        objects.push(slice("hd-many", &format!("{index}"), "IPv4", &http, part));
    }
    objects
}

fn external_names() -> Vec<Value> {
    let within = |name: &str| format!("{name}.{NAMESPACE}.svc.cluster.local");
    vec![
        external("ext-out", "www.example.com"),
        external("ext-alias", "alias.example.com"),
        external("ext-inside", &within("svc-v4")),
        external("ext-headless", &within("hd-names")),
        external("ext-chain", &within("ext-inside")),
        external("ext-chain-out", &within("ext-out")),
        external("ext-missing", &within("missing")),
        external("ext-self", &within("ext-self")),
        external("ext-a", &within("ext-b")),
        external("ext-b", &within("ext-a")),
        external("ext-nxdomain", "missing.example.com"),
        external("ext-empty", "empty.example.com"),
        external("ext-broken", "broken.example.com"),
    ]
}

/// Everything but pods, in the order in which it has to be written. `own` are the addresses at which
/// the servers are reached.
pub(crate) fn all(own: Option<IpAddr>) -> Vec<Value> {
    let namespace =
        |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let mut objects = vec![
        namespace(NAMESPACE),
        namespace("zz-last"),
        namespace("bare"),
    ];
    objects.extend(cluster_ips());
    objects.extend(headless_services());
    objects.extend(external_names());
    let mut dns = service(
        "kube-dns",
        json!({"clusterIP": "10.96.0.10", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}),
    );
    dns["metadata"]["namespace"] = "kube-system".into();
    objects.push(dns);
    let own: Vec<Value> = own.iter().map(|ip| ready(&ip.to_string())).collect();
    let port = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
    let mut reached = slice("kube-dns", "a", "IPv4", &port, &own);
    reached["metadata"]["namespace"] = "kube-system".into();
    objects.push(reached);
    objects
}

/// Pods that a Service selects, whose EndpointSlices are written by the controller; `(name, ready)`.
pub(crate) const PODS: [(&str, bool); 3] = [("db-0", true), ("db-1", false), ("db-2", true)];

/// Two Services that select the pods: one publishes addresses that are not ready.
pub(crate) fn selected() -> Vec<Value> {
    let spec = |early: bool| {
        json!({"clusterIP": "None", "selector": {"app": "db"}, "publishNotReadyAddresses": early,
            "ports": [{"name": "sql", "port": 5432}]})
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}});
    let mut objects = vec![
        node,
        service("db", spec(false)),
        service("db-early", spec(true)),
    ];
    for (name, _) in PODS {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "db"}},
            "spec": {"hostname": name, "subdomain": "db", "nodeName": "node-a",
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 600,
                "containers": [{"name": "db", "image": "db"}]},
        }));
    }
    objects
}

/// Status of a running pod.
pub(crate) fn pod_status(index: usize, is_ready: bool) -> Value {
    let ip = format!("172.16.20.{}", index + 1);
    let ready = if is_ready { "True" } else { "False" };
    json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": ready}],
    })
}

/// Written when all the others are known to the API server.
pub(crate) fn last() -> Vec<Value> {
    let mut objects = vec![
        headless("last", &["IPv4"]),
        slice("last", "a", "IPv4", &json!([]), &[ready("172.16.99.1")]),
    ];
    for object in &mut objects {
        object["metadata"]["namespace"] = "zz-last".into();
    }
    objects
}
