//! The objects that meet: few names, many variants of each.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::super::certificates::{secret as tls_secret, tls};
use super::super::world::EPOCH;
use crate::compile::{ObjectKey, SecretRecord};

/// Names of each kind.
pub(super) const NAMES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Service,
    Slice,
    Node,
    Namespace,
    Ingress,
    Class,
    GatewayClass,
    Gateway,
    HttpRoute,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Service,
        Self::Slice,
        Self::Node,
        Self::Namespace,
        Self::Ingress,
        Self::Class,
        Self::GatewayClass,
        Self::Gateway,
        Self::HttpRoute,
    ];
}

/// What a Secret holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretVersion {
    Gone,
    Garbled,
    Bad,
    Good(usize),
}

pub(super) fn key(kind: Kind, name: usize) -> ObjectKey {
    let of = |names: [&str; NAMES]| names[name].to_owned();
    match kind {
        Kind::Service | Kind::Slice | Kind::Ingress | Kind::HttpRoute => {
            ObjectKey::new(["shop", "shop", "other"][name], &of(["a", "b", "a"]))
        }
        Kind::Gateway => ObjectKey::new("shop", &of(["a", "b", "c"])),
        Kind::Node => ObjectKey::new("", &of(["here", "there", "nowhere"])),
        Kind::Namespace => ObjectKey::new("", &of(["shop", "other", "third"])),
        Kind::Class | Kind::GatewayClass => ObjectKey::new("", &of(["ours", "theirs", "mixed"])),
    }
}

pub(super) fn secret_key(name: usize) -> ObjectKey {
    ObjectKey::new("shop", ["s0", "s1", "s2"][name])
}

/// Versions of Secrets, read once: that is slow.
pub(super) fn secret(name: usize, version: SecretVersion) -> SecretRecord {
    static READ: OnceLock<Vec<SecretRecord>> = OnceLock::new();
    let all = READ.get_or_init(|| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut all = Vec::new();
        for name in 0..NAMES {
            let key = secret_key(name);
            let opaque = tls_secret("9", "Opaque", (String::new(), String::new()));
            // A certificate for another host of its Ingress would be used for that one, too, and stay
            // in use when the Secret is gone.
            let names: &[&str] = match name {
                0 => &["h1.test", "*.test"],
                1 => &["h1.test"],
                _ => &["h1.test", "h2.test"],
            };
            for secret in [tls("1", names), tls("2", names), opaque] {
                all.push(SecretRecord::read(&key, secret, &provider));
            }
        }
        all
    });
    let place = match version {
        SecretVersion::Good(number) => number,
        SecretVersion::Bad | SecretVersion::Gone | SecretVersion::Garbled => 2,
    };
    all[name * 3 + place].clone()
}

pub(super) fn variants(kind: Kind) -> usize {
    specs(kind).len()
}

/// An object of this kind, name and variant.
pub(super) fn object(kind: Kind, name: usize, variant: usize) -> Value {
    let key = key(kind, name);
    let mut object = specs(kind)[variant].clone();
    object["metadata"]["name"] = json!(&*key.name);
    if !key.namespace.is_empty() {
        object["metadata"]["namespace"] = json!(&*key.namespace);
    }
    // Two of three are of the same age, so that names decide.
    let age = [1, 1, 0][(name + variant) % 3];
    let created = jiff::Timestamp::from_second(EPOCH + age).unwrap();
    object["metadata"]["creationTimestamp"] = json!(created.to_string());
    object
}

fn specs(kind: Kind) -> &'static [Value] {
    static ALL: OnceLock<Vec<Vec<Value>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let of = |kind: &Kind| match kind {
            Kind::Service => services(),
            Kind::Slice => slices(),
            Kind::Node => nodes(),
            Kind::Namespace => vec![json!({"metadata": {}})],
            Kind::Ingress => ingresses(),
            Kind::Class => classes(),
            Kind::GatewayClass => gateway_classes(),
            Kind::Gateway => gateways(),
            Kind::HttpRoute => http_routes(),
        };
        Kind::ALL.iter().map(of).collect()
    });
    let place = Kind::ALL.iter().position(|it| *it == kind).unwrap();
    &all[place]
}

fn services() -> Vec<Value> {
    let http = || json!([{"name": "http", "port": 80}]);
    let two = json!([{"name": "http", "port": 80, "nodePort": 30080},
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30080}]);
    let both = ["10.96.0.1", "fd00::1"];
    let balancer = json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}]}});
    [
        json!({"spec": {"clusterIP": "10.96.0.1", "ports": http()}}),
        json!({"spec": {"clusterIP": "10.96.0.2", "ports": http()}}),
        json!({"spec": {"clusterIP": "10.96.0.2", "clusterIPs": both, "ports": two}}),
        json!({"spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "web", "port": 80}]}}),
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.3", "ports": two,
            "externalTrafficPolicy": "Local"}}),
        json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.3", "ports": http(),
            "externalIPs": ["10.96.0.1", "203.0.113.1"]}, "status": balancer}),
        json!({"spec": {"clusterIP": "10.96.0.1", "ports": http(),
            "externalIPs": ["203.0.113.1"], "internalTrafficPolicy": "Local"}}),
        json!({"spec": {"clusterIP": "10.96.0.1", "ports": http(),
            "publishNotReadyAddresses": true, "sessionAffinity": "ClientIP"}}),
        json!({"spec": {"clusterIP": "None", "ports": http()}}),
        json!({"spec": {"type": "ExternalName", "externalName": "db.example.com"}}),
        json!({"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 0},
            {"port": 80, "protocol": "SCTP"}]}}),
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "it"}},
            "spec": {"clusterIP": "10.96.0.1", "ports": two}}),
    ]
    .into()
}

fn slices() -> Vec<Value> {
    let pods = [
        json!({"addresses": ["10.1.0.1"], "nodeName": "here", "zone": "a",
            "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "there"}]},
            "targetRef": {"kind": "Pod", "name": "p1", "uid": "1"}}),
        json!({"addresses": ["10.1.0.2"], "nodeName": "there", "hostname": "p2",
            "hints": {"forZones": [{"name": "a"}]}, "conditions": {"ready": true}}),
        json!({"addresses": ["10.1.0.3"], "nodeName": "there",
            "hints": {"forZones": [{"name": "b"}]}, "conditions": {"ready": true}}),
        json!({"addresses": ["10.1.0.1"], "nodeName": "here",
            "targetRef": {"kind": "Pod", "name": "p1", "uid": "2"},
            "conditions": {"ready": false, "serving": true, "terminating": true}}),
        json!({"addresses": ["10.1.0.2"], "conditions": {"ready": false}}),
        json!({"addresses": ["nonsense"]}),
    ];
    let sets: [&[usize]; 8] = [&[0], &[0, 2], &[1, 2], &[2], &[3], &[3, 4], &[0, 1, 5], &[]];
    let ports = [
        json!([{"name": "http", "port": 8080}]),
        json!([{"name": "http", "port": 8081}, {"name": "dns", "port": 53, "protocol": "UDP"}]),
        json!([{"name": "web", "port": 8080}]),
    ];
    let mut all = Vec::new();
    for service in ["a", "b"] {
        for (number, set) in sets.iter().enumerate() {
            let endpoints: Vec<&Value> = set.iter().map(|pod| &pods[*pod]).collect();
            let ports = &ports[(number + service.len()) % 3 * usize::from(number > 2)];
            all.push(json!({
                "metadata": {"labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "ports": ports, "endpoints": endpoints}));
        }
        all.push(json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv6", "ports": ports[0],
            "endpoints": [{"addresses": ["fd01::1"], "nodeName": "here"}]}));
    }
    all.push(json!({"metadata": {}, "addressType": "IPv4", "endpoints": []}));
    all
}

fn nodes() -> Vec<Value> {
    let zone = |zone: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    vec![zone("a"), zone("b"), json!({"metadata": {}})]
}

fn classes() -> Vec<Value> {
    let ours = "sealane.dev/ingress";
    vec![
        json!({"metadata": {}, "spec": {"controller": ours}}),
        json!({"metadata": {}, "spec": {"controller": "example.com/other"}}),
        json!({"metadata": {}, "spec": {"controller": ours,
            "parameters": {"kind": "Some", "name": "thing"}}}),
    ]
}

fn ingresses() -> Vec<Value> {
    let path = |kind: &str, path: &str, service: &str, port: Value| {
        json!({"path": path, "pathType": kind,
            "backend": {"service": {"name": service, "port": port}}})
    };
    let number = || json!({"number": 80});
    let one = |host: &str, path: Value| json!({"host": host, "http": {"paths": [path]}});
    let tls = |host: &str, secret: &str| json!([{"hosts": [host], "secretName": secret}]);
    let regex = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    let canary = json!({"nginx.ingress.kubernetes.io/canary": "true",
        "nginx.ingress.kubernetes.io/canary-weight": "10"});
    let specs = [
        json!({"rules": [one("h1.test", path("Prefix", "/", "a", number()))]}),
        json!({"rules": [one("h1.test", path("Prefix", "/", "b", number()))],
            "tls": tls("h1.test", "s0")}),
        json!({"rules": [one("h1.test", path("Exact", "/x", "a", json!({"name": "http"}))),
            one("h2.test", path("Prefix", "/", "a", json!({"name": "web"})))],
            "tls": tls("h1.test", "s1")}),
        json!({"rules": [one("*.test", path("Prefix", "/", "b", json!({"number": 81})))],
            "tls": tls("*.test", "s0")}),
        json!({"rules": [one("h2.test", path("ImplementationSpecific", "/a+", "a", number()))]}),
        json!({"rules": [{"http": {"paths": [path("Prefix", "/any", "a", number())]}}],
            "tls": [{"secretName": "s2"}]}),
        json!({"defaultBackend": {"service": {"name": "b", "port": number()}}}),
        json!({"rules": [one("h2.test", path("Prefix", "/", "a", number()))],
            "defaultBackend": {"resource": {"kind": "X", "name": "y"}},
            "tls": tls("h2.test", "s2")}),
        json!({"rules": [one("h1.test", path("Prefix", "/", "b", number()))],
            "tls": tls("h1.test", "s1")}),
        json!({"rules": [one("h1.test", path("Exact", "/x", "a", number())),
            one("h2.test", path("ImplementationSpecific", "/a+", "b", number()))]}),
        json!({"defaultBackend": {"service": {"name": "a", "port": number()}}}),
    ];
    let mut all = Vec::new();
    for (number, spec) in specs.iter().enumerate() {
        let class = ["ours", "ours", "theirs", "ours", "mixed"];
        for class in [class[number % 5], class[(number + 2) % 5]] {
            let mut spec = spec.clone();
            spec["ingressClassName"] = json!(class);
            let annotations = match number {
                4 => regex.clone(),
                8.. => canary.clone(),
                _ => json!({}),
            };
            all.push(json!({"metadata": {"annotations": annotations}, "spec": spec}));
        }
    }
    all
}

fn gateway_classes() -> Vec<Value> {
    let class = |name: &str| json!({"metadata": {}, "spec": {"controllerName": name}});
    vec![class("sealane.dev/gateway"), class("example.com/other")]
}

fn gateways() -> Vec<Value> {
    let http = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    let https = json!({"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "h1.test",
        "tls": {"certificateRefs": [{"name": "s2"}]}});
    let gateway = |class: &str, listeners: Value| json!({"metadata": {}, "spec": {"gatewayClassName": class, "listeners": listeners}});
    vec![
        gateway("ours", json!([http])),
        gateway("ours", json!([http, https])),
        gateway("theirs", json!([http])),
        gateway("mixed", json!([https])),
    ]
}

fn http_routes() -> Vec<Value> {
    let route = |gateway: &str, host: &str, path: &str, service: &str| {
        json!({"metadata": {}, "spec": {
            "parentRefs": [{"name": gateway, "namespace": "shop"}], "hostnames": [host],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "backendRefs": [{"name": service, "port": 80}]}]}})
    };
    vec![
        route("a", "h1.test", "/", "a"),
        route("b", "h1.test", "/", "b"),
        route("a", "h2.test", "/x", "a"),
        route("c", "*.test", "/", "b"),
    ]
}
