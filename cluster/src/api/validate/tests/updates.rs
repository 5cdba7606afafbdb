//! What may not change.

use serde_json::{Value, json};

use super::{NOTHING, changed, objects, texts, update};

#[test]
fn cluster_n1_pod_specs_are_nearly_immutable() {
    let push = |list: &mut Value, item: Value| list.as_array_mut().unwrap().push(item);
    let pod = json!({"spec": {
        "tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 10,
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}],
    }});
    let forbidden = format!("spec: Forbidden: {}", objects::POD_UPDATE);
    let forbidden = forbidden.as_str();
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&str, Change<'_>, Option<&str>); 10] = [
        ("nothing", &|_| {}, None),
        (
            "image",
            &|spec| spec["containers"][0]["image"] = json!("j"),
            None,
        ),
        (
            "no image",
            &|spec| spec["containers"][0]["image"] = json!(""),
            Some("spec.containers[0].image: Required value"),
        ),
        (
            "command",
            &|spec| spec["containers"][0]["command"] = json!(["x"]),
            Some(forbidden),
        ),
        (
            "node",
            &|spec| spec["nodeName"] = json!("n"),
            Some(forbidden),
        ),
        (
            "another container",
            &|spec| push(&mut spec["containers"], json!({"name": "d", "image": "i"})),
            Some("spec.containers: Forbidden: pod updates may not add or remove containers"),
        ),
        (
            "another toleration",
            &|spec| {
                push(
                    &mut spec["tolerations"],
                    json!({"key": "b", "operator": "Exists"}),
                )
            },
            None,
        ),
        (
            "one toleration less",
            &|spec| spec["tolerations"] = json!([]),
            Some(
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
            ),
        ),
        (
            "shorter deadline",
            &|spec| spec["activeDeadlineSeconds"] = json!(9),
            None,
        ),
        (
            "longer deadline",
            &|spec| spec["activeDeadlineSeconds"] = json!(11),
            Some(
                "spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value",
            ),
        ),
    ];
    for (case, change, expected) in cases {
        let mut new = pod.clone();
        change(&mut new["spec"]);
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(changed("v1", "Pod", pod.clone(), new), expected, "{case}");
    }
}

#[test]
fn cluster_n2_selectors_are_immutable() {
    let deployment = |labels: Value| json!({"spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let expected = [
        "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"q\":\"r\"}}: field is immutable",
    ];
    for kind in ["Deployment", "ReplicaSet"] {
        let (old, new) = (
            deployment(json!({"a": "b"})),
            deployment(json!({"a": "b", "q": "r"})),
        );
        assert_eq!(changed("apps/v1", kind, old, new), expected, "{kind}");
    }
}

#[test]
fn cluster_n3_cluster_ips_stay() {
    let service =
        |ip: &str| json!({"spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}});
    let expected = ["spec.clusterIPs[0]: Invalid value: [\"10.97.0.99\"]: may not change once set"];
    let (old, new) = (service("10.97.0.1"), service("10.97.0.99"));
    assert_eq!(changed("v1", "Service", old.clone(), new), expected);
    let mut one_field = old.clone();
    one_field["spec"]["clusterIP"] = json!("10.97.0.99");
    let found = changed("v1", "Service", old.clone(), one_field);
    assert_eq!(found[0], expected[0]);
    let external = json!({"spec": {"type": "ExternalName", "externalName": "a.b"}});
    assert_eq!(changed("v1", "Service", old.clone(), external), NOTHING);
    let unset = json!({"spec": {"ports": [{"port": 80}]}});
    assert_eq!(changed("v1", "Service", old, unset), NOTHING);
}

#[test]
fn cluster_n7_immutable_config_stays() {
    let frozen = json!({"immutable": true, "data": {"a": "b"}});
    let text =
        |field: &str| format!("{field}: Forbidden: field is immutable when `immutable` is set");
    let other = json!({"immutable": true, "data": {"a": "c"}});
    assert_eq!(
        changed("v1", "ConfigMap", frozen.clone(), other),
        [text("data")]
    );
    let thawed = json!({"data": {"a": "b"}});
    assert_eq!(
        changed("v1", "ConfigMap", frozen.clone(), thawed),
        [text("immutable")]
    );
    let labelled =
        json!({"metadata": {"labels": {"a": "b"}}, "immutable": true, "data": {"a": "b"}});
    assert_eq!(changed("v1", "ConfigMap", frozen, labelled), NOTHING);

    let retyped = changed("v1", "Secret", json!({}), json!({"type": "x"}));
    assert_eq!(retyped, ["type: Invalid value: \"x\": field is immutable"]);
}

#[test]
fn cluster_g1_deleted_objects_get_no_new_finalizers() {
    let object = |finalizers: Value| json!({"metadata": {"name": "x", "deletionTimestamp": "2026-11-21T00:00:00Z", "finalizers": finalizers}});
    let old = object(json!(["a.b/c"]));
    let found = texts(&update(
        "v1",
        "ConfigMap",
        &old,
        &object(json!(["a.b/c", "a.b/d"])),
    ));
    assert_eq!(
        found,
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers [\"a.b/d\"]"
        ]
    );
    assert_eq!(update("v1", "ConfigMap", &old, &object(json!([]))), []);
}
