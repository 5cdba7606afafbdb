//! Rules for pods and pod templates.

mod container;
mod update;

use std::collections::HashSet;

use serde_json::{Value, json};

pub(super) use update::check as update;

use super::errors::{Errors, Path};
use super::{metadata, names, non_negative};
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
    if text(spec, "/dnsPolicy") == "None" && list(spec, "/dnsConfig/nameservers").is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.required(&path.child("dnsConfig.nameservers"), detail);
    }
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
        if let Err(problem) = names::ip(text(alias, "/ip")) {
            let path = path.child("hostAliases").index(index).child("ip");
            errors.invalid(&path, &alias["ip"], problem);
        }
    }
    optional(errors, spec, path, "priorityClassName", names::subdomain);
    non_negative(
        errors,
        &spec["terminationGracePeriodSeconds"],
        &path.child("terminationGracePeriodSeconds"),
    );
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
    let required = match *source {
        "secret" => "secretName",
        "configMap" => "name",
        "hostPath" => "path",
        "persistentVolumeClaim" => "claimName",
        _ => return,
    };
    if text(&volume[*source], &format!("/{required}")).is_empty() {
        errors.required(&path.child(source).child(required), "");
    }
    for (index, item) in list(&volume[*source], "/items").iter().enumerate() {
        for field in ["key", "path"] {
            if text(item, &format!("/{field}")).is_empty() {
                let path = path.child(source).child("items").index(index);
                errors.required(&path.child(field), "");
            }
        }
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
