//! Backends of Ingresses: which port of which Service, and which endpoints are behind it.

use serde_json::{Value, json};

use super::world::{World, answer, one_host, path, problems, route, rule, slice, targets};
use crate::Snapshot;
use crate::model::ProblemKind;

fn ready(addrs: &[&str]) -> Value {
    addrs
        .iter()
        .map(|addr| json!({"addresses": [addr]}))
        .collect()
}

/// A slice of `web` with these ports.
fn with_ports(name: &str, addrs: &[&str], ports: Value) -> Value {
    let mut object = slice(name, "web", ready(addrs));
    object["ports"] = ports;
    object
}

/// An Ingress for `host` to `web` at this port.
fn to_web(world: &mut World, port: Value) {
    let mut to = path("Prefix", "/", "web");
    to["backend"]["service"]["port"] = port;
    world.ingress("it", 0, json!({}), one_host("host", json!([to])));
}

/// What takes a request, or why nothing does.
fn reached(snapshot: &Snapshot) -> Result<Vec<String>, String> {
    let rule = rule(snapshot, "host", "/").unwrap();
    match rule.backends.first() {
        Some(to) => Ok(targets(snapshot.backend(&to.backend).unwrap())),
        None => Err(answer(rule)),
    }
}

#[test]
fn ingress_i14_ports_by_name_and_number() {
    // Name, the Service's ports, the slices' ports, the Ingress' port, who is reached.
    type Case = (
        &'static str,
        Value,
        [Value; 2],
        Value,
        Result<&'static [&'static str], &'static str>,
    );
    let http = || json!([{"name": "http", "port": 8080}]);
    let cases: [Case; 7] = [
        (
            "by name, with another number in each slice",
            json!([{"name": "http", "port": 80}]),
            [http(), json!([{"name": "http", "port": 9090}])],
            json!({"name": "http"}),
            Ok(&["10.1.0.1:8080", "10.1.0.2:9090"]),
        ),
        (
            "by the Service's number",
            json!([{"name": "http", "port": 80, "targetPort": 8080}]),
            [http(), http()],
            json!({"number": 80}),
            Ok(&["10.1.0.1:8080", "10.1.0.2:8080"]),
        ),
        (
            "never by targetPort",
            json!([{"name": "http", "port": 80, "targetPort": 8080}]),
            [http(), http()],
            json!({"number": 8080}),
            Err("service has no such port"),
        ),
        (
            "the name is the Service's, not the container's",
            json!([{"name": "http", "port": 80, "targetPort": "web"}]),
            [http(), http()],
            json!({"name": "web"}),
            Err("service has no such port"),
        ),
        (
            "a slice without the port adds nobody",
            json!([{"name": "http", "port": 80}]),
            [http(), json!([{"name": "other", "port": 8080}])],
            json!({"name": "http"}),
            Ok(&["10.1.0.1:8080"]),
        ),
        (
            "one of two",
            json!([{"name": "http", "port": 80}, {"name": "admin", "port": 81}]),
            [http(), json!([{"name": "admin", "port": 8081}])],
            json!({"number": 81}),
            Ok(&["10.1.0.2:8081"]),
        ),
        (
            "UDP is no backend",
            json!([{"name": "http", "port": 80, "protocol": "UDP"}]),
            [http(), http()],
            json!({"name": "http"}),
            Err("service has no such port"),
        ),
    ];
    for (name, ports, [first, second], port, want) in cases {
        let mut world = World::new();
        world.service("web", json!({"clusterIP": "10.96.0.1", "ports": ports}));
        world.slice_object(with_ports("a", &["10.1.0.1"], first));
        world.slice_object(with_ports("b", &["10.1.0.2"], second));
        to_web(&mut world, port);
        let snapshot = world.build();
        let want = want.map(|list| list.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(reached(&snapshot), want.map_err(str::to_owned), "{name}");
        let missing = problems(&snapshot, ProblemKind::MissingPort).len();
        assert_eq!(missing, usize::from(reached(&snapshot).is_err()), "{name}");
    }
}

#[test]
fn ingress_i14_kinds_of_services() {
    let ports = json!([{"name": "http", "port": 80}]);
    let cases = [
        (
            "cluster IP",
            json!({"clusterIP": "10.96.0.1", "ports": ports}),
            true,
        ),
        (
            "headless",
            json!({"clusterIP": "None", "ports": ports}),
            true,
        ),
        (
            "without a selector, slices written by hand",
            json!({"clusterIP": "10.96.0.1", "ports": ports, "selector": null}),
            true,
        ),
        (
            "dual-stack, endpoints in the second family",
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.96.0.1"], "ports": ports}),
            true,
        ),
        (
            "ExternalName would let who may write a Service reach any host",
            json!({"type": "ExternalName", "externalName": "metadata.internal", "ports": ports}),
            false,
        ),
    ];
    for (name, spec, is_served) in cases {
        let mut world = World::new();
        world.service("web", spec);
        world.slice("a", "web", ready(&["10.1.0.1"]));
        world.slice("b", "web", ready(&["10.1.0.2"]));
        to_web(&mut world, json!({"number": 80}));
        let found = reached(&world.build());
        match is_served {
            true => assert_eq!(found.unwrap(), ["10.1.0.1:8080", "10.1.0.2:8080"], "{name}"),
            false => assert_eq!(found.unwrap_err(), "ExternalName service", "{name}"),
        }
    }
}

#[test]
fn ingress_i15_endpoints_fall_back_to_draining_ones() {
    let mut world = World::new();
    world.service(
        "web",
        json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]}),
    );
    to_web(&mut world, json!({"number": 80}));
    let with = |conditions: [Value; 2]| {
        json!([{"addresses": ["10.1.0.1"], "conditions": conditions[0]},
            {"addresses": ["10.1.0.2"], "conditions": conditions[1]}])
    };
    let draining = || json!({"ready": false, "serving": true, "terminating": true});
    let steps = [
        (
            "both ready",
            [json!({}), json!({"ready": true})],
            &["10.1.0.1:8080", "10.1.0.2:8080"][..],
        ),
        ("one drains", [draining(), json!({})], &["10.1.0.2:8080"]),
        (
            "both drain",
            [draining(), draining()],
            &["10.1.0.1:8080", "10.1.0.2:8080"],
        ),
        (
            "none",
            [json!({"ready": false}), json!({"ready": false})],
            &[],
        ),
        (
            "back",
            [json!({}), json!({"ready": false})],
            &["10.1.0.1:8080"],
        ),
    ];
    for (name, conditions, want) in steps {
        world.slice("a", "web", with(conditions));
        assert_eq!(reached(&world.build()).unwrap(), want, "{name}");
    }
}

#[test]
fn ingress_i11_a_class_with_parameters_is_not_served_and_no_other_is_touched() {
    let ours = "sealane.dev/ingress";
    let mut world = World::new();
    world.simple_service("web");
    for class in ["plain", "odd"] {
        world.class(class, json!({"controller": ours}));
        let host = format!("{class}.test");
        let mut spec = one_host(&host, json!([path("Prefix", "/", "web")]));
        spec["ingressClassName"] = json!(class);
        world.ingress_object(super::world::ingress(class, 0, json!({}), spec));
    }
    let served = |world: &mut World| {
        let snapshot = world.build();
        let is_served = |host| snapshot.routes.host(host).is_some();
        let found = problems(&snapshot, ProblemKind::BadField);
        let objects = found.iter().map(|problem| problem.object.to_string());
        let objects: Vec<String> = objects.collect();
        (is_served("plain.test"), is_served("odd.test"), objects)
    };
    assert_eq!(served(&mut world), (true, true, vec![]));
    let parameters = [
        json!({"apiGroup": "example.com", "kind": "Unknown", "name": "x"}),
        json!({"kind": "ConfigMap", "name": "gone", "scope": "Namespace", "namespace": "shop"}),
        json!({"apiGroup": "example.com", "kind": "Unknown", "name": "x", "scope": "Cluster"}),
    ];
    for parameters in parameters {
        let name = parameters.to_string();
        world.class("odd", json!({"controller": ours, "parameters": parameters}));
        let refused = vec!["IngressClass odd".to_owned()];
        assert_eq!(served(&mut world), (true, false, refused), "{name}");
        world.class("odd", json!({"controller": ours}));
        assert_eq!(
            served(&mut world),
            (true, true, vec![]),
            "{name}, taken away"
        );
    }
    world.class(
        "odd",
        json!({"controller": "example.com/other", "parameters": {"kind": "X", "name": "y"}}),
    );
    assert_eq!(
        served(&mut world),
        (true, false, vec![]),
        "another's parameters are no problem of ours"
    );
    assert_eq!(route(&world.build(), "plain.test", "/"), "web:80");
}
