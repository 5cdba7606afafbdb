//! Defaults of pods and pod templates.

use serde_json::{Value, json};

use super::{Fields, set};
use crate::api::json::{ensure_map, maps_mut};

const ALL_CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A pod gets more than a template does: requests from limits, service links, host ports.
pub(super) fn apply(pod: &mut Fields) {
    let Some(spec) = ensure_map(pod, "spec") else {
        return;
    };
    self::spec(spec);
    set(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["initContainers", "containers"] {
        for container in maps_mut(spec, list) {
            if let Some(resources) = ensure_map(container, "resources") {
                requests_from_limits(resources);
            }
            for port in maps_mut(container, "ports").filter(|_| host_network) {
                let same = port.get("containerPort").cloned();
                set(port, "hostPort", same.unwrap_or(json!(0)));
            }
        }
    }
}

/// The pod template of a workload.
pub(super) fn template(template: &mut Fields) {
    if let Some(spec) = ensure_map(template, "spec") {
        self::spec(spec);
    }
}

fn spec(spec: &mut Fields) {
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "restartPolicy", "Always");
    set(spec, "securityContext", json!({}));
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "schedulerName", "default-scheduler");
    maps_mut(spec, "volumes").for_each(volume);
    for list in ALL_CONTAINERS {
        maps_mut(spec, list).for_each(container);
    }
}

fn container(container: &mut Fields) {
    let image = container.get("image").and_then(Value::as_str);
    let policy = pull_policy(image.unwrap_or_default());
    set(container, "imagePullPolicy", policy);
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    maps_mut(container, "ports").for_each(|port| set(port, "protocol", "TCP"));
    for variable in maps_mut(container, "env") {
        if let Some(Value::Object(source)) = variable.get_mut("valueFrom") {
            field_ref(source);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(Value::Object(probe)) = container.get_mut(name) {
            self::probe(probe);
        }
    }
    if let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(Value::Object(handler)) = lifecycle.get_mut(name) {
                http_get(handler);
            }
        }
    }
}

/// Always for a missing tag or `latest`, so that a moving tag is followed. A digest never moves.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest && !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Fields) {
    http_get(probe);
    if let Some(Value::Object(grpc)) = probe.get_mut("grpc") {
        set(grpc, "service", "");
    }
    for (key, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        set(probe, key, value);
    }
}

fn http_get(handler: &mut Fields) {
    if let Some(Value::Object(http)) = handler.get_mut("httpGet") {
        set(http, "path", "/");
        set(http, "scheme", "HTTP");
    }
}

fn field_ref(source: &mut Fields) {
    if let Some(Value::Object(field)) = source.get_mut("fieldRef") {
        set(field, "apiVersion", "v1");
    }
}

fn volume(volume: &mut Fields) {
    if volume.keys().all(|key| key == "name") {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(Value::Object(source)) = volume.get_mut(source) {
            set(source, "defaultMode", 0o644);
            maps_mut(source, "items").for_each(field_ref);
            maps_mut(source, "sources").for_each(projection);
        }
    }
    if let Some(Value::Object(path)) = volume.get_mut("hostPath") {
        set(path, "type", "");
    }
    if let Some(Value::Object(ephemeral)) = volume.get_mut("ephemeral")
        && let Some(Value::Object(claim)) = ephemeral.get_mut("volumeClaimTemplate")
        && let Some(spec) = ensure_map(claim, "spec")
    {
        set(spec, "volumeMode", "Filesystem");
    }
}

fn projection(source: &mut Fields) {
    if let Some(Value::Object(downward)) = source.get_mut("downwardAPI") {
        maps_mut(downward, "items").for_each(field_ref);
    }
    if let Some(Value::Object(token)) = source.get_mut("serviceAccountToken") {
        set(token, "expirationSeconds", 3_600);
    }
}

fn requests_from_limits(resources: &mut Fields) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    if let Some(requests) = ensure_map(resources, "requests") {
        for (resource, limit) in limits {
            set(requests, &resource, limit);
        }
    }
}
