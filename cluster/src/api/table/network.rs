//! Rows of services, endpoints and ingresses.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{NONE, first_three, labels, load_balancer, or, selector};
use super::{age, name};
use crate::api::json::{list, number, present, text};

pub(super) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/spec/ports").iter().map(port).collect();
    vec![
        name(object),
        json!(text(object, "/spec/type")),
        json!(or(text(object, "/spec/clusterIPs/0"), NONE)),
        json!(external_ip(object)),
        json!(or(&ports.join(","), NONE)),
        age(object, now),
        json!(labels(object, "/spec/selector")),
    ]
}

fn port(port: &Value) -> String {
    let protocol = text(port, "/protocol");
    match (number(port, "/port"), number(port, "/nodePort")) {
        (port, 0) => format!("{port}/{protocol}"),
        (port, node_port) => format!("{port}:{node_port}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let mut addresses: Vec<String> = list(service, "/spec/externalIPs")
        .iter()
        .filter_map(|ip| ip.as_str().map(str::to_owned))
        .collect();
    match text(service, "/spec/type") {
        "ClusterIP" | "NodePort" => or(&addresses.join(","), NONE).to_owned(),
        "LoadBalancer" => {
            let balancer = load_balancer(service);
            if !balancer.is_empty() {
                addresses.insert(0, balancer);
            }
            or(&addresses.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

pub(super) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let subsets = list(object, "/subsets");
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || list(subset, "/addresses").iter().map(|a| text(a, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let port = number(port, "/port");
            all.extend(addresses().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{port}"),
                false => format!("{ip}:{port}"),
            }));
        }
    }
    let text = if subsets.is_empty() {
        NONE.to_owned()
    } else {
        first_three(&all)
    };
    vec![name(object), json!(text), age(object, now)]
}

pub(super) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/ports")
        .iter()
        .map(
            |port| match (present(port, "/port"), port["name"].as_str()) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.to_owned(),
                (None, None) => "*".to_owned(),
            },
        )
        .collect();
    let addresses: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    let shown = |all: &[String]| match all {
        [] => json!("<unset>"),
        all => json!(first_three(all)),
    };
    vec![
        name(object),
        json!(text(object, "/addressType")),
        shown(&ports),
        shown(&addresses),
        age(object, now),
    ]
}

pub(super) fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let tls = !list(object, "/spec/tls").is_empty();
    vec![
        name(object),
        json!(or(text(object, "/spec/ingressClassName"), NONE)),
        json!(hosts(list(object, "/spec/rules"))),
        json!(load_balancer(object)),
        json!(if tls { "80, 443" } else { "80" }),
        age(object, now),
    ]
}

/// The first three hosts. Rules without a host are counted in "more" but not shown.
fn hosts(rules: &[Value]) -> String {
    let mut shown = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == 3;
        let host = text(rule, "/host");
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => shown.join(","),
        (false, true) => format!("{} + {} more...", shown.join(","), rules.len() - 3),
    }
}

pub(super) fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = present(object, "/spec/parameters").map_or(NONE.to_owned(), |parameters| {
        let kind = text(parameters, "/kind");
        let name = text(parameters, "/name");
        match present(parameters, "/apiGroup").and_then(Value::as_str) {
            Some(group) => format!("{kind}.{group}/{name}"),
            None => format!("{kind}/{name}"),
        }
    });
    vec![
        name(object),
        json!(text(object, "/spec/controller")),
        json!(parameters),
        age(object, now),
    ]
}

pub(super) fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(selector(object, "/spec/podSelector")),
        age(object, now),
    ]
}
