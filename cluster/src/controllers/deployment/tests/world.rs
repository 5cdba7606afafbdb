//! A cluster of one deployment, without a server.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::super::*;

pub(super) const START: i64 = 1_800_000_000;

pub(super) fn time(seconds: i64) -> Time {
    Time(Timestamp::from_second(START + seconds).unwrap())
}

pub(super) fn deployment(replicas: i32, strategy: &Value) -> Deployment {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "d", "namespace": "ns", "uid": "uid-d", "generation": 1,
                      "resourceVersion": "1" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "d" } },
            "strategy": strategy,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "template": {
                "metadata": { "labels": { "app": "d" } },
                "spec": { "containers": [{ "name": "c", "image": "i:1" }] },
            },
        },
    }))
    .unwrap()
}

pub(super) fn rolling(surge: &Value, unavailable: &Value) -> Value {
    json!({ "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

/// A cluster of one deployment: sizes become pods at once, readiness comes when told.
pub(super) struct World {
    pub(super) deployment: Deployment,
    pub(super) sets: Vec<Arc<ReplicaSet>>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) events: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) clock: i64,
    pub(super) again: Option<Duration>,
}

impl World {
    pub(super) fn new(deployment: Deployment) -> Self {
        Self {
            deployment,
            sets: Vec::new(),
            pods: Vec::new(),
            events: Vec::new(),
            names: Vec::new(),
            clock: 0,
            again: None,
        }
    }

    /// One look; false if it changed nothing but the status.
    pub(super) fn look(&mut self) -> bool {
        let plan = plan::plan(&self.deployment, &self.sets, &self.pods, time(self.clock));
        let moved = plan.create.is_some() || !plan.updates.is_empty() || !plan.delete.is_empty();
        if let Some(set) = plan.create {
            self.add(*set);
        }
        for update in plan.updates {
            let set = self
                .sets
                .iter_mut()
                .find(|set| set.name_any() == update.name)
                .unwrap();
            let mut value = json!(set.as_ref());
            assert_eq!(update.patch["metadata"]["uid"], value["metadata"]["uid"]);
            json_patch::merge(&mut value, &update.patch);
            *set = Arc::new(serde_json::from_value(value).unwrap());
        }
        self.sets.retain(|set| {
            !plan
                .delete
                .iter()
                .any(|gone| gone.name_any() == set.name_any())
        });
        for event in plan.events {
            let mut event = event.replace("replica set ", "");
            for (number, name) in self.names.iter().enumerate() {
                event = event.replace(name, &format!("rs{}", number + 1));
            }
            self.events.push(event);
        }
        if let Some(revision) = plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(revision::REVISION.to_owned(), revision);
        }
        self.deployment.status = Some(plan.status);
        self.again = plan.again;
        for set in &mut self.sets {
            count(set, None);
        }
        moved
    }

    pub(super) fn add(&mut self, mut set: ReplicaSet) {
        let number = self.names.len() + 1;
        self.names.push(set.name_any());
        set.metadata.uid = Some(format!("uid-{number}"));
        set.metadata.creation_timestamp = Some(time(i64::try_from(number).unwrap()));
        self.sets.push(Arc::new(set));
    }

    /// Looks until nothing moves.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            if !self.look() {
                self.look();
                return;
            }
        }
        panic!("no end: {:?}", self.events);
    }

    /// So many pods of the newest ReplicaSet are ready now.
    pub(super) fn ready(&mut self, number: i32) {
        self.clock += 1;
        let name = self.current().unwrap().name_any();
        let set = self
            .sets
            .iter_mut()
            .find(|set| set.name_any() == name)
            .unwrap();
        count(set, Some(number));
        self.settle();
    }

    pub(super) fn current(&self) -> Option<&Arc<ReplicaSet>> {
        let template = &self.deployment.spec.as_ref().unwrap().template;
        self.sets
            .iter()
            .find(|set| template::same(template, template::of_set(set).unwrap()))
    }

    pub(super) fn set_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        self.changed();
    }

    pub(super) fn scale(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        self.changed();
    }

    pub(super) fn changed(&mut self) {
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
        self.settle();
    }

    /// A deployment that is rolled out completely, its events forgotten.
    pub(super) fn complete(replicas: i32, strategy: &Value) -> Self {
        let mut world = Self::new(deployment(replicas, strategy));
        world.settle();
        world.ready(replicas);
        world.events.clear();
        world
    }

    pub(super) fn condition(&self, kind: &str) -> Option<(String, String)> {
        let conditions = self.deployment.status.as_ref()?.conditions.as_ref()?;
        let condition: &DeploymentCondition = conditions.iter().find(|c| c.type_ == kind)?;
        Some((condition.status.clone(), condition.reason.clone()?))
    }

    pub(super) fn progressing(&self) -> (String, String) {
        self.condition("Progressing").unwrap()
    }

    pub(super) fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|set| size::size(set)).collect()
    }
}

/// What the ReplicaSet controller would write.
pub(super) fn count(set: &mut Arc<ReplicaSet>, ready: Option<i32>) {
    let mut new = set.as_ref().clone();
    let size = size::size(&new);
    let status = new.status.get_or_insert_default();
    let ready = ready.or(status.available_replicas).unwrap_or(0).min(size);
    status.replicas = size;
    status.available_replicas = (ready > 0).then_some(ready);
    status.ready_replicas = (ready > 0).then_some(ready);
    status.observed_generation = new.metadata.generation;
    *set = Arc::new(new);
}

pub(super) fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

impl World {
    pub(super) fn is_sizing(&self) -> bool {
        let wanted = i64::from(size::replicas(&self.deployment));
        self.sets.iter().any(|set| {
            revision::annotation_number(&set.metadata, revision::DESIRED) != Some(wanted)
        })
    }
}
