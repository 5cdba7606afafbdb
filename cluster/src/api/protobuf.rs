//! Protobuf request bodies (`application/vnd.kubernetes.protobuf`), read into the JSON form.
//!
//! A body is the magic number `k8s\0` and a `runtime.Unknown` message: type and bytes of the
//! object. The bytes follow the API's `.proto` files. Their JSON form differs from protobuf's own:
//! some messages are inlined, some are written as text, and zero values that are always on the
//! wire are left out of JSON.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use base64::Engine as _;
use jiff::Timestamp;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value as Wire};
use serde_json::{Map, Number, Value};

use super::schema::types::{Registry, Shape, Slot, Special, Type, registry};
use super::schema::{self, time_text};

const MAGIC: &[u8] = b"k8s\0";
const UNKNOWN: &str = "k8s.io.apimachinery.pkg.runtime.Unknown";

/// Why a body could not be read. All are the client's fault (400).
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The magic number is missing.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NotProtobuf,
    /// The bytes are not what their type says.
    #[error("the protobuf body is malformed")]
    Malformed(#[source] prost_reflect::prost::DecodeError),
    /// The object is compressed or in another format.
    #[error("the protobuf body is encoded as {0:?}, which is not supported")]
    Encoding(String),
    /// No kind of this name is built in.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind {
        /// `apiVersion` of the body.
        api_version: String,
        /// `kind` of the body.
        kind: String,
    },
    /// A field that carries JSON does not.
    #[error("a field of the protobuf body that carries JSON is malformed")]
    Json(#[source] serde_json::Error),
}

/// Whether a body is in the protobuf form.
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Reads a body into a JSON object with `apiVersion` and `kind`, in normal form
/// ([`schema::normalize`]).
pub fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let body = body.strip_prefix(MAGIC).ok_or(DecodeError::NotProtobuf)?;
    let registry = registry();
    let envelope = message(registry, UNKNOWN, body)?;
    let encoding = text(&envelope, "contentEncoding");
    if !encoding.is_empty() {
        return Err(DecodeError::Encoding(encoding));
    }
    let (api_version, kind) = match envelope.get_field_by_name("typeMeta").as_deref() {
        Some(Wire::Message(meta)) => (text(meta, "apiVersion"), text(meta, "kind")),
        _ => Default::default(),
    };
    let Some(name) = registry.find(&api_version, &kind) else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let raw = bytes(&envelope, "raw");
    let mut object = object(
        registry,
        registry.get(name),
        &message(registry, name, &raw)?,
    )?;
    object.insert("apiVersion".to_owned(), api_version.as_str().into());
    object.insert("kind".to_owned(), kind.as_str().into());
    let mut object = Value::Object(object);
    schema::normalize(&api_version, &kind, &mut object);
    Ok(object)
}

fn message(registry: &Registry, name: &str, bytes: &[u8]) -> Result<DynamicMessage, DecodeError> {
    let descriptor = registry
        .descriptor(name)
        .expect("types are made from descriptors of the same name");
    DynamicMessage::decode(descriptor, bytes).map_err(DecodeError::Malformed)
}

fn object(
    registry: &Registry,
    type_: &Type,
    message: &DynamicMessage,
) -> Result<Map<String, Value>, DecodeError> {
    let mut fields = Map::new();
    for (descriptor, wire) in message.fields() {
        match (type_.slots.get(&descriptor.number()), wire) {
            (Some(Slot::Field(name)), wire) => {
                if let Some(field) = type_.fields.get(name) {
                    fields.insert(name.clone(), value(registry, &field.shape, wire)?);
                }
            }
            (Some(Slot::Inline(name)), Wire::Message(inner)) => {
                fields.append(&mut object(registry, registry.get(name), inner)?);
            }
            _ => {}
        }
    }
    Ok(fields)
}

fn value(registry: &Registry, shape: &Shape, wire: &Wire) -> Result<Value, DecodeError> {
    Ok(match (shape, wire) {
        (Shape::List(item), Wire::List(items)) => {
            let items = items.iter().map(|wire| value(registry, item, wire));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        (Shape::Map(item), Wire::Map(entries)) => {
            let entries = entries.iter().map(|(key, wire)| {
                let key = key.as_str().unwrap_or_default().to_owned();
                Ok((key, value(registry, item, wire)?))
            });
            Value::Object(entries.collect::<Result<_, DecodeError>>()?)
        }
        (Shape::Message(name), Wire::Message(inner)) => {
            Value::Object(object(registry, registry.get(name), inner)?)
        }
        (Shape::Special(special), Wire::Message(inner)) => {
            self::special(registry, *special, inner)?
        }
        (_, wire) => scalar(wire),
    })
}

fn scalar(wire: &Wire) -> Value {
    match wire {
        Wire::Bool(flag) => Value::Bool(*flag),
        Wire::I32(number) | Wire::EnumNumber(number) => (*number).into(),
        Wire::I64(number) => (*number).into(),
        Wire::U32(number) => (*number).into(),
        Wire::U64(number) => (*number).into(),
        Wire::F32(number) => float(f64::from(*number)),
        Wire::F64(number) => float(*number),
        Wire::String(text) => Value::String(text.clone()),
        Wire::Bytes(bytes) => base64::engine::general_purpose::STANDARD
            .encode(bytes)
            .into(),
        Wire::Message(_) | Wire::List(_) | Wire::Map(_) => Value::Null,
    }
}

/// A number in its shortest form: 100 rather than 100.0, as the Go encoder writes it.
fn float(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "integers up to 2^53 fit")]
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// The JSON form of messages that are not objects of their fields.
fn special(
    registry: &Registry,
    special: Special,
    message: &DynamicMessage,
) -> Result<Value, DecodeError> {
    Ok(match special {
        Special::Time | Special::MicroTime => {
            let (seconds, nanos) = (number(message, "seconds"), number(message, "nanos"));
            let nanos = i32::try_from(nanos).unwrap_or_default();
            match Timestamp::new(seconds, nanos) {
                // The zero of Go's time, and of an absent one.
                Ok(time) if time != Timestamp::UNIX_EPOCH => time_text(time, special).into(),
                _ => Value::Null,
            }
        }
        Special::Duration => go_duration(number(message, "duration")).into(),
        Special::Quantity => text(message, "string").into(),
        Special::IntOrString => match number(message, "type") {
            0 => number(message, "intVal").into(),
            _ => text(message, "strVal").into(),
        },
        Special::Json => json(message)?,
        Special::Items => list(message, "items")
            .iter()
            .map(|item| Value::from(item.as_str().unwrap_or_default()))
            .collect(),
        Special::SchemaOrBool => match schema_props(registry, message)? {
            Some(schema) => schema,
            None => Value::Bool(number(message, "allows") != 0),
        },
        Special::SchemaOrArray => {
            let schemas = list(message, "jSONSchemas");
            match schema_props(registry, message)? {
                Some(schema) if schemas.is_empty() => schema,
                _ => {
                    let schemas = schemas.iter().filter_map(Wire::as_message);
                    let type_ = registry.get(schema::types::SCHEMA_PROPS);
                    let schemas = schemas.map(|inner| object(registry, type_, inner));
                    let schemas = schemas.map(|fields| fields.map(Value::Object));
                    Value::Array(schemas.collect::<Result<_, _>>()?)
                }
            }
        }
        Special::SchemaOrTexts => match schema_props(registry, message)? {
            Some(schema) => schema,
            None => list(message, "property")
                .iter()
                .map(|item| Value::from(item.as_str().unwrap_or_default()))
                .collect(),
        },
    })
}

/// The schema of an alternative between a schema and something else.
fn schema_props(
    registry: &Registry,
    message: &DynamicMessage,
) -> Result<Option<Value>, DecodeError> {
    if !message.has_field_by_name("schema") {
        return Ok(None);
    }
    match message.get_field_by_name("schema").as_deref() {
        Some(Wire::Message(inner)) => {
            let type_ = registry.get(schema::types::SCHEMA_PROPS);
            object(registry, type_, inner).map(|fields| Some(Value::Object(fields)))
        }
        _ => Ok(None),
    }
}

/// JSON, or an object in the protobuf form, carried as bytes.
fn json(message: &DynamicMessage) -> Result<Value, DecodeError> {
    // The only field is called `raw`, or `Raw` in FieldsV1.
    let field = message.descriptor().fields().next();
    let raw = field.map_or_else(Vec::new, |field| bytes(message, field.name()));
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    if is_protobuf(&raw) {
        return decode(&raw);
    }
    serde_json::from_slice(&raw).map_err(DecodeError::Json)
}

/// A duration as Go writes it: `1h0m0.5s`, with smaller units below a second.
fn go_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |nanos: u64, unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", nanos / unit, nanos % unit);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        format!("{text}{name}")
    };
    let body = match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{body}")
}

fn field<'a>(message: &'a DynamicMessage, name: &str) -> Option<Cow<'a, Wire>> {
    message.get_field_by_name(name)
}

fn text(message: &DynamicMessage, name: &str) -> String {
    let field = field(message, name);
    let text = field.as_deref().and_then(Wire::as_str);
    text.unwrap_or_default().to_owned()
}

fn bytes(message: &DynamicMessage, name: &str) -> Vec<u8> {
    let field = field(message, name);
    let bytes = field.as_deref().and_then(Wire::as_bytes);
    bytes.map(|bytes| bytes.to_vec()).unwrap_or_default()
}

fn list(message: &DynamicMessage, name: &str) -> Vec<Wire> {
    let field = field(message, name);
    let items = field.as_deref().and_then(Wire::as_list);
    items.map(<[Wire]>::to_vec).unwrap_or_default()
}

/// An integer or boolean as a number.
fn number(message: &DynamicMessage, name: &str) -> i64 {
    match field(message, name).as_deref() {
        Some(Wire::I32(number)) => i64::from(*number),
        Some(Wire::I64(number)) => *number,
        Some(Wire::Bool(flag)) => i64::from(*flag),
        _ => 0,
    }
}
