//! What the types of the built-in kinds say about an object: unknown fields, wrong types, and the
//! form in which the object is stored.
//!
//! Names and types come from the same descriptors that protobuf bodies are decoded with.

mod check;
mod normal;
#[cfg(test)]
mod tests;
pub(in crate::api) mod types;

use jiff::Timestamp;
use serde_json::Value;

use types::{Special, registry};

/// What is wrong with an object by its type alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaReport {
    /// Paths of fields that the type does not have, such as `spec.ports[0].x`.
    pub unknown: Vec<String>,
    /// Values of the wrong type, as the real server words them.
    pub type_errors: Vec<String>,
}

/// Whether the kind is built in, so that its type is known.
pub fn known(api_version: &str, kind: &str) -> bool {
    registry().find(api_version, kind).is_some()
}

/// Checks an object of a built-in kind against its type. Other kinds are not checked.
pub fn check(api_version: &str, kind: &str, object: &Value) -> SchemaReport {
    let registry = registry();
    let Some(name) = registry.find(api_version, kind) else {
        return SchemaReport::default();
    };
    let mut walk = check::Walk::new(registry);
    walk.message(registry.get(name), object, true);
    walk.report
}

/// Brings an object of a built-in kind into the form that the real server's typed structs give
/// it: without unknown fields, nulls and zero values, with the fields that are always written,
/// and with canonical quantities and times. Other kinds stay as they are.
pub fn normalize(api_version: &str, kind: &str, object: &mut Value) {
    let registry = registry();
    if let Some(name) = registry.find(api_version, kind) {
        normal::message(registry, registry.get(name), object, true);
    }
}

/// A time as the API writes it (RFC 3339, UTC).
pub(in crate::api) fn time_text(time: Timestamp, precision: Special) -> String {
    match precision {
        Special::MicroTime => time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        _ => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }
}
