//! Scale and binding.

use serde_json::json;

use super::support::*;

#[tokio::test]
async fn cluster_c16_scale_reads_and_changes_replicas() {
    let server = server().await;
    post(&server, DEPLOYMENTS, deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d/scale");
    let scale = get(&server, &path).await;
    assert_eq!(scale.json["kind"], "Scale");
    assert_eq!(scale.json["apiVersion"], "autoscaling/v1");
    assert_eq!(scale.json["spec"]["replicas"], 1);
    assert_eq!(
        scale.json["status"],
        json!({"replicas": 0, "selector": "app=d"})
    );
    let patched = merge(&server, &path, json!({"spec": {"replicas": 5}})).await;
    assert_eq!(patched.json["spec"]["replicas"], 5, "{}", patched.text);
    let deployment = get(&server, &format!("{DEPLOYMENTS}/d")).await;
    assert_eq!(deployment.json["spec"]["replicas"], 5);
    assert_eq!(deployment.json["metadata"]["generation"], 2);
    let mut stale = scale.json.clone();
    stale["spec"]["replicas"] = 2.into();
    assert_eq!(put(&server, &path, &stale).await.code, 409);
    stale["metadata"]["resourceVersion"] = patched.version().into();
    assert_eq!(
        put(&server, &path, &stale).await.json["spec"]["replicas"],
        2
    );
    assert_eq!(
        merge(&server, &path, json!({"spec": {"replicas": -1}}))
            .await
            .code,
        422
    );
    assert_eq!(
        get(&server, &format!("{DEPLOYMENTS}/nope/scale"))
            .await
            .code,
        404
    );
}

#[tokio::test]
async fn binding_sets_the_node_once() {
    let server = server().await;
    post(&server, PODS, pod("p")).await;
    let path = format!("{PODS}/p/binding");
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    let bound = post(&server, &path, binding.clone()).await;
    assert_eq!(
        (bound.code, bound.json["status"].as_str()),
        (201, Some("Success"))
    );
    let pod = get(&server, &format!("{PODS}/p")).await;
    assert_eq!(pod.json["spec"]["nodeName"], "n");
    let condition = &pod.json["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("PodScheduled"), &json!("True"))
    );
    let again = post(&server, &path, binding).await;
    assert_eq!(again.code, 409);
    assert!(
        again
            .message()
            .ends_with("pod p is already assigned to node \"n\""),
        "{}",
        again.message()
    );
    assert_eq!(post(&server, &path, json!({"target": {}})).await.code, 422);
}

#[tokio::test]
async fn cluster_c23_reviews_allow_everything() {
    let server = server().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = post(&server, path, review).await;
    assert_eq!(
        (answer.code, &answer.json["status"]["allowed"]),
        (201, &json!(true))
    );
}
