use super::super::{legacy, mirror};
use super::*;

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Value {
    let nodes = nodes();
    let view = View {
        service,
        pods,
        nodes: &nodes,
        slices: &[],
    };
    json!(legacy::endpoints(&view).map(|endpoints| endpoints.subsets))
}

/// Subsets as "ports: ready | not ready".
fn short(subsets: &Value) -> Vec<String> {
    let names = |list: &Value| {
        let list = list.as_array().cloned().unwrap_or_default();
        let names: Vec<String> = list
            .iter()
            .map(|a| a["targetRef"]["name"].as_str().unwrap().to_owned())
            .collect();
        names.join(" ")
    };
    let mut lines: Vec<String> = subsets
        .as_array()
        .into_iter()
        .flatten()
        .map(|subset| {
            let ports = subset["ports"].as_array().cloned().unwrap_or_default();
            let ports: Vec<String> = ports
                .iter()
                .map(|port| format!("{}={}", port["name"].as_str().unwrap_or("-"), port["port"]))
                .collect();
            format!(
                "{}: {} | {}",
                ports.join(" "),
                names(&subset["addresses"]),
                names(&subset["notReadyAddresses"])
            )
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn cluster_q3_subsets_join_ports_with_the_same_addresses() {
    let two_ports = json!({ "ports": [
        { "name": "web", "port": 80, "targetPort": "http", "protocol": "TCP" },
        { "name": "num", "port": 81, "targetPort": 9999, "protocol": "TCP" },
    ] });
    let other = json!({ "spec": { "containers": [{ "name": "c", "image": "i",
        "ports": [{ "name": "http", "containerPort": 8081 }] }] } });
    let unready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let going = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:02:00Z" } });
    let pods = [
        pod(1, json!({})),
        pod(2, other),
        pod(3, unready),
        pod(4, going),
    ];
    assert_eq!(
        short(&subsets(&service(two_ports), &pods)),
        [
            "num=9999: p1 p2 | p3",
            "web=8080: p1 | p3",
            "web=8081: p2 | "
        ],
        "as recorded"
    );
    let numbers = json!({ "ports": [{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }] });
    assert_eq!(
        short(&subsets(&service(numbers), &pods[..1])),
        ["a=1 b=2: p1 | "]
    );
    let headless = json!({ "clusterIP": "None", "ports": null });
    assert_eq!(short(&subsets(&service(headless), &pods[..1])), [": p1 | "]);
    let publish = json!({ "publishNotReadyAddresses": true });
    assert_eq!(
        short(&subsets(&service(publish), &pods[2..])),
        ["web=8080: p3 p4 | "]
    );
    let external = json!({ "type": "ExternalName" });
    assert_eq!(subsets(&service(external), &pods), Value::Null);
}

fn by_hand(change: Value) -> Endpoints {
    let mut value = json!({
        "metadata": { "name": "db", "namespace": "ns", "uid": "uid-e", "labels": { "l": "v" } },
        "subsets": [{
            "addresses": [{ "ip": "10.2.2.2" }, { "ip": "fd00::2" }],
            "notReadyAddresses": [{ "ip": "10.2.2.3" }],
            "ports": [{ "port": 5432 }],
        }],
    });
    json_patch::merge(&mut value, &change);
    serde_json::from_value(value).unwrap()
}

#[test]
fn cluster_q3_endpoints_written_by_hand_are_mirrored() {
    let writes = mirror::plan(&by_hand(json!({})), &[]);
    let slices: Vec<Value> = writes
        .iter()
        .map(|write| match write {
            Write::Create(slice) => json!(slice),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(slices.len(), 2);
    assert_eq!(slices[0]["addressType"], "IPv4");
    assert_eq!(
        slices[0]["endpoints"],
        json!([{ "addresses": ["10.2.2.2"], "conditions": { "ready": true } },
            { "addresses": ["10.2.2.3"], "conditions": { "ready": false } }])
    );
    assert_eq!(
        slices[0]["ports"],
        json!([{ "name": "", "port": 5432, "protocol": "TCP" }])
    );
    let labels = &slices[0]["metadata"]["labels"];
    assert_eq!(labels["kubernetes.io/service-name"], "db");
    assert_eq!(labels["l"], "v");
    assert_eq!(
        labels["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io"
    );
    assert_eq!(
        slices[0]["metadata"]["ownerReferences"][0]["kind"],
        "Endpoints"
    );
    assert_eq!(slices[1]["endpoints"][0]["addresses"], json!(["fd00::2"]));
}

#[test]
fn cluster_q3_only_endpoints_of_services_without_selector_are_mirrored() {
    let none = || service(json!({ "selector": null }));
    let label = |name: &str| json!({ "metadata": { "labels": { name: "true" } } });
    let leader = json!({ "metadata": { "annotations": {
        "control-plane.alpha.kubernetes.io/leader": "{}" } } });
    let cases = [
        ("by hand", none(), json!({}), true),
        ("selector", service(json!({})), json!({}), false),
        (
            "not wanted",
            none(),
            label("endpointslice.kubernetes.io/skip-mirror"),
            false,
        ),
        (
            "not by hand",
            none(),
            label("endpoints.kubernetes.io/managed-by"),
            false,
        ),
        ("leader election", none(), leader, false),
    ];
    for (name, service, change, expected) in cases {
        assert_eq!(
            mirror::is_wanted(&service, &by_hand(change)),
            expected,
            "{name}"
        );
    }
}
