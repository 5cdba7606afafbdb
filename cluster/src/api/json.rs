//! Reads of JSON objects by path, with the zero value where a field is missing or has another type.
//!
//! Paths are JSON pointers (RFC 6901) without escapes: field names of the Kubernetes API have none.

use serde_json::{Map, Value};

/// The string at `pointer`, or the empty string.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The integer at `pointer`, if there is one.
pub(super) fn integer(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The integer at `pointer`, or 0.
pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    integer(object, pointer).unwrap_or_default()
}

/// Whether the boolean at `pointer` is true.
pub(super) fn flag(object: &Value, pointer: &str) -> bool {
    object
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// The elements of the list at `pointer`, or none.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The entries of the map at `pointer`, sorted by key, or none.
pub(super) fn entries<'a>(object: &'a Value, pointer: &str) -> Vec<(&'a str, &'a Value)> {
    let mut entries: Vec<_> = object
        .pointer(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// The value at `pointer`, unless it is missing or null.
pub(super) fn present<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    object.pointer(pointer).filter(|value| !value.is_null())
}

/// The map at `key` of `parent`, made if it is missing or null. `None` if something else is there.
pub(super) fn ensure_map<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The maps in the list at `key` of `parent`.
pub(super) fn maps_mut<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    parent
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// An int-or-string as text.
pub(super) fn int_or_string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
