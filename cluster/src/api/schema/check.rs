//! Unknown fields and values of the wrong type, in the words of the real server.

use base64::Engine as _;
use serde_json::Value;

use super::SchemaReport;
use super::types::{Registry, SCHEMA_PROPS, Shape, Special, Type};
use crate::api::quantity::Quantity;

const QUANTITY: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// A walk over an object that gathers what is wrong with it.
pub(super) struct Walk<'a> {
    registry: &'a Registry,
    /// Path with indices, as unknown fields are named.
    path: String,
    /// Names of the fields on the way, as type errors name them.
    stack: Vec<&'a str>,
    /// The message around the current field.
    around: Option<&'a Type>,
    pub(super) report: SchemaReport,
}

impl<'a> Walk<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            path: String::new(),
            stack: Vec::new(),
            around: None,
            report: SchemaReport::default(),
        }
    }

    /// Checks a message. `root` objects have `apiVersion` and `kind`.
    pub(super) fn message(&mut self, type_: &'a Type, value: &'a Value, root: bool) {
        let Value::Object(fields) = value else {
            return self.mismatch(value, &type_.qualified);
        };
        let around = self.around.replace(type_);
        for (key, value) in fields {
            let length = self.path.len();
            self.enter(key);
            match type_.fields.get(key) {
                Some(field) => {
                    self.stack.push(key);
                    self.shape(&field.shape, value);
                    self.stack.pop();
                }
                None if root || type_.type_meta => match key.as_str() {
                    "apiVersion" | "kind" => {
                        self.stack.push(key);
                        self.shape(&Shape::Text, value);
                        self.stack.pop();
                    }
                    _ => self.report.unknown.push(self.path.clone()),
                },
                None => self.report.unknown.push(self.path.clone()),
            }
            self.path.truncate(length);
        }
        self.around = around;
    }

    fn enter(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }

    fn shape(&mut self, shape: &'a Shape, value: &'a Value) {
        match (shape, value) {
            // Null stands for absent everywhere.
            (_, Value::Null)
            | (Shape::Text, Value::String(_))
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Float, Value::Number(_)) => {}
            (Shape::Bytes, Value::String(text)) => self.bytes(text),
            (Shape::Integer(type_), Value::Number(number)) => {
                if !fits(type_, value) {
                    let number = format!("number {number}");
                    self.mismatch_of(&number, type_);
                }
            }
            (Shape::Message(name), value) => self.message(self.registry.get(name), value, false),
            (Shape::Special(special), value) => self.special(*special, value),
            (Shape::List(item), Value::Array(items)) => {
                for (index, value) in items.iter().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{index}]"));
                    self.shape(item, value);
                    self.path.truncate(length);
                }
            }
            (Shape::Map(item), Value::Object(entries)) => {
                for (key, value) in entries {
                    let length = self.path.len();
                    self.enter(key);
                    self.shape(item, value);
                    self.path.truncate(length);
                }
            }
            (shape, value) => self.mismatch(value, &go_type(self.registry, shape)),
        }
    }

    fn special(&mut self, special: Special, value: &'a Value) {
        match (special, value) {
            (Special::Json, _)
            | (Special::IntOrString, Value::String(_))
            | (Special::SchemaOrBool, Value::Bool(_)) => {}
            (Special::Items, Value::Array(items)) => {
                for item in items.iter().filter(|item| !item.is_string()) {
                    self.mismatch(item, "string");
                }
            }
            (Special::IntOrString, Value::Number(_)) if fits("int32", value) => {}
            (Special::Quantity, value) => {
                let text = match value {
                    Value::String(text) => text.trim().to_owned(),
                    other => other.to_string(),
                };
                if Quantity::parse(&text).is_none() {
                    self.report.type_errors.push(QUANTITY.to_owned());
                }
            }
            (Special::Time | Special::MicroTime, Value::String(text)) => {
                if text.parse::<jiff::Timestamp>().is_err() {
                    self.report.type_errors.push(format!(
                        "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
                    ));
                }
            }
            (Special::Duration, Value::String(text)) => {
                if text.parse::<jiff::SignedDuration>().is_err() {
                    let error = format!("time: invalid duration {text:?}");
                    self.report.type_errors.push(error);
                }
            }
            (Special::SchemaOrArray, Value::Array(items)) => {
                for item in items {
                    self.message(self.registry.get(SCHEMA_PROPS), item, false);
                }
            }
            (Special::SchemaOrTexts, Value::Array(items)) if items.iter().all(Value::is_string) => {
            }
            (Special::SchemaOrBool | Special::SchemaOrArray | Special::SchemaOrTexts, value) => {
                self.message(self.registry.get(SCHEMA_PROPS), value, false);
            }
            (Special::IntOrString, Value::Number(number)) => {
                self.mismatch_of(&format!("number {number}"), "int32");
            }
            (Special::IntOrString, value) => self.mismatch(value, "int32"),
            (Special::Time | Special::MicroTime | Special::Duration | Special::Items, value) => {
                self.mismatch(value, "string")
            }
        }
    }

    fn bytes(&mut self, text: &str) {
        if let Err(error) = base64::engine::general_purpose::STANDARD.decode(text) {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    text.len()
                }
            };
            let error = format!("illegal base64 data at input byte {at}");
            self.report.type_errors.push(error);
        }
    }

    fn mismatch(&mut self, value: &Value, expected: &str) {
        self.mismatch_of(kind_of(value), expected);
    }

    /// An error that names the field by its message and its path from the root, without indices.
    fn mismatch_of(&mut self, found: &str, expected: &str) {
        let place = match self.around {
            Some(around) if !self.stack.is_empty() => {
                format!("Go struct field {}.{}", around.name, self.stack.join("."))
            }
            _ => "Go value".to_owned(),
        };
        self.report.type_errors.push(format!(
            "json: cannot unmarshal {found} into {place} of type {expected}"
        ));
    }
}

fn fits(type_: &str, value: &Value) -> bool {
    match type_ {
        "int32" => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        "uint32" => value.as_u64().is_some_and(|n| u32::try_from(n).is_ok()),
        "uint64" => value.is_u64(),
        _ => value.is_i64(),
    }
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

fn go_type(registry: &Registry, shape: &Shape) -> String {
    match shape {
        Shape::Text => "string".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Bool => "bool".to_owned(),
        Shape::Integer(name) => (*name).to_owned(),
        Shape::Float => "float64".to_owned(),
        Shape::Message(name) => registry.get(name).qualified.clone(),
        Shape::Special(Special::Quantity) => "resource.Quantity".to_owned(),
        Shape::Special(Special::IntOrString) => "intstr.IntOrString".to_owned(),
        Shape::Special(Special::Time) => "v1.Time".to_owned(),
        Shape::Special(_) => "object".to_owned(),
        Shape::Map(item) if matches!(**item, Shape::Special(Special::Quantity)) => {
            "v1.ResourceList".to_owned()
        }
        Shape::List(item) => format!("[]{}", go_type(registry, item)),
        Shape::Map(item) => format!("map[string]{}", go_type(registry, item)),
    }
}
