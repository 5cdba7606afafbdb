use serde_json::Value;

use super::*;

fn node(name: &str, change: Value) -> Arc<Node> {
    let mut value = json!({
        "metadata": { "name": name, "labels": { "disk": "ssd", "cores": "8" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    json_patch::merge(&mut value, &change);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(spec: Value) -> Pod {
    let mut value = json!({
        "metadata": { "name": "p", "namespace": "ns" },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    json_patch::merge(&mut value["spec"], &spec);
    serde_json::from_value(value).unwrap()
}

fn require(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [
            { "key": key, "operator": operator, "values": values },
        ] }],
    } } } })
}

#[test]
fn cluster_b1_a_pod_goes_where_it_fits() {
    let tainted =
        json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } });
    let cordoned = json!({ "spec": { "unschedulable": true } });
    let down = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let affinity = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    let taint = "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}.";
    let plain = json!({});
    let cases: [(&str, Value, &Value, Result<(), &str>); 19] = [
        ("plain", json!({}), &plain, Ok(())),
        (
            "selector",
            json!({ "nodeSelector": { "disk": "ssd" } }),
            &plain,
            Ok(()),
        ),
        (
            "selector misses",
            json!({ "nodeSelector": { "disk": "hdd" } }),
            &plain,
            Err(affinity),
        ),
        ("in", require("disk", "In", &["hdd", "ssd"]), &plain, Ok(())),
        (
            "in misses",
            require("disk", "In", &["hdd"]),
            &plain,
            Err(affinity),
        ),
        ("not in", require("disk", "NotIn", &["hdd"]), &plain, Ok(())),
        (
            "not in an absent label",
            require("x", "NotIn", &["hdd"]),
            &plain,
            Ok(()),
        ),
        ("exists", require("disk", "Exists", &[]), &plain, Ok(())),
        (
            "does not exist",
            require("disk", "DoesNotExist", &[]),
            &plain,
            Err(affinity),
        ),
        ("greater", require("cores", "Gt", &["4"]), &plain, Ok(())),
        (
            "less",
            require("cores", "Lt", &["4"]),
            &plain,
            Err(affinity),
        ),
        ("taint", json!({}), &tainted, Err(taint)),
        (
            "tolerated",
            json!({ "tolerations": [{ "key": "k", "operator": "Equal", "value": "v" }] }),
            &tainted,
            Ok(()),
        ),
        (
            "another value tolerated",
            json!({ "tolerations": [{ "key": "k", "value": "w", "effect": "NoSchedule" }] }),
            &tainted,
            Err(taint),
        ),
        (
            "another effect tolerated",
            json!({ "tolerations": [{ "key": "k", "operator": "Exists", "effect": "NoExecute" }] }),
            &tainted,
            Err(taint),
        ),
        (
            "all tolerated",
            json!({ "tolerations": [{ "operator": "Exists" }] }),
            &tainted,
            Ok(()),
        ),
        (
            "cordoned",
            json!({}),
            &cordoned,
            Err("0/1 nodes are available: 1 node(s) were unschedulable."),
        ),
        (
            "cordon tolerated",
            json!({ "tolerations": [{ "operator": "Exists" }] }),
            &cordoned,
            Ok(()),
        ),
        (
            "down",
            json!({}),
            &down,
            Err("0/1 nodes are available: 1 node(s) were not ready."),
        ),
    ];
    for (name, spec, change, expected) in cases {
        let choice = fit::choose(&pod(spec), &[node("n", change.clone())], |_| 0);
        let expected = expected.map(|()| "n".to_owned()).map_err(str::to_owned);
        assert_eq!(choice, expected, "{name}");
    }
    let none = fit::choose(&pod(json!({})), &[], |_| 0);
    assert_eq!(none, Err("no nodes available to schedule pods".to_owned()));
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let choice = fit::choose(
        &pod(json!({})),
        &nodes,
        |name| if name == "a" { 5 } else { 2 },
    );
    assert_eq!(choice, Ok("b".to_owned()), "the emptier one");
}

#[test]
fn only_pods_that_wait_for_this_scheduler_are_taken() {
    let cases = [
        ("plain", json!({}), true),
        (
            "named",
            json!({ "schedulerName": "default-scheduler" }),
            true,
        ),
        (
            "another scheduler",
            json!({ "schedulerName": "mine" }),
            false,
        ),
        (
            "gated",
            json!({ "schedulingGates": [{ "name": "x" }] }),
            false,
        ),
        ("bound", json!({ "nodeName": "n" }), false),
    ];
    for (name, spec, expected) in cases {
        assert_eq!(is_pending(&pod(spec)), expected, "{name}");
    }
}
