//! JSON merge patches (RFC 7396) between two states of an object.
//!
//! A patch carries only what a controller changed, so fields that this program does not know stay
//! as they are.

use serde_json::{Map, Value};

/// The patch that turns `old` into `new`; none if they are equal. Lists are replaced as a whole.
pub(crate) fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for (key, before) in old {
        match new.get(key) {
            None => {
                patch.insert(key.clone(), Value::Null);
            }
            Some(after) => {
                if let Some(change) = merge_diff(before, after) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    for (key, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        patch.insert(key.clone(), after.clone());
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_turns_the_old_into_the_new() {
        let cases = [
            ("equal", json!({"a": 1}), json!({"a": 1}), None),
            (
                "changed",
                json!({"a": 1, "b": 2}),
                json!({"a": 1, "b": 3}),
                Some(json!({"b": 3})),
            ),
            (
                "removed",
                json!({"a": 1, "b": 2}),
                json!({"a": 1}),
                Some(json!({"b": null})),
            ),
            (
                "added",
                json!({}),
                json!({"a": {"b": 1}}),
                Some(json!({"a": {"b": 1}})),
            ),
            (
                "nested",
                json!({"a": {"b": 1, "c": 1}}),
                json!({"a": {"b": 1}}),
                Some(json!({"a": {"c": null}})),
            ),
            (
                "list",
                json!({"a": [1, 2]}),
                json!({"a": [1]}),
                Some(json!({"a": [1]})),
            ),
            (
                "from nothing",
                Value::Null,
                json!({"a": 1}),
                Some(json!({"a": 1})),
            ),
        ];
        for (name, old, new, expected) in cases {
            let patch = merge_diff(&old, &new);
            assert_eq!(patch, expected, "{name}");
            let mut patched = old;
            if let Some(patch) = patch {
                json_patch::merge(&mut patched, &patch);
            }
            assert_eq!(patched, new, "{name}: applied");
        }
    }
}
