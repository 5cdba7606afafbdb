//! The ReplicaSet controller: keeps the number of pods.

mod expectations;
mod plan;
mod rank;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::error::{Error, during};
use super::events::{Kind, Recorder};
use super::informer::{Change, Key, Store};
use super::ownership::{self, Claim, claim, controller_key, controller_of};
use super::patch::merge_diff;
use super::pods;
use super::queue::{Queue, work};

use expectations::Expectations;
use plan::{Failure, Plan};

/// The controller; [`Controller::run`] it after its stores were filled.
pub(super) struct Controller {
    client: Client,
    replica_sets: Arc<Store<ReplicaSet>>,
    pods: Arc<Store<Pod>>,
    recorder: Recorder,
    expectations: Arc<Expectations>,
    queue: Arc<Queue<Key>>,
}

impl Controller {
    /// Sets the controller up and listens to the stores.
    pub(super) fn new(
        client: Client,
        replica_sets: &Arc<Store<ReplicaSet>>,
        pods: &Arc<Store<Pod>>,
        recorder: &Recorder,
    ) -> Self {
        let queue = Queue::new();
        let expectations = Arc::new(Expectations::default());
        listen(&queue, &expectations, replica_sets, pods);
        Self {
            client,
            replica_sets: replica_sets.clone(),
            pods: pods.clone(),
            recorder: recorder.named("replicaset-controller"),
            expectations,
            queue,
        }
    }

    /// Reconciles until shut down.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        work("replicaset", &self.queue, &shutdown, |key| {
            self.reconcile(key)
        })
        .await;
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.replica_sets.get(&key) else {
            self.expectations.forget(&key);
            return Ok(None);
        };
        // Asked before the pods are read: what arrives in between only makes the picture newer.
        let up_to_date = self.expectations.are_met(&key);
        let active = self.claim(&set).await?;
        let mut result = Ok(());
        if up_to_date && set.metadata.deletion_timestamp.is_none() {
            let plan = plan::plan(&set, &active, &self.related(&set));
            result = self.execute(&key, &set, plan).await;
        }
        let failure = result.as_ref().err().map(|(reason, error)| Failure {
            reason,
            message: error.message(),
        });
        // While own writes are unseen the failure of an earlier look still stands.
        let kept = (!up_to_date).then(|| known_failure(&set)).flatten();
        let (status, again) = plan::status(
            &set,
            &active,
            failure.as_ref().or(kept.as_ref()),
            clock::now(),
        );
        self.write_status(&set, &status).await?;
        result.map_err(|(_, error)| error)?;
        Ok(again)
    }

    /// The active pods that the ReplicaSet controls, after adoptions and releases.
    async fn claim(&self, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, Error> {
        let Some(spec) = &set.spec else {
            return Ok(Vec::new());
        };
        let selector = ownership::selector(set, &spec.selector)?;
        let namespace = set.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let mut mine = Vec::new();
        let active = self
            .pods
            .in_namespace(&namespace)
            .into_iter()
            .filter(|pod| pods::is_active(pod));
        for pod in active {
            match claim(&set.metadata, &selector, &pod.metadata) {
                Claim::Own => mine.push(pod),
                Claim::Adopt => {
                    let own: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
                    if ownership::still_there(&own, set).await? {
                        mine.push(Arc::new(ownership::adopt(&api, set, pod.as_ref()).await?));
                    }
                }
                Claim::Release => {
                    ownership::release(&api, &set.uid().unwrap_or_default(), pod.as_ref()).await?;
                }
                Claim::Ignore => {}
            }
        }
        Ok(mine)
    }

    /// The active pods of all ReplicaSets with the same owner.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let namespace = set.namespace().unwrap_or_default();
        let owner = controller_of(&set.metadata).map(|owner| owner.uid.as_str());
        let uids: Vec<String> = self
            .replica_sets
            .in_namespace(&namespace)
            .iter()
            .filter(|other| {
                other.metadata.uid == set.metadata.uid
                    || owner.is_some_and(|uid| ownership::is_controlled_by(&other.metadata, uid))
            })
            .filter_map(|other| other.uid())
            .collect();
        let mut related = self.pods.in_namespace(&namespace);
        related.retain(|pod| {
            pods::is_active(pod)
                && controller_of(&pod.metadata).is_some_and(|owner| uids.contains(&owner.uid))
        });
        related
    }

    async fn execute(
        &self,
        key: &Key,
        set: &ReplicaSet,
        plan: Plan,
    ) -> Result<(), (&'static str, Error)> {
        if plan.create > 0 {
            self.create(key, set, plan.create)
                .await
                .map_err(|error| ("FailedCreate", error))
        } else if plan.delete.is_empty() {
            Ok(())
        } else {
            self.delete(key, set, plan.delete)
                .await
                .map_err(|error| ("FailedDelete", error))
        }
    }

    /// Creates pods in batches of 1, 2, 4, …; the first batch with a failure is the last, so that a
    /// quota does not cause a storm of refused requests.
    async fn create(&self, key: &Key, set: &ReplicaSet, count: usize) -> Result<(), Error> {
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let results = join_all((0..size).map(|_| self.create_one(key, set))).await;
            let failed: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
            if let Some(error) = failure("create pods", size, failed) {
                // A namespace that goes away takes the ReplicaSet along; there is nothing to retry.
                return if error.is_namespace_terminating() {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, key: &Key, set: &ReplicaSet) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        self.expectations.creating(key);
        let created = api
            .create(&PostParams::default(), &plan::pod(set))
            .await
            .map_err(during("create a pod of", key));
        self.expectations.created(
            key,
            created
                .as_ref()
                .ok()
                .and_then(|pod| pod.metadata.uid.as_deref()),
        );
        match created {
            Ok(pod) => {
                let message = format!("Created pod: {}", pod.name_any());
                self.record(set, Kind::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let message = format!("Error creating: {}", error.message());
                    self.record(set, Kind::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &Key, set: &ReplicaSet, pods: Vec<Arc<Pod>>) -> Result<(), Error> {
        let asked = pods.len();
        let results = join_all(pods.iter().map(|pod| self.delete_one(key, set, pod))).await;
        let failed: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
        failure("delete pods", asked, failed).map_or(Ok(()), Err)
    }

    async fn delete_one(&self, key: &Key, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let uid = pod.uid().unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.expectations.deleting(key, &uid);
        let deleted = api
            .delete(&pod.name_any(), &params)
            .await
            .map_err(during("delete", Key::of(pod)));
        match deleted {
            Ok(_) => {
                let message = format!("Deleted pod: {}", pod.name_any());
                self.record(set, Kind::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            // Gone by another hand: the watch will say so, unless it has already.
            Err(error) if error.is_not_found() => {
                if self
                    .pods
                    .get(&Key::of(pod))
                    .is_none_or(|known| known.uid() != pod.uid())
                {
                    self.expectations.left(key, &uid);
                }
                Ok(())
            }
            Err(error) => {
                self.expectations.left(key, &uid);
                let message = format!("Error deleting: {}", error.message());
                self.record(set, Kind::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    fn record(&self, set: &ReplicaSet, kind: Kind, reason: &'static str, message: String) {
        self.recorder
            .record(set.object_ref(&()), kind, reason, message);
    }

    async fn write_status(&self, set: &ReplicaSet, status: &ReplicaSetStatus) -> Result<(), Error> {
        let before = set
            .status
            .as_ref()
            .map_or_else(|| json!({}), |status| json!(status));
        let Some(patch) = merge_diff(&before, &json!(status)) else {
            return Ok(());
        };
        let patch = json!({ "metadata": { "uid": set.uid() }, "status": patch });
        let api: Api<ReplicaSet> =
            Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let written = api
            .patch_status(
                &set.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await;
        match written.map_err(during("write status of", Key::of(set))) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn failure(what: &'static str, asked: usize, mut failed: Vec<Error>) -> Option<Error> {
    let count = failed.len();
    // The first failure stands for all: they mostly have one cause.
    let first = (count > 0).then(|| failed.swap_remove(0))?;
    Some(Error::Batch {
        what,
        failed: count,
        asked,
        source: Box::new(first),
    })
}

fn known_failure(set: &ReplicaSet) -> Option<Failure> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    let known = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure")?;
    let reason = if known.reason.as_deref() == Some("FailedDelete") {
        "FailedDelete"
    } else {
        "FailedCreate"
    };
    Some(Failure {
        reason,
        message: known.message.clone().unwrap_or_default(),
    })
}

fn listen(
    queue: &Arc<Queue<Key>>,
    expectations: &Arc<Expectations>,
    replica_sets: &Arc<Store<ReplicaSet>>,
    pods: &Arc<Store<Pod>>,
) {
    let to = queue.clone();
    replica_sets.on_change(move |change| {
        if let Some(set) = change.latest() {
            to.add(Key::of(set.as_ref()));
        }
    });
    let (to, expectations, sets) = (
        queue.clone(),
        expectations.clone(),
        Arc::downgrade(replica_sets),
    );
    pods.on_change(move |change| {
        observe(&expectations, &change);
        for pod in change.states() {
            if let Some(owner) = controller_key(&pod.metadata, "ReplicaSet") {
                to.add(owner);
            } else if let (None, Some(sets)) = (controller_of(&pod.metadata), sets.upgrade()) {
                add_selecting(&to, &sets, pod);
            }
        }
    });
}

/// Tells the expectations what the watch shows.
fn observe(expectations: &Expectations, change: &Change<'_, Pod>) {
    for pod in change.states() {
        let Some(set) = controller_key(&pod.metadata, "ReplicaSet") else {
            continue;
        };
        let uid = pod.uid().unwrap_or_default();
        expectations.seen(&set, &uid);
        let replaced = change.new.is_none_or(|new| new.uid() != pod.uid());
        if replaced || pod.metadata.deletion_timestamp.is_some() {
            expectations.left(&set, &uid);
        }
    }
}

/// An orphan may belong to any ReplicaSet of its namespace that selects it.
fn add_selecting(queue: &Queue<Key>, sets: &Store<ReplicaSet>, pod: &Pod) {
    for set in sets.in_namespace(&pod.namespace().unwrap_or_default()) {
        let selects = set.spec.as_ref().is_some_and(|spec| {
            ownership::selector(set.as_ref(), &spec.selector).is_ok_and(|selector| {
                claim(&set.metadata, &selector, &pod.metadata) == Claim::Adopt
            })
        });
        if selects {
            queue.add(Key::of(set.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests;
