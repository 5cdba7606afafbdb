//! Rules for metadata, the same for every kind but for the form of the name.

use serde_json::Value;

use super::errors::{Errors, Path};
use super::names;
use crate::api::json::{entries, flag, list, text};

/// How much all annotations of an object may hold, in bytes.
const ANNOTATIONS: usize = 256 * 1024;

/// Metadata of a new object, or of a template if `named` is false.
pub(super) fn check(errors: &mut Errors, api_version: &str, kind: &str, object: &Value) {
    let path = Path::new("metadata");
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let generated = text(object, "/metadata/generateName");
    let name = text(object, "/metadata/name");
    if name.is_empty() && generated.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    }
    if !generated.is_empty() {
        // The random part comes after, so a hyphen at the end is fine.
        let problems = name_rule(group, kind, &format!("{generated}a"));
        errors.invalid_text(&path.child("generateName"), generated, problems);
    }
    if !name.is_empty() {
        let problems = name_rule(group, kind, name);
        errors.invalid_text(&path.child("name"), name, problems);
    }
    common(errors, object, &path);
}

/// Metadata of an object that is changed.
pub(super) fn update(errors: &mut Errors, old: &Value, new: &Value) {
    let path = Path::new("metadata");
    for field in ["name", "namespace", "uid"] {
        let of = |object: &Value| object.pointer(&format!("/metadata/{field}")).cloned();
        if let (Some(new), Some(old)) = (of(new), of(old)) {
            errors.immutable(&path.child(field), &new, &old);
        }
    }
    if old.pointer("/metadata/deletionTimestamp").is_some() {
        let before = list(old, "/metadata/finalizers");
        let added: Vec<&Value> = list(new, "/metadata/finalizers")
            .iter()
            .filter(|finalizer| !before.contains(finalizer))
            .collect();
        if !added.is_empty() {
            let added: Vec<&str> = added.iter().filter_map(|value| value.as_str()).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.forbidden(&path.child("finalizers"), &detail);
        }
    }
    common(errors, new, &path);
}

/// Labels and annotations of a pod template.
pub(super) fn template(errors: &mut Errors, template: &Value, path: &Path) {
    let path = path.child("metadata");
    labels(errors, template, "/metadata/labels", &path.child("labels"));
    annotations(errors, template, &path);
}

fn common(errors: &mut Errors, object: &Value, path: &Path) {
    labels(errors, object, "/metadata/labels", &path.child("labels"));
    annotations(errors, object, path);
    owners(errors, object, &path.child("ownerReferences"));
    for (index, finalizer) in list(object, "/metadata/finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let path = path.child("finalizers");
        errors.invalid_text(&path, name, names::qualified(name));
        let standard = matches!(name, "kubernetes" | "orphan" | "foregroundDeletion");
        if !name.contains('/') && !standard {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path.index(index), finalizer, detail);
        }
    }
}

fn name_rule(group: &str, kind: &str, name: &str) -> Vec<String> {
    match (group, kind) {
        ("", "Service") => names::label_1035(name),
        ("", "Namespace") => names::label(name),
        ("rbac.authorization.k8s.io", _) | ("", "Event") | ("events.k8s.io", _) => {
            names::path_segment(name)
        }
        ("batch", "CronJob") if name.len() > 52 => {
            vec!["must be no more than 52 characters".to_owned()]
        }
        _ => names::subdomain(name),
    }
}

/// A map of labels.
pub(super) fn labels(errors: &mut Errors, object: &Value, pointer: &str, path: &Path) {
    for (key, value) in entries(object, pointer) {
        let value = value.as_str().unwrap_or_default();
        errors.invalid_text(path, key, names::qualified(key));
        errors.invalid_text(path, value, names::label_value(value));
    }
}

fn annotations(errors: &mut Errors, object: &Value, path: &Path) {
    let path = path.child("annotations");
    let mut size = 0;
    for (key, value) in entries(object, "/metadata/annotations") {
        errors.invalid_text(&path, key, names::qualified(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS {
        errors.too_long(&path, ANNOTATIONS);
    }
}

fn owners(errors: &mut Errors, object: &Value, path: &Path) {
    let mut controller: Option<String> = None;
    let owners = list(object, "/metadata/ownerReferences");
    for owner in owners {
        for (field, problem) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner, &format!("/{field}")).is_empty() {
                errors.invalid(&path.child(field), &Value::from(""), problem);
            }
        }
        if flag(owner, "/controller") {
            let name = format!("{}/{}", text(owner, "/kind"), text(owner, "/name"));
            match &controller {
                Some(first) => errors.invalid(
                    path,
                    &Value::from(owners),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    ),
                ),
                None => controller = Some(name),
            }
        }
    }
}
