//! Rules for containers.

mod env;

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::api::json::{entries, integer, list, number, present, text};
use crate::api::quantity::Quantity;
use crate::api::validate::errors::{Errors, Path};
use crate::api::validate::{names, non_negative, port_or_name, protocol};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
/// Nano-units in one unit.
const NANO: i128 = 1_000_000_000;
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// What the containers of a pod are checked against.
pub(super) struct Around<'a> {
    /// The pod spec.
    pub(super) spec: &'a Value,
    /// Names of its volumes.
    pub(super) volumes: HashSet<&'a str>,
}

/// Containers, init containers and ephemeral containers. Their names differ from each other.
pub(super) fn all(errors: &mut Errors, around: &Around<'_>, spec_path: &Path) {
    let path = spec_path.child("containers");
    let containers = list(around.spec, "/containers");
    if containers.is_empty() {
        errors.required(&path, "");
    }
    let mut known = HashSet::new();
    let mut host_ports = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(errors, container, around, &path);
        unique(errors, container, &mut known, &path);
        running(errors, container, around, &path);
        if present(container, "/restartPolicy").is_some() {
            let detail = "may not be set for non-init containers";
            errors.forbidden(&path.child("restartPolicy"), detail);
        }
        unique_host_ports(errors, container, &mut host_ports, &path);
    }
    let path = spec_path.child("initContainers");
    for (index, container) in list(around.spec, "/initContainers").iter().enumerate() {
        let path = path.index(index);
        common(errors, container, around, &path);
        let policy = &container["restartPolicy"];
        if !policy.is_null() && policy != "Always" {
            errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
        }
        unique(errors, container, &mut known, &path);
        if policy == "Always" {
            running(errors, container, around, &path);
        } else {
            for field in [
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ] {
                if present(container, &format!("/{field}")).is_some() {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.forbidden(&path.child(field), detail);
                }
            }
        }
    }
    ephemeral(
        errors,
        around,
        &mut known,
        &spec_path.child("ephemeralContainers"),
    );
}

fn ephemeral<'a>(
    errors: &mut Errors,
    around: &Around<'a>,
    known: &mut HashSet<&'a str>,
    path: &Path,
) {
    for (index, container) in list(around.spec, "/ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        common(errors, container, around, &path);
        let target = &container["targetContainerName"];
        if target.as_str().is_some_and(|name| !known.contains(name)) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        unique(errors, container, known, &path);
    }
}

fn unique<'a>(
    errors: &mut Errors,
    container: &'a Value,
    known: &mut HashSet<&'a str>,
    path: &Path,
) {
    let name = text(container, "/name");
    if !name.is_empty() && !known.insert(name) {
        errors.duplicate(&path.child("name"), json!(name));
    }
}

fn unique_host_ports(
    errors: &mut Errors,
    container: &Value,
    known: &mut HashSet<String>,
    path: &Path,
) {
    for (index, port) in list(container, "/ports").iter().enumerate() {
        let host_port = number(port, "/hostPort");
        let (protocol, ip) = (text(port, "/protocol"), text(port, "/hostIP"));
        let id = format!("{protocol}/{ip}/{host_port}");
        if host_port != 0 && !known.insert(id.clone()) {
            let path = path.child("ports").index(index).child("hostPort");
            errors.duplicate(&path, json!(id));
        }
    }
}

/// What every container must have right.
fn common(errors: &mut Errors, container: &Value, around: &Around<'_>, path: &Path) {
    match text(container, "/name") {
        "" => errors.required(&path.child("name"), ""),
        name => errors.invalid_text(&path.child("name"), name, names::label(name)),
    }
    let image = text(container, "/image");
    if image.is_empty() {
        errors.required(&path.child("image"), "");
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.invalid(&path.child("image"), &json!(image), detail);
    }
    let policies = ["File", "FallbackToLogsOnError"];
    supported(
        errors,
        container,
        path,
        "terminationMessagePolicy",
        &policies,
    );
    ports(errors, container, &path.child("ports"));
    env::variables(errors, container, &path.child("env"));
    env::sources(errors, container, &path.child("envFrom"));
    mounts(errors, container, around, &path.child("volumeMounts"));
    supported(errors, container, path, "imagePullPolicy", &PULL_POLICIES);
    resources(errors, &container["resources"], &path.child("resources"));
}

fn supported(errors: &mut Errors, container: &Value, path: &Path, field: &str, values: &[&str]) {
    match container[field].as_str().unwrap_or_default() {
        "" => errors.required(&path.child(field), ""),
        value if values.contains(&value) => {}
        value => errors.not_supported(&path.child(field), &json!(value), values),
    }
}

fn ports(errors: &mut Errors, container: &Value, path: &Path) {
    let mut known = HashSet::new();
    for (index, port) in list(container, "/ports").iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "/name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && !known.insert(name) {
                errors.duplicate(&path.child("name"), json!(name));
            }
            errors.invalid_text(&path.child("name"), name, problems);
        }
        match number(port, "/containerPort") {
            0 => errors.required(&path.child("containerPort"), ""),
            value => {
                if let Some(problem) = names::port_number(value) {
                    errors.invalid(&path.child("containerPort"), &json!(value), problem);
                }
            }
        }
        let host_port = number(port, "/hostPort");
        if let Some(problem) = names::port_number(host_port).filter(|_| host_port != 0) {
            errors.invalid(&path.child("hostPort"), &json!(host_port), problem);
        }
        protocol(errors, port, &path.child("protocol"));
    }
}

fn mounts(errors: &mut Errors, container: &Value, around: &Around<'_>, list_path: &Path) {
    let mut known = HashSet::new();
    for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let path = list_path.index(index);
        let (name, target) = (text(mount, "/name"), text(mount, "/mountPath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !around.volumes.contains(name) {
            errors.not_found(&path.child("name"), &json!(name));
        }
        if target.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if !known.insert(target) {
            errors.invalid(&path.child("mountPath"), &json!(target), "must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            let inner = text(mount, &format!("/{field}"));
            errors.invalid_text(
                &list_path.child(field),
                inner,
                names::descending_path(inner),
            );
        }
    }
}

fn resources(errors: &mut Errors, resources: &Value, path: &Path) {
    let amount = |value: &Value| Quantity::parse(value.as_str().unwrap_or_default());
    for kind in ["limits", "requests"] {
        for (resource, value) in entries(resources, &format!("/{kind}")) {
            let path = path.child(kind).key(resource);
            errors.invalid_text(&path, resource, resource_name(resource));
            if resource.contains('/')
                && amount(value).is_some_and(|amount| amount.nano() % NANO != 0)
            {
                errors.invalid(&path, value, "must be an integer");
            }
            if amount(value).is_some_and(|amount| amount.nano() < 0) {
                errors.invalid(&path, value, "must be greater than or equal to 0");
            }
        }
    }
    for (resource, request) in entries(resources, "/requests") {
        let limit = resources
            .get("limits")
            .and_then(|limits| limits.get(resource));
        if let (Some(asked), Some(limit)) = (amount(request), limit.and_then(amount))
            && asked.nano() > limit.nano()
        {
            let detail = format!("must be less than or equal to {resource} limit of {limit}");
            errors.invalid(&path.child("requests"), &json!(asked.to_string()), detail);
        }
    }
}

/// A resource of containers: one that every node has, or one with a domain.
fn resource_name(resource: &str) -> Vec<String> {
    let standard = matches!(resource, "cpu" | "memory" | "ephemeral-storage")
        || resource.starts_with("hugepages-");
    let mut problems = names::qualified(resource);
    if !standard && !resource.contains('/') && problems.is_empty() {
        problems.push("must be a standard resource type or fully qualified".to_owned());
        problems.push("must be a standard resource for containers".to_owned());
    }
    problems
}

/// Hooks and probes, which only containers that keep running have.
fn running(errors: &mut Errors, container: &Value, around: &Around<'_>, path: &Path) {
    let grace = number(around.spec, "/terminationGracePeriodSeconds");
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = present(container, &format!("/lifecycle/{hook}")) {
            let path = path.child("lifecycle").child(hook);
            self::handler(errors, handler, &path);
            let seconds = integer(handler, "/sleep/seconds");
            if let Some(seconds) = seconds.filter(|seconds| !(0..=grace).contains(seconds)) {
                let detail = format!(
                    "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                );
                errors.invalid(&path.child("sleep"), &json!(seconds), detail);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = present(container, &format!("/{name}")) {
            self::probe(errors, probe, name, &path.child(name));
        }
    }
}

fn probe(errors: &mut Errors, probe: &Value, name: &str, path: &Path) {
    handler(errors, probe, path);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        non_negative(errors, &probe[field], &path.child(field));
    }
    let grace = integer(probe, "/terminationGracePeriodSeconds");
    let field = path.child("terminationGracePeriodSeconds");
    if let Some(seconds @ ..=0) = grace {
        errors.invalid(&field, &json!(seconds), "must be greater than 0");
    }
    let threshold = number(probe, "/successThreshold");
    match (name, grace) {
        ("readinessProbe", Some(seconds)) => {
            let detail = "must not be set for readinessProbes";
            errors.invalid(&field, &json!(seconds), detail);
        }
        ("readinessProbe", None) => {}
        _ if threshold != 1 => {
            errors.invalid(
                &path.child("successThreshold"),
                &json!(threshold),
                "must be 1",
            );
        }
        _ => {}
    }
}

fn handler(errors: &mut Errors, handler: &Value, path: &Path) {
    let given: Vec<&str> = HANDLERS
        .into_iter()
        .filter(|kind| present(handler, &format!("/{kind}")).is_some())
        .collect();
    let Some(kind) = given.first() else {
        return errors.required(path, "must specify a handler type");
    };
    for more in &given[1..] {
        errors.forbidden(
            &path.child(more),
            "may not specify more than 1 handler type",
        );
    }
    let action = &handler[*kind];
    let path = path.child(kind);
    match *kind {
        "exec" if list(action, "/command").is_empty() => {
            errors.required(&path.child("command"), "");
        }
        "httpGet" => {
            if text(action, "/path").is_empty() {
                errors.required(&path.child("path"), "");
            }
            port_or_name(errors, &action["port"], &path.child("port"));
            let scheme = text(action, "/scheme");
            if !matches!(scheme, "HTTP" | "HTTPS") {
                let schemes = ["HTTP", "HTTPS"];
                errors.not_supported(&path.child("scheme"), &json!(scheme), &schemes);
            }
            for header in list(action, "/httpHeaders") {
                let name = text(header, "/name");
                errors.invalid_text(&path.child("httpHeaders"), name, names::header(name));
            }
        }
        "tcpSocket" => port_or_name(errors, &action["port"], &path.child("port")),
        "grpc" => {
            let port = number(action, "/port");
            if let Some(problem) = names::port_number(port) {
                errors.invalid(&path.child("port"), &json!(port), problem);
            }
        }
        _ => {}
    }
}
