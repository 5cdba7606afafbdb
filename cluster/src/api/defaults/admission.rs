//! What the API server's built-in admission adds to a new pod.

use serde_json::{Value, json};

use super::{Fields, set};
use crate::api::json::{ensure_map, maps_mut};
use crate::api::quantity::Quantity;

/// Where containers find the token of their service account.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Fills what a pod gets when it is created, after the defaults: its service account and, if a
/// suffix is given and `automountServiceAccountToken` is not false, a volume
/// `kube-api-access-SUFFIX` with a token; 300 s of tolerance for a node that is not ready; priority
/// and preemption policy; the quality of service class.
pub fn admit_pod(pod: &mut Value, suffix: Option<&str>) {
    let Some(fields) = pod.as_object_mut() else {
        return;
    };
    if let Some(spec) = ensure_map(fields, "spec") {
        service_account(spec, suffix);
        for taint in ["not-ready", "unreachable"] {
            tolerate(spec, &format!("node.kubernetes.io/{taint}"));
        }
        priority(spec);
    }
    let class = qos_class(fields);
    if let Some(status) = ensure_map(fields, "status") {
        set(status, "phase", "Pending");
        set(status, "qosClass", class);
    }
}

fn service_account(spec: &mut Fields, suffix: Option<&str>) {
    // `serviceAccount` is the old name of the field and mirrors it.
    let name = spec
        .get("serviceAccountName")
        .or(spec.get("serviceAccount"));
    let name = name.cloned().unwrap_or(json!("default"));
    set(spec, "serviceAccountName", name.clone());
    set(spec, "serviceAccount", name);
    let Some(suffix) = suffix else { return };
    if spec.get("automountServiceAccountToken") == Some(&json!(false)) {
        return;
    }
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in maps_mut(spec, list) {
            if !mounts(container, TOKEN_PATH) {
                let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH});
                push(container, "volumeMounts", mount);
                mounted = true;
            }
        }
    }
    if mounted {
        let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
        let sources = json!([
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ]);
        let projected = json!({"sources": sources, "defaultMode": 0o644});
        push(
            spec,
            "volumes",
            json!({"name": volume, "projected": projected}),
        );
    }
}

fn mounts(container: &Fields, path: &str) -> bool {
    let mounts = container.get("volumeMounts").and_then(Value::as_array);
    mounts.into_iter().flatten().any(|mount| {
        mount
            .get("mountPath")
            .is_some_and(|mounted| mounted == path)
    })
}

fn push(fields: &mut Fields, key: &str, item: Value) {
    set(fields, key, json!([]));
    if let Some(items) = fields.get_mut(key).and_then(Value::as_array_mut) {
        items.push(item);
    }
}

/// Adds a toleration of 300 s unless the pod says itself how it takes the taint.
fn tolerate(spec: &mut Fields, taint: &str) {
    let own = maps_mut(spec, "tolerations").any(|toleration| {
        let matches = |key: &str, expected: &str| match toleration.get(key) {
            Some(value) => value == expected,
            None => true,
        };
        matches("key", taint) && matches("effect", "NoExecute")
    });
    if !own {
        let toleration = json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        push(spec, "tolerations", toleration);
    }
}

/// Priority of the classes that every cluster has; without a class it is 0.
fn priority(spec: &mut Fields) {
    let class = spec.get("priorityClassName").and_then(Value::as_str);
    let priority = match class.unwrap_or_default() {
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        _ => 0,
    };
    set(spec, "priority", priority);
    set(spec, "preemptionPolicy", "PreemptLowerPriority");
}

/// Guaranteed if every container's CPU and memory are limited to what they request, BestEffort if
/// none has either, else Burstable.
fn qos_class(pod: &mut Fields) -> &'static str {
    let Some(spec) = ensure_map(pod, "spec") else {
        return "BestEffort";
    };
    let (mut any, mut all) = (false, true);
    for list in ["initContainers", "containers"] {
        for container in maps_mut(spec, list) {
            let amount = |kind: &str, resource: &str| {
                let value = container.get("resources")?.get(kind)?.get(resource)?;
                let amount = Quantity::parse(value.as_str()?)?.nano();
                (amount > 0).then_some(amount)
            };
            for resource in ["cpu", "memory"] {
                let (request, limit) = (amount("requests", resource), amount("limits", resource));
                any |= request.is_some() || limit.is_some();
                all &= limit.is_some() && request == limit;
            }
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
