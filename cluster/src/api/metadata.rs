//! `metadata` as the server keeps it (W2), and small accessors over stored objects.

use rand::Rng;
use serde_json::{Map, Value};

/// Letters of generated name suffixes: no vowels, no look-alikes (apimachinery `rand`).
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest prefix of a generated name.
const MAX_GENERATED_PREFIX: usize = 58;

/// Now, as Kubernetes writes times: RFC 3339 in whole seconds.
pub(super) fn now() -> String {
    timestamp(jiff::Timestamp::now())
}

/// A time in whole seconds.
pub(super) fn timestamp(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random UUID, version 4.
pub(super) fn new_uid() -> String {
    let random: u128 = rand::rng().random();
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A name from `generateName`.
pub(super) fn generate_name(prefix: &str) -> String {
    let mut random = rand::rng();
    let suffix: String = (0..5)
        .map(|_| char::from(SUFFIX_LETTERS[random.random_range(0..SUFFIX_LETTERS.len())]))
        .collect();
    let cut = prefix
        .char_indices()
        .map(|(at, _)| at)
        .chain([prefix.len()])
        .take_while(|at| *at <= MAX_GENERATED_PREFIX)
        .last()
        .unwrap_or(0);
    format!("{}{suffix}", &prefix[..cut])
}

/// A string below `metadata`, empty if absent.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata` as a map, made if it is missing.
pub(super) fn map(object: &mut Value) -> &mut Map<String, Value> {
    entry(object, "metadata")
}

/// A field that is a map, made if it is missing or something else.
pub(super) fn entry<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object[field].is_object() {
        object[field] = Value::Object(Map::new());
    }
    object[field]
        .as_object_mut()
        .expect("it was made an object just now")
}

/// `metadata.finalizers`.
pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    strings(&object["metadata"]["finalizers"])
}

/// A list of strings.
pub(super) fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether deletion has begun.
pub(super) fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Removes null fields: in the typed API a null is an absent field.
pub(super) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Removes metadata fields that no client may set, and empty maps and lists.
pub(super) fn clean(object: &mut Value) {
    let metadata = map(object);
    for field in ["managedFields", "selfLink"] {
        metadata.remove(field);
    }
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = metadata.get(field).is_some_and(|value| {
            value.as_object().is_some_and(Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty)
        });
        if empty {
            metadata.remove(field);
        }
    }
}

/// Replaces the server's own fields by those of the stored object.
pub(super) fn keep_server_fields(object: &mut Value, stored: &Value) {
    let metadata = map(object);
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        match &stored["metadata"][field] {
            Value::Null => metadata.remove(field),
            value => metadata.insert(field.to_owned(), value.clone()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_w2_generated_names_and_uids_have_their_form() {
        let name = generate_name("web-");
        assert_eq!(name.len(), 9);
        assert!(
            name.bytes().skip(4).all(|b| SUFFIX_LETTERS.contains(&b)),
            "{name}"
        );
        assert_eq!(generate_name(&"x".repeat(100)).len(), 63);
        let uid = new_uid();
        let parts: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&uid[14..15], "4");
        assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"), "{uid}");
    }
}
