mod legacy;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::spread::Write;
use super::*;

fn service(spec: Value) -> Service {
    let mut value = json!({
        "metadata": { "name": "s", "namespace": "ns", "uid": "uid-s", "labels": { "l": "v" },
            "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "clusterIP": "10.96.0.5", "selector": { "app": "a" }, "ipFamilies": ["IPv4"],
            "ports": [{ "name": "web", "port": 80, "targetPort": "http", "protocol": "TCP" }] },
    });
    json_patch::merge(&mut value["spec"], &spec);
    serde_json::from_value(value).unwrap()
}

fn pod(number: usize, change: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": { "name": format!("p{number}"), "namespace": "ns",
            "uid": format!("uid-{number:04}"), "labels": { "app": "a" } },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i",
            "ports": [{ "name": "http", "containerPort": 8080 }] }] },
        "status": {
            "phase": "Running",
            "podIP": format!("10.244.{}.{}", number / 250, number % 250 + 1),
            "podIPs": [{ "ip": format!("10.244.{}.{}", number / 250, number % 250 + 1) }],
            "conditions": [{ "type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:01:00Z" }],
        },
    });
    json_patch::merge(&mut value, &change);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pods(numbers: std::ops::Range<usize>) -> Vec<Arc<Pod>> {
    numbers.map(|number| pod(number, json!({}))).collect()
}

fn nodes() -> HashMap<String, Arc<Node>> {
    [("n1", "z1"), ("n2", "z2")]
        .map(|(name, zone)| {
            let node = json!({ "metadata": { "name": name,
                "labels": { "topology.kubernetes.io/zone": zone } } });
            (
                name.to_owned(),
                Arc::new(serde_json::from_value(node).unwrap()),
            )
        })
        .into()
}

/// Slices as an API would keep them; checks every write against make-before-break.
struct World {
    service: Service,
    slices: Vec<Arc<EndpointSlice>>,
    names: usize,
    writes: Vec<&'static str>,
}

impl World {
    fn new(service: Service) -> Self {
        Self {
            service,
            slices: Vec::new(),
            names: 0,
            writes: Vec::new(),
        }
    }

    fn sync(&mut self, pods: &[Arc<Pod>]) {
        let nodes = nodes();
        let (service, slices) = (self.service.clone(), self.slices.clone());
        let view = View {
            service: &service,
            pods,
            nodes: &nodes,
            slices: &slices,
        };
        let before = self.ready();
        let writes = plan::plan(&view);
        self.writes.clear();
        for write in &writes {
            self.apply(write);
            let missing: Vec<&String> = before
                .iter()
                .filter(|address| is_ready(pods, address) && !self.ready().contains(*address))
                .collect();
            assert!(missing.is_empty(), "{missing:?} vanished for a moment");
            assert!(
                self.slices.iter().all(|slice| slice.endpoints.len() <= 200),
                "a slice grew too large"
            );
        }
        let slices = self.slices.clone();
        let again = plan::plan(&View {
            slices: &slices,
            ..view
        });
        assert_eq!(again, [], "a second look has nothing to do");
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create(slice) => {
                self.writes.push("create");
                self.names += 1;
                let mut slice = slice.as_ref().clone();
                let name = slice.metadata.generate_name.take().unwrap();
                slice.metadata.name = Some(format!("{name}{}", self.names));
                slice.metadata.uid = Some(format!("uid-slice-{}", self.names));
                self.slices.push(Arc::new(slice));
            }
            Write::Update(slice) => {
                self.writes.push("update");
                let known = self
                    .slices
                    .iter_mut()
                    .find(|known| known.name_any() == slice.name_any());
                *known.unwrap() = Arc::new(slice.as_ref().clone());
            }
            Write::Delete(slice) => {
                self.writes.push("delete");
                self.slices
                    .retain(|known| known.name_any() != slice.name_any());
            }
        }
    }

    fn ready(&self) -> BTreeSet<String> {
        self.slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(true))
            .flat_map(|endpoint| endpoint.addresses.clone())
            .collect()
    }

    fn sizes(&self) -> Vec<usize> {
        self.slices
            .iter()
            .map(|slice| slice.endpoints.len())
            .collect()
    }

    fn endpoint(&self) -> Value {
        json!(self.slices[0].endpoints[0])
    }
}

fn is_ready(pods: &[Arc<Pod>], address: &str) -> bool {
    pods.iter().any(|pod| {
        super::super::pods::is_ready(pod)
            && pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().unwrap().pod_ip.as_deref() == Some(address)
    })
}

#[test]
fn cluster_q1_conditions_follow_readiness_and_deletion() {
    let unready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let going = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:02:00Z" } });
    let mut unready_going = unready.clone();
    json_patch::merge(&mut unready_going, &going);
    let publish = json!({ "publishNotReadyAddresses": true });
    let cases = [
        ("ready", json!({}), json!({}), (true, true, false)),
        (
            "not ready",
            json!({}),
            unready.clone(),
            (false, false, false),
        ),
        ("terminating", json!({}), going.clone(), (false, true, true)),
        (
            "terminating, not ready",
            json!({}),
            unready_going,
            (false, false, true),
        ),
        (
            "published, not ready",
            publish.clone(),
            unready,
            (true, false, false),
        ),
        ("published, terminating", publish, going, (true, true, true)),
    ];
    for (name, spec, change, (ready, serving, terminating)) in cases {
        let mut world = World::new(service(spec));
        world.sync(&[pod(0, change)]);
        let expected = json!({ "ready": ready, "serving": serving, "terminating": terminating });
        assert_eq!(world.endpoint()["conditions"], expected, "{name}");
    }
}

#[test]
fn cluster_q1_some_pods_are_no_endpoints() {
    let cases = [
        (
            "no address",
            json!({ "status": { "podIP": null, "podIPs": null } }),
        ),
        ("succeeded", json!({ "status": { "phase": "Succeeded" } })),
        ("failed", json!({ "status": { "phase": "Failed" } })),
        ("unknown node", json!({ "spec": { "nodeName": "gone" } })),
        ("no node", json!({ "spec": { "nodeName": null } })),
        (
            "another family",
            json!({ "status": { "podIPs": [{ "ip": "fd00::1" }] } }),
        ),
    ];
    for (name, change) in cases {
        let mut world = World::new(service(json!({})));
        world.sync(&[pod(0, change), pod(1, json!({}))]);
        assert_eq!(world.sizes(), [1], "{name}");
    }
}

#[test]
fn cluster_q1_one_group_for_each_set_of_ports() {
    let two_ports = json!({ "ports": [
        { "name": "web", "port": 80, "targetPort": "http", "protocol": "TCP" },
        { "name": "num", "port": 81, "targetPort": 9999, "protocol": "TCP" },
    ] });
    let other = json!({ "spec": { "containers": [{ "name": "c", "image": "i",
        "ports": [{ "name": "http", "containerPort": 8081 }] }] } });
    let mut world = World::new(service(two_ports));
    world.sync(&[pod(0, json!({})), pod(1, other), pod(2, json!({}))]);
    let mut ports: Vec<Value> = world
        .slices
        .iter()
        .map(|slice| json!(slice.ports))
        .collect();
    ports.sort_by_key(ToString::to_string);
    let pair = |web: i32| {
        json!([{ "name": "web", "port": web, "protocol": "TCP" },
            { "name": "num", "port": 9999, "protocol": "TCP" }])
    };
    assert_eq!(ports, [pair(8080), pair(8081)]);
    assert_eq!(world.sizes().iter().sum::<usize>(), 3);

    let nothing =
        json!({ "spec": { "containers": [{ "name": "c", "image": "i", "ports": null }] } });
    let mut world = World::new(service(json!({})));
    world.sync(&[pod(0, json!({})), pod(1, nothing)]);
    let with: Vec<bool> = world
        .slices
        .iter()
        .map(|slice| slice.ports.is_some())
        .collect();
    assert_eq!(with.iter().filter(|with| **with).count(), 1);
    assert_eq!(
        with.len(),
        2,
        "a pod without the named port stands apart, without ports"
    );
}

#[test]
fn cluster_q1_ports_resolve_by_number_name_protocol_and_sidecar() {
    let sidecar = json!({ "spec": {
        "containers": [{ "name": "c", "image": "i" }],
        "initContainers": [{ "name": "side", "image": "i", "restartPolicy": "Always",
            "ports": [{ "name": "http", "containerPort": 7070 }] }],
    } });
    let plain_init = json!({ "spec": {
        "containers": [{ "name": "c", "image": "i" }],
        "initContainers": [{ "name": "side", "image": "i",
            "ports": [{ "name": "http", "containerPort": 7070 }] }],
    } });
    let port = |change: Value| {
        let mut port = json!({ "name": "web", "port": 80, "protocol": "TCP" });
        json_patch::merge(&mut port, &change);
        json!({ "ports": [port] })
    };
    let cases = [
        (
            "number",
            port(json!({ "targetPort": 9000 })),
            json!({}),
            Some(9000),
        ),
        ("nothing said", port(json!({})), json!({}), Some(80)),
        (
            "name",
            port(json!({ "targetPort": "http" })),
            json!({}),
            Some(8080),
        ),
        (
            "unknown name",
            port(json!({ "targetPort": "x" })),
            json!({}),
            None,
        ),
        (
            "name of another protocol",
            port(json!({ "targetPort": "http", "protocol": "UDP" })),
            json!({}),
            None,
        ),
        (
            "sidecar",
            port(json!({ "targetPort": "http" })),
            sidecar,
            Some(7070),
        ),
        (
            "init container",
            port(json!({ "targetPort": "http" })),
            plain_init,
            None,
        ),
    ];
    for (name, spec, change, expected) in cases {
        let mut world = World::new(service(spec));
        world.sync(&[pod(0, change)]);
        let port = world.slices[0]
            .ports
            .as_ref()
            .and_then(|ports| ports[0].port);
        assert_eq!(port, expected, "{name}");
    }
    let spec = json!({ "ports": [{ "port": 80, "appProtocol": "kubernetes.io/h2c" }] });
    let mut world = World::new(service(spec));
    world.sync(&pods(0..1));
    let expected = json!([{ "name": "", "port": 80, "protocol": "TCP",
        "appProtocol": "kubernetes.io/h2c" }]);
    assert_eq!(json!(world.slices[0].ports), expected);
}

#[test]
fn cluster_q2_a_slice_says_whose_it_is() {
    let mut world = World::new(service(json!({})));
    world.sync(&pods(0..1));
    let slice = json!(world.slices[0]);
    let meta = &slice["metadata"];
    assert_eq!(
        meta["labels"],
        json!({ "kubernetes.io/service-name": "s", "l": "v",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" })
    );
    assert_eq!(
        meta["ownerReferences"],
        json!([{ "apiVersion": "v1", "kind": "Service", "name": "s", "uid": "uid-s",
            "controller": true, "blockOwnerDeletion": true }])
    );
    assert_eq!(
        meta["annotations"],
        json!({ "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:01:00Z" })
    );
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(
        world.endpoint(),
        json!({ "addresses": ["10.244.0.1"], "nodeName": "n1", "zone": "z1",
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "targetRef": { "kind": "Pod", "namespace": "ns", "name": "p0", "uid": "uid-0000" } })
    );
    world.service.metadata.labels = Some([("l".to_owned(), "w".to_owned())].into());
    world.sync(&pods(0..1));
    assert_eq!(world.slices[0].labels()["l"], "w");
}

#[test]
fn cluster_q2_headless_services_and_hostnames() {
    let mut world = World::new(service(json!({ "clusterIP": "None", "ports": null })));
    let named = json!({ "spec": { "hostname": "h", "subdomain": "s" } });
    let elsewhere = json!({ "spec": { "hostname": "h", "subdomain": "other" } });
    world.sync(&[pod(0, named), pod(1, elsewhere)]);
    assert_eq!(
        world.slices[0].labels()["service.kubernetes.io/headless"],
        ""
    );
    assert_eq!(world.slices[0].ports, None);
    let names: Vec<Option<String>> = world.slices[0]
        .endpoints
        .iter()
        .map(|endpoint| endpoint.hostname.clone())
        .collect();
    assert_eq!(names, [Some("h".to_owned()), None]);
}

#[test]
fn cluster_q2_at_most_a_hundred_and_no_repacking() {
    let mut world = World::new(service(json!({})));
    world.sync(&pods(0..130));
    assert_eq!(world.sizes(), [100, 30]);
    let left: Vec<Arc<Pod>> = pods(0..130).into_iter().step_by(2).collect();
    world.sync(&left);
    assert_eq!(world.sizes(), [50, 15]);
    let mut more = left;
    more.extend(pods(200..210));
    world.sync(&more);
    assert_eq!(
        world.sizes(),
        [60, 15],
        "into the fullest with room for all"
    );
    assert_eq!(world.writes, ["update"]);
    more.extend(pods(300..360));
    world.sync(&more);
    assert_eq!(world.sizes(), [60, 75]);
}

#[test]
fn cluster_q2_empty_services_keep_one_empty_slice() {
    let mut world = World::new(service(json!({})));
    world.sync(&[]);
    assert_eq!(
        (world.sizes(), world.slices[0].ports.clone()),
        (vec![0], None)
    );
    let first = world.slices[0].name_any();
    world.sync(&pods(0..2));
    assert_eq!(world.sizes(), [2]);
    assert_eq!(world.slices[0].name_any(), first, "the empty slice is used");
    world.sync(&pods(0..130));
    world.sync(&[]);
    assert_eq!(
        (world.sizes(), world.slices[0].ports.clone()),
        (vec![0], None)
    );
}

#[test]
fn cluster_q2_families_and_types() {
    // Not ready, because a family that the service gives up takes its addresses along.
    let dual = json!({ "status": {
        "conditions": null, "podIPs": [{ "ip": "10.244.0.1" }, { "ip": "fd00::1" }],
    } });
    let mut world = World::new(service(json!({ "ipFamilies": ["IPv4", "IPv6"] })));
    world.sync(&[pod(0, dual.clone())]);
    let kinds: Vec<(&str, &str)> = world
        .slices
        .iter()
        .map(|slice| {
            (
                slice.address_type.as_str(),
                slice.endpoints[0].addresses[0].as_str(),
            )
        })
        .collect();
    assert_eq!(kinds, [("IPv4", "10.244.0.1"), ("IPv6", "fd00::1")]);
    world.service.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".to_owned()]);
    world.sync(&[pod(0, dual.clone())]);
    assert_eq!(world.slices.len(), 1);
    assert_eq!(world.slices[0].address_type, "IPv6");
    world.service.spec.as_mut().unwrap().type_ = Some("ExternalName".to_owned());
    world.sync(&[pod(0, dual)]);
    assert!(world.slices.is_empty(), "ExternalName has none");
}

#[test]
fn cluster_q2_hints_follow_traffic_distribution() {
    let zones = json!({ "forZones": [{ "name": "z1" }] });
    let nodes = json!({ "forZones": [{ "name": "z1" }], "forNodes": [{ "name": "n1" }] });
    let cases = [
        (json!({}), Value::Null),
        (
            json!({ "trafficDistribution": "PreferClose" }),
            zones.clone(),
        ),
        (json!({ "trafficDistribution": "PreferSameZone" }), zones),
        (json!({ "trafficDistribution": "PreferSameNode" }), nodes),
    ];
    for (spec, expected) in cases {
        let mut world = World::new(service(spec.clone()));
        world.sync(&pods(0..1));
        assert_eq!(world.endpoint()["hints"], expected, "{spec}");
    }
}

#[test]
fn cluster_q2_no_ready_address_vanishes_while_ports_and_slices_change() {
    let mut world = World::new(service(json!({})));
    world.sync(&pods(0..150));
    let ports = |target: Value| {
        Some(
            serde_json::from_value(json!([
                { "name": "web", "port": 80, "protocol": "TCP", "targetPort": target },
            ]))
            .unwrap(),
        )
    };
    // World::sync checks after every single write that no ready address is missing.
    world.service.spec.as_mut().unwrap().ports = ports(json!(9000));
    world.sync(&pods(0..150));
    assert_eq!(world.sizes(), [100, 50]);
    assert_eq!(world.writes, ["create", "create", "delete", "delete"]);
    world.service.spec.as_mut().unwrap().ports = ports(json!("http"));
    world.sync(&pods(50..200));
    assert_eq!(world.ready().len(), 150);
}

#[test]
fn own_writes_that_are_unseen_hold_the_next_look_back() {
    let written = Written::default();
    let service = Key::new("ns", "s");
    let slice = |version: &str| {
        let mut slice = EndpointSlice::default();
        slice.metadata.uid = Some("u".to_owned());
        slice.metadata.resource_version = Some(version.to_owned());
        slice
    };
    assert_eq!(written.wait(&service), None);
    written.note(&service, &slice("10"), || false);
    written.show(&service, &slice("9"), false);
    assert!(
        written.wait(&service).is_some(),
        "only an older version was shown"
    );
    written.show(&service, &slice("11"), false);
    assert_eq!(written.wait(&service), None);
    written.note(&service, &slice("12"), || true);
    assert_eq!(written.wait(&service), None, "seen before it was noted");
    written.note(&service, &slice("13"), || false);
    written.show(&service, &slice("12"), true);
    assert_eq!(written.wait(&service), None, "the slice is gone");
}
