//! Pieces that several tables share.

use serde_json::Value;

use crate::api::json::{entries, list, text};

/// Shown where a value is missing.
pub(super) const NONE: &str = "<none>";

/// `text`, or `otherwise` if it is empty.
pub(super) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// The first three of `all`, and how many more there are.
pub(super) fn first_three(all: &[String]) -> String {
    match all.get(..3) {
        Some(first) if all.len() > 3 => {
            format!("{} + {} more...", first.join(","), all.len() - 3)
        }
        _ => all.join(","),
    }
}

/// A map as `key=value,…`, or `<none>`.
pub(super) fn labels(object: &Value, pointer: &str) -> String {
    let pairs: Vec<String> = entries(object, pointer)
        .into_iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or(&pairs.join(","), NONE).to_owned()
}

/// A LabelSelector in the text form of the `labelSelector` query, or `<none>` if it selects all.
pub(super) fn selector(object: &Value, pointer: &str) -> String {
    or(&selector_text(object, pointer), NONE).to_owned()
}

/// A LabelSelector in the text form of the `labelSelector` query.
pub(super) fn selector_text(object: &Value, pointer: &str) -> String {
    let mut requirements: Vec<(&str, String)> = entries(object, &format!("{pointer}/matchLabels"))
        .into_iter()
        .map(|(key, value)| (key, format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in list(object, &format!("{pointer}/matchExpressions")) {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = list(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        requirements.push((
            key,
            match text(expression, "/operator") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.to_owned(),
                "DoesNotExist" => format!("!{key}"),
                _ => return "<error>".to_owned(),
            },
        ));
    }
    requirements.sort_by_key(|(key, _)| *key);
    let texts: Vec<String> = requirements.into_iter().map(|(_, text)| text).collect();
    texts.join(",")
}

/// Names and images of the containers of the pod spec at `pointer`.
pub(super) fn containers(object: &Value, pointer: &str) -> (String, String) {
    let containers = list(object, &format!("{pointer}/containers"));
    let column = |field: &str| {
        let texts: Vec<&str> = containers.iter().map(|c| text(c, field)).collect();
        texts.join(",")
    };
    (column("/name"), column("/image"))
}

/// The addresses of a load balancer's status: IP or host name of each, sorted.
pub(super) fn load_balancer(object: &Value) -> String {
    let mut addresses: Vec<&str> = list(object, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| or(text(ingress, "/ip"), text(ingress, "/hostname")))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",")
}
