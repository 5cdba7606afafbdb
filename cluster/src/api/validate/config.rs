//! Rules for ConfigMaps and Secrets.

use serde_json::{Value, json};

use super::errors::{Errors, Path};
use super::names;
use crate::api::json::{entries, flag, text};

/// How much a ConfigMap or Secret may hold, in bytes.
const MAX_SIZE: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub(super) fn config_map(errors: &mut Errors, object: &Value) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in entries(object, &format!("/{field}")) {
            let path = Path::new(field).key(key);
            errors.invalid_text(&path, key, names::config_key(key));
            let binary = object.get("binaryData").and_then(|data| data.get(key));
            if field == "data" && binary.is_some() {
                let detail = "duplicate of key present in binaryData";
                errors.invalid(&path, &json!(key), detail);
            }
            let value = value.as_str().unwrap_or_default();
            size += match field {
                "data" => value.len(),
                _ => decoded_len(value),
            };
        }
    }
    if size > MAX_SIZE {
        errors.too_long(&Path::new(""), MAX_SIZE);
    }
}

pub(super) fn config_map_update(errors: &mut Errors, old: &Value, new: &Value) {
    frozen(errors, old, new, &["data", "binaryData"]);
}

pub(super) fn secret(errors: &mut Errors, object: &Value) {
    let data = Path::new("data");
    let mut size = 0;
    for (key, value) in entries(object, "/data") {
        errors.invalid_text(&data.key(key), key, names::config_key(key));
        size += decoded_len(value.as_str().unwrap_or_default());
    }
    if size > MAX_SIZE {
        errors.too_long(&data, MAX_SIZE);
    }
    let has = |key: &str| {
        object
            .get("data")
            .is_some_and(|data| data.get(key).is_some())
    };
    let required: &[&str] = match text(object, "/type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            &["username", "password"]
        }
        _ => &[],
    };
    if text(object, "/type") == "kubernetes.io/service-account-token" {
        const ACCOUNT: &str = "kubernetes.io/service-account.name";
        let annotations = object.pointer("/metadata/annotations");
        if annotations.is_none_or(|annotations| annotations.get(ACCOUNT).is_none()) {
            errors.required(&Path::new("metadata.annotations").key(ACCOUNT), "");
        }
    }
    for key in required.iter().filter(|key| !has(key)) {
        errors.required(&data.key(key), "");
    }
}

pub(super) fn secret_update(errors: &mut Errors, old: &Value, new: &Value) {
    errors.immutable(&Path::new("type"), &new["type"], &old["type"]);
    frozen(errors, old, new, &["data"]);
}

fn frozen(errors: &mut Errors, old: &Value, new: &Value, fields: &[&str]) {
    if !flag(old, "/immutable") {
        return;
    }
    if !flag(new, "/immutable") {
        errors.forbidden(&Path::new("immutable"), FROZEN);
    }
    for field in fields {
        if old.get(field) != new.get(field) {
            errors.forbidden(&Path::new(field), FROZEN);
        }
    }
}

/// How many bytes a base64 text stands for.
fn decoded_len(text: &str) -> usize {
    text.len() / 4 * 3
        - text
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'=')
            .count()
            .min(2)
}
