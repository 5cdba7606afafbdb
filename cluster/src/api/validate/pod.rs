//! Rules for pods and pod templates.

mod container;
mod update;

use std::collections::HashSet;

use serde_json::{Value, json};

pub(super) use update::check as update;

use super::errors::{Errors, Path};
use super::{metadata, names};
use crate::api::json::{flag, integer, list, number, present, text};
use container::Around;

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// The template of a workload: labels, annotations and pod spec.
pub(super) fn template(errors: &mut Errors, template: &Value, path: &Path) {
    metadata::template(errors, template, path);
    spec(errors, &template["spec"], &path.child("spec"));
}

/// A pod spec.
pub(super) fn spec(errors: &mut Errors, spec: &Value, path: &Path) {
    let volumes = volumes(errors, spec, &path.child("volumes"));
    container::all(errors, &Around { spec, volumes }, path);
    if flag(spec, "/hostNetwork") {
        host_network(errors, spec, path);
    }
    one_of(errors, spec, path, "restartPolicy", &RESTART_POLICIES);
    one_of(errors, spec, path, "dnsPolicy", &DNS_POLICIES);
    metadata::labels(errors, spec, "/nodeSelector", &path.child("nodeSelector"));
    dns_config(errors, spec, &path.child("dnsConfig"));
    for (index, gate) in list(spec, "/readinessGates").iter().enumerate() {
        let condition = text(gate, "/conditionType");
        let path = path
            .child("readinessGates")
            .index(index)
            .child("conditionType");
        errors.invalid_text(&path, condition, names::qualified(condition));
    }
    spread(errors, spec, &path.child("topologySpreadConstraints"));
    for (field, rule) in [
        (
            "serviceAccountName",
            names::subdomain as fn(&str) -> Vec<String>,
        ),
        ("nodeName", names::subdomain),
    ] {
        optional(errors, spec, path, field, rule);
    }
    if let Some(seconds) = integer(spec, "/activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(
            &path.child("activeDeadlineSeconds"),
            &json!(seconds),
            detail,
        );
    }
    optional(errors, spec, path, "hostname", names::label);
    optional(errors, spec, path, "subdomain", names::label);
    tolerations(errors, spec, &path.child("tolerations"));
    for (index, alias) in list(spec, "/hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        if let Err(problem) = names::ip(text(alias, "/ip")) {
            errors.invalid(&path.child("ip"), &alias["ip"], problem);
        }
        for (index, host) in list(alias, "/hostnames").iter().enumerate() {
            let host = host.as_str().unwrap_or_default();
            let path = path.child("hostnames").index(index);
            errors.invalid_text(&path, host, names::subdomain(host));
        }
    }
    optional(errors, spec, path, "priorityClassName", names::subdomain);
}

fn optional(
    errors: &mut Errors,
    spec: &Value,
    path: &Path,
    field: &str,
    rule: impl Fn(&str) -> Vec<String>,
) {
    if let Some(value) = spec[field].as_str().filter(|value| !value.is_empty()) {
        errors.invalid_text(&path.child(field), value, rule(value));
    }
}

fn one_of(errors: &mut Errors, spec: &Value, path: &Path, field: &str, values: &[&str]) {
    match spec[field].as_str().unwrap_or_default() {
        "" => errors.required(&path.child(field), ""),
        value if values.contains(&value) => {}
        value => errors.not_supported(&path.child(field), &json!(value), values),
    }
}

/// Without a policy of its own a pod must say where its names are resolved.
fn dns_config(errors: &mut Errors, spec: &Value, path: &Path) {
    if text(spec, "/dnsPolicy") != "None" {
        return;
    }
    if present(spec, "/dnsConfig").is_none() {
        errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
    } else if list(spec, "/dnsConfig/nameservers").is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.required(&path.child("nameservers"), detail);
    }
}

/// The volumes of a pod; gives the names of those that are fine.
fn volumes<'a>(errors: &mut Errors, spec: &'a Value, path: &Path) -> HashSet<&'a str> {
    let mut known = HashSet::new();
    for (index, volume) in list(spec, "/volumes").iter().enumerate() {
        let path = path.index(index);
        volume_source(errors, volume, &path);
        match text(volume, "/name") {
            "" => errors.required(&path.child("name"), ""),
            name => {
                errors.invalid_text(&path.child("name"), name, names::label(name));
                if !known.insert(name) {
                    errors.duplicate(&path.child("name"), json!(name));
                }
            }
        }
    }
    known
}

fn volume_source(errors: &mut Errors, volume: &Value, path: &Path) {
    let sources = volume.as_object().into_iter().flatten();
    let sources: Vec<&str> = sources
        .filter(|(key, value)| *key != "name" && !value.is_null())
        .map(|(key, _)| key.as_str())
        .collect();
    let Some(source) = sources.first() else {
        return errors.required(path, "must specify a volume type");
    };
    for more in &sources[1..] {
        errors.forbidden(&path.child(more), "may not specify more than 1 volume type");
    }
    let (name, source) = (*source, &volume[*source]);
    let path = path.child(name);
    let required = match name {
        "secret" => "secretName",
        "configMap" => "name",
        "hostPath" => "path",
        "persistentVolumeClaim" => "claimName",
        _ => "",
    };
    if !required.is_empty() && text(source, &format!("/{required}")).is_empty() {
        errors.required(&path.child(required), "");
    }
    if let Some(mode) = integer(source, "/defaultMode")
        && !(0..=0o777).contains(&mode)
    {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(&path.child("defaultMode"), &json!(mode), detail);
    }
    match name {
        "hostPath" => host_path(errors, source, &path),
        "secret" | "configMap" => items(errors, source, &path),
        _ => {}
    }
}

fn host_path(errors: &mut Errors, source: &Value, path: &Path) {
    let target = text(source, "/path");
    if target.split('/').any(|part| part == "..") {
        errors.invalid(&path.child("path"), &json!(target), "must not contain '..'");
    }
    let types = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let type_ = text(source, "/type");
    if !types.contains(&type_) {
        errors.not_supported(&path.child("type"), &json!(type_), &types);
    }
}

/// Which keys of a ConfigMap or Secret become which files.
fn items(errors: &mut Errors, source: &Value, path: &Path) {
    for (index, item) in list(source, "/items").iter().enumerate() {
        let path = path.child("items").index(index);
        for field in ["key", "path"] {
            if text(item, &format!("/{field}")).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
        let target = text(item, "/path");
        errors.invalid_text(&path.child("path"), target, names::descending_path(target));
    }
}

/// With the host's network a container port is the host's port.
fn host_network(errors: &mut Errors, spec: &Value, path: &Path) {
    for (index, container) in list(spec, "/containers").iter().enumerate() {
        for (port_index, port) in list(container, "/ports").iter().enumerate() {
            if number(port, "/hostPort") != number(port, "/containerPort") {
                let path = path.child("containers").index(index).child("ports");
                let detail = "must match `hostPort` when `hostNetwork` is true";
                let path = path.index(port_index).child("containerPort");
                errors.invalid(&path, &port["containerPort"], detail);
            }
        }
    }
}

fn spread(errors: &mut Errors, spec: &Value, path: &Path) {
    for (index, constraint) in list(spec, "/topologySpreadConstraints").iter().enumerate() {
        let path = path.index(index);
        if number(constraint, "/maxSkew") <= 0 {
            let skew = json!(number(constraint, "/maxSkew"));
            errors.invalid(&path.child("maxSkew"), &skew, "must be greater than zero");
        }
        if text(constraint, "/topologyKey").is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        let when = &constraint["whenUnsatisfiable"];
        if when != "DoNotSchedule" && when != "ScheduleAnyway" {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errors.not_supported(&path.child("whenUnsatisfiable"), when, &supported);
        }
    }
}

fn tolerations(errors: &mut Errors, spec: &Value, path: &Path) {
    for (index, toleration) in list(spec, "/tolerations").iter().enumerate() {
        let path = path.index(index);
        let (key, value) = (text(toleration, "/key"), text(toleration, "/value"));
        let (operator, effect) = (text(toleration, "/operator"), text(toleration, "/effect"));
        let field = path.child("operator");
        if !key.is_empty() {
            errors.invalid_text(&path.child("key"), key, names::qualified(key));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&field, &json!(operator), detail);
        }
        if present(toleration, "/tolerationSeconds").is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.child("effect"), &json!(effect), detail);
        }
        match operator {
            "" | "Equal" => errors.invalid_text(&field, value, names::label_value(value)),
            "Exists" if value.is_empty() => {}
            "Exists" => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.invalid(&field, &json!(value), detail);
            }
            _ => errors.not_supported(&field, &json!(operator), &["Equal", "Exists"]),
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effect.is_empty() && !effects.contains(&effect) {
            errors.not_supported(&path.child("effect"), &json!(effect), &effects);
        }
    }
}
