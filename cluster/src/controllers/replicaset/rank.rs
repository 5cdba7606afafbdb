//! Which pods go first when a ReplicaSet shrinks.
//!
//! In this order: not assigned to a node; Pending before Unknown before Running; not ready; lower
//! deletion cost; more ready replicas of the same workload on its node; ready for a shorter time; more
//! restarts; younger.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::controllers::pods;

/// What an annotation may say about the worth of a pod: a number, 0 if absent.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Place in the order; the fields are the rules, one by one.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    siblings: Reverse<usize>,
    ready_since: Reverse<Option<Timestamp>>,
    restarts: Reverse<i32>,
    created: Reverse<Option<Timestamp>>,
    uid: Option<String>,
}

/// The pods in the order in which they are to be deleted. `related` are the active pods of all
/// ReplicaSets of the same owner.
pub(super) fn order(mut pods: Vec<Arc<Pod>>, related: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_ready(pod)) {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| rank(pod, on_node.get(node(pod)).copied().unwrap_or(0)));
    pods
}

fn node(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn rank(pod: &Pod, siblings: usize) -> Rank {
    let ready = pods::is_ready(pod);
    Rank {
        assigned: !node(pod).is_empty(),
        phase: match pods::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        },
        ready,
        cost: pod
            .annotations()
            .get(DELETION_COST)
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0),
        siblings: Reverse(siblings),
        ready_since: Reverse(pods::ready_since(pod).map(|since| since.0)),
        restarts: Reverse(restarts(pod)),
        created: Reverse(
            pod.metadata
                .creation_timestamp
                .as_ref()
                .map(|created| created.0),
        ),
        uid: pod.uid(),
    }
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    status
        .container_statuses
        .iter()
        .flatten()
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0)
}
