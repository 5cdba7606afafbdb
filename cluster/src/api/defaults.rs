//! Static defaults of the built-in kinds, as the API reference gives them.
//!
//! Defaults that need state (addresses, node ports, the default IngressClass) are not made here.
//! [`apply`] is idempotent, so it may run on every write.

mod admission;
mod autoscaling;
mod pod;
#[cfg(test)]
mod tests;
mod workloads;

use serde_json::{Map, Value, json};

pub use admission::admit_pod;

use super::json::{ensure_map, maps_mut};
use super::schema;

type Fields = Map<String, Value>;

/// Brings an object of a built-in kind into the form in which it is stored: first as
/// [`schema::normalize`] does, then with the default of every field that is left out.
/// Other kinds stay as they are.
pub fn apply(api_version: &str, kind: &str, object: &mut Value) {
    schema::normalize(api_version, kind, object);
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", _) => core(kind, fields),
        ("apps" | "batch", _) => workloads::apply(kind, fields),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::apply(api_version, fields),
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in maps_mut(fields, "ports") {
                set(port, "name", "");
                set(port, "protocol", "TCP");
            }
        }
        ("networking.k8s.io", _) => networking(kind, fields),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding(fields),
        ("scheduling.k8s.io", "PriorityClass") => {
            set(fields, "preemptionPolicy", "PreemptLowerPriority");
        }
        ("storage.k8s.io", "StorageClass") => {
            set(fields, "reclaimPolicy", "Delete");
            set(fields, "volumeBindingMode", "Immediate");
        }
        ("admissionregistration.k8s.io", _) => admission_policy(kind, fields),
        _ => {}
    }
}

/// Gives `key` a value unless it has one.
fn set(fields: &mut Fields, key: &str, value: impl Into<Value>) {
    let slot = fields.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

fn is(fields: &Fields, key: &str, text: &str) -> bool {
    fields.get(key).is_some_and(|value| value == text)
}

/// Whether `key` is a list or map with something in it.
fn filled(fields: &Fields, key: &str) -> bool {
    match fields.get(key) {
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(entries)) => !entries.is_empty(),
        _ => false,
    }
}

fn core(kind: &str, fields: &mut Fields) {
    match kind {
        "Pod" => pod::apply(fields),
        "PodTemplate" => {
            if let Some(template) = ensure_map(fields, "template") {
                pod::template(template);
            }
        }
        "ReplicationController" => workloads::replication_controller(fields),
        "Service" => service(fields),
        "Secret" => secret(fields),
        "Endpoints" => {
            for subset in maps_mut(fields, "subsets") {
                for port in maps_mut(subset, "ports") {
                    set(port, "protocol", "TCP");
                }
            }
        }
        "Namespace" => namespace(fields),
        "Node" => {
            if let Some(status) = ensure_map(fields, "status")
                && let Some(capacity) = status.get("capacity").cloned()
            {
                set(status, "allocatable", capacity);
            }
        }
        "LimitRange" => {
            if let Some(spec) = ensure_map(fields, "spec") {
                maps_mut(spec, "limits").for_each(limit);
            }
        }
        "PersistentVolumeClaim" => volume(fields, None),
        "PersistentVolume" => volume(fields, Some("Retain")),
        _ => {}
    }
}

fn service(fields: &mut Fields) {
    let Some(spec) = ensure_map(fields, "spec") else {
        return;
    };
    set(spec, "type", "ClusterIP");
    set(spec, "sessionAffinity", "None");
    if is(spec, "sessionAffinity", "ClientIP") {
        if let Some(config) = ensure_map(spec, "sessionAffinityConfig")
            && let Some(client) = ensure_map(config, "clientIP")
        {
            set(client, "timeoutSeconds", 10_800);
        }
    } else if is(spec, "sessionAffinity", "None") {
        spec.remove("sessionAffinityConfig");
    }
    for port in maps_mut(spec, "ports") {
        set(port, "protocol", "TCP");
        let same = port.get("port").cloned().unwrap_or(json!(0));
        match port.get("targetPort") {
            Some(target) if *target != 0 && *target != "" && !target.is_null() => {}
            _ => {
                port.insert("targetPort".to_owned(), same);
            }
        }
    }
    let external = is(spec, "type", "NodePort") || is(spec, "type", "LoadBalancer");
    if external || is(spec, "type", "ClusterIP") && filled(spec, "externalIPs") {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if external || is(spec, "type", "ClusterIP") {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if is(spec, "type", "LoadBalancer") {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// `stringData` is write-only: it overrides `data` and is never read back.
fn secret(fields: &mut Fields) {
    use base64::Engine as _;
    set(fields, "type", "Opaque");
    let Some(Value::Object(texts)) = fields.remove("stringData") else {
        return;
    };
    let Some(data) = ensure_map(fields, "data") else {
        return;
    };
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        data.insert(key, Value::String(encoded));
    }
}

fn namespace(fields: &mut Fields) {
    if let Some(metadata) = ensure_map(fields, "metadata")
        && let Some(name) = metadata.get("name").cloned()
        && let Some(labels) = ensure_map(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
    if let Some(status) = ensure_map(fields, "status") {
        set(status, "phase", "Active");
    }
}

/// Limits of containers: max → default → defaultRequest ← min, each where the next has no value.
fn limit(item: &mut Fields) {
    if !is(item, "type", "Container") {
        return;
    }
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let Some(Value::Object(source)) = item.get(from).cloned() else {
            continue;
        };
        if let Some(target) = ensure_map(item, to) {
            for (resource, quantity) in source {
                set(target, &resource, quantity);
            }
        }
    }
}

fn volume(fields: &mut Fields, reclaim_policy: Option<&str>) {
    if let Some(spec) = ensure_map(fields, "spec") {
        set(spec, "volumeMode", "Filesystem");
        if let Some(policy) = reclaim_policy {
            set(spec, "persistentVolumeReclaimPolicy", policy);
        }
        if let Some(Value::Object(path)) = spec.get_mut("hostPath") {
            set(path, "type", "");
        }
    }
    if let Some(status) = ensure_map(fields, "status") {
        set(status, "phase", "Pending");
    }
}

fn networking(kind: &str, fields: &mut Fields) {
    let Some(spec) = ensure_map(fields, "spec") else {
        return;
    };
    match kind {
        "IngressClass" => {
            if let Some(Value::Object(parameters)) = spec.get_mut("parameters") {
                set(parameters, "scope", "Cluster");
            }
        }
        "NetworkPolicy" => {
            if !filled(spec, "policyTypes") {
                let types = match filled(spec, "egress") {
                    true => json!(["Ingress", "Egress"]),
                    false => json!(["Ingress"]),
                };
                spec.insert("policyTypes".to_owned(), types);
            }
            for direction in ["ingress", "egress"] {
                for rule in maps_mut(spec, direction) {
                    maps_mut(rule, "ports").for_each(|port| set(port, "protocol", "TCP"));
                }
            }
        }
        _ => {}
    }
}

fn role_binding(fields: &mut Fields) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if let Some(role) = ensure_map(fields, "roleRef")
        && !role.get("apiGroup").is_some_and(|group| group != "")
    {
        role.insert("apiGroup".to_owned(), json!(GROUP));
    }
    for subject in maps_mut(fields, "subjects") {
        if is(subject, "kind", "User") || is(subject, "kind", "Group") {
            set(subject, "apiGroup", GROUP);
        }
    }
}

fn admission_policy(kind: &str, fields: &mut Fields) {
    let Some(spec) = ensure_map(fields, "spec") else {
        return;
    };
    let resources = match kind {
        "ValidatingAdmissionPolicy" => {
            set(spec, "failurePolicy", "Fail");
            "matchConstraints"
        }
        "ValidatingAdmissionPolicyBinding" => "matchResources",
        _ => return,
    };
    let Some(Value::Object(resources)) = spec.get_mut(resources) else {
        return;
    };
    set(resources, "matchPolicy", "Equivalent");
    set(resources, "namespaceSelector", json!({}));
    set(resources, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        maps_mut(resources, rules).for_each(|rule| set(rule, "scope", "*"));
    }
}
