use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::*;

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": { "name": "rs", "namespace": "ns", "uid": "uid-rs", "generation": 3 },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "a" } },
            "template": {
                "metadata": { "labels": { "app": "a", "tier": "t" }, "annotations": { "n": "o" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    }))
    .unwrap()
}

fn pod(name: &str, change: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name,
            "labels": { "app": "a", "tier": "t" }, "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] },
        "status": { "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z" },
        ] },
    });
    json_patch::merge(&mut value, &change);
    Arc::new(serde_json::from_value(value).unwrap())
}

#[test]
fn cluster_a1_the_plan_fills_up_or_shrinks() {
    let pods: Vec<Arc<Pod>> = (0..3).map(|n| pod(&n.to_string(), json!({}))).collect();
    let cases = [
        ("enough", 3, 0, 0),
        ("too few", 5, 2, 0),
        ("too many", 1, 0, 2),
        ("none", 0, 0, 3),
    ];
    for (name, wanted, create, delete) in cases {
        let plan = plan::plan(&set(wanted), &pods, &pods);
        assert_eq!((plan.create, plan.delete.len()), (create, delete), "{name}");
    }
    assert_eq!(
        plan::plan(&set(2000), &[], &[]).create,
        500,
        "at most 500 at a look"
    );
}

#[test]
fn cluster_a1_pods_come_from_the_template() {
    let pod = json!(plan::pod(&set(1)));
    assert_eq!(pod["metadata"]["generateName"], "rs-");
    assert_eq!(
        pod["metadata"]["labels"],
        json!({ "app": "a", "tier": "t" })
    );
    assert_eq!(pod["metadata"]["annotations"], json!({ "n": "o" }));
    assert_eq!(
        pod["metadata"]["ownerReferences"],
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "uid-rs",
            "controller": true, "blockOwnerDeletion": true }])
    );
}

#[test]
fn cluster_a1_status_counts_labelled_ready_and_available_pods() {
    let now = Time("2026-01-01T00:01:10Z".parse().unwrap());
    let pods = [
        pod("a", json!({})),
        pod("b", json!({ "metadata": { "labels": { "tier": "x" } } })),
        pod(
            "c",
            json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }),
        ),
    ];
    let (status, again) = plan::status(&set(3), &pods, None, now.clone());
    assert_eq!(
        json!(status),
        json!({ "replicas": 3, "fullyLabeledReplicas": 2, "readyReplicas": 2,
            "availableReplicas": 2, "observedGeneration": 3 })
    );
    assert_eq!(again, None);

    let mut slow = set(3);
    slow.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let (status, again) = plan::status(&slow, &pods, None, now.clone());
    assert_eq!(
        (status.ready_replicas, status.available_replicas),
        (Some(2), None)
    );
    assert_eq!(again, Some(Duration::from_secs(20)));

    let failure = Failure {
        reason: "FailedCreate",
        message: "no".to_owned(),
    };
    let (status, _) = plan::status(&set(3), &[], Some(&failure), now.clone());
    assert_eq!(
        json!(status),
        json!({ "replicas": 0, "observedGeneration": 3, "conditions": [{
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no",
            "lastTransitionTime": now }] })
    );
}

#[test]
fn cluster_a2_deletion_order() {
    let not_ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let ready_at = |time: &str| {
        json!({ "status": { "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": time },
        ] } })
    };
    let cost = |cost: &str| json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": cost } } });
    let restarts = |count: i32| {
        json!({ "status": { "containerStatuses": [
            { "name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": count },
        ] } })
    };
    let born = |time: &str| json!({ "metadata": { "creationTimestamp": time } });
    let cases = [
        (
            "unassigned",
            json!({ "spec": { "nodeName": null } }),
            cost("-5"),
        ),
        (
            "pending",
            json!({ "status": { "phase": "Pending" } }),
            cost("-5"),
        ),
        (
            "unknown",
            json!({ "status": { "phase": "Unknown" } }),
            cost("-5"),
        ),
        ("not ready", not_ready, cost("-5")),
        ("cheaper", cost("-5"), cost("10")),
        ("cheaper than nothing said", cost("-5"), json!({})),
        (
            "later ready",
            ready_at("2026-01-01T00:02:00Z"),
            ready_at("2026-01-01T00:01:00Z"),
        ),
        ("more restarts", restarts(2), restarts(1)),
        (
            "younger",
            born("2026-01-01T00:00:30Z"),
            born("2026-01-01T00:00:00Z"),
        ),
    ];
    for (name, first, second) in cases {
        let pods = vec![pod("keep", second.clone()), pod("drop", first.clone())];
        let order = rank::order(pods.clone(), &pods);
        assert_eq!(order[0].name_any(), "drop", "{name}");
    }
    let other_node = json!({ "spec": { "nodeName": "m" } });
    let pods = vec![
        pod("alone", other_node),
        pod("x", json!({})),
        pod("y", json!({})),
    ];
    let order = rank::order(pods.clone(), &pods);
    assert_eq!(order[2].name_any(), "alone", "doubled-up pods go first");
}
