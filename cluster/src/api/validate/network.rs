//! Rules for Ingresses, their classes, EndpointSlices and Endpoints.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::errors::{Errors, Path};
use super::{ValidateOptions, names, non_special_ip, protocol};
use crate::api::json::{list, number, present, text};

/// How many endpoints a slice may have.
const MAX_ENDPOINTS: usize = 1000;
/// How many addresses an endpoint may have.
const MAX_ADDRESSES: usize = 100;

pub(super) fn ingress(errors: &mut Errors, ingress: &Value) {
    let spec = Path::new("spec");
    let rules = list(ingress, "/spec/rules");
    let default = present(ingress, "/spec/defaultBackend");
    if rules.is_empty() && default.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&spec, &Value::Null, detail);
    }
    if let Some(default) = default {
        backend(errors, default, &spec.child("defaultBackend"));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = spec.child("rules").index(index);
        host(errors, text(rule, "/host"), &path.child("host"), true);
        let Some(http) = present(rule, "/http") else {
            continue;
        };
        let paths = path.child("http.paths");
        if list(http, "/paths").is_empty() {
            errors.required(&paths, "");
        }
        for (index, path) in list(http, "/paths").iter().enumerate() {
            ingress_path(errors, path, &paths.index(index));
        }
    }
    for (index, tls) in list(ingress, "/spec/tls").iter().enumerate() {
        let path = spec.child("tls").index(index);
        for (index, name) in list(tls, "/hosts").iter().enumerate() {
            let path = path.child("hosts").index(index);
            host(errors, name.as_str().unwrap_or_default(), &path, false);
        }
        let secret = text(tls, "/secretName");
        if !secret.is_empty() {
            errors.invalid_text(&path.child("secretName"), secret, names::subdomain(secret));
        }
    }
    if let Some(class) = ingress["spec"]["ingressClassName"].as_str() {
        errors.invalid_text(
            &spec.child("ingressClassName"),
            class,
            names::subdomain(class),
        );
    }
}

/// A new Ingress may not name one class in the annotation and another in the field.
pub(super) fn ingress_create(errors: &mut Errors, ingress: &Value) {
    let annotation = ingress
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get("kubernetes.io/ingress.class"));
    let class = present(ingress, "/spec/ingressClassName");
    if let (Some(annotation), Some(class)) = (annotation, class)
        && annotation != class
    {
        errors.invalid(
            &Path::new("annotations.kubernetes.io/ingress.class"),
            annotation,
            "must match `ingressClassName` when both are specified",
        );
    }
}

fn host(errors: &mut Errors, host: &str, path: &Path, rule: bool) {
    if host.is_empty() && rule {
        return;
    }
    if rule && host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, &json!(host), "must be a DNS name, not an IP address");
    }
    let problems = match host.contains('*') {
        true => names::wildcard(host),
        false => names::subdomain(host),
    };
    errors.invalid_text(path, host, problems);
}

fn ingress_path(errors: &mut Errors, item: &Value, path: &Path) {
    let path_field = path.child("path");
    let value = text(item, "/path");
    let absolute = |errors: &mut Errors| {
        if !value.starts_with('/') {
            errors.invalid(&path_field, &json!(value), "must be an absolute path");
        }
    };
    match item["pathType"].as_str() {
        None => return errors.required(&path.child("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            absolute(errors);
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(part) {
                    let detail = format!("must not contain '{part}'");
                    errors.invalid(&path_field, &json!(value), detail);
                }
            }
            for end in ["/..", "/."] {
                if value.ends_with(end) {
                    let detail = format!("cannot end with '{end}'");
                    errors.invalid(&path_field, &json!(value), detail);
                }
            }
        }
        Some("ImplementationSpecific") if value.is_empty() => {}
        Some("ImplementationSpecific") => absolute(errors),
        Some(_) => errors.not_supported(
            &path.child("pathType"),
            &item["pathType"],
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
    backend(errors, &item["backend"], &path.child("backend"));
}

fn backend(errors: &mut Errors, backend: &Value, path: &Path) {
    let empty = json!("");
    let (service, resource) = (present(backend, "/service"), present(backend, "/resource"));
    let service = match (service, resource) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            return errors.invalid(path, &empty, detail);
        }
        (None, Some(resource)) => return reference(errors, resource, &path.child("resource")),
        (None, None) => {
            return errors.invalid(path, &empty, "resource or service backend is required");
        }
        (Some(service), None) => service,
    };
    let field = path.child("service");
    match text(service, "/name") {
        "" => errors.required(&field.child("name"), ""),
        name => errors.invalid_text(&field.child("name"), name, names::label_1035(name)),
    }
    match (text(service, "/port/name"), number(service, "/port/number")) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", value) => {
            if let Some(problem) = names::port_number(value) {
                errors.invalid(&field.child("port.number"), &json!(value), problem);
            }
        }
        (name, 0) => {
            errors.invalid_text(&field.child("port.name"), name, names::port_name(name));
        }
        _ => errors.invalid(path, &empty, "cannot set both port name & port number"),
    }
}

/// A reference to an object of any kind.
fn reference(errors: &mut Errors, reference: &Value, path: &Path) {
    if let Some(group) = reference["apiGroup"].as_str() {
        errors.invalid_text(&path.child("apiGroup"), group, names::subdomain(group));
    }
    for field in ["kind", "name"] {
        match text(reference, &format!("/{field}")) {
            "" => errors.required(&path.child(field), ""),
            value => errors.invalid_text(&path.child(field), value, names::path_segment(value)),
        }
    }
}

pub(super) fn ingress_class(errors: &mut Errors, class: &Value) {
    let spec = Path::new("spec");
    let controller = text(class, "/spec/controller");
    let path = spec.child("controller");
    if controller.is_empty() {
        errors.required(&path, "");
    } else if !controller.contains('/') {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.invalid(&path, &json!(controller), detail);
    } else if controller.len() > 250 {
        errors.too_long(&path, 250);
    }
    if let Some((domain, _)) = controller.split_once('/') {
        errors.invalid_text(&path, domain, names::subdomain(domain));
    }
    let Some(parameters) = present(class, "/spec/parameters") else {
        return;
    };
    let path = spec.child("parameters");
    reference(errors, parameters, &path);
    let namespace = present(parameters, "/namespace");
    let field = path.child("namespace");
    match (text(parameters, "/scope"), namespace) {
        ("", _) => errors.required(&path.child("scope"), ""),
        ("Namespace", None) => {
            errors.required(&field, "`parameters.scope` is set to 'Namespace'");
        }
        ("Cluster", Some(_)) => {
            errors.forbidden(&field, "`parameters.scope` is set to 'Cluster'");
        }
        ("Namespace" | "Cluster", _) => {}
        (_, _) => errors.not_supported(
            &path.child("scope"),
            &parameters["scope"],
            &["Cluster", "Namespace"],
        ),
    }
}

pub(super) fn endpoint_slice(errors: &mut Errors, slice: &Value, options: ValidateOptions) {
    let type_ = text(slice, "/addressType");
    match type_ {
        "" => errors.required(&Path::new("addressType"), ""),
        "IPv4" | "IPv6" | "FQDN" => {}
        _ => errors.not_supported(
            &Path::new("addressType"),
            &slice["addressType"],
            &["FQDN", "IPv4", "IPv6"],
        ),
    }
    slice_ports(errors, list(slice, "/ports"));
    let endpoints = list(slice, "/endpoints");
    let path = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        return errors.too_many(&path, endpoints.len(), MAX_ENDPOINTS);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        let addresses = list(endpoint, "/addresses");
        let field = path.child("addresses");
        if addresses.is_empty() {
            errors.required(&field, "must contain at least 1 address");
        } else if addresses.len() > MAX_ADDRESSES {
            errors.too_many(&field, addresses.len(), MAX_ADDRESSES);
        }
        for (index, address) in addresses.iter().enumerate() {
            slice_address(errors, type_, address, &field, index, options);
        }
        if let Some(node) = endpoint["nodeName"].as_str() {
            errors.invalid_text(&path.child("nodeName"), node, names::subdomain(node));
        }
        if let Some(host) = endpoint["hostname"].as_str() {
            errors.invalid_text(&path.child("hostname"), host, names::label(host));
        }
    }
}

fn slice_address(
    errors: &mut Errors,
    type_: &str,
    address: &Value,
    field: &Path,
    index: usize,
    options: ValidateOptions,
) {
    let path = field.index(index);
    let text = address.as_str().unwrap_or_default();
    if type_ == "FQDN" {
        let name = text.strip_suffix('.').unwrap_or(text);
        return errors.invalid_text(&path, text, names::subdomain(name));
    }
    match names::ip(text) {
        Err(problem) => errors.invalid(&path, address, problem),
        Ok(ip) => {
            if type_ == "IPv4" && ip.is_ipv6() {
                errors.invalid(field, address, "must be an IPv4 address");
            } else if type_ == "IPv6" && ip.is_ipv4() {
                errors.invalid(field, address, "must be an IPv6 address");
            }
            non_special_ip(errors, &path, ip, options.allow_loopback);
        }
    }
}

fn slice_ports(errors: &mut Errors, ports: &[Value]) {
    let mut port_names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = Path::new("ports").index(index);
        let name = text(port, "/name");
        if !name.is_empty() {
            errors.invalid_text(&path.child("name"), name, names::label(name));
        }
        if !port_names.insert(name) {
            errors.duplicate(&path.child("name"), json!(name));
        }
        protocol(errors, port, &path.child("protocol"));
        if let Some(application) = port["appProtocol"].as_str() {
            let problems = names::qualified(application);
            errors.invalid_text(&path.child("appProtocol"), application, problems);
        }
    }
}

pub(super) fn endpoints(errors: &mut Errors, endpoints: &Value, options: ValidateOptions) {
    for (index, subset) in list(endpoints, "/subsets").iter().enumerate() {
        let path = Path::new("subsets").index(index);
        let lists = ["addresses", "notReadyAddresses"];
        let of = |field: &str| list(subset, &format!("/{field}"));
        if lists.iter().all(|field| of(field).is_empty()) {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in lists {
            for (index, address) in of(field).iter().enumerate() {
                let path = path.child(field).index(index);
                if let Some(host) = address["hostname"].as_str() {
                    errors.invalid_text(&path.child("hostname"), host, names::label(host));
                }
                let path = path.child("ip");
                match names::ip(text(address, "/ip")) {
                    Err(problem) => {
                        // The server checks it twice.
                        errors.invalid(&path, &address["ip"], problem);
                        errors.invalid(&path, &address["ip"], "must be a valid IP address");
                    }
                    Ok(ip) => non_special_ip(errors, &path, ip, options.allow_loopback),
                }
            }
        }
        let ports = list(subset, "/ports");
        for (index, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(index);
            match text(port, "/name") {
                "" if ports.len() > 1 => errors.required(&path.child("name"), ""),
                "" => {}
                name => errors.invalid_text(&path.child("name"), name, names::label(name)),
            }
            let value = number(port, "/port");
            if let Some(problem) = names::port_number(value) {
                errors.invalid(&path.child("port"), &json!(value), problem);
            }
            protocol(errors, port, &path.child("protocol"));
        }
    }
}
