use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::support::{Cluster, eventually, from};

#[tokio::test]
async fn cluster_n9_every_namespace_has_an_account_and_the_root_certificate() {
    let cluster = Cluster::without_node().await;
    cluster.add_namespace("team").await;
    for namespace in ["default", "kube-system", "team"] {
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        let account = || async { accounts.get_opt("default").await.unwrap() };
        let map = || async { maps.get_opt("kube-root-ca.crt").await.unwrap() };
        let first = eventually("account", Option::is_some, account)
            .await
            .unwrap();
        let certificate = eventually("map", Option::is_some, map).await.unwrap();
        assert_eq!(certificate.data.unwrap()["ca.crt"], "PEM", "{namespace}");

        accounts
            .delete("default", &DeleteParams::default())
            .await
            .unwrap();
        maps.delete("kube-root-ca.crt", &DeleteParams::default())
            .await
            .unwrap();
        let other = |again: &Option<ServiceAccount>| {
            again
                .as_ref()
                .is_some_and(|again| again.uid() != first.uid())
        };
        eventually("account again", other, account).await;
        eventually("map again", Option::is_some, map).await;
        let patch = json!({ "data": { "ca.crt": "changed" } });
        maps.patch(
            "kube-root-ca.crt",
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .unwrap();
        let repaired = |map: &Option<ConfigMap>| {
            map.as_ref()
                .is_some_and(|map| map.data.as_ref().unwrap()["ca.crt"] == "PEM")
        };
        eventually("map repaired", repaired, map).await;
    }
}

#[tokio::test]
async fn cluster_g4_a_namespace_goes_when_it_is_empty() {
    let cluster = Cluster::start().await;
    cluster.add_namespace("team").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
    let hold: ConfigMap = from(json!({ "metadata": { "name": "hold", "finalizers": ["x.io/f"] } }));
    maps.create(&PostParams::default(), &hold).await.unwrap();
    let pod: Pod = from(json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    }));
    pods.create(&PostParams::default(), &pod).await.unwrap();
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();

    let condition = |namespace: &Option<Namespace>, kind: &str| {
        let status = namespace.as_ref()?.status.clone()?;
        let condition = status
            .conditions?
            .into_iter()
            .find(|condition| condition.type_ == kind)?;
        Some((condition.status, condition.message?))
    };
    let get = || async { namespaces.get_opt("team").await.unwrap() };
    let held = |namespace: &Option<Namespace>| {
        condition(namespace, "NamespaceFinalizersRemaining").is_some_and(|(status, message)| {
            status == "True" && message.contains("x.io/f in 1 resource instances")
        })
    };
    let namespace = eventually("held", held, get).await;
    let (status, _) = condition(&namespace, "NamespaceContentRemaining").unwrap();
    assert_eq!(status, "True");
    assert_eq!(
        namespace.unwrap().status.unwrap().phase.as_deref(),
        Some("Terminating")
    );
    assert!(pods.get_opt("p").await.unwrap().is_none(), "pods go first");
    assert!(
        maps.get("hold")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );

    let release = json!({ "metadata": { "finalizers": null } });
    maps.patch("hold", &PatchParams::default(), &Patch::Merge(release))
        .await
        .unwrap();
    eventually("gone", Option::is_none, get).await;
}
