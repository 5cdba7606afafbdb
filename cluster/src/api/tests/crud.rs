//! Create, read, update.

use serde_json::json;

use super::support::*;

#[tokio::test]
async fn cluster_w2_create_sets_server_fields() {
    let server = server().await;
    let created = post(
        &server,
        MAPS,
        json!({"metadata": {"name": "a", "uid": "mine", "generation": 9, "creationTimestamp": null}}),
    )
    .await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.json["kind"], "ConfigMap");
    assert_eq!(created.json["apiVersion"], "v1");
    let metadata = &created.json["metadata"];
    assert_ne!(metadata["uid"], "mine");
    assert!(
        metadata["creationTimestamp"]
            .as_str()
            .is_some_and(|t| t.ends_with('Z'))
    );
    assert_eq!(metadata["namespace"], "default");
    assert!(metadata.get("generation").is_none(), "ConfigMaps have none");

    let generated = post(&server, PODS, json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})).await;
    assert_eq!(generated.code, 201, "{}", generated.text);
    assert_eq!(
        generated.json["metadata"]["name"].as_str().map(str::len),
        Some(9)
    );
    assert_eq!(generated.json["metadata"]["generation"], 1);

    let versioned = post(
        &server,
        MAPS,
        json!({"metadata": {"name": "b", "resourceVersion": "1"}}),
    )
    .await;
    assert_eq!(versioned.code, 500);
    assert_eq!(
        versioned.message(),
        "resourceVersion should not be set on objects to be created"
    );
}

#[tokio::test]
async fn cluster_w1_noop_put_keeps_resource_version() {
    let server = server().await;
    let created = post(&server, MAPS, config_map("a")).await;
    let path = format!("{MAPS}/a");
    let same = put(&server, &path, &created.json).await;
    assert_eq!(same.code, 200);
    assert_eq!(same.version(), created.version());
    let same = merge(&server, &path, json!({"data": {"k": "v"}})).await;
    assert_eq!(same.version(), created.version());

    let mut changed = created.json.clone();
    changed["data"]["k"] = "w".into();
    let first = put(&server, &path, &changed).await;
    assert_ne!(first.version(), created.version());
    let stale = put(&server, &path, &changed).await;
    assert_eq!((stale.code, stale.reason()), (409, "Conflict"));
    assert_eq!(
        stale.message(),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please \
         apply your changes to the latest version and try again"
    );
    changed["metadata"]
        .as_object_mut()
        .expect("metadata")
        .remove("resourceVersion");
    changed["data"]["k"] = "x".into();
    assert_eq!(put(&server, &path, &changed).await.code, 200);
}

#[tokio::test]
async fn cluster_w1_put_creates_only_leases_and_endpoints() {
    let server = server().await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    assert_eq!(put(&server, leases, &lease).await.code, 201);
    let missing = put(&server, &format!("{MAPS}/zz"), &config_map("zz")).await;
    assert_eq!(
        (missing.code, missing.message()),
        (404, "configmaps \"zz\" not found")
    );
}

#[tokio::test]
async fn cluster_w3_generation_counts_spec_changes_and_endpoints_keep_apart() {
    let server = server().await;
    let path = format!("{DEPLOYMENTS}/d");
    assert_eq!(
        post(&server, DEPLOYMENTS, deployment("d")).await.json["metadata"]["generation"],
        1
    );
    let labelled = merge(&server, &path, json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(labelled.json["metadata"]["generation"], 1);
    let annotated = merge(
        &server,
        &path,
        json!({"metadata": {"annotations": {"x": "y"}}}),
    )
    .await;
    assert_eq!(annotated.json["metadata"]["generation"], 2);
    let scaled = merge(
        &server,
        &path,
        json!({"spec": {"replicas": 3}, "status": {"replicas": 9}}),
    )
    .await;
    assert_eq!(scaled.json["metadata"]["generation"], 3);
    assert!(scaled.json["status"]["replicas"].is_null());
    let status = merge(
        &server,
        &format!("{path}/status"),
        json!({"spec": {"replicas": 7}, "metadata": {"labels": {"x": "z"}}, "status": {"replicas": 3}}),
    )
    .await;
    assert_eq!(status.code, 200, "{}", status.text);
    assert_eq!(status.json["metadata"]["generation"], 3);
    assert_eq!(status.json["metadata"]["labels"]["x"], "y");
    assert_eq!(status.json["spec"]["replicas"], 3);
    assert_eq!(status.json["status"]["replicas"], 3);
}

#[tokio::test]
async fn in_process_client_creates_lists_and_patches() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};

    let server = server().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let map = serde_json::from_value(config_map("a")).expect("a config map");
    maps.create(&PostParams::default(), &map)
        .await
        .expect("created");
    let patch = Patch::Merge(json!({"data": {"l": "w"}}));
    maps.patch("a", &PatchParams::default(), &patch)
        .await
        .expect("patched");
    let listed = maps.list(&ListParams::default()).await.expect("listed");
    let data = listed.items[0].data.as_ref().expect("data");
    assert_eq!((data["k"].as_str(), data["l"].as_str()), ("v", "w"));
    let missing = maps.get("zz").await.expect_err("absent");
    assert!(matches!(missing, kube::Error::Api(status) if status.code == 404));
}
