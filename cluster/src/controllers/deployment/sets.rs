//! Questions about a ReplicaSet of a deployment, and changes of one.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::json;

use super::plan::Update;
use super::revision::{self, DESIRED, annotation_number};
use super::size;
use crate::controllers::ownership::is_controlled_by;
use crate::controllers::patch::merge_diff;
use crate::controllers::pods;

/// Order by age: creation, then name.
pub(super) fn age(set: &ReplicaSet) -> (Option<Time>, String) {
    (set.metadata.creation_timestamp.clone(), set.name_any())
}

/// The message of a `ScalingReplicaSet` event.
pub(super) fn scaled(name: &str, from: i32, to: i32) -> String {
    let direction = if to > from { "up" } else { "down" };
    format!("Scaled {direction} replica set {name} from {from} to {to}")
}

/// Sets the size and the annotations that go with it; true if the size changed.
pub(super) fn resize(
    deployment: &Deployment,
    set: &mut ReplicaSet,
    to: i32,
    events: &mut Vec<String>,
) -> bool {
    let from = size::size(set);
    if from > 0 || to > 0 {
        revision::annotate_size(deployment, set);
    }
    if from == to {
        return false;
    }
    if let Some(spec) = &mut set.spec {
        spec.replicas = Some(to);
    }
    events.push(scaled(&set.name_any(), from, to));
    true
}

/// Whether the ReplicaSet alone is all that is wanted, and available.
pub(super) fn is_saturated(set: &ReplicaSet, wanted: i32) -> bool {
    size::size(set) == wanted
        && size::available(set) == wanted
        && annotation_number(&set.metadata, DESIRED) == Some(i64::from(wanted))
}

/// Whether it has no pods and its controller has seen that it shall have none.
pub(super) fn is_empty(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    size::size(set) == 0
        && status.replicas == 0
        && status.observed_generation >= set.metadata.generation
}

/// Whether pods of the ReplicaSet have not ended yet.
pub(super) fn has_pods(set: &ReplicaSet, pods: &[Arc<Pod>]) -> bool {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    pods.iter()
        .any(|pod| is_controlled_by(&pod.metadata, uid) && !pods::is_finished(pod))
}

/// The patch from one state of a ReplicaSet to another; none if they are the same.
pub(super) fn update(before: &ReplicaSet, after: &ReplicaSet) -> Option<Update> {
    let view = |set: &ReplicaSet| {
        let spec = set.spec.as_ref();
        let mut spec_fields = serde_json::Map::new();
        spec_fields.insert(
            "replicas".to_owned(),
            json!(spec.and_then(|spec| spec.replicas)),
        );
        // Absent and zero are the same to the API.
        let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        spec_fields.insert("minReadySeconds".to_owned(), json!(min_ready));
        json!({ "metadata": { "annotations": set.annotations() }, "spec": spec_fields })
    };
    let mut patch = merge_diff(&view(before), &view(after))?;
    patch["metadata"]["uid"] = json!(before.metadata.uid);
    patch["metadata"]["resourceVersion"] = json!(before.metadata.resource_version);
    Some(Update {
        name: before.name_any(),
        patch,
    })
}
