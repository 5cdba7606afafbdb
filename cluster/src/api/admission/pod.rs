//! What a Pod gets at birth (N1): service account, tolerations, priority, quality of service.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::api::metadata;

/// How long a Pod stays on a node that is not ready or unreachable, in seconds.
const NODE_TOLERATION: i64 = 300;

pub(super) fn complete(pod: &mut Value) {
    let class = quality_of_service(&pod["spec"]);
    let status = metadata::entry(pod, "status");
    status.insert("phase".to_owned(), "Pending".into());
    status.insert("qosClass".to_owned(), class.into());
    let spec = metadata::entry(pod, "spec");
    let account = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .find_map(|field| spec.get(field).and_then(Value::as_str))
        .filter(|name| !name.is_empty())
        .unwrap_or("default")
        .to_owned();
    spec.insert("serviceAccountName".to_owned(), account.as_str().into());
    spec.insert("serviceAccount".to_owned(), account.into());
    spec.entry("priority").or_insert_with(|| 0.into());
    spec.entry("preemptionPolicy")
        .or_insert_with(|| "PreemptLowerPriority".into());
    tolerate_node_trouble(spec);
}

fn tolerate_node_trouble(spec: &mut Map<String, Value>) {
    let tolerations = spec
        .entry("tolerations")
        .or_insert_with(|| Value::Array(Vec::new()));
    let Some(tolerations) = tolerations.as_array_mut() else {
        return;
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let covered = tolerations.iter().any(|toleration| {
            let everything = toleration["key"].as_str().is_none_or(str::is_empty)
                && toleration["operator"] == "Exists";
            let effect = toleration["effect"].as_str().unwrap_or_default();
            (everything || toleration["key"] == key) && matches!(effect, "" | "NoExecute")
        });
        if !covered {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": NODE_TOLERATION,
            }));
        }
    }
}

/// Guaranteed if every container limits cpu and memory and requests just that, BestEffort if none
/// asks for either, else Burstable.
fn quality_of_service(spec: &Value) -> &'static str {
    let containers = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten());
    let mut anything = false;
    let mut guaranteed = true;
    for container in containers {
        let resources = &container["resources"];
        let named = |list: &Value| -> BTreeSet<String> {
            list.as_object()
                .into_iter()
                .flat_map(Map::keys)
                .filter(|name| matches!(name.as_str(), "cpu" | "memory"))
                .cloned()
                .collect()
        };
        let (requests, limits) = (named(&resources["requests"]), named(&resources["limits"]));
        anything |= !requests.is_empty() || !limits.is_empty();
        guaranteed &= limits.len() == 2
            && requests
                .iter()
                .all(|name| resources["requests"][name] == resources["limits"][name]);
    }
    match (anything, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_n1_quality_of_service() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        for (name, containers, expected) in [
            ("nothing", json!([{"name": "a"}]), "BestEffort"),
            (
                "limits only",
                json!([{"resources": {"limits": full}}]),
                "Guaranteed",
            ),
            (
                "equal",
                json!([{"resources": {"limits": full, "requests": full}}]),
                "Guaranteed",
            ),
            (
                "request below limit",
                json!([{"resources": {"limits": full, "requests": {"cpu": "500m", "memory": "1Gi"}}}]),
                "Burstable",
            ),
            (
                "one container without",
                json!([{"resources": {"limits": full}}, {"name": "b"}]),
                "Burstable",
            ),
        ] {
            let spec = json!({"containers": containers});
            assert_eq!(quality_of_service(&spec), expected, "{name}");
        }
    }

    #[test]
    fn cluster_n1_tolerations_are_added_once() {
        let mut pod = json!({"spec": {"tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
        ]}});
        complete(&mut pod);
        let tolerations = pod["spec"]["tolerations"].as_array().expect("a list");
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[0]["tolerationSeconds"], 5);
        assert_eq!(tolerations[1]["key"], "node.kubernetes.io/unreachable");
    }
}
