use serde_json::{Value, json};

use super::{admit_pod, apply};

/// Applies the defaults, checks that a second run changes nothing, and gives the object without
/// its type and name.
fn defaulted(api_version: &str, kind: &str, mut object: Value) -> Value {
    apply(api_version, kind, &mut object);
    let mut again = object.clone();
    apply(api_version, kind, &mut again);
    assert_eq!(again, object, "{kind}: defaults are stable");
    let fields = object.as_object_mut().unwrap();
    for key in ["apiVersion", "kind"] {
        fields.remove(key);
    }
    object
}

#[test]
fn cluster_n1_pod_defaults() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "volumes": [
            {"name": "s", "secret": {"secretName": "x"}},
            {"name": "c", "configMap": {"name": "x"}},
            {"name": "e"},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "pj", "projected": {}},
            {"name": "h", "hostPath": {"path": "/tmp"}},
        ],
        "initContainers": [{"name": "i", "image": "py:1", "restartPolicy": "Always"}],
        "containers": [{
            "name": "c", "image": "py", "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1000m"}},
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"grpc": {"port": 90}},
            "startupProbe": {"exec": {"command": ["true"]}},
        }],
    }});
    // What the real API server stored, without what admission adds.
    let probe = |handler: &str, action: Value| json!({handler: action, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    let expected = json!({"metadata": {"name": "p"}, "spec": {
        "volumes": [
            {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
            {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
            {"name": "e", "emptyDir": {}},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}], "defaultMode": 420}},
            {"name": "pj", "projected": {"sources": null, "defaultMode": 420}},
            {"name": "h", "hostPath": {"path": "/tmp", "type": ""}},
        ],
        "initContainers": [{"name": "i", "image": "py:1", "resources": {}, "restartPolicy": "Always", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
        "containers": [{
            "name": "c", "image": "py", "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "livenessProbe": probe("httpGet", json!({"path": "/", "port": 80, "scheme": "HTTP"})),
            "readinessProbe": probe("grpc", json!({"port": 90, "service": ""})),
            "startupProbe": probe("exec", json!({"command": ["true"]})),
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "Always",
        }],
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true,
    }, "status": {}});
    assert_eq!(defaulted("v1", "Pod", pod), expected);
}

#[test]
fn cluster_n1_pull_policy_follows_the_tag() {
    let cases = [
        ("py", "Always"),
        ("py:latest", "Always"),
        ("py:1", "IfNotPresent"),
        ("registry:5000/py", "Always"),
        ("registry:5000/py:1", "IfNotPresent"),
        ("py@sha256:0123", "IfNotPresent"),
        ("", "IfNotPresent"),
    ];
    for (image, expected) in cases {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        let pod = defaulted("v1", "Pod", pod);
        let policy = &pod["spec"]["containers"][0]["imagePullPolicy"];
        assert_eq!(policy, expected, "{image}");
    }
}

#[test]
fn cluster_n1_admission_fills_what_every_pod_gets() {
    let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "py:1"}]}});
    apply("v1", "Pod", &mut pod);
    admit_pod(&mut pod, Some("gkgxj"));
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["serviceAccount"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    let tolerations = json!([
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
    ]);
    assert_eq!(spec["tolerations"], tolerations);
    let volume = json!([{"name": "kube-api-access-gkgxj", "projected": {"sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ], "defaultMode": 420}}]);
    assert_eq!(spec["volumes"], volume);
    let mount = json!([{"name": "kube-api-access-gkgxj", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    assert_eq!(spec["containers"][0]["volumeMounts"], mount);
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
}

#[test]
fn cluster_n1_admission_respects_the_pods_own_choices() {
    let mut pod = json!({"spec": {
        "automountServiceAccountToken": false, "serviceAccountName": "sa", "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "c", "image": "py:1"}],
    }});
    admit_pod(&mut pod, Some("x"));
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccount"], "sa");
    assert_eq!(spec["priority"], 2_000_001_000);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 1);
    assert!(spec.get("volumes").is_none());
}

#[test]
fn cluster_n1_quality_of_service_class() {
    let both = json!({"cpu": "1", "memory": "1Gi"});
    let cases = [
        ("nothing", json!({}), "BestEffort"),
        ("some", json!({"requests": {"cpu": "1"}}), "Burstable"),
        (
            "equal",
            json!({"requests": both, "limits": both}),
            "Guaranteed",
        ),
        (
            "limits alone become requests",
            json!({"limits": both}),
            "Guaranteed",
        ),
        (
            "less",
            json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": both}),
            "Burstable",
        ),
        (
            "other resources",
            json!({"limits": {"example.com/x": "1"}}),
            "BestEffort",
        ),
    ];
    for (case, resources, expected) in cases {
        let mut pod =
            json!({"spec": {"containers": [{"name": "c", "image": "a", "resources": resources}]}});
        apply("v1", "Pod", &mut pod);
        admit_pod(&mut pod, Some("x"));
        assert_eq!(pod["status"]["qosClass"], expected, "{case}");
    }
}

#[test]
fn cluster_n2_workload_defaults() {
    let template = |name: &str, image: &str, restart: &str| {
        let policy = if image.contains(":1") {
            "IfNotPresent"
        } else {
            "Always"
        };
        json!({"metadata": {"labels": {"a": name}}, "spec": {
            "containers": [{"name": "c", "image": image, "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": policy}],
            "restartPolicy": restart, "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler",
        }})
    };
    let minimal = |image: &str| json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
    let selector = json!({"matchLabels": {"a": "b"}});

    let deployment = json!({"spec": {"selector": selector, "template": minimal("py")}});
    let expected = json!({"metadata": {}, "spec": {
        "replicas": 1, "selector": selector, "template": template("b", "py", "Always"),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
    }, "status": {}});
    assert_eq!(defaulted("apps/v1", "Deployment", deployment), expected);

    let recreate = json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}});
    let spec = &defaulted("apps/v1", "Deployment", recreate)["spec"];
    assert_eq!(spec["strategy"], json!({"type": "Recreate"}));
    assert_eq!(spec["replicas"], 0);

    let set = json!({"spec": {"selector": selector, "template": minimal("py:latest")}});
    let expected = json!({"metadata": {}, "spec": {
        "replicas": 1, "selector": selector, "template": template("b", "py:latest", "Always"),
    }, "status": {"replicas": 0}});
    assert_eq!(defaulted("apps/v1", "ReplicaSet", set), expected);

    let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": []}}}});
    let spec = &defaulted("batch/v1", "Job", job)["spec"];
    for (field, value) in [
        ("parallelism", json!(1)),
        ("completions", json!(1)),
        ("backoffLimit", json!(6)),
        ("manualSelector", json!(false)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    let queue = defaulted("batch/v1", "Job", json!({"spec": {"parallelism": 2}}));
    assert!(queue["spec"].get("completions").is_none());
}

#[test]
fn cluster_n3_service_defaults() {
    let base = |extra: Value| {
        let mut spec = json!({"sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster"});
        spec.as_object_mut()
            .unwrap()
            .append(&mut extra.as_object().unwrap().clone());
        spec
    };
    let port = json!([{"protocol": "TCP", "port": 80, "targetPort": 80}]);
    let cases = [
        (
            "plain",
            json!({"ports": [{"port": 80}]}),
            base(json!({"ports": port})),
        ),
        (
            "named target",
            json!({"ports": [{"port": 80, "targetPort": "http"}]}),
            base(json!({"ports": [{"protocol": "TCP", "port": 80, "targetPort": "http"}]})),
        ),
        (
            "headless",
            json!({"clusterIP": "None", "selector": {"a": "b"}}),
            base(json!({"clusterIP": "None", "selector": {"a": "b"}})),
        ),
        (
            "node port",
            json!({"type": "NodePort", "ports": [{"port": 80}]}),
            base(json!({"type": "NodePort", "ports": port, "externalTrafficPolicy": "Cluster"})),
        ),
        (
            "balancer",
            json!({"type": "LoadBalancer", "ports": [{"port": 80}]}),
            base(
                json!({"type": "LoadBalancer", "ports": port, "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}),
            ),
        ),
        (
            "external name",
            json!({"type": "ExternalName", "externalName": "a.b"}),
            json!({"type": "ExternalName", "sessionAffinity": "None", "externalName": "a.b"}),
        ),
        (
            "sticky",
            json!({"sessionAffinity": "ClientIP", "ports": [{"port": 80}]}),
            base(
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}}, "ports": port}),
            ),
        ),
        (
            "no longer sticky",
            json!({"sessionAffinity": "None", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}, "ports": [{"port": 80}]}),
            base(json!({"ports": port})),
        ),
    ];
    for (case, spec, expected) in cases {
        let service = defaulted("v1", "Service", json!({"spec": spec}));
        assert_eq!(service["spec"], expected, "{case}");
        assert_eq!(service["status"], json!({"loadBalancer": {}}), "{case}");
    }
}

#[test]
fn cluster_n4_ingress_gets_no_defaults() {
    let spec = json!({"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}});
    let ingress = defaulted("networking.k8s.io/v1", "Ingress", json!({"spec": spec}));
    assert_eq!(
        ingress,
        json!({"metadata": {}, "spec": spec, "status": {"loadBalancer": {}}})
    );

    let class = json!({"spec": {"controller": "a.b/c", "parameters": {"kind": "X", "name": "y"}}});
    let class = defaulted("networking.k8s.io/v1", "IngressClass", class);
    assert_eq!(class["spec"]["parameters"]["scope"], "Cluster");
}

#[test]
fn cluster_n5_autoscaler_defaults() {
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    let plain = json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3}});
    let expected = json!({"metadata": {}, "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3, "metrics": metrics},
        "status": {"desiredReplicas": 0, "currentMetrics": null}});
    let kind = "HorizontalPodAutoscaler";
    assert_eq!(defaulted("autoscaling/v2", kind, plain), expected);

    let behavior = json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 10}}}});
    let expected = json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 10, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    });
    assert_eq!(
        defaulted("autoscaling/v2", kind, behavior)["spec"]["behavior"],
        expected
    );
}

#[test]
fn cluster_n6_endpoint_defaults() {
    let slice =
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{}]});
    let expected = json!({"metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}}], "ports": [{"name": "", "protocol": "TCP"}]});
    assert_eq!(
        defaulted("discovery.k8s.io/v1", "EndpointSlice", slice),
        expected
    );

    let endpoints =
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]});
    let expected = json!({"metadata": {}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}]});
    assert_eq!(defaulted("v1", "Endpoints", endpoints), expected);
}

#[test]
fn cluster_n7_secrets_take_string_data() {
    let secret = json!({"data": {"a": "eA==", "k": "eQ=="}, "stringData": {"a": "b"}});
    let expected = json!({"metadata": {}, "data": {"a": "Yg==", "k": "eQ=="}, "type": "Opaque"});
    assert_eq!(defaulted("v1", "Secret", secret), expected);
}

#[test]
fn cluster_n8_limit_defaults_follow_from_max_and_min() {
    let range = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "10m", "memory": "1Mi"}}, {"type": "Pod", "max": {"cpu": "1"}}]}});
    let expected = json!([
        {"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "10m", "memory": "1Mi"}, "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1", "memory": "1Mi"}},
        {"type": "Pod", "max": {"cpu": "1"}},
    ]);
    assert_eq!(
        defaulted("v1", "LimitRange", range)["spec"]["limits"],
        expected
    );
}

#[test]
fn cluster_n9_namespaces_carry_their_name_as_a_label() {
    let namespace = defaulted("v1", "Namespace", json!({"metadata": {"name": "n"}}));
    let expected = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}}, "spec": {}, "status": {"phase": "Active"}});
    assert_eq!(namespace, expected);
}

#[test]
fn cluster_n1_odd_objects_do_no_harm() {
    for object in [
        json!(null),
        json!([]),
        json!({"spec": "x"}),
        json!({"spec": {"containers": {"a": 1}}, "metadata": 3}),
    ] {
        for (version, kind) in [
            ("v1", "Pod"),
            ("apps/v1", "Deployment"),
            ("v1", "Service"),
            ("v1", "Namespace"),
            ("v1", "Secret"),
            ("batch/v1", "CronJob"),
        ] {
            apply(version, kind, &mut object.clone());
            admit_pod(&mut object.clone(), Some("x"));
        }
    }
}

/// Objects and the form in which the API server's own code stores them, one a line.
#[test]
fn cluster_n1_stored_forms_of_the_real_server() {
    for line in include_str!("testdata/stored.jsonl").lines() {
        let pair: Value = serde_json::from_str(line).unwrap();
        let mut object = pair["object"].clone();
        let text = |field: &str| pair["object"][field].as_str().unwrap();
        apply(text("apiVersion"), text("kind"), &mut object);
        assert_eq!(object, pair["stored"], "{line}");
        let mut again = object.clone();
        apply(text("apiVersion"), text("kind"), &mut again);
        assert_eq!(again, object, "{line} again");
    }
}
