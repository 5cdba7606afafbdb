//! Rows of namespaces, nodes, events, configuration and storage.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::since;
use super::format::{NONE, or};
use super::{age, deleting, name};
use crate::api::json::{entries, flag, int_or_string, list, number, present, text};

pub(super) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "/status/phase")),
        age(object, now),
    ]
}

pub(super) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = entries(object, "/data").len() + entries(object, "/binaryData").len();
    vec![name(object), json!(keys), age(object, now)]
}

pub(super) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "/type")),
        json!(entries(object, "/data").len()),
        age(object, now),
    ]
}

pub(super) fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    let secrets = list(object, "/secrets").len();
    vec![name(object), json!(secrets), age(object, now)]
}

pub(super) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(object, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == "Ready");
    let mut status = match ready {
        Some(condition) if text(condition, "/status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(object, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let address = |type_: &str| {
        let found = list(object, "/status/addresses")
            .iter()
            .find(|address| text(address, "/type") == type_);
        json!(found.map_or(NONE, |address| text(address, "/address")))
    };
    let info = |field: &str| text(object, &format!("/status/nodeInfo/{field}"));
    vec![
        name(object),
        json!(status),
        json!(roles(object)),
        age(object, now),
        json!(info("kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        json!(or(info("osImage"), "<unknown>")),
        json!(or(info("kernelVersion"), "<unknown>")),
        json!(or(info("containerRuntimeVersion"), "<unknown>")),
    ]
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = entries(node, "/metadata/labels")
        .into_iter()
        .filter_map(|(key, value)| match key {
            "kubernetes.io/role" => value.as_str(),
            _ => key.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), NONE).to_owned()
}

/// An event of either API: events.k8s.io/v1 has other names for the same fields.
pub(super) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let field = |core: &str, new: &str| or(text(object, core), text(object, new)).to_owned();
    let time = |core: &str, new: &str| match present(object, core) {
        Some(_) => Some(since(object, core, now)),
        None => present(object, new).map(|_| since(object, new, now)),
    };
    let first = time("/firstTimestamp", "/deprecatedFirstTimestamp")
        .unwrap_or_else(|| since(object, "/eventTime", now));
    let (last, count) = match present(object, "/series") {
        Some(series) => (
            since(series, "/lastObservedTime", now),
            number(series, "/count"),
        ),
        None => (
            time("/lastTimestamp", "/deprecatedLastTimestamp").unwrap_or_else(|| first.clone()),
            number(object, "/count")
                .max(number(object, "/deprecatedCount"))
                .max(1),
        ),
    };
    let kind = field("/involvedObject/kind", "/regarding/kind").to_lowercase();
    let target = match field("/involvedObject/name", "/regarding/name") {
        name if name.is_empty() => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        json!(last),
        json!(text(object, "/type")),
        json!(text(object, "/reason")),
        json!(target),
        json!(field("/involvedObject/fieldPath", "/regarding/fieldPath")),
        json!(event_source(object)),
        json!(field("/message", "/note").trim()),
        json!(first),
        json!(count),
        name(object),
    ]
}

fn event_source(event: &Value) -> String {
    let first = |pointers: &[&str]| {
        pointers
            .iter()
            .map(|pointer| text(event, pointer))
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_owned()
    };
    let component = first(&[
        "/source/component",
        "/deprecatedSource/component",
        "/reportingComponent",
        "/reportingController",
    ]);
    let instance = first(&[
        "/source/host",
        "/deprecatedSource/host",
        "/reportingInstance",
    ]);
    match instance.as_str() {
        "" => component,
        instance => format!("{component}, {instance}"),
    }
}

pub(super) fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut requests = Vec::new();
    let mut limits = Vec::new();
    for (resource, hard) in entries(object, "/status/hard") {
        let used = object.pointer("/status/used").and_then(|u| u.get(resource));
        let used = used.map_or("0".to_owned(), int_or_string);
        let text = format!("{resource}: {used}/{}", int_or_string(hard));
        match resource.starts_with("limits.") {
            true => limits.push(text),
            false => requests.push(text),
        }
    }
    vec![
        name(object),
        json!(requests.join(", ")),
        json!(limits.join(", ")),
        age(object, now),
    ]
}

pub(super) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "/spec/holderIdentity")),
        age(object, now),
    ]
}

pub(super) fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(number(object, "/value")),
        json!(flag(object, "/globalDefault")),
        age(object, now),
        json!(text(object, "/preemptionPolicy")),
    ]
}

pub(super) fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let names: Vec<String> = list(object, "/subjects")
            .iter()
            .filter(|subject| text(subject, "/kind") == kind)
            .map(|subject| match text(subject, "/namespace") {
                "" => text(subject, "/name").to_owned(),
                namespace => format!("{namespace}/{}", text(subject, "/name")),
            })
            .collect();
        json!(names.join(", "))
    };
    let role = text(object, "/roleRef/name");
    vec![
        name(object),
        json!(format!("{}/{role}", text(object, "/roleRef/kind"))),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(super) fn volume_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = !text(object, "/spec/volumeName").is_empty();
    let capacity =
        present(object, "/status/capacity/storage").map_or("0".to_owned(), int_or_string);
    vec![
        name(object),
        phase(object),
        json!(text(object, "/spec/volumeName")),
        json!(if bound { capacity.as_str() } else { "" }),
        json!(if bound {
            access_modes(object, "/status/accessModes")
        } else {
            String::new()
        }),
        json!(text(object, "/spec/storageClassName")),
        json!(or(
            text(object, "/spec/volumeAttributesClassName"),
            "<unset>"
        )),
        age(object, now),
        json!(or(text(object, "/spec/volumeMode"), "<unset>")),
    ]
}

pub(super) fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = present(object, "/spec/claimRef").map_or(String::new(), |claim| {
        format!("{}/{}", text(claim, "/namespace"), text(claim, "/name"))
    });
    let capacity = present(object, "/spec/capacity/storage").map_or("0".to_owned(), int_or_string);
    vec![
        name(object),
        json!(capacity),
        json!(access_modes(object, "/spec/accessModes")),
        json!(text(object, "/spec/persistentVolumeReclaimPolicy")),
        phase(object),
        json!(claim),
        json!(text(object, "/spec/storageClassName")),
        json!(or(
            text(object, "/spec/volumeAttributesClassName"),
            "<unset>"
        )),
        json!(text(object, "/status/reason")),
        age(object, now),
        json!(or(text(object, "/spec/volumeMode"), "<unset>")),
    ]
}

fn phase(object: &Value) -> Value {
    match deleting(object) {
        true => json!("Terminating"),
        false => json!(text(object, "/status/phase")),
    }
}

fn access_modes(object: &Value, pointer: &str) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let modes: Vec<&str> = short
        .into_iter()
        .filter(|(mode, _)| list(object, pointer).iter().any(|m| m == mode))
        .map(|(_, short)| short)
        .collect();
    modes.join(",")
}
