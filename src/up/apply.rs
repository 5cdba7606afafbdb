//! Applies manifests to a Kubernetes API, as `kubectl apply` does on the client's side.
//!
//! What was applied before stands in the annotation that kubectl uses, so that either can go on
//! where the other stopped: fields that were in the last manifest and are not in this one are
//! removed, fields that somebody else set stay.

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Discovery, Scope};
use serde_json::{Map, Value, json};

use crate::manifests::{Fault, Manifest, ManifestError};

/// kubectl's annotation for the manifest that was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Our name as a field manager.
const MANAGER: &str = "sealane-up";

/// Namespace of objects that name none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// What came of one manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was not there.
    Created,
    /// It was changed.
    Configured,
    /// It was as written already.
    Unchanged,
}

/// Why manifests could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API could not be asked which kinds it has.
    #[error("the Kubernetes API does not answer")]
    Discovery(#[source] kube::Error),
    /// Objects that were refused; the others were applied.
    #[error("{} manifests were refused", .0.len())]
    Refused(Vec<ManifestError>),
}

/// Applies all manifests, those first that others need.
///
/// # Errors
/// The API does not answer, or refused some of the objects.
pub(crate) async fn apply(
    client: &Client,
    manifests: &[Manifest],
) -> Result<Vec<Outcome>, ApplyError> {
    apply_in(client, DEFAULT_NAMESPACE, manifests).await
}

/// As [`apply`], with another namespace for objects that name none.
///
/// # Errors
/// As [`apply`].
pub(crate) async fn apply_in(
    client: &Client,
    namespace: &str,
    manifests: &[Manifest],
) -> Result<Vec<Outcome>, ApplyError> {
    let discovery = Discovery::new(client.clone())
        .run_aggregated()
        .await
        .map_err(ApplyError::Discovery)?;
    let mut order: Vec<&Manifest> = manifests.iter().collect();
    order.sort_by_key(|manifest| install_order(manifest));
    let mut outcomes = Vec::with_capacity(order.len());
    let mut refused = Vec::new();
    for manifest in order {
        match apply_one(client, &discovery, namespace, manifest).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(mut errors) => refused.append(&mut errors),
        }
    }
    if refused.is_empty() {
        Ok(outcomes)
    } else {
        Err(ApplyError::Refused(refused))
    }
}

/// What others refer to comes first; within a group the order of the files stays.
fn install_order(manifest: &Manifest) -> u8 {
    match manifest.object.get("kind").and_then(Value::as_str) {
        Some("Namespace" | "CustomResourceDefinition") => 0,
        Some("ServiceAccount" | "ConfigMap" | "Secret" | "IngressClass") => 1,
        Some("Service" | "EndpointSlice") => 2,
        _ => 3,
    }
}

async fn apply_one(
    client: &Client,
    discovery: &Discovery,
    namespace: &str,
    manifest: &Manifest,
) -> Result<Outcome, Vec<ManifestError>> {
    let api = api(client, discovery, namespace, manifest).map_err(|error| vec![error])?;
    let name = manifest
        .object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let refused = |error: kube::Error| problems(manifest, &error);
    let wanted = annotated(&manifest.object);
    let Some(live) = api.get_opt(name).await.map_err(refused)? else {
        create(client, &api, &wanted).await.map_err(refused)?;
        return Ok(Outcome::Created);
    };
    let live = serde_json::to_value(live).unwrap_or_default();
    let before = live
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(LAST_APPLIED))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let patch = three_way(&before, &live, &wanted);
    if patch.as_object().is_none_or(Map::is_empty) {
        return Ok(Outcome::Unchanged);
    }
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let version = live.pointer("/metadata/resourceVersion").cloned();
    let patched = api
        .patch(name, &params, &Patch::Merge(&patch))
        .await
        .map_err(refused)?;
    Ok(
        if patched.metadata.resource_version.map(Value::from) == version {
            Outcome::Unchanged
        } else {
            Outcome::Configured
        },
    )
}

/// Creates an object, unknown fields being errors: the client's own call cannot ask for that.
async fn create(client: &Client, api: &Api<DynamicObject>, object: &Value) -> kube::Result<()> {
    let query = format!("?fieldManager={MANAGER}&fieldValidation=Strict");
    let request = http::Request::post(format!("{}{query}", api.resource_url()))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(object.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}

fn api(
    client: &Client,
    discovery: &Discovery,
    namespace: &str,
    manifest: &Manifest,
) -> Result<Api<DynamicObject>, ManifestError> {
    let text = |field: &str| manifest.object.get(field).and_then(Value::as_str);
    let api_version = text("apiVersion").unwrap_or_default();
    let kind = text("kind").unwrap_or_default();
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let Some((resource, capabilities)) = discovery.resolve_gvk(&gvk) else {
        let (fault, message) = unknown_kind(discovery, api_version, kind);
        return Err(manifest.problem(fault, "kind", message));
    };
    if capabilities.scope == Scope::Cluster {
        return Ok(Api::all_with(client.clone(), &resource));
    }
    let namespace = manifest
        .object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .unwrap_or(namespace);
    Ok(Api::namespaced_with(client.clone(), namespace, &resource))
}

/// Names the version in which the kind exists, if there is one.
fn unknown_kind(discovery: &Discovery, api_version: &str, kind: &str) -> (Fault, String) {
    let known: Vec<ApiResource> = discovery
        .groups()
        .flat_map(|group| group.recommended_resources())
        .map(|(resource, _)| resource)
        .collect();
    if let Some(resource) = known.iter().find(|resource| resource.kind == kind) {
        let message = format!(
            "there is no {kind} in {api_version}; use apiVersion: {}",
            resource.api_version
        );
        return (Fault::UnknownKind, message);
    }
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let fault = if known.iter().any(|resource| resource.group == group) {
        Fault::UnknownKind
    } else {
        Fault::ForeignKind
    };
    let message = format!("unknown kind {kind} in {api_version}; this cluster does not have it");
    (fault, message)
}

/// The object with the annotation that says what was applied.
fn annotated(object: &Value) -> Value {
    let mut annotated = object.clone();
    let applied = Value::String(format!("{object}\n"));
    if let Some(metadata) = annotated.get_mut("metadata").and_then(Value::as_object_mut) {
        match metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            Some(annotations) => {
                annotations.insert(LAST_APPLIED.to_owned(), applied);
            }
            None => {
                metadata.insert("annotations".to_owned(), json!({ LAST_APPLIED: applied }));
            }
        }
    }
    annotated
}

/// A JSON merge patch (RFC 7396) that turns `live` into what `wanted` says, and removes what
/// `before` said and `wanted` says no more. Lists are replaced whole when an item differs in a
/// field that `wanted` sets.
fn three_way(before: &Value, live: &Value, wanted: &Value) -> Value {
    let (Some(live), Some(wanted)) = (live.as_object(), wanted.as_object()) else {
        return wanted.clone();
    };
    let mut patch = Map::new();
    for (key, value) in wanted {
        let was = live.get(key).unwrap_or(&Value::Null);
        if covers(was, value) && !removes(before.get(key), value) {
            continue;
        }
        let before = before.get(key).unwrap_or(&Value::Null);
        let value = if value.is_object() && was.is_object() {
            three_way(before, was, value)
        } else {
            value.clone()
        };
        patch.insert(key.clone(), value);
    }
    for key in before.as_object().into_iter().flat_map(Map::keys) {
        if !wanted.contains_key(key) && live.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

/// `live` has everything that `wanted` says; fields that only `live` has are defaults or others'.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| live.get(key).is_some_and(|live| covers(live, value))),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live
                    .iter()
                    .zip(wanted)
                    .all(|(live, wanted)| covers(live, wanted))
        }
        _ => live == wanted,
    }
}

/// Something that `before` had is not in `wanted`, at any depth.
fn removes(before: Option<&Value>, wanted: &Value) -> bool {
    match (before, wanted) {
        (Some(Value::Object(before)), Value::Object(wanted)) => {
            before.iter().any(|(key, value)| {
                wanted
                    .get(key)
                    .is_none_or(|wanted| removes(Some(value), wanted))
            })
        }
        (Some(Value::Array(before)), Value::Array(wanted)) => {
            before.len() != wanted.len()
                || before
                    .iter()
                    .zip(wanted)
                    .any(|(before, wanted)| removes(Some(before), wanted))
        }
        _ => false,
    }
}

/// One problem for each field that the API complains about, at the field's line.
fn problems(manifest: &Manifest, error: &kube::Error) -> Vec<ManifestError> {
    let kube::Error::Api(status) = error else {
        return vec![manifest.problem(Fault::Refused, "", error)];
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let found: Vec<ManifestError> = causes
        .filter(|cause| !cause.field.is_empty())
        .map(|cause| manifest.problem(Fault::BadValue, &cause.field, &cause.message))
        .collect();
    if found.is_empty() {
        let message = &status.message;
        let (fault, field) = match (unknown_field(message), mistyped_field(message)) {
            (Some(field), _) => (Fault::UnknownField, field),
            (None, Some(field)) => (Fault::BadValue, field),
            (None, None) => (Fault::Refused, ""),
        };
        return vec![manifest.problem(fault, field, message)];
    }
    found
}

/// The first field that a strict decoding error names: `…: unknown field "spec.x"`.
fn unknown_field(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("unknown field \"")?;
    rest.split_once('"').map(|(field, _)| field)
}

/// The field that a decoding error names, without indexes: `… Go struct field Service.spec.type of …`.
fn mistyped_field(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(" Go struct field ")?;
    let (field, _) = rest.split_once(" of type ")?;
    field.split_once('.').map(|(_kind, field)| field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patch_sets_removes_and_leaves_alone() {
        for (name, before, live, wanted, patch) in [
            (
                "defaults of the server are left alone",
                json!({"spec": {"ports": [{"port": 80}]}}),
                json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "type": "ClusterIP"}}),
                json!({"spec": {"ports": [{"port": 80}]}}),
                json!({}),
            ),
            (
                "a field that was applied and is gone is removed",
                json!({"data": {"a": "1", "b": "2"}}),
                json!({"data": {"a": "1", "b": "2", "c": "other's"}}),
                json!({"data": {"a": "1"}}),
                json!({"data": {"b": null}}),
            ),
            (
                "a changed item replaces its list",
                json!({"spec": {"args": ["a"]}}),
                json!({"spec": {"args": ["a"], "x": 1}}),
                json!({"spec": {"args": ["b"]}}),
                json!({"spec": {"args": ["b"]}}),
            ),
            (
                "a field removed from a list's item replaces the list",
                json!({"c": [{"name": "a", "image": "i", "tty": true}]}),
                json!({"c": [{"name": "a", "image": "i", "tty": true, "policy": "Always"}]}),
                json!({"c": [{"name": "a", "image": "i"}]}),
                json!({"c": [{"name": "a", "image": "i"}]}),
            ),
            (
                "drift is corrected",
                json!({"spec": {"replicas": 3}}),
                json!({"spec": {"replicas": 5}}),
                json!({"spec": {"replicas": 3}}),
                json!({"spec": {"replicas": 3}}),
            ),
        ] {
            assert_eq!(three_way(&before, &live, &wanted), patch, "{name}");
        }
    }
}
