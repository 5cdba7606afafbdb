//! What the server itself writes: metadata of new objects, the first status, the generation, and
//! which part of an object an endpoint may change.

use serde_json::Value;

use super::Part;
use crate::api::kinds::{Resource, Subresource};
use crate::api::metadata;
use crate::api::path::ResourcePath;
use crate::api::status::{ApiError, Cause};

pub(super) fn prepare_metadata(path: &ResourcePath, object: &mut Value) -> Result<(), ApiError> {
    if !metadata::text(object, "resourceVersion").is_empty() {
        return Err(ApiError::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let prefix = metadata::text(object, "generateName").to_owned();
    if metadata::text(object, "name").is_empty() {
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            let resource = path.resource;
            return Err(ApiError::invalid(
                resource.group,
                resource.kind,
                "",
                &[cause],
            ));
        }
        let name = metadata::generate_name(&prefix);
        metadata::map(object).insert("name".to_owned(), name.into());
    }
    metadata::clean(object);
    let fields = metadata::map(object);
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        fields.remove(field);
    }
    fields.insert("uid".to_owned(), metadata::new_uid().into());
    fields.insert("creationTimestamp".to_owned(), metadata::now().into());
    if path.resource.generation {
        fields.insert("generation".to_owned(), 1.into());
    }
    match &path.namespace {
        Some(namespace) => fields.insert("namespace".to_owned(), namespace.as_str().into()),
        None => fields.remove("namespace"),
    };
    Ok(())
}

/// Clients cannot set a status on create; a Node is registered with its own.
pub(super) fn set_initial_status(resource: &Resource, object: &mut Value) {
    if !resource.has(Subresource::Status) || resource.kind == "Node" {
        return;
    }
    object["status"] = match resource.kind {
        "Pod" | "PersistentVolume" | "PersistentVolumeClaim" => {
            serde_json::json!({"phase": "Pending"})
        }
        "Service" | "Ingress" => serde_json::json!({"loadBalancer": {}}),
        "ReplicaSet" | "ReplicationController" | "StatefulSet" => {
            serde_json::json!({"replicas": 0})
        }
        "DaemonSet" => serde_json::json!({
            "currentNumberScheduled": 0,
            "desiredNumberScheduled": 0,
            "numberMisscheduled": 0,
            "numberReady": 0,
        }),
        _ => serde_json::json!({}),
    };
}

/// Takes over from `object` only what this endpoint may change (W3).
pub(super) fn restrict(resource: &Resource, part: Part, stored: &Value, object: &mut Value) {
    match part {
        Part::Main => {
            if resource.has(Subresource::Status) {
                match stored.get("status") {
                    Some(status) => object["status"] = status.clone(),
                    None => {
                        object.as_object_mut().map(|fields| fields.remove("status"));
                    }
                }
            }
            if resource.kind == "Namespace" {
                object["spec"]["finalizers"] = stored["spec"]["finalizers"].clone();
                metadata::strip_nulls(object);
            }
        }
        Part::Status => {
            let annotations = object["metadata"]["annotations"].take();
            let status = object["status"].take();
            *object = stored.clone();
            for (parent, field, value) in [
                ("metadata", "annotations", annotations),
                ("", "status", status),
            ] {
                let fields = if parent.is_empty() {
                    object.as_object_mut()
                } else {
                    object[parent].as_object_mut()
                };
                if let Some(fields) = fields {
                    match value {
                        Value::Null => fields.remove(field),
                        value => fields.insert(field.to_owned(), value),
                    };
                }
            }
        }
        Part::Finalize => {
            let finalizers = object["spec"]["finalizers"].take();
            *object = stored.clone();
            object["spec"]["finalizers"] = finalizers;
            metadata::strip_nulls(object);
        }
    }
}

/// G1: an object that is being deleted cannot get new finalizers.
pub(super) fn check_new_finalizers(
    resource: &Resource,
    name: &str,
    stored: &Value,
    object: &Value,
) -> Result<(), ApiError> {
    if !metadata::is_terminating(stored) {
        return Ok(());
    }
    let known = metadata::finalizers(stored);
    let added: Vec<String> = metadata::finalizers(object)
        .into_iter()
        .filter(|finalizer| !known.contains(finalizer))
        .map(|finalizer| format!("\"{finalizer}\""))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers \
         []string{{{}}}",
        added.join(", ")
    );
    Err(ApiError::invalid(
        resource.group,
        resource.kind,
        name,
        &[Cause::forbidden("metadata.finalizers", &why)],
    ))
}

/// W3: what counts for `metadata.generation`.
pub(super) fn changes_desired_state(resource: &Resource, stored: &Value, object: &Value) -> bool {
    let annotations_count = resource.kind == "Deployment";
    if annotations_count && stored["metadata"]["annotations"] != object["metadata"]["annotations"] {
        return true;
    }
    let desired = |value: &Value| -> Vec<(String, Value)> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(field, _)| {
                !matches!(
                    field.as_str(),
                    "metadata" | "status" | "apiVersion" | "kind"
                )
            })
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    desired(stored) != desired(object)
}

/// Whether deletion has begun and nothing holds the object any more (G1).
pub(in crate::api) fn is_finished(resource: &Resource, object: &Value) -> bool {
    metadata::is_terminating(object)
        && metadata::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        && (resource.kind != "Namespace"
            || metadata::strings(&object["spec"]["finalizers"]).is_empty())
}
