//! Strategic merge patch.
//!
//! Maps merge key by key and null deletes, as in RFC 7396. Lists that have a merge key are merged
//! by it; other lists are replaced. Directives in the patch change that:
//!
//! * `$patch: replace` in a map, or as an item of a list, replaces instead of merging;
//! * `$patch: delete` in a map empties it, in a list item deletes the item with the same key;
//! * `$retainKeys: […]` drops the other keys of the map;
//! * `$deleteFromPrimitiveList/x: […]` deletes from the list of scalars `x`;
//! * `$setElementOrder/x: […]` gives the order of the list `x`.
//!
//! The order of a merged list: items that the patch names keep the patch's order, the others keep
//! theirs, and where the two meet, new items go first and old ones by their old position.

use serde_json::{Map, Value};

use super::PatchError;
use super::keys::{Strategy, strategy};
use crate::api::schema::types::{Shape, Type, registry};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Fields = Map<String, Value>;
/// The type of what is being patched, if it is known.
type Known = Option<&'static Type>;

/// The type of a kind, in the version whose fields matter: the newest that is built in.
pub(super) fn type_of(group_kind: &str) -> Known {
    let (group, kind) = group_kind.rsplit_once('/').unwrap_or(("", group_kind));
    ["v2", "v1"].into_iter().find_map(|version| {
        let api_version = match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        let name = registry().find(&api_version, kind)?;
        let type_ = registry().get(name);
        // Kinds of meta.k8s.io are found in every version.
        (type_.name == kind).then_some(type_)
    })
}

/// Merges a patch into a map.
pub(super) fn map(type_: Known, mut target: Fields, patch: &Fields) -> Result<Fields, PatchError> {
    match patch.get(PATCH).map(Value::as_str) {
        None => {}
        Some(Some("replace")) => {
            let mut replacement = patch.clone();
            replacement.remove(PATCH);
            return Ok(replacement);
        }
        Some(Some("delete")) => return Ok(Fields::new()),
        Some(_) => return Err(unknown_directive(patch)),
    }
    if let Some(retained) = patch.get(RETAIN).and_then(Value::as_array) {
        target.retain(|key, _| retained.iter().any(|retained| retained == key));
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        if value.is_null() {
            target.remove(key);
            continue;
        }
        let order = patch
            .get(&format!("{ORDER}{key}"))
            .and_then(Value::as_array);
        let merged = field(type_, key, target.remove(key), value, order)?;
        target.insert(key.clone(), merged);
    }
    for (directive, value) in patch {
        if let Some(key) = directive.strip_prefix(DELETE_FROM) {
            delete_scalars(&mut target, key, value);
        }
    }
    for (directive, value) in patch {
        // Lists that are patched as well got their order while they were merged.
        if let (Some(key), Some(order)) = (directive.strip_prefix(ORDER), value.as_array())
            && !patch.contains_key(key)
        {
            reorder(type_, &mut target, key, order);
        }
    }
    Ok(target)
}

/// Merges a patch into a field that may be absent. `order` is that of a list.
fn field(
    type_: Known,
    key: &str,
    target: Option<Value>,
    patch: &Value,
    order: Option<&Vec<Value>>,
) -> Result<Value, PatchError> {
    let strategy = type_.map_or(Strategy::Usual, |type_| strategy(&type_.name, key));
    let inner = type_.and_then(|type_| message_in(type_, key));
    match (strategy, target, patch) {
        (Strategy::Replace, _, patch) => Ok(patch.clone()),
        (Strategy::Merge(merge_key), target, Value::Array(items)) => {
            let target = match target {
                Some(Value::Array(target)) => target,
                _ => Vec::new(),
            };
            list(inner, merge_key, target, items, order).map(Value::Array)
        }
        (Strategy::Set, target, Value::Array(items)) => {
            let target = match target {
                Some(Value::Array(target)) => target,
                _ => Vec::new(),
            };
            Ok(Value::Array(union(&target, items, order)))
        }
        (_, target, Value::Object(patch)) => {
            let target = match target {
                Some(Value::Object(target)) => target,
                _ => Fields::new(),
            };
            map_field(type_, key, inner, target, patch).map(Value::Object)
        }
        (_, _, patch) => Ok(patch.clone()),
    }
}

/// A map that is a message, or whose values are.
fn map_field(
    type_: Known,
    key: &str,
    inner: Known,
    target: Fields,
    patch: &Fields,
) -> Result<Fields, PatchError> {
    let field = type_.and_then(|type_| type_.fields.get(key));
    match field.map(|field| &field.shape) {
        Some(Shape::Map(_)) => map(None, target, patch),
        _ => map(inner, target, patch),
    }
}

/// The message that a field holds, alone or as items.
fn message_in(type_: &Type, key: &str) -> Known {
    let mut shape = &type_.fields.get(key)?.shape;
    loop {
        match shape {
            Shape::List(item) | Shape::Map(item) => shape = item,
            Shape::Message(name) => return Some(registry().get(name)),
            _ => return None,
        }
    }
}

/// Merges a list of maps by `key`.
fn list(
    type_: Known,
    key: &'static str,
    target: Vec<Value>,
    patch: &[Value],
    order: Option<&Vec<Value>>,
) -> Result<Vec<Value>, PatchError> {
    let is_replace = |item: &Value| item.get(PATCH).is_some_and(|value| value == "replace");
    let replaces = patch.iter().any(is_replace);
    let mut before = target.clone();
    let mut merged = if replaces { Vec::new() } else { target };
    let mut named = Vec::new();
    for item in patch.iter().filter(|item| !is_replace(item)) {
        let Value::Object(fields) = item else {
            return Err(PatchError::internal(
                "expected a list of maps in the patch, found something else",
            ));
        };
        let Some(id) = fields.get(key) else {
            return Err(PatchError::internal(format!(
                "map: {} does not contain declared merge key: {key}",
                go_text(item)
            )));
        };
        let at = merged.iter().position(|item| item.get(key) == Some(id));
        let mut fields = fields.clone();
        match fields.remove(PATCH).as_ref().map(Value::as_str) {
            None | Some(Some("merge")) => {
                let old = match at {
                    Some(at) => merged.get_mut(at).map(Value::take),
                    None => None,
                };
                let old = match old {
                    Some(Value::Object(old)) => old,
                    _ => Fields::new(),
                };
                let new = Value::Object(map(type_, old, &fields)?);
                match at.and_then(|at| merged.get_mut(at)) {
                    Some(slot) => *slot = new,
                    None => merged.push(new),
                }
                named.push(id.clone());
            }
            Some(Some("delete")) => merged.retain(|item| item.get(key) != Some(id)),
            Some(_) => return Err(unknown_directive(item)),
        }
    }
    let id = |item: &Value| item.get(key).cloned().unwrap_or_default();
    if let Some(order) = order {
        named = order.iter().map(id).collect();
        // With an order the real server counts positions in place, so that new items take those
        // that deleted ones leave.
        before = merged.iter().take(before.len()).cloned().collect();
    }
    Ok(ordered(merged, &before, &named, id))
}

/// Merges a list of scalars as a set.
fn union(target: &[Value], patch: &[Value], order: Option<&Vec<Value>>) -> Vec<Value> {
    let mut merged = Vec::new();
    for item in target.iter().chain(patch) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    let order = order.map_or(patch, Vec::as_slice);
    ordered(merged, target, order, Value::clone)
}

fn delete_scalars(target: &mut Fields, key: &str, deleted: &Value) {
    let Some(deleted) = deleted.as_array() else {
        return;
    };
    if let Some(Value::Array(items)) = target.get_mut(key) {
        items.retain(|item| !deleted.contains(item));
    }
}

/// Orders the list at `key` as a `$setElementOrder` directive says: a list of scalars, or of maps
/// with the merge key.
fn reorder(type_: Known, target: &mut Fields, key: &str, order: &[Value]) {
    let strategy = type_.map_or(Strategy::Usual, |type_| strategy(&type_.name, key));
    let Some(Value::Array(items)) = target.get_mut(key) else {
        return;
    };
    let before = items.clone();
    *items = match strategy {
        Strategy::Merge(merge_key) => {
            let id = |item: &Value| item.get(merge_key).cloned().unwrap_or_default();
            let order: Vec<Value> = order.iter().map(id).collect();
            ordered(before.clone(), &before, &order, id)
        }
        Strategy::Set => ordered(before.clone(), &before, order, Value::clone),
        Strategy::Usual | Strategy::Replace => before,
    };
}

/// Puts items that are in `order` into that order and works the others in between, by their
/// position in `before`.
fn ordered(
    items: Vec<Value>,
    before: &[Value],
    order: &[Value],
    id: impl Fn(&Value) -> Value,
) -> Vec<Value> {
    let rank = |item: &Value| order.iter().position(|named| *named == id(item));
    let old = |item: &Value| before.iter().position(|old| id(old) == id(item));
    let (mut named, others): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| rank(item).is_some());
    named.sort_by_key(rank);
    let mut others = others.into_iter().peekable();
    let mut result = Vec::new();
    for item in named {
        while let (Some(position), Some(other)) = (old(&item), others.peek()) {
            match old(other) {
                Some(earlier) if earlier < position => result.extend(others.next()),
                _ => break,
            }
        }
        result.push(item);
    }
    result.extend(others);
    result
}

fn unknown_directive(map: &(impl Clone + Into<Value>)) -> PatchError {
    let map: Value = map.clone().into();
    let type_ = map.get(PATCH).map(go_text).unwrap_or_default();
    PatchError::internal(format!(
        "unknown patch type: {type_} in map: {}",
        go_text(&map)
    ))
}

/// A value as Go prints it: `map[a:1 b:[x y]]`.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| format!("{key}:{}", go_text(value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}
