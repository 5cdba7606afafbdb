//! What one look at a ReplicaSet leads to, as a pure function.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::rank;
use crate::controllers::ownership::{controller_reference, labels};
use crate::controllers::pods;

/// The most pods that are created or deleted at one look.
const MOST_AT_ONCE: usize = 500;
/// Condition: pods cannot be created or deleted.
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Pods to create or to delete.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// How many to create.
    pub(super) create: usize,
    /// Which to delete.
    pub(super) delete: Vec<Arc<Pod>>,
}

/// Compares the active pods with `spec.replicas`. `related` are the active pods of all ReplicaSets of
/// the same owner.
pub(super) fn plan(set: &ReplicaSet, active: &[Arc<Pod>], related: &[Arc<Pod>]) -> Plan {
    let wanted = set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() <= wanted {
        return Plan {
            create: (wanted - active.len()).min(MOST_AT_ONCE),
            delete: Vec::new(),
        };
    }
    let surplus = (active.len() - wanted).min(MOST_AT_ONCE);
    let mut delete = rank::order(active.to_vec(), related);
    delete.truncate(surplus);
    Plan { create: 0, delete }
}

/// A new pod from the template.
pub(super) fn pod(set: &ReplicaSet) -> Pod {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.namespace(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Why pods could not be created or deleted.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(super) reason: &'static str,
    /// The server's words.
    pub(super) message: String,
}

/// The status that follows from the active pods, and when a pod that is ready becomes available.
pub(super) fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Time,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let template = spec.and_then(|spec| spec.template.as_ref());
    let wanted = template
        .and_then(|template| template.metadata.as_ref())
        .map(labels);
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let fully_labelled = active.iter().filter(|pod| {
        wanted.is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(name, value)| pod.labels().get(name) == Some(value))
        })
    });
    let available_in: Vec<Duration> = active
        .iter()
        .filter_map(|pod| pods::available_in(pod, min_ready, now.0))
        .collect();
    let again = available_in
        .iter()
        .filter(|left| !left.is_zero())
        .min()
        .copied();
    let status = ReplicaSetStatus {
        replicas: number(active.len()),
        fully_labeled_replicas: counter(fully_labelled.count()),
        ready_replicas: counter(active.iter().filter(|pod| pods::is_ready(pod)).count()),
        available_replicas: counter(available_in.iter().filter(|left| left.is_zero()).count()),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
        ..ReplicaSetStatus::default()
    };
    (status, again)
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Zero is written as absent.
fn counter(count: usize) -> Option<i32> {
    (count > 0).then(|| number(count))
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<&Failure>,
    now: Time,
) -> Option<Vec<ReplicaSetCondition>> {
    let known = set
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let mut list = known.unwrap_or_default();
    match failure {
        None => list.retain(|condition| condition.type_ != REPLICA_FAILURE),
        Some(_)
            if list
                .iter()
                .any(|condition| condition.type_ == REPLICA_FAILURE) => {}
        Some(failure) => list.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(now),
        }),
    }
    (!list.is_empty()).then_some(list)
}
