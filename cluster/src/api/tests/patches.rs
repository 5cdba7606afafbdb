//! Patches through the server.

use serde_json::json;

use super::support::*;

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

#[tokio::test]
async fn cluster_c17_each_patch_type_changes_the_object() {
    let server = server().await;
    post(&server, DEPLOYMENTS, deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d");
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    let patched = patch_with(&server, &path, STRATEGIC, image).await;
    assert_eq!(patched.code, 200, "{}", patched.text);
    let container = &patched.json["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "i:2");
    assert_eq!(
        container["imagePullPolicy"], "IfNotPresent",
        "defaults are kept"
    );
    assert_eq!(patched.json["metadata"]["generation"], 2);
    let replaced = json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]);
    let patched = patch_with(&server, &path, JSON_PATCH, replaced).await;
    assert_eq!(patched.json["spec"]["replicas"], 4);
    let failing = json!([{"op": "test", "path": "/spec/replicas", "value": 1}]);
    let failed = patch_with(&server, &path, JSON_PATCH, failing).await;
    assert_eq!((failed.code, failed.reason()), (422, "Invalid"));
    let malformed = patch_with(&server, &path, JSON_PATCH, json!({})).await;
    assert_eq!((malformed.code, malformed.reason()), (400, "BadRequest"));
    let keyless = json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}});
    assert_eq!(
        patch_with(&server, &path, STRATEGIC, keyless).await.code,
        500
    );
    let forced = patch_with(&server, &format!("{path}?force=true"), STRATEGIC, json!({})).await;
    assert_eq!(forced.code, 422);
    assert!(
        forced
            .message()
            .contains("force: Forbidden: may not be specified for non-apply patch")
    );
}

#[tokio::test]
async fn cluster_c3_secret_string_data_is_written_and_unchanged_secrets_keep_their_version() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/secrets";
    let created = post(
        &server,
        path,
        json!({"metadata": {"name": "s"}, "stringData": {"password": "s3cret"}}),
    )
    .await;
    assert_eq!(created.json["data"]["password"], "czNjcmV0");
    assert!(created.json.get("stringData").is_none());
    let patch = json!({"stringData": {"password": "s3cret"}});
    let again = patch_with(&server, &format!("{path}/s"), STRATEGIC, patch).await;
    assert_eq!(again.version(), created.version());
}

#[tokio::test]
async fn cluster_c4_server_side_apply_creates_and_merges() {
    let server = server().await;
    let path = format!("{MAPS}/x?fieldManager=m&force=true");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "1"}});
    let created = patch_with(&server, &path, APPLY, body.clone()).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let same = patch_with(&server, &path, APPLY, body).await;
    assert_eq!((same.code, same.version()), (200, created.version()));
    let headers = [("content-type", APPLY)];
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  b: '2'\n";
    let merged = raw(&server, "PATCH", &path, &headers, yaml).await;
    assert_eq!(
        merged.json["data"],
        json!({"a": "1", "b": "2"}),
        "{}",
        merged.text
    );
    let nobody = patch_with(&server, &format!("{MAPS}/x"), APPLY, json!({})).await;
    assert_eq!(nobody.code, 422);
    assert!(
        nobody
            .message()
            .contains("fieldManager: Required value: is required for apply patch")
    );
}

#[tokio::test]
async fn cluster_c17_status_is_patched_by_its_own_endpoint() {
    let server = server().await;
    post(&server, PODS, pod("p")).await;
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let patched = patch_with(&server, &format!("{PODS}/p/status"), STRATEGIC, status).await;
    assert_eq!(
        patched.json["status"]["phase"], "Running",
        "{}",
        patched.text
    );
    assert_eq!(patched.json["status"]["qosClass"], "BestEffort");
    let more = json!({"status": {"conditions": [{"type": "Initialized", "status": "True"}]}});
    let patched = patch_with(&server, &format!("{PODS}/p/status"), STRATEGIC, more).await;
    assert_eq!(
        patched.json["status"]["conditions"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}
