//! Patches: JSON patch (RFC 6902), merge patch (RFC 7396) and Kubernetes' strategic merge patch.

mod keys;
mod strategic;
#[cfg(test)]
mod tests;

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

/// How many operations a JSON patch may have.
const MAX_OPERATIONS: usize = 10_000;
/// How much the `copy` operations of one patch may copy, in bytes of JSON.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// What kind of failure it is, and so which HTTP status it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchErrorKind {
    /// The patch itself is no patch (400).
    Malformed,
    /// The patch does not apply to the object (422).
    Failed,
    /// A strategic merge patch that the real server answers with 500.
    Internal,
}

/// Why a patch was not applied. The message is the real server's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatchError {
    /// The kind of failure.
    pub kind: PatchErrorKind,
    /// What is shown to the user.
    pub message: String,
}

impl PatchError {
    fn malformed(message: impl Into<String>) -> Self {
        Self {
            kind: PatchErrorKind::Malformed,
            message: message.into(),
        }
    }

    fn failed() -> Self {
        Self {
            kind: PatchErrorKind::Failed,
            message: "the server rejected our request due to an error in our request".to_owned(),
        }
    }

    fn internal(message: impl Into<String>) -> Self {
        Self {
            kind: PatchErrorKind::Internal,
            message: message.into(),
        }
    }
}

/// Applies a JSON patch. The target stays as it is if any operation fails.
pub fn json(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(operations) = patch.as_array() else {
        return Err(PatchError::malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
            kind_of(patch)
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::malformed(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let patch: Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::malformed(format!("error decoding patch: {error}")))?;
    let mut result = target.clone();
    let mut copied = 0;
    for operation in patch.0 {
        if let PatchOperation::Copy(copy) = &operation {
            let source = copy
                .from
                .resolve(&result)
                .map_err(|_missing| PatchError::failed())?;
            copied += source.to_string().len();
            if copied > MAX_COPIED {
                return Err(PatchError::failed());
            }
        }
        json_patch::patch(&mut result, &[operation]).map_err(|_reason| PatchError::failed())?;
    }
    Ok(result)
}

/// Applies a merge patch: null deletes, maps merge, everything else replaces.
pub fn merge(target: &Value, patch: &Value) -> Value {
    let mut result = target.clone();
    json_patch::merge(&mut result, patch);
    result
}

/// Applies a strategic merge patch to an object of a built-in kind, given as `group/Kind`, or
/// `Kind` alone in the core group. Lists of kinds that are not built in are replaced.
pub fn strategic(group_kind: &str, target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Some(target), Some(patch)) = (target.as_object(), patch.as_object()) else {
        return Err(PatchError::malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            kind_of(patch)
        )));
    };
    let type_ = strategic::type_of(group_kind);
    strategic::map(type_, target.clone(), patch).map(Value::Object)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
