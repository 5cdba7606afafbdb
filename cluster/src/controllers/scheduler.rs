//! The scheduler: assigns pending pods to nodes through `pods/NAME/binding`.

mod fit;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::clock;
use super::error::{Error, during};
use super::events::{Kind, Recorder};
use super::informer::{Key, Store};
use super::pods;
use super::queue::{Queue, work};

/// The name that pods carry in `spec.schedulerName` unless they want another scheduler.
const NAME: &str = "default-scheduler";
/// Condition: the pod has a node.
const POD_SCHEDULED: &str = "PodScheduled";

/// The scheduler; [`Controller::run`] it after its stores were filled.
pub(super) struct Controller {
    client: Client,
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
    recorder: Recorder,
    queue: Arc<Queue<Key>>,
}

impl Controller {
    /// Sets the scheduler up and listens to the stores.
    pub(super) fn new(
        client: Client,
        pods: &Arc<Store<Pod>>,
        nodes: &Arc<Store<Node>>,
        recorder: &Recorder,
    ) -> Self {
        let queue = Queue::new();
        let to = queue.clone();
        pods.on_change(move |change| {
            if let Some(pod) = change.new.filter(|pod| is_pending(pod)) {
                to.add(Key::of(pod.as_ref()));
            }
        });
        let (to, known) = (queue.clone(), Arc::downgrade(pods));
        nodes.on_change(move |_| {
            let Some(known) = known.upgrade() else { return };
            for pod in known.all().iter().filter(|pod| is_pending(pod)) {
                to.add(Key::of(pod.as_ref()));
            }
        });
        Self {
            client,
            pods: pods.clone(),
            nodes: nodes.clone(),
            recorder: recorder.named(NAME),
            queue,
        }
    }

    /// Schedules until shut down.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        work("scheduler", &self.queue, &shutdown, |key| {
            self.reconcile(key)
        })
        .await;
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.pods.get(&key).filter(|pod| is_pending(pod)) else {
            return Ok(None);
        };
        let nodes = self.nodes.all();
        let choice = fit::choose(&pod, &nodes, |name| self.pods_on(name));
        match choice {
            Ok(node) => self.bind(&pod, &node).await?,
            Err(reason) => self.refuse(&pod, reason).await?,
        }
        Ok(None)
    }

    fn pods_on(&self, node: &str) -> usize {
        // With one node there is nothing to weigh, and counting all pods for each would be quadratic.
        if self.nodes.all().len() < 2 {
            return 0;
        }
        let on_node = |pod: &&Arc<Pod>| node_of(pod) == Some(node) && !pods::is_finished(pod);
        self.pods.all().iter().filter(on_node).count()
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), Error> {
        let key = Key::of(pod);
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                uid: pod.uid(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let bound: Result<Value, kube::Error> = self
            .api(&key)
            .create_subresource("binding", &key.name, &PostParams::default(), &binding)
            .await;
        match bound.map_err(during("bind", &key)) {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            // The cache is behind: the pod was bound or replaced in the meantime.
            Err(error) if error.is_conflict() && self.is_settled(pod).await? => return Ok(()),
            Err(error) => return Err(error),
        }
        let message = format!("Successfully assigned {key} to {node}");
        self.recorder
            .record(pod.object_ref(&()), Kind::Normal, "Scheduled", message);
        Ok(())
    }

    async fn is_settled(&self, pod: &Pod) -> Result<bool, Error> {
        let key = Key::of(pod);
        let live = self
            .api(&key)
            .get_opt(&key.name)
            .await
            .map_err(during("get", &key))?;
        Ok(live.is_none_or(|live| live.uid() != pod.uid() || !is_pending(&live)))
    }

    /// Says in the pod's status and in an event why it has no node; both only when the reason is new.
    async fn refuse(&self, pod: &Pod, reason: String) -> Result<(), Error> {
        let known = pods::condition(pod, POD_SCHEDULED);
        if known
            .is_some_and(|known| known.status == "False" && known.message.as_ref() == Some(&reason))
        {
            return Ok(());
        }
        let since = known
            .filter(|known| known.status == "False")
            .and_then(|known| known.last_transition_time.clone());
        let condition = PodCondition {
            type_: POD_SCHEDULED.to_owned(),
            status: "False".to_owned(),
            reason: Some("Unschedulable".to_owned()),
            message: Some(reason.clone()),
            last_transition_time: Some(since.unwrap_or_else(clock::now)),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        };
        let status = pod.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.unwrap_or_default();
        conditions.retain(|known| known.type_ != POD_SCHEDULED);
        conditions.push(condition);
        let patch = json!({
            "metadata": { "uid": pod.uid(), "resourceVersion": pod.resource_version() },
            "status": { "conditions": conditions },
        });
        let key = Key::of(pod);
        let written = self
            .api(&key)
            .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match written.map_err(during("write status of Pod", &key)) {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        }
        self.recorder.record(
            pod.object_ref(&()),
            Kind::Warning,
            "FailedScheduling",
            reason,
        );
        Ok(())
    }

    fn api(&self, pod: &Key) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// Whether the pod waits for this scheduler. Pods with scheduling gates wait for someone else.
fn is_pending(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours = spec
        .scheduler_name
        .as_deref()
        .is_none_or(|name| name == NAME);
    let gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    ours && !gated && node_of(pod).is_none() && pods::is_active(pod)
}

#[cfg(test)]
mod tests;
