//! The status of a deployment: counters and conditions (API reference, `DeploymentStatus`).

use std::time::Duration;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::size;
use crate::controllers::clock;

/// Condition: enough pods are available.
pub(super) const AVAILABLE: &str = "Available";
/// Condition: the rollout moves, has finished, stands still or is paused.
pub(super) const PROGRESSING: &str = "Progressing";
/// Condition: pods cannot be created or deleted.
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";
/// Reason of [`PROGRESSING`]: the rollout is complete.
const COMPLETE: &str = "NewReplicaSetAvailable";
/// Reason of [`PROGRESSING`]: no progress for too long.
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// Reason of [`PROGRESSING`]: the deployment is paused.
const PAUSED: &str = "DeploymentPaused";

/// The conditions of a deployment while they are worked out.
pub(super) struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Time,
}

impl Conditions {
    /// Starts with the conditions that the deployment has.
    pub(super) fn of(deployment: &Deployment, now: Time) -> Self {
        let list = deployment
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone());
        Self {
            list: list.unwrap_or_default(),
            now,
        }
    }

    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_ != kind);
    }

    /// Sets a condition; nothing changes if status and reason are the same.
    pub(super) fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let known = self.get(kind);
        if known
            .is_some_and(|known| known.status == status && known.reason.as_deref() == Some(reason))
        {
            return;
        }
        self.renew(kind, status, reason, message);
    }

    /// Sets a condition and its update time, even if status and reason are the same.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let since = self
            .get(kind)
            .filter(|known| known.status == status)
            .and_then(|known| known.last_transition_time.clone());
        self.remove(kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(self.now.clone()),
            last_transition_time: Some(since.unwrap_or_else(|| self.now.clone())),
        });
    }

    fn progressing_reason(&self) -> Option<&str> {
        self.get(PROGRESSING)?.reason.as_deref()
    }

    /// Notes that the deployment was paused or resumed; an exceeded deadline stays visible.
    pub(super) fn paused(&mut self, deployment: &Deployment) {
        if deadline(deployment).is_none() || self.progressing_reason() == Some(TIMED_OUT) {
            return;
        }
        let noted = self.progressing_reason() == Some(PAUSED);
        match (is_paused(deployment), noted) {
            (true, false) => {
                self.set(
                    PROGRESSING,
                    "Unknown",
                    PAUSED,
                    "Deployment is paused".to_owned(),
                );
            }
            (false, true) => {
                let message = "Deployment is resumed".to_owned();
                self.set(PROGRESSING, "Unknown", "DeploymentResumed", message);
            }
            _ => {}
        }
    }

    /// Notes that the current ReplicaSet was created.
    pub(super) fn created(&mut self, deployment: &Deployment, name: &str) {
        if deadline(deployment).is_some() {
            let message = format!("Created new replica set \"{name}\"");
            self.set(PROGRESSING, "True", "NewReplicaSetCreated", message);
        }
    }

    /// Notes that a ReplicaSet for the template was there already.
    pub(super) fn found(&mut self, deployment: &Deployment, name: &str) {
        if deadline(deployment).is_some() && self.get(PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{name}\"");
            self.set(PROGRESSING, "True", "FoundNewReplicaSet", message);
        }
    }

    /// Notes that the current ReplicaSet could not be created.
    pub(super) fn not_created(&mut self, deployment: &Deployment, name: &str, error: &str) {
        if deadline(deployment).is_some() {
            let message = format!("Failed to create new replica set \"{name}\": {error}");
            self.set(PROGRESSING, "False", "ReplicaSetCreateError", message);
        }
    }

    /// The list as it goes into the status.
    pub(super) fn into_list(self) -> Option<Vec<DeploymentCondition>> {
        (!self.list.is_empty()).then_some(self.list)
    }
}

/// Whether `spec.paused` is set.
pub(super) fn is_paused(deployment: &Deployment) -> bool {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false)
}

/// The time without progress after which a rollout counts as stuck; none if there is no limit.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn count(set: &ReplicaSet, field: impl Fn(&ReplicaSetStatus) -> Option<i32>) -> i32 {
    set.status.as_ref().and_then(field).unwrap_or(0)
}

/// Zero is written as absent.
fn counter(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

/// The status that follows from the ReplicaSets, and when to look again because of the deadline.
///
/// `rolling` tells whether progress is judged: not while paused, scaled or deleted.
pub(super) fn status(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    mut conditions: Conditions,
    rolling: bool,
) -> (DeploymentStatus, Option<Duration>) {
    let all = || old.iter().chain(new);
    let total = size::sum(all(), size::size);
    let available = size::sum(all(), size::available);
    let updated = new.map_or(0, |set| count(set, |status| Some(status.replicas)));
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: counter(size::sum(all(), |set| {
            count(set, |status| Some(status.replicas))
        })),
        updated_replicas: counter(updated),
        ready_replicas: counter(size::sum(all(), |set| {
            count(set, |status| status.ready_replicas)
        })),
        available_replicas: counter(available),
        unavailable_replicas: counter((total - available).max(0)),
        collision_count: deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count),
        ..DeploymentStatus::default()
    };
    let enough = size::replicas(deployment) - size::max_unavailable(deployment);
    let (word, reason, message) = if available >= enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    conditions.set(AVAILABLE, word, reason, message.to_owned());
    if rolling {
        judge(deployment, new, &status, &mut conditions);
        replica_failure(new, old, &mut conditions);
    }
    let again = if rolling {
        deadline_in(deployment, &status, &conditions)
    } else {
        None
    };
    status.conditions = conditions.into_list();
    (status, again)
}

/// Whether the rollout has reached what the spec asks for.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = size::replicas(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether anything moved towards the spec since the stored status.
fn has_progressed(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let before = deployment.status.clone().unwrap_or_default();
    let outdated = |status: &DeploymentStatus| {
        status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0)
    };
    status.updated_replicas > before.updated_replicas
        || outdated(status) < outdated(&before)
        || status.ready_replicas > before.ready_replicas
        || status.available_replicas > before.available_replicas
}

fn judge(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    status: &DeploymentStatus,
    conditions: &mut Conditions,
) {
    let Some(deadline) = deadline(deployment) else {
        conditions.remove(PROGRESSING);
        return;
    };
    let done_before = status.replicas == status.updated_replicas
        && conditions.progressing_reason() == Some(COMPLETE);
    if done_before {
        return;
    }
    let subject = match new {
        Some(set) => format!("ReplicaSet \"{}\"", set.name_any()),
        None => format!("Deployment \"{}\"", deployment.name_any()),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        conditions.set(PROGRESSING, "True", COMPLETE, message);
    } else if has_progressed(deployment, status) {
        let message = format!("{subject} is progressing.");
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", message);
    } else if has_timed_out(conditions, deadline) {
        let message = format!("{subject} has timed out progressing.");
        conditions.set(PROGRESSING, "False", TIMED_OUT, message);
    }
}

fn has_timed_out(conditions: &Conditions, deadline: Duration) -> bool {
    match conditions.progressing_reason() {
        None | Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        Some(_) => remaining(conditions, deadline).is_some_and(|left| left.is_zero()),
    }
}

fn remaining(conditions: &Conditions, deadline: Duration) -> Option<Duration> {
    let since = conditions.get(PROGRESSING)?.last_update_time.as_ref()?;
    Some(clock::until(conditions.now.0, since, deadline))
}

fn deadline_in(
    deployment: &Deployment,
    status: &DeploymentStatus,
    conditions: &Conditions,
) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let over = matches!(
        conditions.progressing_reason(),
        None | Some(TIMED_OUT | COMPLETE)
    );
    if over || is_complete(deployment, status) {
        return None;
    }
    // Time stamps are whole seconds, so a check within the last one would come too early.
    remaining(conditions, deadline).map(|left| left + Duration::from_secs(1))
}

fn replica_failure(new: Option<&ReplicaSet>, old: &[ReplicaSet], conditions: &mut Conditions) {
    let failure = new
        .into_iter()
        .chain(old)
        .filter_map(|set| set.status.as_ref()?.conditions.as_ref())
        .flatten()
        .find(|condition| condition.type_ == REPLICA_FAILURE && condition.status == "True");
    match failure {
        Some(failure) => conditions.set(
            REPLICA_FAILURE,
            "True",
            failure.reason.as_deref().unwrap_or_default(),
            failure.message.clone().unwrap_or_default(),
        ),
        None => conditions.remove(REPLICA_FAILURE),
    }
}
