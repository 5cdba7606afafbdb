//! Rows of workloads and what belongs to them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::{short, since, time};
use super::format::{NONE, containers, labels, or, selector, selector_text};
use super::{age, name};
use crate::api::json::{int_or_string, integer, list, number, present, text};

const TEMPLATE: &str = "/spec/template/spec";

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, TEMPLATE);
    vec![
        name(object),
        ready(object),
        json!(number(object, "/status/updatedReplicas")),
        json!(number(object, "/status/availableReplicas")),
        age(object, now),
        json!(names),
        json!(images),
        json!(selector_text(object, "/spec/selector")),
    ]
}

pub(super) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, TEMPLATE);
    vec![
        name(object),
        ready(object),
        age(object, now),
        json!(names),
        json!(images),
    ]
}

fn ready(object: &Value) -> Value {
    let ready = number(object, "/status/readyReplicas");
    json!(format!("{ready}/{}", number(object, "/spec/replicas")))
}

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, now, selector(object, "/spec/selector"))
}

/// A ReplicationController, whose selector is a plain map.
pub(super) fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, now, labels(object, "/spec/selector"))
}

fn replicas(object: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let (names, images) = containers(object, TEMPLATE);
    vec![
        name(object),
        json!(number(object, "/spec/replicas")),
        json!(number(object, "/status/replicas")),
        json!(number(object, "/status/readyReplicas")),
        age(object, now),
        json!(names),
        json!(images),
        json!(selector),
    ]
}

pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, TEMPLATE);
    vec![
        name(object),
        json!(number(object, "/status/desiredNumberScheduled")),
        json!(number(object, "/status/currentNumberScheduled")),
        json!(number(object, "/status/numberReady")),
        json!(number(object, "/status/updatedNumberScheduled")),
        json!(number(object, "/status/numberAvailable")),
        json!(labels(object, "/spec/template/spec/nodeSelector")),
        age(object, now),
        json!(names),
        json!(images),
        json!(selector(object, "/spec/selector")),
    ]
}

pub(super) fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let controller = list(object, "/metadata/ownerReferences")
        .iter()
        .find(|owner| owner["controller"] == true)
        .map_or(NONE.to_owned(), |owner| {
            let kind = text(owner, "/kind").to_lowercase();
            let kind = match text(owner, "/apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}"),
                None => kind,
            };
            format!("{kind}/{}", text(owner, "/name"))
        });
    vec![
        name(object),
        json!(controller),
        json!(number(object, "/revision")),
        age(object, now),
    ]
}

pub(super) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, TEMPLATE);
    let succeeded = number(object, "/status/succeeded");
    let completions = match (
        integer(object, "/spec/completions"),
        number(object, "/spec/parallelism"),
    ) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = time(object, "/status/startTime").map_or(String::new(), |start| {
        let end = time(object, "/status/completionTime").unwrap_or(now);
        short(end.as_second() - start.as_second())
    });
    vec![
        name(object),
        json!(job_status(object)),
        json!(completions),
        json!(duration),
        age(object, now),
        json!(names),
        json!(images),
        json!(selector(object, "/spec/selector")),
    ]
}

fn job_status(object: &Value) -> &'static str {
    let has = |type_: &str| {
        list(object, "/status/conditions")
            .iter()
            .any(|c| text(c, "/type") == type_ && text(c, "/status") == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if super::deleting(object) {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"]
            .into_iter()
            .find(|type_| has(type_))
            .unwrap_or("Running")
    }
}

pub(super) fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, "/spec/jobTemplate/spec/template/spec");
    let last = match present(object, "/status/lastScheduleTime") {
        Some(_) => since(object, "/status/lastScheduleTime", now),
        None => NONE.to_owned(),
    };
    let suspend = match present(object, "/spec/suspend") {
        Some(Value::Bool(true)) => "True",
        Some(_) => "False",
        None => "<unset>",
    };
    vec![
        name(object),
        json!(text(object, "/spec/schedule")),
        json!(or(text(object, "/spec/timeZone"), NONE)),
        json!(suspend),
        json!(list(object, "/status/active").len()),
        json!(last),
        age(object, now),
        json!(names),
        json!(images),
        json!(selector(object, "/spec/jobTemplate/spec/selector")),
    ]
}

pub(super) fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |pointer| {
        let text = present(object, pointer).map(int_or_string);
        json!(text.as_deref().unwrap_or("N/A"))
    };
    vec![
        name(object),
        amount("/spec/minAvailable"),
        amount("/spec/maxUnavailable"),
        json!(number(object, "/status/disruptionsAllowed")),
        age(object, now),
    ]
}

pub(super) fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = "/spec/scaleTargetRef";
    let kind = text(object, &format!("{target}/kind"));
    let min = present(object, "/spec/minReplicas").map(int_or_string);
    vec![
        name(object),
        json!(format!(
            "{kind}/{}",
            text(object, &format!("{target}/name"))
        )),
        json!(metrics(object)),
        json!(min.as_deref().unwrap_or("<unset>")),
        json!(number(object, "/spec/maxReplicas")),
        json!(number(object, "/status/currentReplicas")),
        age(object, now),
    ]
}

/// Measured and wanted value of the first two metrics. Statuses are in the order of the specs.
fn metrics(object: &Value) -> String {
    // An autoscaling/v1 object has one metric, in fields of its own.
    if let Some(target) = integer(object, "/spec/targetCPUUtilizationPercentage") {
        let current = integer(object, "/status/currentCPUUtilizationPercentage");
        let current = current.map_or("<unknown>".to_owned(), |percent| format!("{percent}%"));
        return format!("cpu: {current}/{target}%");
    }
    let specs = list(object, "/spec/metrics");
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let statuses = list(object, "/status/currentMetrics");
    let texts: Vec<String> = specs
        .iter()
        .take(2)
        .enumerate()
        .map(|(index, spec)| metric(spec, statuses.get(index).unwrap_or(&Value::Null)))
        .collect();
    let texts = texts.join(", ");
    match specs.len() {
        0..=2 => texts,
        more => format!("{texts} + {} more...", more - 2),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let (field, per_resource) = match text(spec, "/type") {
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "External" => ("external", false),
        _ => return "<unknown type>".to_owned(),
    };
    let (spec, status) = (&spec[field], &status[field]);
    let quantity = |object, pointer| present(object, pointer).map(int_or_string);
    let percent = |object, pointer| integer(object, pointer).map(|value| format!("{value}%"));
    let unknown = || "<unknown>".to_owned();

    if let Some(target) = quantity(spec, "/target/averageValue") {
        let current = quantity(status, "/current/averageValue").unwrap_or_else(unknown);
        return match field {
            "resource" | "containerResource" => {
                format!("{}: {current}/{target}", text(spec, "/name"))
            }
            "pods" => format!("{current}/{target}"),
            _ => format!("{current}/{target} (avg)"),
        };
    }
    if per_resource {
        let current = percent(status, "/current/averageUtilization").unwrap_or_else(unknown);
        let target = percent(spec, "/target/averageUtilization");
        let target = target.as_deref().unwrap_or("<auto>");
        return format!("{}: {current}/{target}", text(spec, "/name"));
    }
    let current = quantity(status, "/current/value").unwrap_or_else(unknown);
    let target = quantity(spec, "/target/value").unwrap_or_else(unknown);
    format!("{current}/{target}")
}
