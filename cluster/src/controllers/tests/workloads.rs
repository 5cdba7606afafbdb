use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Config};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::support::{Cluster, eventually, ready};

pub(super) fn deployment(replicas: i32) -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": template("i:1"),
        },
    })
}

pub(super) fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": image,
            "ports": [{ "name": "http", "containerPort": 8080 }] }] },
    })
}

pub(super) fn service() -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" },
            "ports": [{ "port": 80, "targetPort": "http" }] },
    })
}

pub(super) fn replica_set(replicas: i32) -> Value {
    let mut set = deployment(replicas);
    set["metadata"]["name"] = json!("rs");
    set
}

pub(super) async fn status(cluster: &Cluster) -> DeploymentStatus {
    let deployment = cluster.api::<Deployment>().get("web").await.unwrap();
    let mut status = deployment.status.unwrap_or_default();
    if status.observed_generation != deployment.metadata.generation {
        status.available_replicas = None;
    }
    status
}

pub(super) fn is_rolled_out(status: &DeploymentStatus, replicas: i32) -> bool {
    let count = Some(replicas);
    status.available_replicas == count
        && status.updated_replicas == count
        && status.replicas == count
        && status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"))
}

pub(super) async fn messages(cluster: &Cluster, reason: &str) -> Vec<String> {
    let events = cluster
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    events
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some(reason))
        .filter_map(|event| event.message)
        .collect()
}

#[tokio::test]
async fn cluster_d1_d5_a_deployment_rolls_out_without_losing_endpoints() {
    let cluster = Cluster::start().await;
    cluster.create::<Service>(service()).await;
    cluster.create::<Deployment>(deployment(3)).await;
    let rolled_out = |status: &DeploymentStatus| is_rolled_out(status, 3);
    eventually("rolled out", rolled_out, || status(&cluster)).await;
    eventually(
        "three addresses",
        |ready: &Vec<String>| ready.len() == 3,
        || cluster.ready_addresses("web"),
    )
    .await;

    let stop = tokio_util::sync::CancellationToken::new();
    let api = cluster.api::<EndpointSlice>();
    let watch = tokio::spawn(fewest_ready(api, stop.clone()));
    cluster
        .patch::<Deployment>("web", json!({ "spec": { "template": template("i:2") } }))
        .await;
    let second = |status: &DeploymentStatus| {
        is_rolled_out(status, 3) && status.observed_generation >= Some(2)
    };
    eventually("rolled out again", second, || status(&cluster)).await;
    let pods = cluster.pods().await;
    let images = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone();
    assert!(
        pods.iter().all(|pod| images(pod).as_deref() == Some("i:2")),
        "{pods:?}"
    );
    stop.cancel();
    let fewest = watch.await.unwrap();
    assert!(
        fewest >= 3,
        "only {fewest} addresses were ready at some moment"
    );

    let deployment = cluster.api::<Deployment>().get("web").await.unwrap();
    assert_eq!(
        deployment.annotations()["deployment.kubernetes.io/revision"],
        "2"
    );
    let scaled = eventually(
        "all events",
        |events: &Vec<String>| events.len() == 7,
        || messages(&cluster, "ScalingReplicaSet"),
    )
    .await;
    assert!(
        scaled
            .iter()
            .any(|message| message.ends_with("from 0 to 3")),
        "{scaled:?}"
    );
}

/// The smallest number of ready addresses that a reader of all slices ever sees.
async fn fewest_ready(
    api: kube::Api<EndpointSlice>,
    stop: tokio_util::sync::CancellationToken,
) -> usize {
    let mut events = std::pin::pin!(watcher::watcher(api, Config::default()));
    let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
    let mut fewest = usize::MAX;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return fewest,
            event = events.next() => event.unwrap().unwrap(),
        };
        match event {
            watcher::Event::Init => continue,
            watcher::Event::InitApply(slice) => {
                slices.insert(slice.name_any(), slice);
                continue;
            }
            watcher::Event::InitDone => {}
            watcher::Event::Apply(slice) => {
                slices.insert(slice.name_any(), slice);
            }
            watcher::Event::Delete(slice) => {
                slices.remove(&slice.name_any());
            }
        }
        fewest = fewest.min(ready(slices.values()).len());
    }
}

#[tokio::test]
async fn cluster_d1_recreate_and_d3_rollback_end_to_end() {
    let cluster = Cluster::start().await;
    let mut recreate = deployment(2);
    recreate["spec"]["strategy"] = json!({ "type": "Recreate" });
    cluster.create::<Deployment>(recreate).await;
    let rolled_out = |generation: i64| {
        move |status: &DeploymentStatus| {
            is_rolled_out(status, 2) && status.observed_generation >= Some(generation)
        }
    };
    eventually("first", rolled_out(1), || status(&cluster)).await;
    for (image, generation) in [("i:2", 3), ("i:1", 5)] {
        let patch = json!({ "spec": { "template": template(image) } });
        cluster.patch::<Deployment>("web", patch).await;
        eventually(image, rolled_out(generation), || status(&cluster)).await;
    }
    let sets = cluster
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let mut revisions: Vec<&String> = sets
        .iter()
        .map(|set| &set.annotations()["deployment.kubernetes.io/revision"])
        .collect();
    revisions.sort();
    assert_eq!(revisions, ["2", "3"], "the first ReplicaSet is used again");
}

#[tokio::test]
async fn cluster_a3_replicas_are_created_once() {
    let cluster = Cluster::start().await;
    cluster.create::<ReplicaSet>(replica_set(60)).await;
    let all = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .is_some_and(|status| status.available_replicas == Some(60))
    };
    eventually("all available", all, || async {
        cluster.api::<ReplicaSet>().get("rs").await.unwrap()
    })
    .await;
    assert_eq!(cluster.names::<Pod>().await.len(), 60);
    let created = eventually(
        "events",
        |created: &Vec<String>| created.len() > 9,
        || messages(&cluster, "SuccessfulCreate"),
    )
    .await;
    assert!(
        created
            .iter()
            .any(|message| message.starts_with("(combined from")),
        "{created:?}"
    );
    let deleted = messages(&cluster, "SuccessfulDelete").await;
    assert!(
        deleted.is_empty(),
        "a surplus had to be deleted: {deleted:?}"
    );
}

#[tokio::test]
async fn cluster_a1_orphans_are_adopted_and_strangers_released() {
    let cluster = Cluster::start().await;
    let mut orphan = template("i:1");
    orphan["metadata"]["name"] = json!("orphan");
    cluster.create::<Pod>(orphan).await;
    cluster.create::<ReplicaSet>(replica_set(2)).await;
    let owned = || async {
        let pods = cluster.pods().await;
        pods.iter()
            .filter(|pod| {
                pod.owner_references()
                    .iter()
                    .any(|owner| owner.name == "rs")
            })
            .map(ResourceExt::name_any)
            .collect::<HashSet<String>>()
    };
    let adopted = |names: &HashSet<String>| names.len() == 2 && names.contains("orphan");
    eventually("adopted", adopted, owned).await;
    assert_eq!(
        cluster.pods().await.len(),
        2,
        "one was enough beside the orphan"
    );

    let patch = json!({ "metadata": { "labels": { "app": "other" } } });
    cluster.patch::<Pod>("orphan", patch).await;
    let released = |names: &HashSet<String>| names.len() == 2 && !names.contains("orphan");
    eventually("released and replaced", released, owned).await;
    assert!(
        cluster
            .api::<Pod>()
            .get("orphan")
            .await
            .unwrap()
            .owner_references()
            .is_empty()
    );
}

#[tokio::test]
async fn cluster_a1_failed_pods_are_replaced_and_kept() {
    let cluster = Cluster::start().await;
    cluster.create::<ReplicaSet>(replica_set(1)).await;
    let running = |pods: &Vec<Pod>| {
        pods.len() == 1 && pods[0].status.as_ref().unwrap().phase.as_deref() == Some("Running")
    };
    let pods = eventually("one runs", running, || cluster.pods()).await;
    let name = pods[0].name_any();
    let failed = json!({ "status": { "phase": "Failed" } });
    cluster
        .api::<Pod>()
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(failed))
        .await
        .unwrap();
    let pods = eventually(
        "replaced",
        |pods: &Vec<Pod>| pods.len() == 2,
        || cluster.pods(),
    )
    .await;
    assert!(
        pods.iter().any(|pod| pod.name_any() == name),
        "the failed one stays"
    );
}

#[tokio::test]
async fn cluster_q3_a_ready_pod_is_in_its_slice_within_milliseconds() {
    let cluster = Cluster::start().await;
    cluster.create::<Service>(service()).await;
    let mut times = Vec::new();
    for replicas in 1..=9 {
        if replicas == 1 {
            cluster.create::<ReplicaSet>(replica_set(1)).await;
        } else {
            cluster
                .patch::<ReplicaSet>("rs", json!({ "spec": { "replicas": replicas } }))
                .await;
        }
        let count = usize::try_from(replicas).unwrap();
        let is_ready = |pods: &Vec<Pod>| {
            pods.iter()
                .filter(|pod| super::super::pods::is_ready(pod))
                .count()
                == count
        };
        eventually("ready", is_ready, || cluster.pods()).await;
        let start = Instant::now();
        eventually(
            "in the slice",
            |ready: &Vec<String>| ready.len() == count,
            || cluster.ready_addresses("web"),
        )
        .await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    assert!(times[4] < Duration::from_millis(100), "{times:?}");
}

#[tokio::test]
async fn cluster_b11_pods_without_a_node_say_why_and_are_bound_when_there_is_one() {
    let cluster = Cluster::without_node().await;
    let mut pod = template("i:1");
    pod["metadata"]["name"] = json!("p");
    cluster.create::<Pod>(pod).await;
    let condition = |pod: &Pod| {
        super::super::pods::condition(pod, "PodScheduled")
            .map(|condition| (condition.status.clone(), condition.message.clone()))
    };
    let get = || async { cluster.api::<Pod>().get("p").await.unwrap() };
    let refused = eventually(
        "refused",
        |pod: &Pod| condition(pod).is_some_and(|(status, _)| status == "False"),
        get,
    )
    .await;
    let text = "no nodes available to schedule pods".to_owned();
    assert_eq!(condition(&refused).unwrap().1, Some(text.clone()));
    eventually(
        "event",
        |messages: &Vec<String>| *messages == [text.clone()],
        || messages(&cluster, "FailedScheduling"),
    )
    .await;

    cluster.add_node().await;
    let bound = |pod: &Pod| {
        pod.spec.as_ref().unwrap().node_name.as_deref() == Some("node")
            && condition(pod).is_some_and(|(status, _)| status == "True")
    };
    eventually("bound", bound, get).await;
    eventually(
        "event",
        |messages: &Vec<String>| *messages == ["Successfully assigned default/p to node"],
        || messages(&cluster, "Scheduled"),
    )
    .await;
}

#[tokio::test]
async fn cluster_q2_slices_outlive_the_selector_but_not_the_service() {
    let cluster = Cluster::start().await;
    cluster.create::<Service>(service()).await;
    cluster.create::<ReplicaSet>(replica_set(2)).await;
    let two = |addresses: &Vec<String>| addresses.len() == 2;
    eventually("two addresses", two, || cluster.ready_addresses("web")).await;
    let slices = cluster.names::<EndpointSlice>().await;
    cluster
        .patch::<Service>("web", json!({ "spec": { "selector": null } }))
        .await;
    cluster
        .patch::<ReplicaSet>("rs", json!({ "spec": { "replicas": 0 } }))
        .await;
    eventually("no pods", Vec::is_empty, || cluster.names::<Pod>()).await;
    assert_eq!(cluster.names::<EndpointSlice>().await, slices);
    assert_eq!(
        cluster.ready_addresses("web").await.len(),
        2,
        "they are the user's now"
    );
    let by_default = kube::api::DeleteParams::default();
    cluster
        .api::<Service>()
        .delete("web", &by_default)
        .await
        .unwrap();
    eventually("no slices", Vec::is_empty, || {
        cluster.names::<EndpointSlice>()
    })
    .await;
}

#[tokio::test]
async fn cluster_q3_endpoints_objects_follow_pods_and_are_mirrored_when_written_by_hand() {
    let cluster = Cluster::start().await;
    cluster.create::<Service>(service()).await;
    cluster.create::<ReplicaSet>(replica_set(2)).await;
    let api = cluster.api::<Endpoints>();
    let count = |endpoints: &Option<Endpoints>| {
        let subsets = endpoints.iter().flat_map(|e| e.subsets.iter().flatten());
        subsets
            .flat_map(|subset| subset.addresses.iter().flatten())
            .count()
    };
    let get = || async { api.get_opt("web").await.unwrap() };
    eventually("two addresses", |known| count(known) == 2, get).await;
    cluster
        .patch::<ReplicaSet>("rs", json!({ "spec": { "replicas": 1 } }))
        .await;
    eventually("one address", |known| count(known) == 1, get).await;

    let database = json!({ "metadata": { "name": "db" }, "spec": { "ports": [{ "port": 5432 }] } });
    cluster.create::<Service>(database).await;
    let by_hand = json!({
        "metadata": { "name": "db" },
        "subsets": [{ "addresses": [{ "ip": "10.2.2.2" }], "ports": [{ "port": 5432 }] }],
    });
    cluster.create::<Endpoints>(by_hand).await;
    let mirrored = |addresses: &Vec<String>| *addresses == ["10.2.2.2"];
    eventually("mirrored", mirrored, || cluster.ready_addresses("db")).await;
    let subsets = json!({ "subsets": [
        { "addresses": [{ "ip": "10.2.2.9" }], "ports": [{ "port": 5432 }] },
    ] });
    cluster.patch::<Endpoints>("db", subsets).await;
    let moved = |addresses: &Vec<String>| *addresses == ["10.2.2.9"];
    eventually("moved", moved, || cluster.ready_addresses("db")).await;

    let by_default = kube::api::DeleteParams::default();
    for name in ["web", "db"] {
        cluster
            .api::<Service>()
            .delete(name, &by_default)
            .await
            .unwrap();
    }
    eventually("no Endpoints", Vec::is_empty, || {
        cluster.names::<Endpoints>()
    })
    .await;
    eventually("no slices", Vec::is_empty, || {
        cluster.names::<EndpointSlice>()
    })
    .await;
}
