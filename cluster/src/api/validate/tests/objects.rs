//! Objects that are fine.

use serde_json::{Value, json};

/// What changes to a pod are told.
pub(super) const POD_UPDATE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Names, and what is wrong with them.
pub(super) fn names() -> Vec<(
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
)> {
    const SUBDOMAIN: &str = "Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    const SERVICE: &str = "Invalid value: \"1abc\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    const NAMESPACE: &str = "Invalid value: \"a.b\": must not contain dots";
    vec![
        (
            "v1",
            "ConfigMap",
            "",
            Some("Required value: name or generateName is required"),
        ),
        ("v1", "ConfigMap", "Bad_Name", Some(SUBDOMAIN)),
        ("v1", "ConfigMap", "kube-root-ca.crt", None),
        ("v1", "Service", "1abc", Some(SERVICE)),
        ("v1", "Service", "a-b", None),
        ("v1", "Namespace", "a.b", Some(NAMESPACE)),
        ("v1", "Namespace", "1-a", None),
        (
            "rbac.authorization.k8s.io/v1",
            "Role",
            "system:Node_x",
            None,
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "Role",
            "a/b",
            Some("Invalid value: \"a/b\": may not contain '/'"),
        ),
        ("example.com/v1", "Widget", "Bad_Name", Some(SUBDOMAIN)),
    ]
}

/// The rest of an object whose name is tried.
pub(super) fn valid_body(kind: &str) -> Value {
    match kind {
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        _ => json!({}),
    }
}

/// Objects of every kind that an application has.
pub(super) fn good() -> Vec<(&'static str, &'static str, Value)> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["true"]}}}],
        "containers": [{
            "name": "c", "image": "registry:5000/a/b:1",
            "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}],
            "env": [{"name": "A", "value": "$(B)"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}],
            "envFrom": [{"configMapRef": {"name": "m"}}, {"prefix": "P_", "secretRef": {"name": "s"}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a/b"}],
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
            "livenessProbe": {"tcpSocket": {"port": 8080}, "terminationGracePeriodSeconds": 1},
            "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
        }],
        "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}, {"name": "e", "emptyDir": {}}],
        "tolerations": [{"operator": "Exists"}],
    }});
    let workload = json!({"spec": {"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}, {"key": "z", "operator": "DoesNotExist"}]}, "template": template}});
    let mut stateful = workload.clone();
    stateful["spec"]["serviceName"] = json!("s");
    let mut job = json!({"spec": {"template": template}});
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    let backend = json!({"service": {"name": "s", "port": {"name": "http"}}});
    vec![
        ("v1", "Pod", json!({"spec": template["spec"]})),
        ("apps/v1", "Deployment", workload.clone()),
        ("apps/v1", "ReplicaSet", workload.clone()),
        ("apps/v1", "DaemonSet", workload),
        ("apps/v1", "StatefulSet", stateful),
        (
            "batch/v1",
            "CronJob",
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": job}}),
        ),
        ("batch/v1", "Job", job),
        (
            "v1",
            "Service",
            json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "dns", "port": 80, "protocol": "UDP", "appProtocol": "kubernetes.io/h2c"}], "selector": {"a": "b"}}}),
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"clusterIP": "None", "selector": {"a": "b"}}}),
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30080}]}}),
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"type": "ExternalName", "externalName": "example.com."}}),
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"ingressClassName": "k", "tls": [{"hosts": ["*.a.b", "a.b"], "secretName": "t"}], "rules": [{"host": "*.a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}, {"pathType": "ImplementationSpecific", "backend": backend}]}}]}}),
        ),
        (
            "networking.k8s.io/v1",
            "IngressClass",
            json!({"spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n"}}}),
        ),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.1"], "nodeName": "n"}], "ports": [{"name": "http", "port": 80}, {"name": "", "port": 81}]}),
        ),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b."]}]}),
        ),
        (
            "v1",
            "Endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        ),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}}}}),
        ),
        (
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "targetCPUUtilizationPercentage": 50}}),
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}}),
        ),
        (
            "v1",
            "ConfigMap",
            json!({"data": {"a.conf": "x"}, "binaryData": {"b": "AAAA"}}),
        ),
        ("v1", "Secret", json!({"stringData": {"a": "b"}})),
        (
            "v1",
            "Secret",
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "YQ==", "tls.key": "YQ=="}}),
        ),
        ("v1", "Namespace", json!({})),
        ("v1", "ServiceAccount", json!({})),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}}}),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "Role",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"spec": {"holderIdentity": "h"}}),
        ),
        ("example.com/v1", "Widget", json!({"spec": {"any": 1}})),
    ]
}
