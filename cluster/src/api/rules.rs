//! Where the knowledge of kinds (defaults, validation, schema, patches, protobuf) meets requests:
//! its findings become [`ApiError`]s and warnings here.

use serde_json::Value;

use super::kinds::Resource;
use super::patch::{self, PatchErrorKind};
use super::server::ApiOptions;
use super::status::{ApiError, Cause};
use super::validate::{self, FieldError, ValidateOptions};
use super::write::{FieldValidation, WriteOptions};
use super::{defaults, metadata, protobuf, schema};

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

/// Validates a new object (E5).
pub(super) fn validate_create(
    options: &ApiOptions,
    resource: &Resource,
    object: &Value,
) -> Result<(), ApiError> {
    let version = resource.api_version();
    let errors = validate::create_with(validate_options(options), &version, resource.kind, object);
    refuse_invalid(resource, object, errors)
}

/// Validates a changed object (E5).
pub(super) fn validate_update(
    options: &ApiOptions,
    resource: &Resource,
    stored: &Value,
    object: &Value,
) -> Result<(), ApiError> {
    let version = resource.api_version();
    let kind = resource.kind;
    let errors = validate::update_with(validate_options(options), &version, kind, stored, object);
    refuse_invalid(resource, object, errors)
}

fn validate_options(options: &ApiOptions) -> ValidateOptions {
    ValidateOptions {
        allow_loopback: options.allow_loopback_endpoints,
    }
}

fn refuse_invalid(
    resource: &Resource,
    object: &Value,
    errors: Vec<FieldError>,
) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let causes: Vec<Cause> = errors
        .into_iter()
        .map(|error| Cause {
            field: error.field,
            reason: error.reason,
            message: error.message,
        })
        .collect();
    Err(ApiError::invalid(
        resource.group,
        resource.kind,
        metadata::text(object, "name"),
        &causes,
    ))
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
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(ApiError::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }
}

/// The patched object. An apply is merged as a strategic merge patch: field ownership is not
/// tracked, so a field that is left out of a later apply stays.
pub(super) fn apply_patch(
    group: &str,
    kind: &str,
    patch_type: PatchType,
    target: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let group_kind = if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{group}/{kind}")
    };
    let patched = match patch_type {
        PatchType::Json => patch::json(target, patch),
        PatchType::Merge => Ok(patch::merge(target, patch)),
        PatchType::Strategic | PatchType::Apply => patch::strategic(&group_kind, target, patch),
    };
    patched.map_err(|error| match error.kind {
        PatchErrorKind::Malformed => ApiError::bad_request(error.message),
        PatchErrorKind::Failed => ApiError {
            details: Some(Value::Object(serde_json::Map::new())),
            ..ApiError::new(422, "Invalid", error.message)
        },
        PatchErrorKind::Internal => ApiError::new(500, "", error.message),
    })
}
