//! Deletion and namespaces.

use serde_json::{Value, json};

use super::support::*;
use crate::api::ApiServer;

async fn bound_pod(server: &ApiServer, name: &str) {
    assert_eq!(post(server, PODS, pod(name)).await.code, 201);
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    let path = format!("{PODS}/{name}/binding");
    assert_eq!(post(server, &path, binding).await.code, 201);
}

#[tokio::test]
async fn cluster_g1_answers_of_delete() {
    let server = server().await;
    let created = post(&server, MAPS, config_map("a")).await;
    let path = format!("{MAPS}/a");
    let gone = delete(&server, &path, Value::Null).await;
    assert_eq!(
        (gone.code, gone.json["status"].as_str()),
        (200, Some("Success"))
    );
    assert_eq!(
        gone.json["details"],
        json!({"name": "a", "kind": "configmaps", "uid": created.json["metadata"]["uid"]})
    );
    assert_eq!(get(&server, &path).await.code, 404);

    post(&server, SERVICES, service("s")).await;
    let gone = delete(&server, &format!("{SERVICES}/s"), Value::Null).await;
    assert_eq!(gone.json["kind"], "Service");
}

#[tokio::test]
async fn cluster_g1_finalizers_hold_an_object() {
    let server = server().await;
    let path = format!("{MAPS}/f");
    let held = json!({"metadata": {"name": "f", "finalizers": ["x.io/f"]}});
    post(&server, MAPS, held).await;
    let marked = delete(&server, &path, Value::Null).await;
    assert_eq!(marked.json["kind"], "ConfigMap");
    assert_eq!(marked.json["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(marked.json["metadata"]["deletionTimestamp"].is_string());
    let again = delete(&server, &path, Value::Null).await;
    assert_eq!(again.version(), marked.version());

    let added = merge(
        &server,
        &path,
        json!({"metadata": {"finalizers": ["x.io/f", "y.io/g"]}}),
    )
    .await;
    assert_eq!(added.code, 422);
    assert!(
        added
            .message()
            .ends_with("found new finalizers []string{\"y.io/g\"}"),
        "{}",
        added.message()
    );
    let changed = merge(&server, &path, json!({"data": {"a": "b"}})).await;
    assert_eq!(changed.code, 200);
    let removed = merge(&server, &path, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(removed.code, 200, "{}", removed.text);
    assert_eq!(get(&server, &path).await.code, 404);
}

#[tokio::test]
async fn cluster_g1_preconditions_and_bad_options() {
    let server = server().await;
    let created = post(&server, MAPS, config_map("p")).await;
    let path = format!("{MAPS}/p");
    for (name, options, code, part) in [
        (
            "uid",
            json!({"preconditions": {"uid": "x"}}),
            409,
            "the UID in the precondition (x) does not match",
        ),
        (
            "version",
            json!({"preconditions": {"resourceVersion": "1"}}),
            409,
            "the ResourceVersion in the precondition (1)",
        ),
        (
            "policy",
            json!({"propagationPolicy": "Foo"}),
            422,
            "propagationPolicy: Unsupported value: \"Foo\"",
        ),
        (
            "both",
            json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            422,
            "cannot be both set",
        ),
        (
            "dry run",
            json!({"dryRun": ["Some"]}),
            422,
            "dryRun: Unsupported value: [\"Some\"]",
        ),
    ] {
        let refused = delete(&server, &path, options).await;
        assert_eq!(refused.code, code, "{name}: {}", refused.text);
        assert!(
            refused.message().contains(part),
            "{name}: {}",
            refused.message()
        );
    }
    let dry = delete(&server, &path, json!({"dryRun": ["All"]})).await;
    assert_eq!(dry.json["status"], "Success");
    assert_eq!(get(&server, &path).await.version(), created.version());
    let uid = &created.json["metadata"]["uid"];
    let done = delete(&server, &path, json!({"preconditions": {"uid": uid}})).await;
    assert_eq!(done.code, 200, "{}", done.text);
}

#[tokio::test]
async fn cluster_g3_policies_become_finalizers_and_the_body_beats_the_query() {
    let server = server().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let name = policy.to_lowercase();
        post(&server, MAPS, config_map(&name)).await;
        let path = format!("{MAPS}/{name}?propagationPolicy=Background");
        let marked = delete(&server, &path, json!({"propagationPolicy": policy})).await;
        assert_eq!(
            marked.json["metadata"]["finalizers"],
            json!([finalizer]),
            "{}",
            marked.text
        );
    }
    post(&server, MAPS, config_map("q")).await;
    let marked = delete(
        &server,
        &format!("{MAPS}/q?propagationPolicy=Foreground"),
        Value::Null,
    )
    .await;
    assert_eq!(
        marked.json["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
}

#[tokio::test]
async fn cluster_g2_pods_end_gracefully_if_a_node_runs_them() {
    let server = server().await;
    post(&server, PODS, pod("unbound")).await;
    let gone = delete(&server, &format!("{PODS}/unbound"), Value::Null).await;
    assert_eq!(gone.json["kind"], "Pod");
    assert_eq!(get(&server, &format!("{PODS}/unbound")).await.code, 404);

    bound_pod(&server, "p").await;
    let path = format!("{PODS}/p");
    let grace = |answer: &Answer| answer.json["metadata"]["deletionGracePeriodSeconds"].clone();
    let time = |answer: &Answer| -> jiff::Timestamp {
        let text = answer.json["metadata"]["deletionTimestamp"]
            .as_str()
            .expect("a time");
        text.parse().expect("RFC 3339")
    };
    let first = delete(&server, &path, Value::Null).await;
    assert_eq!(grace(&first), 30);
    assert_eq!(first.json["metadata"]["generation"], 2);
    let shorter = delete(&server, &path, json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(grace(&shorter), 5);
    assert_eq!(time(&first).duration_since(time(&shorter)).as_secs(), 25);
    let longer = delete(&server, &path, json!({"gracePeriodSeconds": 20})).await;
    assert_eq!(
        (grace(&longer), longer.version()),
        (json!(5), shorter.version())
    );
    delete(&server, &path, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(get(&server, &path).await.code, 404);
}

#[tokio::test]
async fn cluster_c25_eviction_deletes() {
    let server = server().await;
    bound_pod(&server, "p").await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 7}});
    let answer = post(&server, &format!("{PODS}/p/eviction"), eviction).await;
    assert_eq!(
        (answer.code, answer.json["status"].as_str()),
        (201, Some("Success"))
    );
    let pod = get(&server, &format!("{PODS}/p")).await;
    assert_eq!(pod.json["metadata"]["deletionGracePeriodSeconds"], 7);
}

#[tokio::test]
async fn cluster_g1_delete_collection_answers_with_what_was_deleted() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        post(&server, MAPS, config_map(name)).await;
    }
    merge(
        &server,
        &format!("{MAPS}/b"),
        json!({"metadata": {"labels": {"keep": "1"}}}),
    )
    .await;
    let deleted = delete(&server, &format!("{MAPS}?labelSelector=!keep"), Value::Null).await;
    assert_eq!(deleted.json["kind"], "ConfigMapList");
    assert_eq!(deleted.json["items"].as_array().map(Vec::len), Some(2));
    let left = get(&server, MAPS).await;
    assert_eq!(left.json["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        delete(&server, "/api/v1/namespaces", Value::Null)
            .await
            .code,
        405
    );
}

#[tokio::test]
async fn cluster_g4_namespaces_end_through_finalize() {
    let server = server().await;
    let created = post(
        &server,
        "/api/v1/namespaces",
        json!({"metadata": {"name": "x"}}),
    )
    .await;
    assert_eq!(
        created.json["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "x"
    );
    assert_eq!(created.json["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created.json["status"]["phase"], "Active");

    let marked = delete(&server, "/api/v1/namespaces/x", Value::Null).await;
    assert_eq!(marked.json["status"]["phase"], "Terminating");
    assert!(marked.json["metadata"]["deletionTimestamp"].is_string());
    assert!(
        marked.json["metadata"]
            .get("deletionGracePeriodSeconds")
            .is_none()
    );
    let late = post(
        &server,
        "/api/v1/namespaces/x/configmaps",
        config_map("late"),
    )
    .await;
    assert_eq!(late.code, 403);
    assert_eq!(
        late.message(),
        "configmaps \"late\" is forbidden: unable to create new content in namespace x because it is being terminated"
    );
    assert_eq!(
        late.json["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );

    let status = merge(&server, "/api/v1/namespaces/x/status", json!({"status": {"conditions": [{"type": "NamespaceContentRemaining", "status": "False"}]}})).await;
    assert_eq!(status.code, 200, "{}", status.text);
    let mut finalized = status.json.clone();
    finalized["spec"]["finalizers"] = json!([]);
    let done = put(&server, "/api/v1/namespaces/x/finalize", &finalized).await;
    assert_eq!(done.code, 200, "{}", done.text);
    assert_eq!(get(&server, "/api/v1/namespaces/x").await.code, 404);
}

#[tokio::test]
async fn cluster_e8_permanent_namespaces_cannot_be_deleted() {
    let server = server().await;
    for name in ["default", "kube-system", "kube-public"] {
        let refused = delete(&server, &format!("/api/v1/namespaces/{name}"), Value::Null).await;
        assert_eq!(refused.code, 403);
        assert_eq!(
            refused.message(),
            format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted")
        );
    }
}
