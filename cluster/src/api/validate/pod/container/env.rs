//! Rules for environment variables.

use serde_json::{Value, json};

use crate::api::json::{list, present, text};
use crate::api::validate::errors::{Errors, Path};
use crate::api::validate::names;

/// Fields of a pod that a variable can take its value from.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Resources of a container that a variable can take its value from.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// What each source must say.
const SOURCES: [(&str, &[&str]); 4] = [
    ("fieldRef", &["fieldPath"]),
    ("resourceFieldRef", &["resource"]),
    ("configMapKeyRef", &["name", "key"]),
    ("secretKeyRef", &["name", "key"]),
];

/// The variables of a container.
pub(super) fn variables(errors: &mut Errors, container: &Value, path: &Path) {
    for (index, variable) in list(container, "/env").iter().enumerate() {
        let path = path.index(index);
        match text(variable, "/name") {
            "" => errors.required(&path.child("name"), ""),
            name => errors.invalid_text(&path.child("name"), name, names::variable(name)),
        }
        let Some(source) = present(variable, "/valueFrom") else {
            continue;
        };
        let path = path.child("valueFrom");
        let mut given = 0;
        for (kind, fields) in SOURCES {
            if let Some(reference) = present(source, &format!("/{kind}")) {
                given += 1;
                self::reference(errors, reference, kind, fields, &path.child(kind));
            }
        }
        let problem = match given {
            0 => {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            }
            _ if !text(variable, "/value").is_empty() => {
                "may not be specified when `value` is not empty"
            }
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.invalid(&path, &json!(""), problem);
    }
}

fn reference(errors: &mut Errors, reference: &Value, kind: &str, fields: &[&str], path: &Path) {
    for field in fields {
        let value = text(reference, &format!("/{field}"));
        let path = path.child(field);
        match (kind, *field) {
            _ if value.is_empty() => errors.required(&path, ""),
            ("configMapKeyRef" | "secretKeyRef", "key") => {
                errors.invalid_text(&path, value, names::config_key(value));
            }
            ("fieldRef", _) => field_path(errors, value, &path),
            ("resourceFieldRef", _)
                if !RESOURCES.contains(&value) && !value.contains(".hugepages-") =>
            {
                errors.not_supported(&path, &json!(value), &RESOURCES);
            }
            _ => {}
        }
    }
}

fn field_path(errors: &mut Errors, field: &str, path: &Path) {
    let subscript = field
        .strip_prefix("metadata.labels['")
        .or(field.strip_prefix("metadata.annotations['"))
        .and_then(|rest| rest.strip_suffix("']"));
    match field {
        // Whole maps can be written to files, not into a variable.
        "metadata.labels" | "metadata.annotations" => {
            errors.not_supported(path, &json!(field), &FIELDS);
        }
        _ if FIELDS.contains(&field) => {}
        _ => match subscript {
            Some(key) => {
                let problems = names::qualified(&key.to_lowercase());
                errors.invalid_text(path, key, problems);
            }
            None => {
                let detail =
                    format!("error converting fieldPath: field label not supported: {field}");
                errors.invalid(path, &json!(field), detail);
            }
        },
    }
}

/// ConfigMaps and Secrets whose keys become variables.
pub(super) fn sources(errors: &mut Errors, container: &Value, path: &Path) {
    for (index, source) in list(container, "/envFrom").iter().enumerate() {
        let kinds = ["configMapRef", "secretRef"];
        let mut given = 0;
        for kind in kinds {
            if let Some(reference) = present(source, &format!("/{kind}")) {
                given += 1;
                if text(reference, "/name").is_empty() {
                    errors.required(&path.index(index).child(kind).child("name"), "");
                }
            }
        }
        let problem = match given {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.invalid(path, &json!(""), problem);
    }
}
