//! Defaults of HorizontalPodAutoscalers.

use serde_json::{Value, json};

use super::{Fields, filled, set};
use crate::api::json::ensure_map;

/// CPU utilisation aimed at when no metric is given, in percent of the requests.
const CPU_PERCENT: i64 = 80;

pub(super) fn apply(api_version: &str, fields: &mut Fields) {
    let Some(spec) = ensure_map(fields, "spec") else {
        return;
    };
    set(spec, "minReplicas", 1);
    if api_version == "autoscaling/v1" {
        // A v1 object is one view of a v2 object: other metrics are in an annotation there, and
        // only an object without any metric gets the default.
        return;
    }
    if !filled(spec, "metrics") {
        let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".to_owned(), json!([metric]));
    }
    // A behavior is completed in both directions as soon as there is one; without one the
    // controller's own rules hold.
    if let Some(Value::Object(behavior)) = spec.get_mut("behavior") {
        if let Some(up) = ensure_map(behavior, "scaleUp") {
            set(up, "stabilizationWindowSeconds", 0);
            set(up, "selectPolicy", "Max");
            let policies = json!([
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]);
            set(up, "policies", policies);
        }
        if let Some(down) = ensure_map(behavior, "scaleDown") {
            set(down, "selectPolicy", "Max");
            let policies = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
            set(down, "policies", policies);
        }
    }
}
