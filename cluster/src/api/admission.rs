//! What the server decides for an object beyond its static defaults: addresses and ports of
//! Services, the class of an Ingress, what a Namespace and a Pod get at birth.

mod service;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub use service::ServiceCidr;

use super::kinds::{self, Resource};
use super::server::ApiOptions;
use super::status::ApiError;
use super::store::{Key, Transaction};
use super::{defaults, metadata};

/// Marks the IngressClass that Ingresses without a class get.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// Class annotation from before `spec.ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Events are forgotten after this time (B11).
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Objects can only be created in a Namespace that exists and is not being deleted (E1, E8).
pub(super) fn check_namespace(
    transaction: &Transaction<'_>,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    if !resource.namespaced {
        return Ok(());
    }
    let namespaces = kinds::find("", "v1", "namespaces").expect("namespaces are served");
    let stored = transaction
        .get(&Key::new("namespaces", "", namespace))
        .ok_or_else(|| ApiError::not_found(namespaces, namespace))?;
    if !metadata::is_terminating(&stored) {
        return Ok(());
    }
    let mut error = ApiError::forbidden(
        resource,
        name,
        &format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        ),
    );
    if let Some(details) = &mut error.details {
        details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
    }
    Err(error)
}

/// Completes a new object.
///
/// # Errors
/// 422 if what it asks for is taken or out of range.
pub(super) fn create(
    options: &ApiOptions,
    transaction: &mut Transaction<'_>,
    resource: &Resource,
    object: &mut Value,
) -> Result<(), ApiError> {
    match resource.kind {
        "Namespace" => namespace(object),
        "Service" => service::allocate(options, transaction, None, object)?,
        "Ingress" => ingress_class(transaction, object),
        // No token volume: the server issues no tokens to service accounts.
        "Pod" => defaults::admit_pod(object, None),
        "Event" => forget_old_events(transaction),
        _ => {}
    }
    Ok(())
}

/// Completes a changed object.
///
/// # Errors
/// As [`create`].
pub(super) fn update(
    options: &ApiOptions,
    transaction: &Transaction<'_>,
    resource: &Resource,
    stored: &Arc<Value>,
    object: &mut Value,
) -> Result<(), ApiError> {
    match resource.kind {
        "Service" => service::allocate(options, transaction, Some(stored), object),
        "Namespace" => {
            name_label(object);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn namespace(object: &mut Value) {
    name_label(object);
    object["spec"] = json!({"finalizers": ["kubernetes"]});
    object["status"] = json!({"phase": "Active"});
}

fn name_label(object: &mut Value) {
    let name = metadata::text(object, "name").to_owned();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
}

/// N4: an Ingress that names no class gets the default one; of several the newest counts.
fn ingress_class(transaction: &Transaction<'_>, object: &mut Value) {
    let named = object["spec"]["ingressClassName"].is_string()
        || object["metadata"]["annotations"][CLASS_ANNOTATION].is_string();
    if named {
        return;
    }
    let default = transaction
        .list("ingressclasses.networking.k8s.io", None)
        .map(|(_, class)| class)
        .filter(|class| class["metadata"]["annotations"][DEFAULT_CLASS] == "true")
        .max_by_key(|class| metadata::text(class, "creationTimestamp").to_owned());
    if let Some(class) = default {
        object["spec"]["ingressClassName"] = class["metadata"]["name"].clone();
    }
}

/// Every new Event makes room: those that have not recurred within their life are removed.
fn forget_old_events(transaction: &mut Transaction<'_>) {
    let Ok(horizon) = Timestamp::now().checked_sub(EVENT_LIFE) else {
        return;
    };
    let horizon = metadata::timestamp(horizon);
    let old: Vec<(Key, Arc<Value>)> = transaction
        .list("events", None)
        .filter(|(_, event)| last_seen(event) < horizon.as_str())
        .map(|(key, event)| (key.clone(), Arc::clone(event)))
        .collect();
    for (key, event) in old {
        transaction.remove(key, (*event).clone());
    }
}

/// When an Event last occurred; times in this form are ordered as text.
fn last_seen(event: &Value) -> &str {
    [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["metadata"]["creationTimestamp"],
    ]
    .into_iter()
    .find_map(Value::as_str)
    .unwrap_or_default()
}
