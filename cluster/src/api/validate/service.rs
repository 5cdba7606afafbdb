//! Rules for Services. Whether addresses and node ports are in range and free is for those who
//! allocate them.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::errors::{Errors, Path};
use super::metadata::labels;
use super::{names, non_special_ip, port_or_name};
use crate::api::json::{integer, list, number, present, text};

pub(super) fn check(errors: &mut Errors, service: &Value) {
    let spec = Path::new("spec");
    let type_ = text(service, "/spec/type");
    let headless = addresses(service).first().is_some_and(|ip| *ip == "None");
    let ports = list(service, "/spec/ports");
    if ports.is_empty() && !headless && type_ != "ExternalName" {
        errors.required(&spec.child("ports"), "");
    }
    match type_ {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {type_} services");
            errors.invalid(&spec.child("clusterIPs").index(0), &json!("None"), detail);
        }
        "ExternalName" => external_name(errors, service, &spec),
        _ => {}
    }
    let mut port_names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = spec.child("ports").index(index);
        check_port(errors, port, ports.len() > 1, &mut port_names, &path);
    }
    labels(errors, service, "/spec/selector", &spec.child("selector"));
    one_of(
        errors,
        service,
        &spec,
        "sessionAffinity",
        &["ClientIP", "None"],
    );
    affinity_timeout(errors, service, &spec);
    if type_ != "ExternalName" {
        cluster_ips(errors, service, &spec);
    }
    for (index, ip) in list(service, "/spec/externalIPs").iter().enumerate() {
        let path = spec.child("externalIPs").index(index);
        match names::ip(ip.as_str().unwrap_or_default()) {
            Ok(address) => non_special_ip(errors, &path, address, false),
            Err(problem) => errors.invalid(&path, ip, problem),
        }
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(errors, service, &spec, "type", &types);
    unique_ports(errors, ports, type_, &spec.child("ports"));
    let ranges = list(service, "/spec/loadBalancerSourceRanges");
    for (index, range) in ranges.iter().enumerate() {
        // The server spells this path with a capital.
        let path = spec.child("LoadBalancerSourceRanges").index(index);
        // Blanks around it are allowed, as they were in the annotation that this field replaced.
        let range = range.as_str().unwrap_or_default().trim();
        errors.invalid_text(&path, range, names::cidr(range));
    }
    traffic_policies(errors, service, type_, &spec);
}

/// Changes: a cluster IP stays once it is there.
pub(super) fn update(errors: &mut Errors, old: &Value, new: &Value) {
    let external = |service: &Value| text(service, "/spec/type") == "ExternalName";
    let before = addresses(old);
    let after = addresses(new);
    if external(old) || external(new) || before.is_empty() {
        return;
    }
    // Either of `clusterIP` and `clusterIPs` may have been changed alone.
    let changed = [
        text(new, "/spec/clusterIP"),
        text(new, "/spec/clusterIPs/0"),
    ]
    .into_iter()
    .find(|ip| !ip.is_empty() && Some(ip) != before.first());
    if let (Some(ip), Some(_)) = (changed, after.first()) {
        let path = Path::new("spec.clusterIPs").index(0);
        errors.invalid(&path, &json!([ip]), "may not change once set");
    }
}

/// The cluster IPs, from either field.
fn addresses(service: &Value) -> Vec<&str> {
    let all: Vec<&str> = list(service, "/spec/clusterIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(service, "/spec/clusterIP") {
        "" => all,
        ip if all.is_empty() => vec![ip],
        _ => all,
    }
}

fn external_name(errors: &mut Errors, service: &Value, spec: &Path) {
    if !addresses(service).is_empty() {
        let detail = "may not be set for ExternalName services";
        errors.forbidden(&spec.child("clusterIPs"), detail);
    }
    match text(service, "/spec/externalName") {
        "" => errors.required(&spec.child("externalName"), ""),
        name => {
            let problems = names::subdomain(name.strip_suffix('.').unwrap_or(name));
            errors.invalid_text(&spec.child("externalName"), name, problems);
        }
    }
}

fn check_port<'a>(
    errors: &mut Errors,
    port: &'a Value,
    name_required: bool,
    port_names: &mut HashSet<&'a str>,
    path: &Path,
) {
    match text(port, "/name") {
        "" if name_required => errors.required(&path.child("name"), ""),
        "" => {}
        name => {
            errors.invalid_text(&path.child("name"), name, names::label(name));
            if !port_names.insert(name) {
                errors.duplicate(&path.child("name"), json!(name));
            }
        }
    }
    let value = number(port, "/port");
    if let Some(problem) = names::port_number(value) {
        errors.invalid(&path.child("port"), &json!(value), problem);
    }
    super::protocol(errors, port, &path.child("protocol"));
    port_or_name(errors, &port["targetPort"], &path.child("targetPort"));
    if let Some(protocol) = port["appProtocol"].as_str() {
        let problems = names::qualified(protocol);
        errors.invalid_text(&path.child("appProtocol"), protocol, problems);
    }
}

fn one_of(errors: &mut Errors, service: &Value, spec: &Path, field: &str, values: &[&str]) {
    match text(service, &format!("/spec/{field}")) {
        "" => errors.required(&spec.child(field), ""),
        value if values.contains(&value) => {}
        value => errors.not_supported(&spec.child(field), &json!(value), values),
    }
}

/// How long a client stays with its endpoint, at most a day.
fn affinity_timeout(errors: &mut Errors, service: &Value, spec: &Path) {
    let seconds = integer(
        service,
        "/spec/sessionAffinityConfig/clientIP/timeoutSeconds",
    );
    if let Some(seconds) = seconds.filter(|seconds| !(1..=86_400).contains(seconds)) {
        let path = spec.child("sessionAffinityConfig.clientIP.timeoutSeconds");
        let detail = "must be greater than 0 and less than 86400";
        errors.invalid(&path, &json!(seconds), detail);
    }
}

/// Cluster IPs and families. The embedded cluster has IPv4 alone.
fn cluster_ips(errors: &mut Errors, service: &Value, spec: &Path) {
    let path = spec.child("clusterIPs");
    let all = addresses(service);
    let first = text(service, "/spec/clusterIP");
    if !first.is_empty() && all.first().is_some_and(|ip| *ip != first) {
        errors.invalid(&path, &json!(all), "first value must match `clusterIP`");
    }
    for (index, ip) in all.iter().enumerate() {
        match (index, *ip) {
            (0, "None") if all.len() > 1 => {
                errors.invalid(
                    &path,
                    &json!(all),
                    "'None' must be the first and only value",
                );
            }
            (0, "None") => {}
            (index, ip) => {
                if let Err(problem) = names::ip(ip) {
                    errors.invalid(&path.index(index), &json!(ip), problem);
                }
            }
        }
    }
    if all.len() > 1 && all.iter().all(|ip| ip.parse::<Ipv4Addr>().is_ok()) {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(&path, &json!(all), detail);
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    let policy = &service["spec"]["ipFamilyPolicy"];
    let path = spec.child("ipFamilyPolicy");
    match policy.as_str() {
        Some("RequireDualStack") => {
            let detail = "this cluster is not configured for dual-stack services";
            errors.invalid(&path, policy, detail);
        }
        Some(known) if policies.contains(&known) => {}
        Some(_) => errors.not_supported(&path, policy, &policies),
        None => {}
    }
    for (index, family) in list(service, "/spec/ipFamilies").iter().enumerate() {
        let path = spec.child("ipFamilies").index(index);
        match family.as_str().unwrap_or_default() {
            "IPv4" => {}
            "IPv6" => errors.invalid(&path, family, "not configured on this cluster"),
            _ => errors.not_supported(&path, family, &["IPv4", "IPv6"]),
        }
    }
}

fn unique_ports(errors: &mut Errors, ports: &[Value], type_: &str, path: &Path) {
    let mut seen = HashSet::new();
    let mut node_ports = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let (protocol, value) = (text(port, "/protocol"), number(port, "/port"));
        if !seen.insert((protocol, value)) {
            // In the server's own form, which is not that of the API.
            let value = format!(
                r#"{{"Name":"","Protocol":"{protocol}","AppProtocol":null,"Port":{value},"TargetPort":0,"NodePort":0}}"#
            );
            errors.duplicate(&path, value);
        }
        let node_port = number(port, "/nodePort");
        if node_port == 0 {
            continue;
        }
        let path = path.child("nodePort");
        if type_ == "ClusterIP" {
            errors.forbidden(&path, "may not be used when `type` is 'ClusterIP'");
        }
        if !node_ports.insert((protocol, node_port)) {
            errors.duplicate(&path, node_port);
        }
    }
}

fn traffic_policies(errors: &mut Errors, service: &Value, type_: &str, spec: &Path) {
    let has_external_ips = !list(service, "/spec/externalIPs").is_empty();
    let external =
        matches!(type_, "NodePort" | "LoadBalancer") || type_ == "ClusterIP" && has_external_ips;
    let policy = &service["spec"]["externalTrafficPolicy"];
    let path = spec.child("externalTrafficPolicy");
    match (external, policy.as_str()) {
        (true, None) => errors.required(&path, ""),
        (true, Some("Cluster" | "Local")) | (false, None | Some("")) => {}
        (true, Some(_)) => errors.not_supported(&path, policy, &["Cluster", "Local"]),
        (false, Some(_)) => {
            let detail = "may only be set for externally-accessible services";
            errors.invalid(&path, policy, detail);
        }
    }
    let local_balancer = type_ == "LoadBalancer" && policy == "Local";
    if let Some(port) = present(service, "/spec/healthCheckNodePort").filter(|_| !local_balancer) {
        let detail =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&spec.child("healthCheckNodePort"), port, detail);
    }
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    let distribution = &service["spec"]["trafficDistribution"];
    if distribution
        .as_str()
        .is_some_and(|name| !distributions.contains(&name))
    {
        let path = spec.child("trafficDistribution");
        errors.not_supported(&path, distribution, &distributions);
    }
    let internal = &service["spec"]["internalTrafficPolicy"];
    let path = spec.child("internalTrafficPolicy");
    match internal.as_str() {
        None if external || type_ == "ClusterIP" => errors.required(&path, ""),
        None | Some("Cluster" | "Local") => {}
        Some(_) => errors.not_supported(&path, internal, &["Cluster", "Local"]),
    }
    if present(service, "/spec/allocateLoadBalancerNodePorts").is_some() && type_ != "LoadBalancer"
    {
        errors.forbidden(
            &spec.child("allocateLoadBalancerNodePorts"),
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
}
