//! Other forms of stored objects: `autoscaling/v1` and `events.k8s.io/v1`.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::kinds::{Resource, View};

/// Where `autoscaling/v1` keeps the metrics it has no fields for.
const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";

/// Field names of a core Event and of an `events.k8s.io/v1` Event, where they differ.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// A stored object in the form of `resource`.
pub(super) fn present<'a>(resource: &Resource, stored: &'a Value) -> Cow<'a, Value> {
    let mut object = match resource.view {
        View::Stored => return Cow::Borrowed(stored),
        View::AutoscalerV1 => autoscaler_to_v1(stored.clone()),
        View::EventsV1 => rename(stored.clone(), |(core, events)| (core, events)),
    };
    object["apiVersion"] = resource.api_version().into();
    Cow::Owned(object)
}

/// An object in the form of `resource` as it is stored.
pub(super) fn accept(resource: &'static Resource, object: Value) -> Value {
    let mut stored = match resource.view {
        View::Stored => return object,
        View::AutoscalerV1 => autoscaler_from_v1(object),
        View::EventsV1 => rename(object, |(core, events)| (events, core)),
    };
    stored["apiVersion"] = resource.stored().api_version().into();
    stored
}

fn rename(
    mut event: Value,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    if let Some(fields) = event.as_object_mut() {
        for (from, to) in EVENT_FIELDS.into_iter().map(direction) {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
    }
    event
}

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"]["target"]["type"] == "Utilization"
}

fn autoscaler_to_v1(mut object: Value) -> Value {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return object;
    };
    let metrics = match spec.remove("metrics") {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    let (cpu, others): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu_utilization);
    if let Some(metric) = cpu.first() {
        let target = metric["resource"]["target"]["averageUtilization"].clone();
        spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
    }
    if !others.is_empty() {
        let text = Value::Array(others).to_string();
        object["metadata"]["annotations"][METRICS_ANNOTATION] = text.into();
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let current = status.remove("currentMetrics");
        let utilization = current
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|metric| metric["resource"]["name"] == "cpu")
            .map(|metric| metric["resource"]["current"]["averageUtilization"].clone());
        if let Some(value) = utilization.filter(Value::is_number) {
            status.insert("currentCPUUtilizationPercentage".to_owned(), value);
        }
        status.remove("conditions");
    }
    object
}

fn autoscaler_from_v1(mut object: Value) -> Value {
    let saved = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
        .and_then(|annotations| annotations.remove(METRICS_ANNOTATION))
        .and_then(|text| serde_json::from_str(text.as_str()?).ok());
    let mut metrics: Vec<Value> = saved.unwrap_or_default();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return object;
    };
    if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
        metrics.insert(
            0,
            json!({
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": target},
                },
            }),
        );
    }
    if !metrics.is_empty() {
        spec.insert("metrics".to_owned(), metrics.into());
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentCPUUtilizationPercentage");
    }
    object
}

/// Removes `apiVersion` and `kind`, which list items do not carry (L1).
pub(super) fn without_type(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    object
        .as_object()
        .unwrap_or(&NONE)
        .iter()
        .filter(|(field, _)| *field != "apiVersion" && *field != "kind")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds;

    #[test]
    fn cluster_t6_autoscaler_v1_and_v2_are_one_object() {
        let v1 = kinds::find("autoscaling", "v1", "horizontalpodautoscalers").expect("served");
        let stored = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "annotations": {"a": "b"}},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}},
                ],
            },
        });
        let shown = present(v1, &stored).into_owned();
        assert_eq!(shown["apiVersion"], "autoscaling/v1");
        assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(accept(v1, shown), stored);
    }

    #[test]
    fn cluster_c21_events_have_two_forms() {
        let events = kinds::find("events.k8s.io", "v1", "events").expect("served");
        let stored = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod"},
            "message": "m",
            "count": 2,
            "reason": "Started",
        });
        let shown = present(events, &stored).into_owned();
        assert_eq!(shown["regarding"]["kind"], "Pod");
        assert_eq!(shown["note"], "m");
        assert_eq!(shown["deprecatedCount"], 2);
        assert_eq!(accept(events, shown), stored);
    }
}
