//! Findings of a validation, in the words of the API server.

use std::fmt::Display;

use serde_json::Value;

/// What is wrong with one field: a cause of a 422 answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field, such as `spec.ports[0].name`.
    pub field: String,
    /// The cause's reason, such as `FieldValueRequired`.
    pub reason: &'static str,
    /// What is wrong, such as `Required value`. A Status shows `FIELD: MESSAGE`.
    pub message: String,
}

/// A path to a field.
#[derive(Clone, Debug)]
pub(super) struct Path(String);

impl Path {
    pub(super) fn new(field: &str) -> Self {
        Self(field.to_owned())
    }

    /// A field of this one. Dotted names go several levels down.
    pub(super) fn child(&self, field: &str) -> Self {
        match self.0.as_str() {
            "" => Self::new(field),
            path => Self(format!("{path}.{field}")),
        }
    }

    /// An item of a list.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// A value of a map.
    pub(super) fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

/// Gathers findings.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<FieldError>);

impl Errors {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_inner(self) -> Vec<FieldError> {
        self.0
    }

    fn push(&mut self, field: &Path, reason: &'static str, message: String) {
        self.0.push(FieldError {
            field: field.0.clone(),
            reason,
            message,
        });
    }

    pub(super) fn required(&mut self, field: &Path, detail: &str) {
        let message = match detail {
            "" => "Required value".to_owned(),
            detail => format!("Required value: {detail}"),
        };
        self.push(field, "FieldValueRequired", message);
    }

    pub(super) fn invalid(&mut self, field: &Path, value: &Value, detail: impl Display) {
        let message = format!("Invalid value: {value}: {detail}");
        self.push(field, "FieldValueInvalid", message);
    }

    /// One error for each finding about the same text.
    pub(super) fn invalid_text(&mut self, field: &Path, text: &str, details: Vec<String>) {
        for detail in details {
            self.invalid(field, &Value::from(text), detail);
        }
    }

    pub(super) fn not_supported(&mut self, field: &Path, value: &Value, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|text| format!("{text:?}")).collect();
        let supported = supported.join(", ");
        let message = format!("Unsupported value: {value}: supported values: {supported}");
        self.push(field, "FieldValueNotSupported", message);
    }

    pub(super) fn duplicate(&mut self, field: &Path, value: impl Display) {
        let message = format!("Duplicate value: {value}");
        self.push(field, "FieldValueDuplicate", message);
    }

    pub(super) fn not_found(&mut self, field: &Path, value: &Value) {
        self.push(field, "FieldValueNotFound", format!("Not found: {value}"));
    }

    pub(super) fn forbidden(&mut self, field: &Path, detail: &str) {
        self.push(field, "FieldValueForbidden", format!("Forbidden: {detail}"));
    }

    pub(super) fn too_long(&mut self, field: &Path, bytes: usize) {
        let message = format!("Too long: may not be more than {bytes} bytes");
        self.push(field, "FieldValueTooLong", message);
    }

    pub(super) fn too_many(&mut self, field: &Path, found: usize, most: usize) {
        let message = format!("Too many: {found}: must have at most {most} items");
        self.push(field, "FieldValueTooMany", message);
    }

    /// An error if the value of a field changes.
    pub(super) fn immutable(&mut self, field: &Path, new: &Value, old: &Value) {
        if new != old {
            self.invalid(field, new, "field is immutable");
        }
    }
}
