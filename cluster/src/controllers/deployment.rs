//! The deployment controller: rollouts by ReplicaSets.

mod plan;
mod revision;
mod sets;
mod size;
mod status;
mod template;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::error::{Error, during};
use super::events::{Kind, Recorder};
use super::informer::{Change, Key, Store};
use super::ownership::{self, Claim, claim, controller_key};
use super::patch::merge_diff;
use super::pods;
use super::queue::{Queue, work};

use plan::Plan;
use status::Conditions;

/// The controller; [`Controller::run`] it after its stores were filled.
pub(super) struct Controller {
    client: Client,
    deployments: Arc<Store<Deployment>>,
    replica_sets: Arc<Store<ReplicaSet>>,
    pods: Arc<Store<Pod>>,
    recorder: Recorder,
    queue: Arc<Queue<Key>>,
}

impl Controller {
    /// Sets the controller up and listens to the stores.
    pub(super) fn new(
        client: Client,
        deployments: &Arc<Store<Deployment>>,
        replica_sets: &Arc<Store<ReplicaSet>>,
        pods: &Arc<Store<Pod>>,
        recorder: &Recorder,
    ) -> Self {
        let queue = Queue::new();
        listen(&queue, deployments, replica_sets, pods);
        Self {
            client,
            deployments: deployments.clone(),
            replica_sets: replica_sets.clone(),
            pods: pods.clone(),
            recorder: recorder.named("deployment-controller"),
            queue,
        }
    }

    /// Reconciles until shut down.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        work("deployment", &self.queue, &shutdown, |key| {
            self.reconcile(key)
        })
        .await;
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(deployment) = self.deployments.get(&key) else {
            return Ok(None);
        };
        let sets = self.claim(&deployment).await?;
        let pods = if size::is_recreate(&deployment) {
            self.pods.in_namespace(&key.namespace)
        } else {
            Vec::new()
        };
        let plan = plan::plan(&deployment, &sets, &pods, clock::now());
        Box::pin(self.execute(&deployment, plan)).await
    }

    /// The ReplicaSets that the deployment controls, after adoptions and releases.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let Some(spec) = &deployment.spec else {
            return Ok(Vec::new());
        };
        let selector = ownership::selector(deployment, &spec.selector)?;
        let namespace = deployment.namespace().unwrap_or_default();
        let api = self.replica_sets_in(&namespace);
        let mut mine = Vec::new();
        for set in self.replica_sets.in_namespace(&namespace) {
            match claim(&deployment.metadata, &selector, &set.metadata) {
                Claim::Own => mine.push(set),
                Claim::Adopt => {
                    let own: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
                    if ownership::still_there(&own, deployment).await? {
                        mine.push(Arc::new(
                            ownership::adopt(&api, deployment, set.as_ref()).await?,
                        ));
                    }
                }
                Claim::Release => {
                    let uid = deployment.uid().unwrap_or_default();
                    ownership::release(&api, &uid, set.as_ref()).await?;
                }
                Claim::Ignore => {}
            }
        }
        Ok(mine)
    }

    async fn execute(
        &self,
        deployment: &Deployment,
        plan: Plan,
    ) -> Result<Option<Duration>, Error> {
        let namespace = deployment.namespace().unwrap_or_default();
        let sets = self.replica_sets_in(&namespace);
        if let Some(set) = &plan.create
            && !Box::pin(self.create(deployment, &sets, set)).await?
        {
            return Ok(None);
        }
        for update in &plan.updates {
            sets.patch(
                &update.name,
                &PatchParams::default(),
                &Patch::Merge(&update.patch),
            )
            .await
            .map_err(during(
                "scale",
                format!("ReplicaSet {namespace}/{}", update.name),
            ))?;
        }
        for message in plan.events {
            self.recorder.record(
                deployment.object_ref(&()),
                Kind::Normal,
                "ScalingReplicaSet",
                message,
            );
        }
        let version = match plan.revision {
            Some(revision) => self.set_revision(deployment, revision).await?,
            None => deployment.resource_version(),
        };
        for set in &plan.delete {
            delete(&sets, set).await?;
        }
        self.write_status(deployment, version, &plan.status).await?;
        Ok(plan.again)
    }

    /// Creates the current ReplicaSet. False if there is nothing to go on with until the watch has
    /// caught up: it exists already, the hash collided, or the namespace is going away.
    async fn create(
        &self,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<bool, Error> {
        let name = set.name_any();
        let created = api
            .create(&PostParams::default(), set)
            .await
            .map_err(during("create", Key::of(set)));
        let error = match created {
            Ok(_) => return Ok(true),
            Err(error) if error.is_already_exists() => {
                return self.collided(deployment, api, set).await.map(|()| false);
            }
            Err(error) if error.is_namespace_terminating() => return Ok(false),
            Err(error) => error,
        };
        let mut conditions = Conditions::of(deployment, clock::now());
        conditions.not_created(deployment, &name, &error.message());
        let mut status = deployment.status.clone().unwrap_or_default();
        status.conditions = conditions.into_list();
        self.recorder.record(
            deployment.object_ref(&()),
            Kind::Warning,
            "ReplicaSetCreateError",
            format!(
                "Failed to create new replica set \"{name}\": {}",
                error.message()
            ),
        );
        self.write_status(deployment, deployment.resource_version(), &status)
            .await?;
        Err(error)
    }

    /// The name is taken: by our own earlier write, which only has not been seen yet, or by another
    /// template with the same hash, which the collision count then tells apart.
    async fn collided(
        &self,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), Error> {
        let name = set.name_any();
        let taken = api
            .get_opt(&name)
            .await
            .map_err(during("get", Key::of(set)))?;
        let Some(taken) = taken else { return Ok(()) };
        let uid = deployment.uid().unwrap_or_default();
        let ours = ownership::is_controlled_by(&taken.metadata, &uid)
            && template::of_set(&taken)
                .zip(template::of_set(set))
                .is_some_and(|(one, other)| template::same(one, other));
        if ours {
            return Ok(());
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(deployment, deployment.resource_version(), &status)
            .await
    }

    async fn set_revision(
        &self,
        deployment: &Deployment,
        revision: String,
    ) -> Result<Option<String>, Error> {
        let patch = json!({ "metadata": {
            "uid": deployment.uid(),
            "resourceVersion": deployment.resource_version(),
            "annotations": { (revision::REVISION): revision },
        }});
        let written = self
            .deployments_in(deployment)
            .patch(
                &deployment.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .map_err(during("annotate", Key::of(deployment)))?;
        Ok(written.resource_version())
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        version: Option<String>,
        status: &DeploymentStatus,
    ) -> Result<(), Error> {
        let before = json!(deployment.status.clone().unwrap_or_default());
        let Some(patch) = merge_diff(&before, &json!(status)) else {
            return Ok(());
        };
        let patch = json!({
            "metadata": { "uid": deployment.uid(), "resourceVersion": version },
            "status": patch,
        });
        self.deployments_in(deployment)
            .patch_status(
                &deployment.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .map(drop)
            .map_err(during("write status of", Key::of(deployment)))
    }

    fn deployments_in(&self, deployment: &Deployment) -> Api<Deployment> {
        Api::namespaced(
            self.client.clone(),
            &deployment.namespace().unwrap_or_default(),
        )
    }

    fn replica_sets_in(&self, namespace: &str) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

async fn delete(api: &Api<ReplicaSet>, set: &ReplicaSet) -> Result<(), Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: set.uid(),
            resource_version: set.resource_version(),
        }),
        ..DeleteParams::background()
    };
    match api
        .delete(&set.name_any(), &params)
        .await
        .map_err(during("delete", Key::of(set)))
    {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn listen(
    queue: &Arc<Queue<Key>>,
    deployments: &Arc<Store<Deployment>>,
    replica_sets: &Arc<Store<ReplicaSet>>,
    pods: &Arc<Store<Pod>>,
) {
    let to = queue.clone();
    deployments.on_change(move |change| {
        if let Some(deployment) = change.latest() {
            to.add(Key::of(deployment.as_ref()));
        }
    });
    let (to, known) = (queue.clone(), Arc::downgrade(deployments));
    replica_sets.on_change(move |change| {
        for set in change.states() {
            if let Some(owner) = controller_key(&set.metadata, "Deployment") {
                to.add(owner);
            } else if let Some(known) = known.upgrade() {
                add_selecting(&to, &known, set);
            }
        }
    });
    let (to, known) = (queue.clone(), Arc::downgrade(deployments));
    let sets = Arc::downgrade(replica_sets);
    pods.on_change(move |change: Change<'_, Pod>| {
        let gone = change.new.is_none_or(|pod| pods::is_finished(pod));
        let (Some(pod), true) = (change.latest(), gone) else {
            return;
        };
        let (Some(known), Some(sets)) = (known.upgrade(), sets.upgrade()) else {
            return;
        };
        let owner = controller_key(&pod.metadata, "ReplicaSet")
            .and_then(|set| sets.get(&set))
            .and_then(|set| controller_key(&set.metadata, "Deployment"));
        // Only Recreate waits for pods; a rolling update goes by the ReplicaSets' counters.
        if let Some(owner) = owner
            && known
                .get(&owner)
                .is_some_and(|deployment| size::is_recreate(&deployment))
        {
            to.add(owner);
        }
    });
}

/// An orphan may belong to any deployment of its namespace that selects it.
fn add_selecting(queue: &Queue<Key>, deployments: &Store<Deployment>, set: &ReplicaSet) {
    for deployment in deployments.in_namespace(&set.namespace().unwrap_or_default()) {
        let selects = deployment.spec.as_ref().is_some_and(|spec| {
            ownership::selector(deployment.as_ref(), &spec.selector).is_ok_and(|selector| {
                claim(&deployment.metadata, &selector, &set.metadata) == Claim::Adopt
            })
        });
        if selects {
            queue.add(Key::of(deployment.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests;
