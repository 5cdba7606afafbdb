//! Rules for HorizontalPodAutoscalers.

use serde_json::{Value, json};

use super::errors::{Errors, Path};
use super::names;
use crate::api::json::{integer, list, number, present, text};

pub(super) fn check(errors: &mut Errors, object: &Value) {
    let path = Path::new("spec");
    let spec = &object["spec"];
    let (min, max) = (integer(spec, "/minReplicas"), number(spec, "/maxReplicas"));
    if let Some(min @ ..=0) = min {
        let detail = "must be greater than or equal to 1";
        errors.invalid(&path.child("minReplicas"), &json!(min), detail);
    }
    let field = path.child("maxReplicas");
    if max < 1 {
        errors.invalid(&field, &json!(max), "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.invalid(&field, &json!(max), detail);
    }
    scale_target(
        errors,
        &spec["scaleTargetRef"],
        &path.child("scaleTargetRef"),
    );
    for (index, metric) in list(spec, "/metrics").iter().enumerate() {
        self::metric(errors, metric, &path.child("metrics").index(index));
    }
    let outside = |metric: &Value| matches!(text(metric, "/type"), "Object" | "External");
    if min == Some(0) && !list(spec, "/metrics").iter().any(outside) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&path.child("metrics"), detail);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = present(spec, &format!("/behavior/{direction}")) {
            scaling_rules(errors, rules, &path.child("behavior").child(direction));
        }
    }
}

fn scale_target(errors: &mut Errors, target: &Value, path: &Path) {
    for field in ["kind", "name"] {
        match text(target, &format!("/{field}")) {
            "" => errors.required(&path.child(field), ""),
            value => errors.invalid_text(&path.child(field), value, names::path_segment(value)),
        }
    }
    let version = text(target, "/apiVersion");
    if !version.contains('/') && text(target, "/kind") != "ReplicationController" {
        let detail = "apiVersion must specify API group";
        errors.invalid(&path.child("apiVersion"), &json!(version), detail);
    }
}

fn metric(errors: &mut Errors, metric: &Value, path: &Path) {
    let types = [
        "ContainerResource",
        "External",
        "Object",
        "Pods",
        "Resource",
    ];
    let type_ = text(metric, "/type");
    let source = match type_ {
        "" => {
            errors.required(&path.child("type"), "must specify a metric source type");
            return errors.not_supported(&path.child("type"), &json!(type_), &types);
        }
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        _ => return errors.not_supported(&path.child("type"), &json!(type_), &types),
    };
    let path = path.child(source);
    let Some(source) = present(metric, &format!("/{source}")) else {
        let detail = "must populate information for the given metric source";
        return errors.required(&path, detail);
    };
    let (target, path) = (&source["target"], path.child("target"));
    let kind = text(target, "/type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.invalid(&path.child("type"), &json!(kind), detail);
    }
    let utilization = integer(target, "/averageUtilization");
    if let Some(percent @ ..=0) = utilization {
        let field = path.child("averageUtilization");
        errors.invalid(&field, &json!(percent), "must be greater than 0");
    }
    let value = present(target, "/averageValue").is_some();
    if type_.ends_with("Resource") {
        match (utilization, value) {
            (None, false) => errors.required(
                &path.child("averageUtilization"),
                "must set either a target raw value or a target utilization",
            ),
            (Some(_), true) => errors.forbidden(
                &path.child("averageValue"),
                "may not set both a target raw value and a target utilization",
            ),
            _ => {}
        }
    }
}

fn scaling_rules(errors: &mut Errors, rules: &Value, path: &Path) {
    if let Some(seconds) = integer(rules, "/stabilizationWindowSeconds") {
        let field = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            let detail = "must be greater than or equal to zero";
            errors.invalid(&field, &json!(seconds), detail);
        } else if seconds > 3600 {
            let detail = "must be less than or equal to 3600";
            errors.invalid(&field, &json!(seconds), detail);
        }
    }
    let selects = ["Disabled", "Max", "Min"];
    let select = &rules["selectPolicy"];
    if select
        .as_str()
        .is_some_and(|select| !selects.contains(&select))
    {
        errors.not_supported(&path.child("selectPolicy"), select, &selects);
    }
    let policies = list(rules, "/policies");
    let path = path.child("policies");
    if policies.is_empty() {
        errors.required(&path, "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.index(index);
        let type_ = &policy["type"];
        if type_ != "Pods" && type_ != "Percent" {
            errors.not_supported(&path.child("type"), type_, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let value = number(policy, &format!("/{field}"));
            if value <= 0 {
                errors.invalid(
                    &path.child(field),
                    &json!(value),
                    "must be greater than zero",
                );
            }
        }
        let period = number(policy, "/periodSeconds");
        if period > 1800 {
            let detail = "must be less than or equal to 1800";
            errors.invalid(&path.child("periodSeconds"), &json!(period), detail);
        }
    }
}
