//! What one look at a deployment leads to, as a pure function.
//!
//! Rules (measured on a real control plane):
//! - While paused, or when `spec.replicas` changed, only sizes change: one active ReplicaSet takes the
//!   new size; with a complete current one the others go to zero; in the middle of a rollout all
//!   share the difference in proportion, the rest goes to the largest.
//! - Rolling update: each look takes one step. Either the current ReplicaSet grows as far as
//!   `replicas + maxSurge` in total allows, or else the old ones shrink by what is not needed to keep
//!   `replicas − maxUnavailable` available: first pods that are not available, then others, oldest
//!   ReplicaSet first.
//! - Recreate: old ones to zero, wait until their last pod is gone, then the new one.
//! - When complete, the oldest empty ReplicaSets beyond `revisionHistoryLimit` are deleted.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::Value;

use super::revision::{self, DESIRED, REVISION, annotation_number};
use super::sets::{age, has_pods, is_empty, is_saturated, resize, scaled, update};
use super::status::{self, Conditions};
use super::{size, template};

/// What has to be written, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The ReplicaSet of the current template.
    pub(super) create: Option<Box<ReplicaSet>>,
    /// Merge patches of ReplicaSets.
    pub(super) updates: Vec<Update>,
    /// Messages of `ScalingReplicaSet` events.
    pub(super) events: Vec<String>,
    /// The deployment's new revision.
    pub(super) revision: Option<String>,
    /// Names of ReplicaSets that history no longer needs.
    pub(super) delete: Vec<Arc<ReplicaSet>>,
    /// The new status.
    pub(super) status: DeploymentStatus,
    /// When to look again without an event.
    pub(super) again: Option<Duration>,
}

/// A change of one ReplicaSet, valid only for the version that was seen.
#[derive(Debug)]
pub(super) struct Update {
    /// Its name.
    pub(super) name: String,
    /// The merge patch.
    pub(super) patch: Value,
}

struct Rollout<'a> {
    deployment: &'a Deployment,
    new: Option<ReplicaSet>,
    old: Vec<ReplicaSet>,
    exists: bool,
    events: Vec<String>,
}

/// Works out the next step. `sets` are the ReplicaSets that the deployment controls, `pods` the pods
/// of its namespace (looked at only for Recreate).
pub(super) fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    pods: &[Arc<Pod>],
    now: Time,
) -> Plan {
    let mut conditions = Conditions::of(deployment, now);
    let mut rollout = Rollout::new(deployment, sets);
    let mut revision = None;
    let going = deployment.metadata.deletion_timestamp.is_some();
    let sizing = status::is_paused(deployment) || rollout.is_scaled();
    if !going {
        conditions.paused(deployment);
        let waits = size::is_recreate(deployment) && !sizing && rollout.stop_old(pods);
        rollout.current(!sizing && !waits, &mut conditions);
        if sizing {
            rollout.resize();
        } else if size::is_recreate(deployment) {
            if !waits {
                rollout.grow();
            }
        } else if !rollout.grow() {
            rollout.shrink();
        }
        revision = rollout.revision();
    }
    let rolling = !going && !sizing;
    let (status, again) = status::status(
        deployment,
        rollout.new.as_ref(),
        &rollout.old,
        conditions,
        rolling,
    );
    let tidy =
        !going && (status::is_paused(deployment) || status::is_complete(deployment, &status));
    let delete = if tidy {
        rollout.surplus(sets)
    } else {
        Vec::new()
    };
    rollout.into_plan(sets, revision, delete, status, again)
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, sets: &[Arc<ReplicaSet>]) -> Self {
        let mut sets: Vec<ReplicaSet> = sets.iter().map(|set| set.as_ref().clone()).collect();
        sets.sort_by_key(age);
        let current = deployment.spec.as_ref().and_then(|spec| {
            sets.iter().position(|set| {
                template::of_set(set).is_some_and(|other| template::same(&spec.template, other))
            })
        });
        let new = current.map(|index| sets.remove(index));
        Self {
            deployment,
            exists: new.is_some(),
            new,
            old: sets,
            events: Vec::new(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    /// Whether `spec.replicas` changed since the active ReplicaSets were sized.
    fn is_scaled(&self) -> bool {
        let wanted = i64::from(size::replicas(self.deployment));
        self.all().filter(|set| size::size(set) > 0).any(|set| {
            annotation_number(&set.metadata, DESIRED).is_some_and(|desired| desired != wanted)
        })
    }

    /// Brings the current ReplicaSet's annotations up to date, or makes one.
    fn current(&mut self, may_create: bool, conditions: &mut Conditions) {
        let next = revision::next_revision(&self.old);
        let total = size::sum(self.all(), size::size);
        if let Some(set) = &mut self.new {
            revision::annotate(self.deployment, set, next, true);
            if let (Some(own), Some(spec)) = (&mut set.spec, &self.deployment.spec) {
                own.min_ready_seconds = spec.min_ready_seconds;
            }
            conditions.found(self.deployment, &set.name_any());
            return;
        }
        if !may_create {
            return;
        }
        let Some(mut set) = template::replica_set(self.deployment) else {
            return;
        };
        let first = size::new_size(self.deployment, 0, total);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(first);
        }
        revision::annotate(self.deployment, &mut set, next, false);
        revision::annotate_size(self.deployment, &mut set);
        if first > 0 {
            self.events.push(scaled(&set.name_any(), 0, first));
        }
        conditions.created(self.deployment, &set.name_any());
        self.new = Some(set);
    }

    /// Grows the current ReplicaSet as far as allowed; true if it took the step.
    fn grow(&mut self) -> bool {
        let total = size::sum(self.all(), size::size);
        let wanted = size::replicas(self.deployment);
        let Some(set) = &mut self.new else {
            return false;
        };
        let now = size::size(set);
        let size = if now > wanted {
            wanted
        } else {
            size::new_size(self.deployment, now, total)
        };
        resize(self.deployment, set, size, &mut self.events)
    }

    /// Shrinks the old ReplicaSets as far as availability allows.
    fn shrink(&mut self) {
        if size::sum(&self.old, size::size) == 0 {
            return;
        }
        let least = size::replicas(self.deployment) - size::max_unavailable(self.deployment);
        let unavailable = self
            .new
            .as_ref()
            .map_or(0, |set| size::size(set) - size::available(set));
        let total = size::sum(self.all(), size::size);
        let most = total - least - unavailable;
        if most <= 0 {
            return;
        }
        self.shrink_old(most, |set| size::size(set) - size::available(set));
        let spare = size::sum(self.all(), size::available) - least;
        if spare > 0 {
            self.shrink_old(spare, size::size);
        }
    }

    fn shrink_old(&mut self, mut left: i32, removable: impl Fn(&ReplicaSet) -> i32) {
        for set in &mut self.old {
            let step = removable(set).clamp(0, left.max(0));
            let size = size::size(set) - step;
            left -= step;
            resize(self.deployment, set, size, &mut self.events);
        }
    }

    /// Recreate: sends the old ReplicaSets to zero; true while they, or pods of them, are there.
    fn stop_old(&mut self, pods: &[Arc<Pod>]) -> bool {
        let mut stopped = false;
        for set in &mut self.old {
            stopped |= resize(self.deployment, set, 0, &mut self.events);
        }
        let counted = self.old.iter().any(|set| {
            set.status
                .as_ref()
                .is_some_and(|status| status.replicas > 0)
        });
        stopped || counted || self.old.iter().any(|set| has_pods(set, pods))
    }

    /// Sizes for a new `spec.replicas`.
    fn resize(&mut self) {
        let wanted = size::replicas(self.deployment);
        let active = self.all().filter(|set| size::size(set) > 0).count();
        if active <= 1 {
            self.resize_only(wanted);
        } else if self
            .new
            .as_ref()
            .is_some_and(|set| is_saturated(set, wanted))
        {
            for set in &mut self.old {
                resize(self.deployment, set, 0, &mut self.events);
            }
        } else if !size::is_recreate(self.deployment) {
            self.resize_in_proportion(wanted);
        }
    }

    /// The only active ReplicaSet takes the size; without one the current, or else the newest.
    fn resize_only(&mut self, wanted: i32) {
        let active = |set: &&mut ReplicaSet| size::size(set) > 0;
        let Self {
            new,
            old,
            events,
            deployment,
            ..
        } = self;
        let chosen = match old.iter_mut().find(active) {
            Some(set) => Some(set),
            None => new.as_mut().or_else(|| old.last_mut()),
        };
        if let Some(set) = chosen {
            resize(deployment, set, wanted, events);
        }
    }

    fn resize_in_proportion(&mut self, wanted: i32) {
        let Self {
            new,
            old,
            events,
            deployment,
            ..
        } = self;
        let mut sets: Vec<&mut ReplicaSet> = old
            .iter_mut()
            .chain(new)
            .filter(|set| size::size(set) > 0)
            .collect();
        let allowed = if wanted > 0 {
            wanted + size::max_surge(deployment)
        } else {
            0
        };
        let mut left = allowed - sets.iter().map(|set| size::size(set)).sum::<i32>();
        // The largest first; of equals the newer one grows first and the older one shrinks first.
        if left > 0 {
            sets.sort_by_key(|set| (Reverse(size::size(set)), Reverse(age(set))));
        } else {
            sets.sort_by_key(|set| (Reverse(size::size(set)), age(set)));
        }
        let mut sizes = Vec::with_capacity(sets.len());
        for set in &sets {
            let step = size::proportion(deployment, set, left);
            left -= step;
            sizes.push(size::size(set) + step);
        }
        if let Some(largest) = sizes.first_mut() {
            *largest = (*largest + left).max(0);
        }
        for (set, size) in sets.into_iter().zip(sizes) {
            resize(deployment, set, size, events);
        }
    }

    /// The deployment's revision annotation if it has to change.
    fn revision(&self) -> Option<String> {
        let current = self.new.as_ref()?.annotations().get(REVISION)?;
        (self.deployment.annotations().get(REVISION) != Some(current)).then(|| current.clone())
    }

    /// The oldest empty ReplicaSets beyond the history limit.
    fn surplus(&self, sets: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
        let limit = self
            .deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return Vec::new();
        };
        let mut old: Vec<&ReplicaSet> = self
            .old
            .iter()
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        old.sort_by_key(|set| revision::revision(&set.metadata));
        let surplus = old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        let names: Vec<String> = old[..surplus]
            .iter()
            .filter(|set| is_empty(set))
            .map(|set| set.name_any())
            .collect();
        sets.iter()
            .filter(|set| names.contains(&set.name_any()))
            .cloned()
            .collect()
    }

    fn into_plan(
        self,
        sets: &[Arc<ReplicaSet>],
        revision: Option<String>,
        delete: Vec<Arc<ReplicaSet>>,
        status: DeploymentStatus,
        again: Option<Duration>,
    ) -> Plan {
        let Self {
            new,
            old,
            exists,
            events,
            ..
        } = self;
        let (create, existing) = if exists {
            (None, new)
        } else {
            (new.map(Box::new), None)
        };
        let updates = existing
            .iter()
            .chain(&old)
            .filter_map(|set| {
                let before = sets
                    .iter()
                    .find(|before| before.metadata.name == set.metadata.name)?;
                update(before, set)
            })
            .collect();
        Plan {
            create,
            updates,
            events,
            revision,
            delete,
            status,
            again,
        }
    }
}
