//! What the status of an object should say.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::Snapshot;
use crate::defaults::GATEWAY_CONTROLLER;
use crate::model::{Attachment, ObjectRef, Parent, Problem, ProblemKind, PublishedAddress};

/// Most addresses that a Gateway's status takes.
const ADDRESSES: usize = 16;

/// Longest message of a condition, bytes.
const MESSAGE: usize = 1024;

/// What to say about an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    /// Conditions of the object itself, and a Gateway's addresses if they are known.
    Conditions(Vec<Condition>, Option<Value>),
    /// Entries of a route for its Gateways.
    Parents(Vec<(Value, Vec<Condition>)>),
}

/// A condition, without the time of its last change.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    kind: &'static str,
    is_true: bool,
    reason: &'static str,
    message: String,
    generation: i64,
}

/// What to say about all objects that are ours.
pub(super) fn of(
    snapshot: &Snapshot,
    addresses: Option<&[PublishedAddress]>,
) -> HashMap<ObjectRef, Wanted> {
    if snapshot.attachments.is_empty() {
        return HashMap::new();
    }
    let mut problems: HashMap<&ObjectRef, Vec<&Problem>> = HashMap::new();
    for problem in snapshot.problems.iter() {
        if snapshot.attachments.contains_key(&problem.object) {
            problems.entry(&problem.object).or_default().push(problem);
        }
    }
    let attachments = snapshot.attachments.iter();
    let wanted = attachments.map(|(object, attachment)| {
        let problems = problems.get(object).map(Vec::as_slice).unwrap_or_default();
        let wanted = match object.kind {
            "GatewayClass" => class(attachment),
            "Gateway" => gateway(attachment, problems, addresses),
            _ => route(attachment, problems),
        };
        (object.clone(), wanted)
    });
    wanted.collect()
}

fn class(attachment: &Attachment) -> Wanted {
    let accepted = condition(attachment, "Accepted", Ok("Accepted"), "");
    Wanted::Conditions(vec![accepted], None)
}

fn gateway(
    attachment: &Attachment,
    problems: &[&Problem],
    addresses: Option<&[PublishedAddress]>,
) -> Wanted {
    let (reason, message) = match problems.first() {
        None => ("Accepted", String::new()),
        Some(first) => ("ListenersNotValid", text(first)),
    };
    let accepted = condition(attachment, "Accepted", Ok(reason), &message);
    let programmed = condition(attachment, "Programmed", Ok("Programmed"), "");
    let address = |address: &PublishedAddress| match address {
        PublishedAddress::Ip(ip) => json!({"type": "IPAddress", "value": ip.to_string()}),
        PublishedAddress::Hostname(name) => json!({"type": "Hostname", "value": name}),
    };
    let addresses = addresses.map(|known| known.iter().take(ADDRESSES).map(address).collect());
    Wanted::Conditions(vec![accepted, programmed], addresses)
}

fn route(attachment: &Attachment, problems: &[&Problem]) -> Wanted {
    let is_of_backends = |problem: &&&Problem| problem.field.ends_with(".backendRefs");
    let resolved = match problems.iter().find(is_of_backends) {
        None => condition(attachment, "ResolvedRefs", Ok("ResolvedRefs"), ""),
        Some(problem) => {
            let reason = match problem.kind {
                ProblemKind::MissingService | ProblemKind::MissingPort => "BackendNotFound",
                _ if problem.message.contains("ReferenceGrant") => "RefNotPermitted",
                _ => "InvalidKind",
            };
            condition(attachment, "ResolvedRefs", Err(reason), &text(problem))
        }
    };
    let entry = |parent: &Parent| {
        let conditions = match parent.refused {
            None => {
                let accepted = condition(attachment, "Accepted", Ok("Accepted"), "");
                vec![accepted, resolved.clone()]
            }
            // Backends of a route that is not taken are not looked up.
            Some(refusal) => {
                let (reason, message) = (refusal.reason(), refusal.message());
                vec![condition(attachment, "Accepted", Err(reason), message)]
            }
        };
        (parent_ref(parent), conditions)
    };
    Wanted::Parents(attachment.parents.iter().map(entry).collect())
}

/// A condition that holds, or does not, for a reason.
fn condition(
    attachment: &Attachment,
    kind: &'static str,
    reason: Result<&'static str, &'static str>,
    message: &str,
) -> Condition {
    let message = crate::report::shorten(message, MESSAGE);
    Condition {
        kind,
        is_true: reason.is_ok(),
        reason: match reason {
            Ok(reason) | Err(reason) => reason,
        },
        message: message.to_owned(),
        generation: attachment.generation,
    }
}

fn text(problem: &Problem) -> String {
    format!("{}: {}", problem.field, problem.message)
}

fn parent_ref(parent: &Parent) -> Value {
    let mut value = json!({
        "group": crate::compile::gateway_api::GROUP,
        "kind": "Gateway",
        "name": parent.name,
    });
    if let Some(namespace) = &parent.namespace {
        value["namespace"] = json!(namespace);
    }
    if let Some(section) = &parent.section_name {
        value["sectionName"] = json!(section);
    }
    if let Some(port) = parent.port {
        value["port"] = json!(port);
    }
    value
}

impl Wanted {
    pub(super) fn is_route(&self) -> bool {
        matches!(self, Self::Parents(_))
    }

    /// The fields of the status, given what it says now. What others say stays.
    pub(super) fn status(&self, before: &Value, now: &str) -> Map<String, Value> {
        let mut status = Map::new();
        match self {
            Self::Conditions(conditions, addresses) => {
                let merged = merge(&before["conditions"], conditions, now);
                status.insert("conditions".to_owned(), merged);
                if let Some(addresses) = addresses {
                    status.insert("addresses".to_owned(), addresses.clone());
                }
            }
            Self::Parents(entries) => {
                let known = before["parents"].as_array().cloned().unwrap_or_default();
                let is_ours = |entry: &&Value| entry["controllerName"] == GATEWAY_CONTROLLER;
                let mut parents: Vec<Value> = known
                    .iter()
                    .filter(|entry| !is_ours(entry))
                    .cloned()
                    .collect();
                for (parent, conditions) in entries {
                    let mut ours = known.iter().filter(is_ours);
                    let mine = ours.find(|entry| entry["parentRef"] == *parent);
                    let said = mine.map_or(&Value::Null, |entry| &entry["conditions"]);
                    parents.push(json!({
                        "parentRef": parent,
                        "controllerName": GATEWAY_CONTROLLER,
                        "conditions": merge(said, conditions, now),
                    }));
                }
                status.insert("parents".to_owned(), parents.into());
            }
        }
        status
    }
}

/// Our conditions beside those of others; the time of the last change stays while the status does.
fn merge(before: &Value, conditions: &[Condition], now: &str) -> Value {
    let known = before.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |entry: &&Value| conditions.iter().any(|c| entry["type"] == c.kind);
    let mut merged: Vec<Value> = known
        .iter()
        .filter(|entry| !is_ours(entry))
        .cloned()
        .collect();
    for condition in conditions {
        let status = if condition.is_true { "True" } else { "False" };
        let same = |entry: &&Value| entry["type"] == condition.kind && entry["status"] == status;
        let since = known
            .iter()
            .find(same)
            .map(|entry| &entry["lastTransitionTime"]);
        let since = since.and_then(Value::as_str).unwrap_or(now);
        merged.push(json!({
            "type": condition.kind,
            "status": status,
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": condition.generation,
            "lastTransitionTime": since,
        }));
    }
    merged.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-01-02T00:00:00Z";

    fn accepted(is_true: bool) -> Condition {
        Condition {
            kind: "Accepted",
            is_true,
            reason: "Reason",
            message: String::new(),
            generation: 2,
        }
    }

    #[test]
    fn conditions_keep_their_time_and_those_of_others_stay() {
        let other = json!({"type": "Other", "status": "True"});
        let before =
            json!([{"type": "Accepted", "status": "True", "lastTransitionTime": THEN}, other]);
        let merged = merge(&before, &[accepted(true)], NOW);
        assert_eq!(merged[0], other);
        assert_eq!(merged[1]["lastTransitionTime"], THEN);
        assert_eq!(merged[1]["observedGeneration"], 2);
        let merged = merge(&before, &[accepted(false)], NOW);
        assert_eq!(merged[1]["lastTransitionTime"], NOW);
        assert_eq!(
            merge(&merged, &[accepted(false)], "later"),
            merged,
            "nothing to write"
        );
    }

    #[test]
    fn entries_of_other_controllers_stay_and_ours_go() {
        let theirs = json!({"parentRef": {"name": "x"}, "controllerName": "example.com/other"});
        let ours = json!({"parentRef": {"name": "x"}, "controllerName": GATEWAY_CONTROLLER});
        let before = json!({"parents": [ours, theirs]});
        let wanted = Wanted::Parents(Vec::new());
        assert_eq!(wanted.status(&before, NOW)["parents"], json!([theirs]));
        let parent = json!({"name": "y"});
        let wanted = Wanted::Parents(vec![(parent.clone(), vec![accepted(true)])]);
        let parents = &wanted.status(&before, NOW)["parents"];
        assert_eq!(parents[0], theirs);
        assert_eq!(
            (&parents[1]["parentRef"], parents.as_array().unwrap().len()),
            (&parent, 2)
        );
    }
}
