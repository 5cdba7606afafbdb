use serde_json::json;

use super::{check, known, normalize};

#[test]
fn cluster_e4_unknown_fields_are_named_by_path() {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "label": {}},
        "spec": {"foo": 1, "ports": [{"port": 80}, {"port": 81, "x": 1}], "selector": {"any": "key"}},
        "zone": {"a": {}},
    });
    let report = check("v1", "Service", &service);
    assert_eq!(
        report.unknown,
        ["metadata.label", "spec.foo", "spec.ports[1].x", "zone"]
    );
    assert_eq!(report.type_errors, Vec::<String>::new());

    let inlined = json!({"spec": {"volumes": [{"name": "a", "configMap": {"name": "x"}, "volumeSource": {}}]}});
    assert_eq!(
        check("v1", "Pod", &inlined).unknown,
        ["spec.volumes[0].volumeSource"]
    );
    // Field names are case-sensitive, and a map's keys are free.
    let cases = json!({"Data": {}, "data": {"Data": "x"}});
    assert_eq!(check("v1", "ConfigMap", &cases).unknown, ["Data"]);
}

#[test]
fn cluster_e4_type_errors_in_the_words_of_the_server() {
    let cases = [
        (
            "v1",
            "ConfigMap",
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "apps/v1",
            "Deployment",
            json!({"spec": {"replicas": "3"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps/v1",
            "Deployment",
            json!({"spec": {"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}}}),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"ports": {"port": 80}}}),
            "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 80.5}]}}),
            "json: cannot unmarshal number 80.5 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            "v1",
            "Pod",
            json!({"metadata": {"labels": {"a": true}}}),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "v1",
            "Pod",
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 80, "targetPort": true}]}}),
            "json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort of type int32",
        ),
        (
            "v1",
            "Pod",
            json!({"metadata": {"creationTimestamp": "yesterday"}}),
            "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
        ),
        (
            "v1",
            "Secret",
            json!({"data": {"a": "not base64!"}}),
            "illegal base64 data at input byte 3",
        ),
        (
            "v1",
            "ConfigMap",
            json!([]),
            "json: cannot unmarshal array into Go value of type v1.ConfigMap",
        ),
    ];
    for (version, kind, object, expected) in cases {
        let report = check(version, kind, &object);
        assert_eq!(report.type_errors, [expected]);
        assert_eq!(report.unknown, Vec::<String>::new());
    }
}

#[test]
fn cluster_x2_custom_kinds_are_not_checked() {
    let object = json!({"spec": {"anything": 1}});
    for (version, kind) in [
        ("example.com/v1", "Widget"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("apps.example.com/v1", "Deployment"),
    ] {
        assert!(!known(version, kind), "{version}");
        assert_eq!(check(version, kind, &object).unknown, Vec::<String>::new());
        let mut same = object.clone();
        normalize(version, kind, &mut same);
        assert_eq!(same, object);
    }
    assert!(known("v1", "Pod"));
    assert!(known("apps/v1", "DeleteOptions"));
    assert!(!known("v1", "PodSpec"));
}

#[test]
fn cluster_t3_normal_form_drops_empties_and_keeps_what_matters() {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "labels": {}, "creationTimestamp": null, "unknown": 1},
        "spec": {
            "replicas": 0, "paused": false, "minReadySeconds": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5}}, "args": [], "env": [{"name": "A", "value": ""}]}], "volumes": [{"name": "v", "emptyDir": {}}]}},
        },
    });
    normalize("apps/v1", "Deployment", &mut deployment);
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "strategy": {},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}}, "env": [{"name": "A"}]}], "volumes": [{"name": "v", "emptyDir": {}}]}},
        },
        "status": {},
    });
    assert_eq!(deployment, expected);
    let again = deployment.clone();
    normalize("apps/v1", "Deployment", &mut deployment);
    assert_eq!(deployment, again);
}
