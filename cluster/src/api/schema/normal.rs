//! The stored form of an object: what is left when the real server's typed structs read it and
//! write it again.

use serde_json::{Map, Value, json};

use super::types::{Field, Registry, SCHEMA_PROPS, Shape, Special, Type};
use crate::api::quantity::Quantity;

/// Normalises a message. Anything but an object is left for the type check to report.
pub(super) fn message(registry: &Registry, type_: &Type, object: &mut Value, root: bool) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let meta = |key: &str| (root || type_.type_meta) && matches!(key, "apiVersion" | "kind");
    fields.retain(|key, _| type_.fields.contains_key(key) || meta(key));
    for (name, field) in &type_.fields {
        self::field(registry, fields, name, field);
    }
}

fn field(registry: &Registry, fields: &mut Map<String, Value>, name: &str, field: &Field) {
    match fields.get_mut(name) {
        Some(value) if !value.is_null() => {
            shape(registry, &field.shape, value);
            if !field.always && !field.optional && is_zero(&field.shape, value) {
                fields.remove(name);
            }
        }
        _ => match absent(registry, field) {
            Some(zero) => {
                fields.insert(name.to_owned(), zero);
            }
            None => {
                fields.remove(name);
            }
        },
    }
}

fn shape(registry: &Registry, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Message(name), value) => message(registry, registry.get(name), value, false),
        (Shape::List(item), Value::Array(items)) => {
            for value in items {
                self::shape(registry, item, value);
            }
        }
        (Shape::Map(item), Value::Object(entries)) => {
            for value in entries.values_mut() {
                self::shape(registry, item, value);
            }
        }
        (Shape::Special(special), value) => self::special(registry, *special, value),
        _ => {}
    }
}

fn special(registry: &Registry, special: Special, value: &mut Value) {
    let props = |value: &mut Value| message(registry, registry.get(SCHEMA_PROPS), value, false);
    match special {
        Special::Quantity => {
            let text = match value {
                Value::String(text) => text.trim().to_owned(),
                ref other => other.to_string(),
            };
            if let Some(quantity) = Quantity::parse(&text) {
                *value = Value::String(quantity.to_string());
            }
        }
        Special::Time | Special::MicroTime => {
            if let Some(time) = value.as_str().and_then(|text| text.parse().ok()) {
                *value = Value::String(super::time_text(time, special));
            }
        }
        Special::SchemaOrBool | Special::SchemaOrTexts => props(value),
        Special::SchemaOrArray => match value {
            Value::Array(items) => items.iter_mut().for_each(props),
            one => props(one),
        },
        Special::Duration | Special::IntOrString | Special::Json | Special::Items => {}
    }
}

/// Whether a value is what the field has when nothing was given.
fn is_zero(shape: &Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::Text | Shape::Bytes, Value::String(text)) => text.is_empty(),
        (Shape::Bool, Value::Bool(flag)) => !flag,
        (Shape::Integer(_) | Shape::Float, Value::Number(number)) => number.as_f64() == Some(0.0),
        (Shape::List(_), Value::Array(items)) => items.is_empty(),
        (Shape::Map(_), Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

/// What is written for a field that is absent, if anything.
fn absent(registry: &Registry, field: &Field) -> Option<Value> {
    if !field.always {
        return None;
    }
    Some(match &field.shape {
        _ if field.optional => Value::Null,
        Shape::Text => json!(""),
        Shape::Bool => json!(false),
        Shape::Integer(_) | Shape::Float => json!(0),
        Shape::Message(name) if field.by_value => {
            let mut empty = json!({});
            message(registry, registry.get(name), &mut empty, false);
            empty
        }
        Shape::Special(Special::Quantity) if field.by_value => json!("0"),
        Shape::Special(Special::IntOrString) if field.by_value => json!(0),
        Shape::Special(Special::Duration) if field.by_value => json!("0s"),
        Shape::Bytes | Shape::Message(_) | Shape::Special(_) | Shape::List(_) | Shape::Map(_) => {
            Value::Null
        }
    })
}
