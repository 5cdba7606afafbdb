use serde_json::{Value, json};

use super::keys::{Strategy, strategy};
use super::{PatchErrorKind, json as json_patch, merge, strategic};

/// A deployment with two containers, as the cases were recorded on.
fn deployment() -> Value {
    json!({"spec": {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"spec": {
            "containers": [
                {"name": "c1", "image": "i1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["x", "y"], "ports": [{"containerPort": 80}, {"containerPort": 81}]},
                {"name": "c2", "image": "i2"},
            ],
            "nodeSelector": {"x": "y"},
            "tolerations": [{"key": "t1"}],
            "imagePullSecrets": [{"name": "s1"}, {"name": "s2"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        }},
    }})
}

fn pod_patch(spec: Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

fn patched(patch: &Value) -> Value {
    strategic("apps/Deployment", &deployment(), patch).unwrap()
}

/// Containers as name, image, env, args and ports.
fn containers(object: &Value) -> Value {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array();
    let pairs = |list: &Value, key: &str| -> Vec<Value> {
        let items = list.as_array().into_iter().flatten();
        items.map(|item| item[key].clone()).collect()
    };
    let shown = containers.unwrap().iter().map(|c| {
        json!([
            c["name"],
            c["image"],
            pairs(&c["env"], "name"),
            c["args"],
            pairs(&c["ports"], "containerPort")
        ])
    });
    shown.collect()
}

#[test]
fn cluster_p2_lists_merge_by_key() {
    let c1 = json!(["c1", "i1", ["A", "B"], ["x", "y"], [80, 81]]);
    let c2 = json!(["c2", "i2", [], null, []]);
    let cases = [
        (
            "merge by key",
            json!([{"name": "c1", "image": "new"}]),
            json!([["c1", "new", ["A", "B"], ["x", "y"], [80, 81]], c2]),
        ),
        (
            "new items go first",
            json!([{"name": "c3", "image": "new"}]),
            json!([["c3", "new", [], null, []], c1, c2]),
        ),
        (
            "delete",
            json!([{"name": "c1", "$patch": "delete"}]),
            json!([c2]),
        ),
        (
            "delete what is not there",
            json!([{"name": "zz", "$patch": "delete"}]),
            json!([c1, c2]),
        ),
        (
            "replace the list",
            json!([{"$patch": "replace"}, {"name": "z", "image": "z"}]),
            json!([["z", "z", [], null, []]]),
        ),
        (
            "other lists are replaced",
            json!([{"name": "c1", "args": ["z"]}]),
            json!([["c1", "i1", ["A", "B"], ["z"], [80, 81]], c2]),
        ),
        (
            "nested merge and delete",
            json!([{"name": "c1", "env": [{"name": "A", "$patch": "delete"}, {"name": "C", "value": "3"}]}]),
            json!([["c1", "i1", ["C", "B"], ["x", "y"], [80, 81]], c2]),
        ),
        (
            "ports by number",
            json!([{"name": "c1", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 82}]}]),
            json!([["c1", "i1", ["A", "B"], ["x", "y"], [80, 82, 81]], c2]),
        ),
        (
            "null deletes a field",
            json!([{"name": "c1", "args": null}]),
            json!([["c1", "i1", ["A", "B"], null, [80, 81]], c2]),
        ),
    ];
    for (case, patch, expected) in cases {
        let object = patched(&pod_patch(json!({"containers": patch})));
        assert_eq!(containers(&object), expected, "{case}");
    }
}

#[test]
fn cluster_p2_set_element_order() {
    let order = json!([{"name": "c2"}, {"name": "c1"}]);
    let patch =
        json!({"$setElementOrder/containers": order, "containers": [{"name": "c1", "image": "n"}]});
    let names = |object: &Value| -> Vec<Value> {
        let containers = containers(object);
        containers
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c[0].clone())
            .collect()
    };
    assert_eq!(names(&patched(&pod_patch(patch))), ["c2", "c1"]);
    let only_order = json!({"$setElementOrder/containers": order});
    assert_eq!(names(&patched(&pod_patch(only_order))), ["c2", "c1"]);

    let added = json!({
        "$setElementOrder/containers": [{"name": "c1"}, {"name": "c3"}, {"name": "c2"}],
        "containers": [{"name": "c3", "image": "n"}],
    });
    assert_eq!(names(&patched(&pod_patch(added))), ["c1", "c3", "c2"]);
}

#[test]
fn cluster_p2_maps_and_directives() {
    let cases = [
        (
            "null deletes",
            json!({"nodeSelector": {"x": null, "z": "1"}}),
            "nodeSelector",
            json!({"z": "1"}),
        ),
        (
            "replace",
            json!({"nodeSelector": {"$patch": "replace", "q": "1"}}),
            "nodeSelector",
            json!({"q": "1"}),
        ),
        (
            "delete",
            json!({"nodeSelector": {"$patch": "delete"}}),
            "nodeSelector",
            json!({}),
        ),
        (
            "null",
            json!({"nodeSelector": null}),
            "nodeSelector",
            Value::Null,
        ),
        (
            "nulls of new maps are dropped",
            json!({"affinity": {"nodeAffinity": null, "podAffinity": {"x": null}}}),
            "affinity",
            json!({"podAffinity": {}}),
        ),
        (
            "retain keys",
            json!({"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/t"}}]}),
            "volumes",
            json!([{"name": "v", "hostPath": {"path": "/t"}}]),
        ),
        (
            "without it sources pile up",
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/t"}}]}),
            "volumes",
            json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/t"}}]),
        ),
        (
            "tolerations are replaced",
            json!({"tolerations": [{"key": "t2"}]}),
            "tolerations",
            json!([{"key": "t2"}]),
        ),
        (
            "secrets are merged",
            json!({"imagePullSecrets": [{"name": "s3"}]}),
            "imagePullSecrets",
            json!([{"name": "s3"}, {"name": "s1"}, {"name": "s2"}]),
        ),
        (
            "directives of new items vanish",
            json!({"hostAliases": [{"ip": "1.1.1.1", "$retainKeys": ["ip"]}, {"ip": "2.2.2.2", "$patch": "delete"}]}),
            "hostAliases",
            json!([{"ip": "1.1.1.1"}]),
        ),
    ];
    for (case, patch, field, expected) in cases {
        let object = patched(&pod_patch(patch));
        assert_eq!(
            object["spec"]["template"]["spec"][field], expected,
            "{case}"
        );
    }
    let strategy =
        patched(&json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}));
    assert_eq!(strategy["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn cluster_p2_lists_of_scalars_are_sets() {
    let object = json!({"metadata": {"finalizers": ["a.io/1", "a.io/2"]}});
    let add = json!({"metadata": {"finalizers": ["a.io/3", "a.io/1"]}});
    let added = strategic("ConfigMap", &object, &add).unwrap();
    assert_eq!(
        added["metadata"]["finalizers"],
        json!(["a.io/3", "a.io/1", "a.io/2"])
    );
    let delete = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.io/1"]}});
    let deleted = strategic("ConfigMap", &added, &delete).unwrap();
    assert_eq!(
        deleted["metadata"]["finalizers"],
        json!(["a.io/3", "a.io/2"])
    );
}

#[test]
fn cluster_p2_service_ports_merge_by_port() {
    let service = json!({"spec": {"ports": [{"port": 80, "name": "a", "targetPort": 80}, {"port": 81, "name": "b", "targetPort": 81}]}});
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 9}]}});
    let expected = json!([{"port": 80, "name": "a", "targetPort": 9}, {"port": 81, "name": "b", "targetPort": 81}]);
    let patched = strategic("Service", &service, &patch).unwrap();
    assert_eq!(patched["spec"]["ports"], expected);
}

#[test]
fn cluster_p2_conditions_merge_by_type() {
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status});
    let object =
        json!({"status": {"conditions": [condition("A", "True"), condition("B", "True")]}});
    let patch = json!({"status": {"conditions": [condition("B", "False")]}});
    let expected = json!([condition("A", "True"), condition("B", "False")]);
    for kind in [
        "Pod",
        "Node",
        "Service",
        "apps/Deployment",
        "autoscaling/HorizontalPodAutoscaler",
        "batch/Job",
    ] {
        let patched = strategic(kind, &object, &patch).unwrap();
        assert_eq!(patched["status"]["conditions"], expected, "{kind}");
    }
}

#[test]
fn cluster_p2_bad_patches_have_the_servers_texts() {
    let cases = [
        (
            json!({"containers": [{"image": "x"}]}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"$patch": "foo"}),
            "unknown patch type: foo in map: map[$patch:foo]",
        ),
        (
            json!({"containers": [{"name": "c1", "$patch": "foo"}]}),
            "unknown patch type: foo in map: map[$patch:foo name:c1]",
        ),
    ];
    for (patch, message) in cases {
        let error = strategic("apps/Deployment", &deployment(), &pod_patch(patch)).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (PatchErrorKind::Internal, message)
        );
    }
    let error = strategic("Pod", &json!({}), &json!([])).unwrap_err();
    assert_eq!(error.kind, PatchErrorKind::Malformed);
}

#[test]
fn cluster_p1_strategies_are_those_of_the_recorded_schema() {
    // Fields with a strategy in the real server's OpenAPI document.
    for line in include_str!("testdata/strategies.txt").lines() {
        let (field, recorded) = line.split_once('=').unwrap();
        let (type_, field) = field.split_once('.').unwrap();
        let expected = match recorded.split_once(':') {
            Some((_, key)) => key,
            None if recorded == "merge" => "(set)",
            // A hint for those who make patches: maps merge all the same.
            None => "(usual)",
        };
        let found = match strategy(type_, field) {
            Strategy::Merge(key) => key,
            Strategy::Set => "(set)",
            Strategy::Usual => "(usual)",
            Strategy::Replace => "(replace)",
        };
        assert_eq!(found, expected, "{type_}.{field}");
    }
}

#[test]
fn cluster_p1_json_patch() {
    let target = json!({"a": 1, "l": [1, 2]});
    let patch = json!([{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 2}, {"op": "add", "path": "/l/-", "value": 3}, {"op": "remove", "path": "/l/0"}]);
    assert_eq!(
        json_patch(&target, &patch).unwrap(),
        json!({"a": 2, "l": [2, 3]})
    );

    let failed = "the server rejected our request due to an error in our request";
    let cases = [
        (
            "test",
            json!([{"op": "test", "path": "/a", "value": 2}]),
            PatchErrorKind::Failed,
            failed,
        ),
        (
            "missing path",
            json!([{"op": "remove", "path": "/x"}]),
            PatchErrorKind::Failed,
            failed,
        ),
        (
            "missing parent",
            json!([{"op": "add", "path": "/x/-", "value": 1}]),
            PatchErrorKind::Failed,
            failed,
        ),
        (
            "copy of nothing",
            json!([{"op": "copy", "from": "/x", "path": "/y"}]),
            PatchErrorKind::Failed,
            failed,
        ),
        (
            "no list",
            json!({"op": "test"}),
            PatchErrorKind::Malformed,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
    ];
    for (case, patch, kind, message) in cases {
        let error = json_patch(&target, &patch).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (kind, message),
            "{case}"
        );
    }
    let unknown = json_patch(&target, &json!([{"op": "twist", "path": "/a"}])).unwrap_err();
    assert_eq!(unknown.kind, PatchErrorKind::Malformed);
}

#[test]
fn cluster_p1_json_patch_is_bounded() {
    let double: Vec<Value> = (0..200)
        .map(|i| json!({"op": "copy", "from": "", "path": format!("/{i}")}))
        .collect();
    let error = json_patch(&json!({"seed": "x".repeat(100)}), &json!(double)).unwrap_err();
    assert_eq!(error.kind, PatchErrorKind::Failed);
    let many = vec![json!({"op": "test", "path": "", "value": {}}); 10_001];
    let error = json_patch(&json!({}), &json!(many)).unwrap_err();
    assert_eq!(error.kind, PatchErrorKind::Malformed);
}

#[test]
fn cluster_p1_merge_patch() {
    let target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
    let patch = json!({"a": {"b": null, "d": 3}, "l": [9], "n": {"x": null, "y": 1}});
    let expected = json!({"a": {"c": 2, "d": 3}, "l": [9], "n": {"y": 1}});
    assert_eq!(merge(&target, &patch), expected);
}

/// Patches as kubectl makes them of two or three objects, and what the API server's own code makes
/// of them, one a line.
#[test]
fn cluster_p2_results_of_the_real_merge() {
    for line in include_str!("testdata/merged.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let kind = case["kind"].as_str().unwrap();
        let merged = strategic(kind, &case["current"], &case["patch"]).unwrap();
        assert_eq!(merged, case["result"], "{line}");
    }
}
