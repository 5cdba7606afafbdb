//! Validation of built-in kinds: what the API server answers with 422 and a cause for each field.
//!
//! Objects are checked after their defaults were filled. What depends on other objects (quota,
//! free addresses, whether a name is taken) is checked elsewhere.

mod autoscaler;
mod config;
mod errors;
mod metadata;
mod names;
mod network;
mod pod;
mod service;
#[cfg(test)]
mod tests;
mod workloads;

use std::net::IpAddr;

use serde_json::{Value, json};

pub use errors::FieldError;

use super::json::{list, text};
use errors::{Errors, Path};

/// Where validation differs from the real server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValidateOptions {
    /// EndpointSlices and Endpoints may hold loopback addresses, which pods have when they share
    /// the host's network.
    pub allow_loopback: bool,
}

/// Checks a new object.
pub fn create(api_version: &str, kind: &str, object: &Value) -> Vec<FieldError> {
    create_with(ValidateOptions::default(), api_version, kind, object)
}

/// Checks a changed object.
pub fn update(api_version: &str, kind: &str, old: &Value, new: &Value) -> Vec<FieldError> {
    update_with(ValidateOptions::default(), api_version, kind, old, new)
}

/// [`create`] with options.
pub fn create_with(
    options: ValidateOptions,
    api_version: &str,
    kind: &str,
    object: &Value,
) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if has_name(api_version, kind) {
        metadata::check(&mut errors, api_version, kind, object);
    }
    body(&mut errors, options, api_version, kind, object);
    match (group(api_version), kind) {
        ("networking.k8s.io", "Ingress") => network::ingress_create(&mut errors, object),
        ("", "Pod") if !list(object, "/spec/ephemeralContainers").is_empty() => {
            let path = Path::new("spec.ephemeralContainers");
            errors.forbidden(&path, "cannot be set on create");
        }
        _ => {}
    }
    errors.into_inner()
}

/// [`update`] with options.
pub fn update_with(
    options: ValidateOptions,
    api_version: &str,
    kind: &str,
    old: &Value,
    new: &Value,
) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if has_name(api_version, kind) {
        metadata::update(&mut errors, old, new);
    }
    match (group(api_version), kind) {
        ("", "ConfigMap") => config::config_map_update(&mut errors, old, new),
        ("", "Secret") => config::secret_update(&mut errors, old, new),
        ("", "Service") => service::update(&mut errors, old, new),
        _ => {}
    }
    body(&mut errors, options, api_version, kind, new);
    match (group(api_version), kind) {
        ("", "Pod") => pod::update(&mut errors, old, new),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => {
            workloads::selector_update(&mut errors, old, new);
        }
        ("apps", "StatefulSet") => workloads::stateful_set_update(&mut errors, old, new),
        ("discovery.k8s.io", "EndpointSlice") => {
            let path = Path::new("addressType");
            errors.immutable(&path, &new["addressType"], &old["addressType"]);
        }
        ("networking.k8s.io", "IngressClass") => {
            let path = Path::new("spec.controller");
            let of = |class: &Value| class["spec"]["controller"].clone();
            errors.immutable(&path, &of(new), &of(old));
        }
        _ => {}
    }
    errors.into_inner()
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Requests that are kinds, but no objects with a name of their own.
fn has_name(api_version: &str, kind: &str) -> bool {
    !matches!(
        (group(api_version), kind),
        ("authentication.k8s.io" | "authorization.k8s.io", _)
            | ("autoscaling", "Scale")
            | ("policy", "Eviction")
            | ("", "Binding")
            | (_, "DeleteOptions")
    )
}

fn body(
    errors: &mut Errors,
    options: ValidateOptions,
    api_version: &str,
    kind: &str,
    object: &Value,
) {
    match (group(api_version), kind) {
        ("", "Pod") => pod::spec(errors, &object["spec"], &Path::new("spec")),
        ("", "PodTemplate") => pod::template(errors, &object["template"], &Path::new("template")),
        ("", "Service") => service::check(errors, object),
        ("", "ConfigMap") => config::config_map(errors, object),
        ("", "Secret") => config::secret(errors, object),
        ("", "Endpoints") => network::endpoints(errors, object, options),
        ("", "Event") => event(errors, object),
        ("apps", "Deployment") => workloads::deployment(errors, object),
        ("apps", "ReplicaSet" | "StatefulSet" | "DaemonSet") => {
            workloads::set(errors, kind, object)
        }
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler::check(errors, object),
        ("autoscaling", "Scale") => {
            let path = Path::new("spec.replicas");
            non_negative(errors, &object["spec"]["replicas"], &path);
        }
        ("batch", "Job") => workloads::job(errors, &object["spec"], &Path::new("spec")),
        ("batch", "CronJob") => workloads::cron_job(errors, object),
        ("policy", "PodDisruptionBudget") => workloads::disruption_budget(errors, object),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(errors, object, options),
        ("networking.k8s.io", "Ingress") => network::ingress(errors, object),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(errors, object),
        ("networking.k8s.io", "NetworkPolicy") => {
            let path = Path::new("spec.podSelector");
            workloads::label_selector(errors, &object["spec"]["podSelector"], &path);
        }
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => {
            for (index, rule) in list(object, "/rules").iter().enumerate() {
                if list(rule, "/verbs").is_empty() {
                    let path = Path::new("rules").index(index).child("verbs");
                    errors.required(&path, "verbs must contain at least one value");
                }
            }
        }
        ("authentication.k8s.io", "TokenRequest") => token_request(errors, object),
        _ => {}
    }
}

/// An event lives in the namespace of the object that it is about.
fn event(errors: &mut Errors, event: &Value) {
    let about = text(event, "/involvedObject/namespace");
    if !about.is_empty() && about != text(event, "/metadata/namespace") {
        let path = Path::new("involvedObject.namespace");
        errors.invalid(&path, &json!(about), "does not match event.namespace");
    }
}

fn token_request(errors: &mut Errors, request: &Value) {
    let seconds = &request["spec"]["expirationSeconds"];
    if seconds.as_i64().is_some_and(|seconds| seconds < 600) {
        let path = Path::new("spec.expirationSeconds");
        let detail = "may not specify a duration less than 10 minutes";
        errors.invalid(&path, seconds, detail);
    }
}

/// A count that may be absent.
fn non_negative(errors: &mut Errors, value: &Value, path: &Path) {
    if value.as_i64().is_some_and(|value| value < 0) {
        errors.invalid(path, value, "must be greater than or equal to 0");
    }
}

/// A port by number or by name.
fn port_or_name(errors: &mut Errors, port: &Value, path: &Path) {
    match port.as_str() {
        Some(name) => errors.invalid_text(path, name, names::port_name(name)),
        None => {
            let value = port.as_i64().unwrap_or_default();
            if let Some(problem) = names::port_number(value) {
                errors.invalid(path, &json!(value), problem);
            }
        }
    }
}

/// The transport protocol of a port.
fn protocol(errors: &mut Errors, port: &Value, path: &Path) {
    match text(port, "/protocol") {
        "TCP" | "UDP" | "SCTP" => {}
        "" => errors.required(path, ""),
        other => errors.not_supported(path, &json!(other), &["SCTP", "TCP", "UDP"]),
    }
}

/// An address that packets can be sent to: no loopback (unless allowed), link-local or
/// unspecified address.
fn non_special_ip(errors: &mut Errors, path: &Path, ip: IpAddr, allow_loopback: bool) {
    let value = json!(ip.to_string());
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (
            ip.is_unicast_link_local(),
            ip.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    if ip.is_unspecified() {
        errors.invalid(path, &value, format!("may not be unspecified ({ip})"));
    }
    if ip.is_loopback() && !allow_loopback {
        let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        errors.invalid(path, &value, detail);
    }
    if link_local {
        let detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        errors.invalid(path, &value, detail);
    }
    if link_local_multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errors.invalid(path, &value, detail);
    }
}
