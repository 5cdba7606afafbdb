//! Names from Kubernetes objects: what the compiler makes of Services and EndpointSlices is what the
//! lookup answers.

use k8s_openapi::api::core::v1::Service;
use sealane_config::Snapshot;
use sealane_config::compile::{
    Change, Compiler, Delta, GatewayOptions, Names, ObjectKey, ServiceRecord, SliceRecord,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::lookup::{self, Outcome};
use crate::message::Question;
use crate::settings::DnsSettings;

struct World {
    compiler: Compiler,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            compiler: Compiler::new(GatewayOptions::default(), None),
            now: Instant::now(),
        };
        let namespace = ObjectKey::new("", "shop");
        world.apply(Change::Namespaces(Delta::Set(namespace, Ok(Some(())))));
        world
    }

    fn apply(&mut self, change: Change) {
        self.compiler.apply(change, self.now);
    }

    fn service(&mut self, name: &str, spec: Value) {
        let key = ObjectKey::new("shop", name);
        let metadata = json!({"name": name, "namespace": "shop"});
        let object = json!({"metadata": metadata, "spec": spec});
        let service: Service = serde_json::from_value(object).unwrap();
        let record = ServiceRecord::read(&key, service, &mut Names::default());
        self.apply(Change::Services(Delta::Set(key, Ok(Some(record)))));
    }

    /// A slice of `service` with a port `http`, 8080/TCP.
    fn slice(&mut self, name: &str, service: &str, endpoints: Value) {
        let key = ObjectKey::new("shop", name);
        let labels = json!({"kubernetes.io/service-name": service});
        let object = json!({
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        });
        let slice = serde_json::from_value(object).unwrap();
        let record = SliceRecord::read(&key, slice, &mut Names::default());
        self.apply(Change::Slices(Delta::Set(key, Ok(record))));
    }

    fn build(&mut self) -> Snapshot {
        let mut snapshot = self.compiler.build(self.now, 1_767_225_600).snapshot;
        snapshot.synced = true;
        snapshot
    }
}

/// Code and data of the answer section; an alias that leads out ends in its target.
fn ask(snapshot: &Snapshot, name: &str, record_type: &str) -> Vec<String> {
    let name = name.replace(".S", ".shop.svc.cluster.local");
    let question = Question::new(name.parse().unwrap(), record_type.parse().unwrap());
    match lookup::answer(snapshot, &DnsSettings::default(), &question) {
        Outcome::Done(answer) => {
            let data = answer.answers.iter().map(|record| record.data.to_string());
            let code = format!("{:?}", answer.rcode);
            std::iter::once(code).chain(data).collect()
        }
        Outcome::Alias { target, .. } => vec!["alias".into(), target.to_string()],
        other => panic!("{name}: {other:?}"),
    }
}

fn endpoint(addr: &str, conditions: &Value) -> Value {
    json!({"addresses": [addr], "conditions": conditions})
}

#[test]
fn dns_a1_b1_e1_objects_become_names() {
    let mut world = World::new();
    let ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    world.service(
        "api",
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": ports}),
    );
    world.service(
        "db",
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
    );
    world.service(
        "mail",
        json!({"type": "ExternalName", "externalName": "smtp.example.com."}),
    );
    let mut named = endpoint("10.244.1.1", &json!({"ready": true}));
    named["hostname"] = "db-0".into();
    let plain = endpoint("10.244.1.2", &json!({}));
    let down = endpoint("10.244.1.3", &json!({"ready": false}));
    world.slice("db-1", "db", json!([named, plain, down]));
    let snapshot = world.build();
    for (name, record_type, expected) in [
        ("api.S", "A", &["NoError", "10.96.0.7"][..]),
        (
            "_dns._udp.api.S",
            "SRV",
            &["NoError", "0 100 53 api.shop.svc.cluster.local."],
        ),
        ("db.S", "A", &["NoError", "10.244.1.1", "10.244.1.2"]),
        ("db-0.db.S", "A", &["NoError", "10.244.1.1"]),
        ("10-244-1-2.db.S", "A", &["NoError", "10.244.1.2"]),
        ("10-244-1-3.db.S", "A", &["NXDomain"]),
        (
            "db-0.db.S",
            "SRV",
            &["NoError", "0 100 8080 db-0.db.shop.svc.cluster.local."],
        ),
        ("mail.S", "A", &["alias", "smtp.example.com."]),
        (
            "7.0.96.10.in-addr.arpa",
            "PTR",
            &["NoError", "api.shop.svc.cluster.local."],
        ),
        (
            "1.1.244.10.in-addr.arpa",
            "PTR",
            &["NoError", "db-0.db.shop.svc.cluster.local."],
        ),
        ("shop.svc.cluster.local", "A", &["NoError"]),
        ("nope.S", "A", &["NXDomain"]),
    ] {
        assert_eq!(
            ask(&snapshot, name, record_type),
            expected,
            "{name} {record_type}"
        );
    }
}

#[test]
fn dns_b9_conditions_of_endpoints() {
    let mut world = World::new();
    let ports = json!([{"name": "http", "port": 80}]);
    world.service(
        "db",
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
    );
    let terminating = json!({"ready": false, "serving": true, "terminating": true});
    let cases = [
        ("10.244.1.1", json!({}), true),
        ("10.244.1.2", json!({"ready": true}), true),
        (
            "10.244.1.3",
            json!({"ready": false, "serving": true}),
            false,
        ),
        ("10.244.1.4", terminating, false),
    ];
    let endpoints: Vec<Value> = cases.iter().map(|(addr, c, _)| endpoint(addr, c)).collect();
    world.slice("db-1", "db", endpoints.into());
    let found = ask(&world.build(), "db.S", "A");
    for (addr, conditions, answered) in &cases {
        let is_answered = found.iter().any(|line| line == addr);
        assert_eq!(is_answered, *answered, "{conditions}");
    }
}

#[test]
fn dns_b12_no_gap_while_an_endpoint_moves() {
    let ready = |addrs: &[&str]| -> Value {
        let endpoints = addrs
            .iter()
            .map(|addr| endpoint(addr, &json!({"ready": true})));
        endpoints.collect::<Vec<_>>().into()
    };
    let both = ["NoError", "10.244.1.1", "10.244.1.2"];
    for first in ["remove", "add"] {
        let mut world = World::new();
        let ports = json!([{"name": "http", "port": 80}]);
        world.service(
            "db",
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
        );
        world.slice("db-1", "db", ready(&["10.244.1.1", "10.244.1.2"]));
        world.slice("db-2", "db", ready(&[]));
        assert_eq!(ask(&world.build(), "db.S", "A"), both);
        for half in [first, if first == "add" { "remove" } else { "add" }] {
            match half {
                "remove" => world.slice("db-1", "db", ready(&["10.244.1.1"])),
                _ => world.slice("db-2", "db", ready(&["10.244.1.2"])),
            }
            assert_eq!(
                ask(&world.build(), "db.S", "A"),
                both,
                "{first} first, after {half}"
            );
        }
    }
}
