use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::support::{Cluster, eventually};

fn map(name: &str, owners: &[(&str, &str)], finalizers: &[&str]) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(name, uid)| {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid,
                "blockOwnerDeletion": true })
        })
        .collect();
    json!({ "metadata": { "name": name, "ownerReferences": owners, "finalizers": finalizers } })
}

async fn create(cluster: &Cluster, name: &str, owners: &[(&str, &str)]) -> String {
    let created = cluster.create::<ConfigMap>(map(name, owners, &[])).await;
    created.uid().unwrap()
}

async fn gone(cluster: &Cluster, name: &str) {
    eventually(name, Option::is_none, || async {
        cluster.api::<ConfigMap>().get_opt(name).await.unwrap()
    })
    .await;
}

async fn delete(cluster: &Cluster, name: &str, params: &DeleteParams) {
    cluster
        .api::<ConfigMap>()
        .delete(name, params)
        .await
        .unwrap();
}

#[tokio::test]
async fn cluster_g3_background_and_dangling_owners() {
    let cluster = Cluster::without_node().await;
    let owner = create(&cluster, "owner", &[]).await;
    let middle = create(&cluster, "middle", &[("owner", &owner)]).await;
    create(&cluster, "leaf", &[("middle", &middle)]).await;
    delete(&cluster, "owner", &DeleteParams::background()).await;
    gone(&cluster, "middle").await;
    gone(&cluster, "leaf").await;

    create(
        &cluster,
        "dangling",
        &[("nobody", "00000000-0000-0000-0000-000000000000")],
    )
    .await;
    gone(&cluster, "dangling").await;
    let again = create(&cluster, "owner", &[]).await;
    create(&cluster, "of-the-old-one", &[("owner", &owner)]).await;
    create(&cluster, "of-the-new-one", &[("owner", &again)]).await;
    gone(&cluster, "of-the-old-one").await;
    cluster
        .api::<ConfigMap>()
        .get("of-the-new-one")
        .await
        .unwrap();
}

#[tokio::test]
async fn cluster_g3_one_of_two_owners_gone_only_loses_the_reference() {
    let cluster = Cluster::without_node().await;
    let first = create(&cluster, "first", &[]).await;
    let second = create(&cluster, "second", &[]).await;
    create(&cluster, "child", &[("first", &first), ("second", &second)]).await;
    delete(&cluster, "first", &DeleteParams::background()).await;
    let child = eventually(
        "one owner left",
        |child: &ConfigMap| child.owner_references().len() == 1,
        || async { cluster.api::<ConfigMap>().get("child").await.unwrap() },
    )
    .await;
    assert_eq!(child.owner_references()[0].name, "second");
}

#[tokio::test]
async fn cluster_g3_foreground_waits_for_blocking_dependents() {
    let cluster = Cluster::without_node().await;
    let owner = create(&cluster, "owner", &[]).await;
    cluster
        .create::<ConfigMap>(map("child", &[("owner", &owner)], &["x.io/hold"]))
        .await;
    delete(&cluster, "owner", &DeleteParams::foreground()).await;
    let held = eventually(
        "the child goes",
        |child: &ConfigMap| child.metadata.deletion_timestamp.is_some(),
        || async { cluster.api::<ConfigMap>().get("child").await.unwrap() },
    )
    .await;
    assert_eq!(held.finalizers(), ["x.io/hold"]);
    let owner = cluster.api::<ConfigMap>().get("owner").await.unwrap();
    assert_eq!(
        owner.finalizers(),
        ["foregroundDeletion"],
        "the owner waits"
    );
    cluster
        .patch::<ConfigMap>("child", json!({ "metadata": { "finalizers": null } }))
        .await;
    gone(&cluster, "child").await;
    gone(&cluster, "owner").await;
}

#[tokio::test]
async fn cluster_g3_orphaning_keeps_the_dependents() {
    let cluster = Cluster::without_node().await;
    let owner = create(&cluster, "owner", &[]).await;
    create(&cluster, "child", &[("owner", &owner)]).await;
    delete(&cluster, "owner", &DeleteParams::orphan()).await;
    gone(&cluster, "owner").await;
    let child = cluster.api::<ConfigMap>().get("child").await.unwrap();
    assert!(child.owner_references().is_empty());
}

#[tokio::test]
async fn cluster_g3_a_deployment_takes_its_pods_along() {
    let cluster = Cluster::start().await;
    cluster
        .create::<Deployment>(json!({
            "metadata": { "name": "web" },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c", "image": "i" }] },
                },
            },
        }))
        .await;
    eventually("pods", |pods: &Vec<Pod>| pods.len() == 2, || cluster.pods()).await;
    cluster
        .api::<Deployment>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually("no ReplicaSet", Vec::is_empty, || {
        cluster.names::<ReplicaSet>()
    })
    .await;
    eventually("no pod", Vec::is_empty, || cluster.names::<Pod>()).await;
}
