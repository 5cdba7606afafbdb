//! Rules for workloads and disruption budgets.

use serde_json::{Value, json};

use super::errors::{Errors, Path};
use super::metadata::labels;
use super::{names, non_negative, pod};
use crate::api::json::{entries, integer, list, number, present, text};

pub(super) fn deployment(errors: &mut Errors, object: &Value) {
    let path = Path::new("spec");
    let spec = &object["spec"];
    non_negative(errors, &spec["replicas"], &path.child("replicas"));
    selected_template(errors, spec, "ReplicaSet", &path);
    strategy(errors, &spec["strategy"], &path.child("strategy"));
    let ready = number(spec, "/minReadySeconds");
    for field in [
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        non_negative(errors, &spec[field], &path.child(field));
    }
    if let Some(deadline) = integer(spec, "/progressDeadlineSeconds")
        && deadline <= ready
    {
        let path = path.child("progressDeadlineSeconds");
        errors.invalid(
            &path,
            &json!(deadline),
            "must be greater than minReadySeconds",
        );
    }
}

/// ReplicaSets, StatefulSets and DaemonSets.
pub(super) fn set(errors: &mut Errors, kind: &str, object: &Value) {
    let path = Path::new("spec");
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        non_negative(errors, &spec[field], &path.child(field));
    }
    selected_template(errors, spec, kind, &path);
    match kind {
        "StatefulSet" => {
            let policy = &spec["podManagementPolicy"];
            if policy != "OrderedReady" && policy != "Parallel" {
                let detail = "must be 'OrderedReady' or 'Parallel'";
                errors.invalid(&path.child("podManagementPolicy"), policy, detail);
            }
        }
        "DaemonSet" => {
            let rolling = &spec["updateStrategy"]["rollingUpdate"];
            if is_zero(&rolling["maxUnavailable"]) && is_zero(&rolling["maxSurge"]) {
                let path = path.child("updateStrategy.rollingUpdate.maxUnavailable");
                errors.required(&path, "cannot be 0 when maxSurge is 0");
            }
        }
        _ => {}
    }
}

/// Whether an int-or-percent is 0.
fn is_zero(value: &Value) -> bool {
    match value.as_str() {
        Some(text) => text.trim_end_matches('%').parse() == Ok(0),
        None => *value == 0,
    }
}

/// Changes to a workload with a selector.
pub(super) fn selector_update(errors: &mut Errors, old: &Value, new: &Value) {
    let path = Path::new("spec.selector");
    errors.immutable(&path, &new["spec"]["selector"], &old["spec"]["selector"]);
}

/// Changes to a StatefulSet.
pub(super) fn stateful_set_update(errors: &mut Errors, old: &Value, new: &Value) {
    let fixed = |object: &Value| {
        let mut spec = object["spec"].clone();
        for field in [
            "replicas",
            "template",
            "updateStrategy",
            "minReadySeconds",
            "ordinals",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
        ] {
            spec.as_object_mut().map(|spec| spec.remove(field));
        }
        spec
    };
    if fixed(old) != fixed(new) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.forbidden(&Path::new("spec"), detail);
    }
}

pub(super) fn job(errors: &mut Errors, spec: &Value, path: &Path) {
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        non_negative(errors, &spec[field], &path.child(field));
    }
    let template = path.child("template");
    pod::template(errors, &spec["template"], &template);
    let path = template.child("spec.restartPolicy");
    match text(spec, "/template/spec/restartPolicy") {
        "OnFailure" | "Never" => {}
        _ => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
    }
}

pub(super) fn cron_job(errors: &mut Errors, object: &Value) {
    let path = Path::new("spec");
    let schedule = text(object, "/spec/schedule");
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if schedule.is_empty() {
        errors.required(&path.child("schedule"), "");
    } else if fields.len() != 5 && !schedule.starts_with('@') {
        let (count, fields) = (fields.len(), fields.join(" "));
        let detail = format!("expected exactly 5 fields, found {count}: [{fields}]");
        errors.invalid(&path.child("schedule"), &json!(schedule), detail);
    }
    let deadline = &object["spec"]["startingDeadlineSeconds"];
    non_negative(errors, deadline, &path.child("startingDeadlineSeconds"));
    let policies = ["Allow", "Forbid", "Replace"];
    let policy = &object["spec"]["concurrencyPolicy"];
    if !policies.iter().any(|known| policy == known) {
        errors.not_supported(&path.child("concurrencyPolicy"), policy, &policies);
    }
    let job = &object["spec"]["jobTemplate"]["spec"];
    self::job(errors, job, &path.child("jobTemplate.spec"));
}

/// The selector, and a template that it selects. `kind` is what makes the pods.
fn selected_template(errors: &mut Errors, spec: &Value, kind: &str, path: &Path) {
    let field = path.child("selector");
    let selector = present(spec, "/selector");
    match selector {
        // The server misses the selector of a DaemonSet only in its template.
        None if kind == "DaemonSet" => {}
        None => errors.required(&field, ""),
        Some(selector) => {
            let before = errors.len();
            label_selector(errors, selector, &field);
            let valid = errors.len() == before;
            if is_empty(selector) {
                let detail = "empty selector is invalid for deployment";
                errors.invalid(&field, selector, detail);
            }
            if !valid {
                return errors.invalid(&field, selector, "invalid label selector");
            }
        }
    }
    let path = path.child("template");
    let template = &spec["template"];
    // Without a selector nothing is selected, with an empty one everything.
    if !selector.is_some_and(|selector| is_empty(selector) || selects(selector, template)) {
        let labels = template.pointer("/metadata/labels").unwrap_or(&Value::Null);
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&path.child("metadata.labels"), labels, detail);
    }
    pod::template(errors, template, &path);
    let policy = &template["spec"]["restartPolicy"];
    if policy != "Always" {
        let path = path.child("spec.restartPolicy");
        errors.not_supported(&path, policy, &["Always"]);
    }
    if present(template, "/spec/activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("spec.activeDeadlineSeconds"), &detail);
    }
}

fn is_empty(selector: &Value) -> bool {
    entries(selector, "/matchLabels").is_empty() && list(selector, "/matchExpressions").is_empty()
}

/// Whether a LabelSelector selects the labels of a template.
fn selects(selector: &Value, template: &Value) -> bool {
    let label = |key: &str| {
        template
            .pointer("/metadata/labels")
            .and_then(|l| l.get(key))
    };
    entries(selector, "/matchLabels")
        .into_iter()
        .all(|(key, value)| label(key) == Some(value))
        && list(selector, "/matchExpressions")
            .iter()
            .all(|expression| {
                let found = label(text(expression, "/key"));
                let listed =
                    || found.is_some_and(|value| list(expression, "/values").contains(value));
                match text(expression, "/operator") {
                    "In" => listed(),
                    "NotIn" => !listed(),
                    "Exists" => found.is_some(),
                    "DoesNotExist" => found.is_none(),
                    _ => false,
                }
            })
}

/// A LabelSelector.
pub(super) fn label_selector(errors: &mut Errors, selector: &Value, path: &Path) {
    labels(errors, selector, "/matchLabels", &path.child("matchLabels"));
    for (index, expression) in list(selector, "/matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = list(expression, "/values");
        let field = path.child("values");
        match text(expression, "/operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.required(&field, detail);
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if values.is_empty() => {}
            "Exists" | "DoesNotExist" => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&field, detail);
            }
            operator => {
                let detail = "not a valid selector operator";
                errors.invalid(&path.child("operator"), &json!(operator), detail);
            }
        }
        let key = text(expression, "/key");
        errors.invalid_text(&path.child("key"), key, names::qualified(key));
    }
}

fn strategy(errors: &mut Errors, strategy: &Value, path: &Path) {
    let rolling = present(strategy, "/rollingUpdate");
    let field = path.child("rollingUpdate");
    match (text(strategy, "/type"), rolling) {
        ("Recreate", None) => {}
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(&field, detail);
        }
        ("RollingUpdate", Some(rolling)) => rolling_update(errors, rolling, &field),
        ("RollingUpdate", None) => {
            errors.required(&field, "this should be defaulted and never be nil");
        }
        _ => errors.not_supported(path, strategy, &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(errors: &mut Errors, rolling: &Value, path: &Path) {
    for field in ["maxUnavailable", "maxSurge"] {
        int_or_percent(errors, &rolling[field], &path.child(field));
    }
    let (unavailable, path) = (&rolling["maxUnavailable"], path.child("maxUnavailable"));
    if is_zero(unavailable) && is_zero(&rolling["maxSurge"]) {
        errors.invalid(&path, unavailable, "may not be 0 when `maxSurge` is 0");
    }
    let percent = unavailable.as_str().and_then(|text| text.strip_suffix('%'));
    if percent
        .and_then(|number| number.parse().ok())
        .is_some_and(|number: u32| number > 100)
    {
        errors.invalid(&path, unavailable, "must not be greater than 100%");
    }
}

fn int_or_percent(errors: &mut Errors, value: &Value, path: &Path) {
    match value.as_str() {
        Some(text) => errors.invalid_text(path, text, names::percent(text)),
        None => non_negative(errors, value, path),
    }
}

pub(super) fn disruption_budget(errors: &mut Errors, object: &Value) {
    let path = Path::new("spec");
    let spec = &object["spec"];
    let given: Vec<&str> = ["minAvailable", "maxUnavailable"]
        .into_iter()
        .filter(|field| present(spec, &format!("/{field}")).is_some())
        .collect();
    for field in &given {
        int_or_percent(errors, &spec[*field], &path.child(field));
    }
    if given.len() > 1 {
        errors.invalid(
            &path,
            spec,
            "minAvailable and maxUnavailable cannot be both set",
        );
    }
    if let Some(selector) = present(spec, "/selector") {
        label_selector(errors, selector, &path.child("selector"));
    }
}
