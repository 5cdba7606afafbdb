//! Answers recorded from the real API server.

use serde_json::{Value, json};

use super::{create, prepared, problems, texts};

#[test]
fn cluster_e5_recorded_causes() {
    let container = |extra: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        let fields = container.as_object_mut().unwrap();
        fields.append(&mut extra.as_object().unwrap().clone());
        container
    };
    let cases = [
        (
            "deployment",
            "apps/v1",
            "Deployment",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c"}]}}}}),
            vec![
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
                "spec.template.spec.containers[0].image: Required value",
            ],
        ),
        (
            "empty deployment",
            "apps/v1",
            "Deployment",
            json!({"spec": {}}),
            vec![
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                "spec.template.spec.containers: Required value",
            ],
        ),
        (
            "service",
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 0}, {"name": "b", "port": 70000}]}}),
            vec![
                "spec.ports[0].name: Required value",
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.ports[1].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            "service without ports",
            "v1",
            "Service",
            json!({"spec": {}}),
            vec!["spec.ports: Required value"],
        ),
        (
            "ingress",
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"rules": [{"http": {"paths": [{"path": "/", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
            vec![
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ],
        ),
        (
            "empty ingress",
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {}}),
            vec!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        ),
        (
            "autoscaler",
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 0, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}),
            vec![
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
            ],
        ),
        (
            "pod",
            "v1",
            "Pod",
            json!({"spec": {"restartPolicy": "Foo", "containers": [
                container(json!({"ports": [{"containerPort": 0}], "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
                container(json!({})),
            ]}}),
            vec![
                "spec.containers[0].ports[0].containerPort: Required value",
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                "spec.containers[1].name: Duplicate value: \"c\"",
                "spec.restartPolicy: Unsupported value: \"Foo\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ],
        ),
        (
            "slice on loopback",
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.5"]}]}),
            vec![
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.5\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
        (
            "endpoints on loopback",
            "v1",
            "Endpoints",
            json!({"subsets": [{"addresses": [{"ip": "127.0.0.5"}]}]}),
            vec![
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.5\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
        (
            "slice of another family",
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}]}),
            vec!["endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address"],
        ),
        (
            "scale",
            "autoscaling/v1",
            "Scale",
            json!({"spec": {"replicas": -1}}),
            vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "token",
            "authentication.k8s.io/v1",
            "TokenRequest",
            json!({"spec": {"audiences": [], "expirationSeconds": 5}}),
            vec![
                "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
            ],
        ),
        (
            "dual stack",
            "v1",
            "Service",
            json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]}}),
            vec![
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ],
        ),
        (
            "IPv6",
            "v1",
            "Service",
            json!({"spec": {"ipFamilies": ["IPv6"], "ports": [{"port": 80}]}}),
            vec!["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"],
        ),
        (
            "bad address",
            "v1",
            "Service",
            json!({"spec": {"clusterIP": "x", "ports": [{"port": 80}]}}),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        ),
        (
            "same port twice",
            "v1",
            "Service",
            json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}}),
            vec![
                "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
            ],
        ),
        (
            "recreate",
            "apps/v1",
            "Deployment",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container(json!({}))]}}}}),
            vec![
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ],
        ),
    ];
    for (case, version, kind, object, expected) in cases {
        assert_eq!(problems(version, kind, object), expected, "{case}");
    }
}

/// What the API server's own code says about objects with one or more faults, one a line.
#[test]
fn cluster_e5_answers_of_the_real_validation() {
    let answers = include_str!("../testdata/answers.jsonl");
    for line in answers.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let object = answer["object"].clone();
        let text = |field: &str| object[field].as_str().unwrap().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let found = texts(&create(
            &version,
            &kind,
            &prepared(&version, &kind, &name, object),
        ));
        assert_eq!(json!(found), answer["errors"], "{line}");
    }
}
