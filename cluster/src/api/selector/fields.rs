//! Field selectors: equality on a fixed set of fields of a kind.

use std::borrow::Cow;

use serde_json::Value;

use crate::api::kinds::Resource;
use crate::api::status::ApiError;

/// A parsed field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Parses `a=b,c!=d`; `\` escapes a comma, an equals sign or itself in a value.
    ///
    /// # Errors
    /// 400 for a term without operator or a field that the kind does not select by.
    pub(crate) fn parse(resource: &Resource, text: &str) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            let term = parse_term(&part).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                ))
            })?;
            check_field(resource, &term.field)?;
            terms.push(term);
        }
        Ok(Self(terms))
    }

    pub(super) fn require_name(&mut self, name: &str) {
        self.0.push(Term {
            field: "metadata.name".to_owned(),
            equal: true,
            value: name.to_owned(),
        });
    }

    /// Whether everything is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a stored object satisfies every term.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0
            .iter()
            .all(|term| (field(object, &term.field) == term.value) == term.equal)
    }
}

fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let last = terms.len() - 1;
        match c {
            '\\' => {
                terms[last].push(c);
                terms[last].extend(characters.next());
            }
            ',' => terms.push(String::new()),
            other => terms[last].push(other),
        }
    }
    terms.retain(|term| !term.is_empty());
    terms
}

fn parse_term(part: &str) -> Option<Term> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
        (false, value)
    } else if let Some(value) = rest.strip_prefix("==") {
        (true, value)
    } else {
        (true, rest.strip_prefix('=')?)
    };
    let mut unescaped = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        unescaped.extend(if c == '\\' {
            characters.next()
        } else {
            Some(c)
        });
    }
    Some(Term {
        field: field.trim().to_owned(),
        equal,
        value: unescaped,
    })
}

fn check_field(resource: &Resource, field: &str) -> Result<(), ApiError> {
    let known = std::iter::once("metadata.name")
        .chain(resource.namespaced.then_some("metadata.namespace"))
        .chain(resource.fields.iter().copied());
    if field == "metadata.namespace" || known.clone().any(|name| name == field) {
        return Ok(());
    }
    let listed: Vec<String> = known.map(|name| format!("\"{name}\"")).collect();
    Err(ApiError::bad_request(format!(
        "\"{field}\" is not a known field selector: only {}",
        listed.join(", ")
    )))
}

/// The value of a selectable field as text.
fn field<'a>(object: &'a Value, path: &str) -> Cow<'a, str> {
    match path {
        "source" => {
            let component = field(object, "source.component");
            if component.is_empty() {
                field(object, "reportingComponent")
            } else {
                component
            }
        }
        "status.podIPs" => {
            let addresses = object["status"]["podIPs"].as_array().into_iter().flatten();
            let joined: Vec<&str> = addresses.filter_map(|a| a["ip"].as_str()).collect();
            Cow::Owned(joined.join(","))
        }
        _ => {
            let found = path.split('.').fold(object, |value, part| &value[part]);
            match found {
                Value::String(text) => Cow::Borrowed(text),
                Value::Bool(flag) => Cow::Owned(flag.to_string()),
                Value::Number(number) => Cow::Owned(number.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => missing(path),
            }
        }
    }
}

/// Unset booleans and counts are selected by their zero values.
fn missing(path: &str) -> Cow<'static, str> {
    match path {
        "spec.unschedulable" | "spec.hostNetwork" => Cow::Borrowed("false"),
        "status.replicas" | "status.successful" => Cow::Borrowed("0"),
        _ => Cow::Borrowed(""),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::kinds;

    #[test]
    fn cluster_f1_field_selectors_select() {
        let pods = kinds::find("", "v1", "pods").expect("pods are served");
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"nodeName": "node", "restartPolicy": "Always"},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        for (selector, expected) in [
            ("", true),
            ("metadata.name=p", true),
            ("metadata.name==p,metadata.namespace=n", true),
            (
                "spec.nodeName=node,status.phase!=Succeeded,status.phase!=Failed",
                true,
            ),
            ("status.phase!=Running", false),
            ("spec.nodeName=", false),
            ("spec.hostNetwork=false", true),
            ("status.podIPs=10.0.0.1", true),
            ("status.nominatedNodeName=", true),
        ] {
            let parsed =
                FieldSelector::parse(pods, selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
            assert_eq!(parsed.matches(&pod), expected, "{selector}");
        }
    }

    #[test]
    fn cluster_f1_unknown_fields_are_refused_with_the_known_ones() {
        let config_maps = kinds::find("", "v1", "configmaps").expect("config maps are served");
        let error = FieldSelector::parse(config_maps, "data.x=1").expect_err("unknown field");
        assert_eq!(error.code, 400);
        assert_eq!(
            error.message,
            "\"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }

    #[test]
    fn cluster_f1_event_source_falls_back_to_the_reporting_component() {
        let events = kinds::find("", "v1", "events").expect("events are served");
        let selector = FieldSelector::parse(events, "source=kubelet").expect("valid");
        assert!(selector.matches(&json!({"source": {"component": "kubelet"}})));
        assert!(selector.matches(&json!({"source": {}, "reportingComponent": "kubelet"})));
        assert!(!selector.matches(&json!({"source": {"component": "scheduler"}})));
    }
}
