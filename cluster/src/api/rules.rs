//! Where the knowledge of kinds (defaults, validation, schema, patches, protobuf) meets requests:
//! its findings become [`ApiError`]s and warnings here.

use json_patch::Patch;
use serde_json::Value;

use super::kinds::Resource;
use super::server::ApiOptions;
use super::status::{ApiError, Cause};
use super::write::{FieldValidation, Part, WriteOptions};
use super::{defaults, protobuf, schema};

/// Whether a body is in the Kubernetes protobuf envelope.
pub(super) fn is_protobuf(body: &[u8]) -> bool {
    protobuf::is_protobuf(body)
}

/// Decodes a protobuf body (K1).
pub(super) fn decode_protobuf(body: &[u8], expected_kind: &str) -> Result<Value, ApiError> {
    protobuf::decode(body).map_err(|error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {expected_kind}): {text}"
        ))
    })
}

/// Brings an object into its stored form and fills static defaults.
pub(super) fn apply_defaults(resource: &Resource, object: &mut Value) {
    defaults::apply(&resource.api_version(), resource.kind, object);
}

/// Checks names and types of fields (E4, E6); unknown ones are dropped later. Returns warnings.
pub(super) fn check_fields(
    resource: &Resource,
    object: &Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let report = schema::check(&resource.api_version(), resource.kind, object);
    let refuse = |why: &str| {
        Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}",
            kind = resource.kind,
            version = resource.version,
        )))
    };
    if let Some(error) = report.type_errors.first() {
        return refuse(error);
    }
    let unknown = report
        .unknown
        .iter()
        .map(|field| format!("unknown field \"{field}\""));
    let repeated = duplicates
        .iter()
        .map(|field| format!("duplicate field \"{field}\""));
    let findings: Vec<String> = unknown.chain(repeated).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !findings.is_empty() => {
            refuse(&format!("strict decoding error: {}", findings.join(", ")))
        }
        FieldValidation::Warn | FieldValidation::Strict => Ok(findings),
    }
}

/// Validates a new object.
pub(super) fn validate_create(
    _options: &ApiOptions,
    _resource: &Resource,
    _object: &Value,
) -> Result<(), ApiError> {
    Ok(())
}

/// Validates a changed object.
pub(super) fn validate_update(
    _options: &ApiOptions,
    _resource: &Resource,
    _part: Part,
    _stored: &Value,
    _object: &Value,
) -> Result<(), ApiError> {
    Ok(())
}

/// Reads the body of a server-side apply.
pub(super) fn read_apply(body: &[u8], options: &WriteOptions) -> Result<Value, ApiError> {
    if options.field_manager.is_none() {
        return Err(ApiError::invalid_options(
            "PatchOptions",
            Cause::required("fieldManager", "is required for apply patch"),
        ));
    }
    serde_saphyr::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))
}

/// A patch by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Kubernetes' own merge with list keys.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    /// The patch type of a media type.
    ///
    /// # Errors
    /// 415 for others.
    pub(super) fn of(media_type: &str) -> Result<Self, ApiError> {
        match media_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            _ => Err(ApiError::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json",
            )),
        }
    }
}

/// The patched object.
pub(super) fn apply_patch(
    _resource: &Resource,
    kind: PatchType,
    target: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let mut patched = target.clone();
    match kind {
        PatchType::Json => {
            let patch: Patch = serde_json::from_value(patch.clone())
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut patched, &patch)
                .map_err(|error| ApiError::new(422, "Invalid", error.to_string()))?;
        }
        PatchType::Merge | PatchType::Strategic | PatchType::Apply => {
            json_patch::merge(&mut patched, patch)
        }
    }
    Ok(patched)
}
