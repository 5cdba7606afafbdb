//! From a body to an object whose type, name and fields are checked.

use serde_json::Value;

use super::WriteOptions;
use crate::api::kinds::Resource;
use crate::api::rules::{self, PatchType};
use crate::api::server::Call;
use crate::api::status::{ApiError, Cause};
use crate::api::{decode, metadata, views};

/// Reads and checks the object of a POST or PUT; gives it in stored form, with warnings.
pub(super) fn read_object(
    call: &Call,
    body: &[u8],
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), ApiError> {
    let resource = call.path.resource;
    let decoded = decode::object(&call.parts.headers, body, resource.kind)?;
    let mut object = decoded.value;
    let warnings = check_object(call, &mut object, decoded.duplicates, options)?;
    Ok((views::accept(resource, object), warnings))
}

/// Checks type, namespace and fields of an object as the client sent it.
pub(super) fn check_object(
    call: &Call,
    object: &mut Value,
    duplicates: Vec<String>,
    options: &WriteOptions,
) -> Result<Vec<String>, ApiError> {
    let resource = call.path.resource;
    if !object.is_object() {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): it is not a map",
            resource.kind
        )));
    }
    check_type(resource, object)?;
    let warnings = rules::check_fields(resource, object, duplicates, options.validation)?;
    metadata::strip_nulls(object);
    let sent = metadata::text(object, "namespace");
    if !sent.is_empty() && sent != call.path.namespace() {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(warnings)
}

/// The body may omit kind and apiVersion (W2); what it says must fit the path.
fn check_type(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let api_version = resource.api_version();
    let kind = object["kind"].as_str().unwrap_or(resource.kind);
    let version = object["apiVersion"].as_str().unwrap_or(&api_version);
    if kind != resource.kind || version != api_version {
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {}: the request's path is for \
             {} in version \"{api_version}\"",
            resource.kind, resource.kind
        )));
    }
    object["kind"] = resource.kind.into();
    object["apiVersion"] = api_version.into();
    Ok(())
}

pub(super) fn check_name(object: &Value, expected: &str) -> Result<(), ApiError> {
    let name = metadata::text(object, "name");
    if !name.is_empty() && name != expected {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({expected})"
        )));
    }
    Ok(())
}

pub(super) fn check_uid(
    resource: &Resource,
    stored: &Value,
    object: &Value,
) -> Result<(), ApiError> {
    let (sent, uid) = (metadata::text(object, "uid"), metadata::text(stored, "uid"));
    if sent.is_empty() || sent == uid {
        return Ok(());
    }
    Err(ApiError::conflict(
        resource,
        metadata::text(stored, "name"),
        &format!(
            "StorageError: invalid object, Code: 4, AdditionalErrorMsg: Precondition failed: UID \
             in precondition: {sent}, UID in object meta: {uid}"
        ),
    ))
}

pub(super) fn read_patch(
    kind: PatchType,
    body: &[u8],
    options: &WriteOptions,
) -> Result<Value, ApiError> {
    if kind == PatchType::Apply {
        return rules::read_apply(body, options);
    }
    if options.force {
        return Err(ApiError::invalid_options(
            "PatchOptions",
            Cause::forbidden("force", "may not be specified for non-apply patch"),
        ));
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
}
