use serde_json::{Value, json};

use super::{FieldError, ValidateOptions, create, create_with, update, update_with};
use crate::api::defaults;

mod faults;
mod objects;
mod recorded;
mod updates;

/// A new object as the server checks it: named, with its defaults.
fn prepared(api_version: &str, kind: &str, name: &str, mut object: Value) -> Value {
    if object.get("metadata").is_none() {
        object["metadata"] = json!({});
    }
    object["metadata"]["name"] = json!(name);
    defaults::apply(api_version, kind, &mut object);
    object
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    let text = |error: &FieldError| format!("{}: {}", error.field, error.message);
    errors.iter().map(text).collect()
}

fn problems(api_version: &str, kind: &str, object: Value) -> Vec<String> {
    let object = prepared(api_version, kind, "x", object);
    texts(&create(api_version, kind, &object))
}

fn changed(api_version: &str, kind: &str, old: Value, new: Value) -> Vec<String> {
    let old = prepared(api_version, kind, "x", old);
    let new = prepared(api_version, kind, "x", new);
    texts(&update(api_version, kind, &old, &new))
}

const NOTHING: [&str; 0] = [];

#[test]
fn cluster_e5_reasons() {
    let object = json!({"spec": {"restartPolicy": "Foo", "containers": [
        {"name": "c"}, {"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
    ], "initContainers": [{"name": "I", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}]}});
    let object = prepared("v1", "Pod", "x", object);
    let mut reasons: Vec<_> = create("v1", "Pod", &object)
        .iter()
        .map(|error| error.reason)
        .collect();
    reasons.sort_unstable();
    let expected = [
        "FieldValueDuplicate",
        "FieldValueForbidden",
        "FieldValueInvalid",
        "FieldValueNotFound",
        "FieldValueNotSupported",
        "FieldValueRequired",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn cluster_n1_pods_are_refused() {
    for (case, spec, expected) in faults::bad_pods() {
        let found = problems("v1", "Pod", json!({"spec": spec}));
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn cluster_n1_good_objects_pass() {
    for (version, kind, object) in objects::good() {
        let object = prepared(version, kind, "x", object);
        assert_eq!(texts(&create(version, kind, &object)), NOTHING, "{kind}");
        assert_eq!(
            texts(&update(version, kind, &object, &object)),
            NOTHING,
            "{kind} unchanged"
        );
    }
}

#[test]
fn cluster_n2_strategies_are_checked() {
    let cases = [
        (
            json!({"minReadySeconds": 600}),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": -1}}}),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"replicas": -1}),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
    ];
    for (extra, expected) in cases {
        let mut object = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        let spec = object["spec"].as_object_mut().unwrap();
        spec.append(&mut extra.as_object().unwrap().clone());
        assert_eq!(problems("apps/v1", "Deployment", object), [expected]);
    }
}

#[test]
fn cluster_n3_services_are_refused() {
    for (case, spec, expected) in faults::bad_services() {
        let found = problems("v1", "Service", json!({"spec": spec}));
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn cluster_n4_ingresses_are_refused() {
    for (case, spec, expected) in faults::bad_ingresses() {
        let found = problems("networking.k8s.io/v1", "Ingress", json!({"spec": spec}));
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn cluster_n6_loopback_is_allowed_when_pods_share_the_hosts_network() {
    let options = ValidateOptions {
        allow_loopback: true,
    };
    let cases = [
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.5"]}]}),
        ),
        (
            "v1",
            "Endpoints",
            json!({"subsets": [{"addresses": [{"ip": "127.0.0.5"}]}]}),
        ),
    ];
    for (version, kind, object) in cases {
        let object = prepared(version, kind, "x", object);
        assert_eq!(create_with(options, version, kind, &object), []);
        assert_eq!(update_with(options, version, kind, &object, &object), []);
        assert_eq!(create(version, kind, &object).len(), 1);
        assert_eq!(update(version, kind, &object, &object).len(), 1);
    }
    let link_local = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["169.254.1.1"]}, {"addresses": ["0.0.0.0"]}, {"addresses": ["x"]}]});
    let link_local = prepared("discovery.k8s.io/v1", "EndpointSlice", "x", link_local);
    let found = texts(&create_with(
        options,
        "discovery.k8s.io/v1",
        "EndpointSlice",
        &link_local,
    ));
    assert_eq!(
        found,
        [
            "endpoints[0].addresses[0]: Invalid value: \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            "endpoints[1].addresses[0]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)",
            "endpoints[2].addresses[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ]
    );
}

#[test]
fn cluster_n7_config_is_checked() {
    let big = "x".repeat(1024 * 1024 + 1);
    let huge = "x".repeat(262_144);
    let cases = [
        (
            "key",
            "v1",
            "ConfigMap",
            json!({"data": {"a/b": ""}}),
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (
            "size",
            "v1",
            "ConfigMap",
            json!({"data": {"a": big}}),
            ": Too long: may not be more than 1048576 bytes",
        ),
        (
            "secret size",
            "v1",
            "Secret",
            json!({"stringData": {"a": big}}),
            "data: Too long: may not be more than 1048576 bytes",
        ),
        (
            "tls",
            "v1",
            "Secret",
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        ),
        (
            "annotations",
            "v1",
            "ConfigMap",
            json!({"metadata": {"annotations": {"a": huge}}}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
    ];
    for (case, version, kind, object, expected) in cases {
        assert_eq!(problems(version, kind, object), [expected], "{case}");
    }
}

#[test]
fn cluster_e5_names_of_objects() {
    for (version, kind, name, expected) in objects::names() {
        let object = prepared(version, kind, name, objects::valid_body(kind));
        let expected: Vec<String> = expected
            .map(|text| format!("metadata.name: {text}"))
            .into_iter()
            .collect();
        assert_eq!(
            texts(&create(version, kind, &object)),
            expected,
            "{kind} {name:?}"
        );
    }
    let generated = json!({"metadata": {"generateName": "g-"}});
    assert_eq!(texts(&create("v1", "ConfigMap", &generated)), NOTHING);
}

#[test]
fn cluster_e5_metadata() {
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "K", "name": name, "uid": "u", "controller": true});
    let two = json!([owner("a"), owner("b")]);
    let cases = [
        (
            json!({"labels": {"a": "b c"}}),
            "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of",
        ),
        (
            json!({"labels": {"a/b/c": ""}}),
            "metadata.labels: Invalid value: \"a/b/c\": a qualified name must consist of",
        ),
        (
            json!({"annotations": {"/x": ""}}),
            "metadata.annotations: Invalid value: \"/x\": prefix part must be non-empty",
        ),
        (
            json!({"finalizers": ["x"]}),
            "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
        ),
        (
            json!({"ownerReferences": two}),
            "metadata.ownerReferences: Invalid value: ",
        ),
        (
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n"}]}),
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
        ),
    ];
    for (metadata, expected) in cases {
        let found = problems("v1", "ConfigMap", json!({"metadata": metadata}));
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{found:?}"
        );
    }
    let fine = json!({"metadata": {"labels": {"app.kubernetes.io/name": "A_b.c-d", "empty": ""}, "annotations": {"Upper/Case": "any text"}, "finalizers": ["kubernetes", "a.b/c"]}});
    assert_eq!(problems("v1", "ConfigMap", fine), NOTHING);
}

#[test]
fn cluster_e5_odd_objects_do_no_harm() {
    for object in [
        json!(null),
        json!("x"),
        json!({"spec": []}),
        json!({"spec": {"ports": [1], "containers": ["c"], "rules": [null]}}),
    ] {
        for (version, kind) in [
            ("v1", "Pod"),
            ("v1", "Service"),
            ("apps/v1", "Deployment"),
            ("networking.k8s.io/v1", "Ingress"),
            ("batch/v1", "Job"),
        ] {
            assert!(!create(version, kind, &object).is_empty());
            update(version, kind, &object, &json!({}));
        }
    }
}
