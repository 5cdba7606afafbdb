use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::*;

const START: i64 = 1_800_000_000;

fn time(seconds: i64) -> Time {
    Time(Timestamp::from_second(START + seconds).unwrap())
}

fn deployment(replicas: i32, strategy: &Value) -> Deployment {
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

fn rolling(surge: &Value, unavailable: &Value) -> Value {
    json!({ "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

/// A cluster of one deployment: sizes become pods at once, readiness comes when told.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    pods: Vec<Arc<Pod>>,
    events: Vec<String>,
    names: Vec<String>,
    clock: i64,
    again: Option<Duration>,
}

impl World {
    fn new(deployment: Deployment) -> Self {
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
    fn look(&mut self) -> bool {
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

    fn add(&mut self, mut set: ReplicaSet) {
        let number = self.names.len() + 1;
        self.names.push(set.name_any());
        set.metadata.uid = Some(format!("uid-{number}"));
        set.metadata.creation_timestamp = Some(time(i64::try_from(number).unwrap()));
        self.sets.push(Arc::new(set));
    }

    /// Looks until nothing moves.
    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.look() {
                self.look();
                return;
            }
        }
        panic!("no end: {:?}", self.events);
    }

    /// So many pods of the newest ReplicaSet are ready now.
    fn ready(&mut self, number: i32) {
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

    fn current(&self) -> Option<&Arc<ReplicaSet>> {
        let template = &self.deployment.spec.as_ref().unwrap().template;
        self.sets
            .iter()
            .find(|set| template::same(template, template::of_set(set).unwrap()))
    }

    fn set_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        self.changed();
    }

    fn scale(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        self.changed();
    }

    fn changed(&mut self) {
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
        self.settle();
    }

    /// A deployment that is rolled out completely, its events forgotten.
    fn complete(replicas: i32, strategy: &Value) -> Self {
        let mut world = Self::new(deployment(replicas, strategy));
        world.settle();
        world.ready(replicas);
        world.events.clear();
        world
    }

    fn condition(&self, kind: &str) -> Option<(String, String)> {
        let conditions = self.deployment.status.as_ref()?.conditions.as_ref()?;
        let condition: &DeploymentCondition = conditions.iter().find(|c| c.type_ == kind)?;
        Some((condition.status.clone(), condition.reason.clone()?))
    }

    fn progressing(&self) -> (String, String) {
        self.condition("Progressing").unwrap()
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|set| size::size(set)).collect()
    }
}

/// What the ReplicaSet controller would write.
fn count(set: &mut Arc<ReplicaSet>, ready: Option<i32>) {
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

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn cluster_d1_rolling_updates_take_the_recorded_steps() {
    let quarter = json!("25%");
    type Case<'a> = (
        &'a str,
        i32,
        Value,
        &'a [i32],
        &'a [(&'a str, i32, i32)],
        &'a str,
    );
    let cases: [Case<'_>; 8] = [
        (
            "1 replica",
            1,
            rolling(&quarter, &quarter),
            &[1],
            &[("new", 0, 1), ("old", 1, 0)],
            "2",
        ),
        (
            "2 replicas, surge 1, unavailable 0",
            2,
            rolling(&json!(1), &json!(0)),
            &[1, 2],
            &[("new", 0, 1), ("old", 2, 1), ("new", 1, 2), ("old", 1, 0)],
            "3",
        ),
        (
            "2 replicas, surge 0, unavailable 1",
            2,
            rolling(&json!(0), &json!(1)),
            &[1, 2],
            &[("old", 2, 1), ("new", 0, 1), ("old", 1, 0), ("new", 1, 2)],
            "2",
        ),
        (
            "2 replicas, both round to nothing",
            2,
            rolling(&json!("0%"), &json!("10%")),
            &[1, 2],
            &[("old", 2, 1), ("new", 0, 1), ("old", 1, 0), ("new", 1, 2)],
            "2",
        ),
        (
            "3 replicas",
            3,
            rolling(&quarter, &quarter),
            &[1, 2, 3],
            &[
                ("new", 0, 1),
                ("old", 3, 2),
                ("new", 1, 2),
                ("old", 2, 1),
                ("new", 2, 3),
                ("old", 1, 0),
            ],
            "4",
        ),
        (
            "3 replicas, 30%",
            3,
            rolling(&json!("30%"), &json!("30%")),
            &[1, 2, 3],
            &[
                ("new", 0, 1),
                ("old", 3, 2),
                ("new", 1, 2),
                ("old", 2, 1),
                ("new", 2, 3),
                ("old", 1, 0),
            ],
            "4",
        ),
        (
            "4 replicas",
            4,
            rolling(&quarter, &quarter),
            &[1, 2, 3, 4],
            &[
                ("new", 0, 1),
                ("old", 4, 3),
                ("new", 1, 2),
                ("old", 3, 2),
                ("new", 2, 3),
                ("old", 2, 1),
                ("new", 3, 4),
                ("old", 1, 0),
            ],
            "5",
        ),
        (
            "10 replicas",
            10,
            rolling(&quarter, &quarter),
            &[1, 5, 6, 7, 8, 9, 10],
            &[
                ("new", 0, 3),
                ("old", 10, 8),
                ("new", 3, 5),
                ("old", 8, 7),
                ("new", 5, 6),
                ("old", 7, 3),
                ("new", 6, 10),
                ("old", 3, 2),
                ("old", 2, 1),
                ("old", 1, 0),
            ],
            "13",
        ),
    ];
    for (name, replicas, strategy, readiness, steps, most) in cases {
        let mut world = World::new(deployment(replicas, &strategy));
        world.settle();
        assert_eq!(
            world.events,
            [format!("Scaled up rs1 from 0 to {replicas}")],
            "{name}: create"
        );
        world.ready(replicas);
        world.events.clear();
        world.set_image("i:2");
        for ready in readiness {
            world.ready(*ready);
        }
        let expected: Vec<String> = steps
            .iter()
            .map(|(set, from, to)| {
                let set = if *set == "new" { "rs2" } else { "rs1" };
                let way = if to > from { "up" } else { "down" };
                format!("Scaled {way} {set} from {from} to {to}")
            })
            .collect();
        assert_eq!(world.events, expected, "{name}");
        assert_eq!(world.sizes(), [0, replicas], "{name}");
        for set in &world.sets {
            let annotations = set.annotations();
            assert_eq!(annotations[revision::MAX_REPLICAS], most, "{name}");
            assert_eq!(
                annotations[revision::DESIRED],
                replicas.to_string(),
                "{name}"
            );
        }
        assert_eq!(
            world.progressing(),
            pair("True", "NewReplicaSetAvailable"),
            "{name}"
        );
    }
}

#[test]
fn cluster_d1_broken_old_pods_go_first_and_beyond_availability() {
    let mut world = World::new(deployment(3, &rolling(&json!(1), &json!(1))));
    world.settle();
    world.ready(1);
    world.set_image("i:2");
    assert_eq!(
        world.sizes(),
        [2, 2],
        "one of the old pods that never were ready makes room"
    );
    world.settle();
    assert_eq!(world.sizes(), [2, 2], "no more while nothing is ready");
}

#[test]
fn cluster_d1_recreate_stops_all_pods_before_it_starts_new_ones() {
    let mut world = World::complete(3, &json!({ "type": "Recreate" }));
    let mut pod = Pod::default();
    pod.metadata.owner_references = Some(vec![ownership::controller_reference(
        world.sets[0].as_ref(),
    )]);
    pod.metadata.deletion_timestamp = Some(time(0));
    world.pods = vec![Arc::new(pod)];
    world.set_image("i:2");
    world.settle();
    assert_eq!(
        world.events,
        ["Scaled down rs1 from 3 to 0"],
        "a pod still terminates"
    );
    world.pods.clear();
    world.settle();
    world.ready(3);
    assert_eq!(
        world.events,
        ["Scaled down rs1 from 3 to 0", "Scaled up rs2 from 0 to 3"]
    );
    assert_eq!(world.progressing(), pair("True", "NewReplicaSetAvailable"));
}

#[test]
fn cluster_d2_names_follow_the_template_and_the_collision_count() {
    let world = World::complete(1, &rolling(&json!(1), &json!(0)));
    let set = &world.sets[0];
    let hash = &set.labels()[template::HASH_LABEL];
    assert_eq!(set.name_any(), format!("d-{hash}"));
    let spec = set.spec.as_ref().unwrap();
    let template = spec.template.as_ref().unwrap();
    assert_eq!(
        &template.metadata.as_ref().unwrap().labels.as_ref().unwrap()[template::HASH_LABEL],
        hash
    );
    assert_eq!(
        &spec.selector.match_labels.as_ref().unwrap()[template::HASH_LABEL],
        hash
    );
    assert!(
        hash.chars()
            .all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)),
        "{hash}"
    );

    let own = &world.deployment.spec.as_ref().unwrap().template;
    assert_eq!(template::hash(own, 0), *hash);
    assert_eq!(
        template::hash(template, 0),
        *hash,
        "the label itself does not count"
    );
    assert_ne!(
        template::hash(own, 1),
        *hash,
        "a collision gives another name"
    );
    let mut other = own.clone();
    other.spec.as_mut().unwrap().containers[0].env = Some(Vec::new());
    assert!(
        template::same(own, &other),
        "an empty list is no difference"
    );
    other.spec.as_mut().unwrap().volumes =
        Some(serde_json::from_value(json!([{ "name": "v", "emptyDir": {} }])).unwrap());
    let mut another = other.clone();
    another.spec.as_mut().unwrap().volumes.as_mut().unwrap()[0].empty_dir = None;
    assert!(!template::same(&other, &another), "an empty object is one");
}

#[test]
fn cluster_d2_d3_a_rollback_uses_the_old_replica_set_again() {
    let mut world = World::complete(2, &rolling(&json!(1), &json!(0)));
    world.set_image("i:2");
    world.ready(1);
    world.ready(2);
    assert_eq!(world.deployment.annotations()[revision::REVISION], "2");
    world.set_image("i:1");
    world.ready(1);
    world.ready(2);
    assert_eq!(world.sizes(), [2, 0]);
    assert_eq!(world.sets.len(), 2);
    let annotations = world.sets[0].annotations();
    assert_eq!(annotations[revision::REVISION], "3");
    assert_eq!(annotations[revision::HISTORY], "1");
    assert_eq!(world.deployment.annotations()[revision::REVISION], "3");
    assert_eq!(world.progressing(), pair("True", "NewReplicaSetAvailable"));
}

#[test]
fn cluster_d3_annotations_are_copied_and_history_is_limited() {
    let mut world = World::complete(1, &rolling(&json!(1), &json!(0)));
    world
        .deployment
        .spec
        .as_mut()
        .unwrap()
        .revision_history_limit = Some(1);
    let annotations = world
        .deployment
        .metadata
        .annotations
        .get_or_insert_default();
    annotations.insert(
        "kubernetes.io/change-cause".to_owned(),
        "because".to_owned(),
    );
    let applied = "kubectl.kubernetes.io/last-applied-configuration";
    annotations.insert(applied.to_owned(), "{}".to_owned());
    for image in 2..=5 {
        world.set_image(&format!("i:{image}"));
        world.ready(1);
    }
    let revisions: Vec<i64> = world
        .sets
        .iter()
        .map(|set| revision::revision(&set.metadata))
        .collect();
    assert_eq!(revisions, [4, 5]);
    let current = world.current().unwrap().annotations();
    assert_eq!(current["kubernetes.io/change-cause"], "because");
    assert!(!current.contains_key(applied));
}

#[test]
fn cluster_d4_conditions_follow_the_rollout() {
    let mut world = World::new(deployment(2, &rolling(&json!(1), &json!(0))));
    world.look();
    assert_eq!(world.progressing(), pair("True", "NewReplicaSetCreated"));
    assert_eq!(
        world.condition("Available").unwrap(),
        pair("False", "MinimumReplicasUnavailable")
    );
    world.settle();
    world.ready(1);
    assert_eq!(world.progressing(), pair("True", "ReplicaSetUpdated"));
    world.ready(2);
    assert_eq!(world.progressing(), pair("True", "NewReplicaSetAvailable"));
    assert_eq!(
        world.condition("Available").unwrap(),
        pair("True", "MinimumReplicasAvailable")
    );
    assert_eq!(world.again, None, "nothing to wait for");
}

#[test]
fn cluster_d4_the_deadline_counts_from_the_last_progress() {
    let mut world = World::complete(2, &rolling(&json!(1), &json!(0)));
    world
        .deployment
        .spec
        .as_mut()
        .unwrap()
        .progress_deadline_seconds = Some(5);
    world.set_image("broken");
    let started = world.clock;
    let again = world.again.expect("the deadline is watched");
    assert!(
        again >= Duration::from_secs(5) && again <= Duration::from_secs(6),
        "{again:?}"
    );
    world.clock = started + 4;
    world.settle();
    assert_eq!(world.progressing().0, "True");
    world.clock = started + 6;
    world.settle();
    assert_eq!(
        world.progressing(),
        pair("False", "ProgressDeadlineExceeded")
    );
    assert_eq!(world.again, None);
    let status = world.deployment.status.clone().unwrap();
    assert_eq!(status.unavailable_replicas, Some(1));
    world.set_image("i:1");
    assert_eq!(
        world.progressing(),
        pair("True", "NewReplicaSetAvailable"),
        "rolled back"
    );
}

#[test]
fn cluster_d4_failures_of_replica_sets_are_shown() {
    let mut world = World::new(deployment(1, &rolling(&json!(1), &json!(0))));
    world.settle();
    let mut set = world.sets[0].as_ref().clone();
    set.status.as_mut().unwrap().conditions = Some(
        serde_json::from_value(json!([{ "type": "ReplicaFailure", "status": "True",
            "reason": "FailedCreate", "message": "exceeded quota" }]))
        .unwrap(),
    );
    world.sets[0] = Arc::new(set.clone());
    world.settle();
    assert_eq!(
        world.condition("ReplicaFailure").unwrap(),
        pair("True", "FailedCreate")
    );
    set.status.as_mut().unwrap().conditions = None;
    world.sets[0] = Arc::new(set);
    world.settle();
    assert_eq!(world.condition("ReplicaFailure"), None);
}

#[test]
fn cluster_d5_status_counts_and_leaves_zeros_out() {
    let mut world = World::new(deployment(3, &rolling(&json!(1), &json!(0))));
    world.settle();
    world.ready(2);
    let mut status = json!(world.deployment.status);
    status.as_object_mut().unwrap().remove("conditions");
    let expected = json!({ "observedGeneration": 1, "replicas": 3, "updatedReplicas": 3,
        "readyReplicas": 2, "availableReplicas": 2, "unavailableReplicas": 1 });
    assert_eq!(status, expected);
    world.ready(3);
    world.scale(0);
    let mut status = json!(world.deployment.status);
    status.as_object_mut().unwrap().remove("conditions");
    assert_eq!(status, json!({ "observedGeneration": 2 }));
}

#[test]
fn cluster_d5_a_paused_deployment_is_scaled_but_not_rolled_out() {
    let mut world = World::complete(2, &rolling(&json!(1), &json!(0)));
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.set_image("i:2");
    assert_eq!(world.sizes(), [2]);
    assert_eq!(world.progressing(), pair("Unknown", "DeploymentPaused"));
    assert_eq!(
        world.deployment.status.as_ref().unwrap().updated_replicas,
        None
    );
    world.scale(4);
    assert_eq!(world.sizes(), [4]);
    let set = world.sets[0].clone();
    world.sets[0] = set;
    count(&mut world.sets[0], Some(4));
    world.deployment.spec.as_mut().unwrap().paused = Some(false);
    world.changed();
    assert_eq!(world.sizes(), [4, 1]);
    for ready in 1..=4 {
        world.ready(ready);
    }
    assert_eq!(world.sizes(), [0, 4]);
    assert_eq!(world.progressing(), pair("True", "NewReplicaSetAvailable"));
}

#[test]
fn cluster_d5_scaling_in_the_middle_of_a_rollout_is_proportional() {
    let cases = [
        ("up", 20, [14, 9]),
        ("up by one", 11, [9, 5]),
        ("down", 5, [5, 3]),
    ];
    for (name, replicas, sizes) in cases {
        let mut world = World::complete(10, &rolling(&json!(3), &json!(2)));
        world.set_image("i:2");
        assert_eq!(world.sizes(), [8, 5], "{name}: stuck in the middle");
        world.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        world.look();
        assert_eq!(world.sizes(), sizes, "{name}");
        assert!(!world.is_sizing(), "{name}: the annotations are up to date");
    }
}

impl World {
    fn is_sizing(&self) -> bool {
        let wanted = i64::from(size::replicas(&self.deployment));
        self.sets.iter().any(|set| {
            revision::annotation_number(&set.metadata, revision::DESIRED) != Some(wanted)
        })
    }
}

#[test]
fn a_deployment_that_is_being_deleted_only_reports() {
    let mut world = World::complete(2, &rolling(&json!(1), &json!(0)));
    world.deployment.metadata.deletion_timestamp =
        Some(Time(time(0).0 + SignedDuration::from_secs(1)));
    world.set_image("i:2");
    assert_eq!(world.sizes(), [2]);
    assert_eq!(
        world
            .deployment
            .status
            .as_ref()
            .unwrap()
            .observed_generation,
        Some(2)
    );
}
