//! Pods that die, hang, turn unready or are replaced, under a load that must not notice.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use crate::support::cluster::{Cluster, Options};
use crate::support::http::{Connection, get};
use crate::support::load::Load;
use crate::support::{eventually, has};

const HOST: &str = "api.mycompany.com";
const CONNECTIONS: usize = 64;

/// The pods' addresses by name, seen through the API.
fn addresses(cluster: &Cluster) -> Vec<(String, String)> {
    let pods = cluster.get(&["pods", "-l", "app=api"]);
    let pods = pods["items"].as_array().unwrap().iter();
    pods.map(|pod| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&pod["metadata"]["name"]),
            text(&pod["status"]["podIP"]),
        )
    })
    .collect()
}

/// Waits until the new pods answer: a Deployment counts as rolled out while the last old pod is on its
/// way out.
async fn answered_by(cluster: &Cluster, tag: &str) {
    eventually("the new pods answer", async || {
        let answer = get(cluster.http(), HOST, "/api").await?;
        let seen = answer.json()["tag"].clone();
        if seen == tag {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })
    .await;
}

async fn rolled_out(cluster: &Cluster) {
    cluster.kubectl_output(&["rollout", "status", "deployment/api", "--timeout=90s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_comes_back_and_only_unsafe_requests_in_flight_may_fail() {
    if !has("kubectl") {
        return;
    }
    let cluster = Cluster::shop().await;
    let load = Load::start(cluster.http(), HOST, "/api?delay=20", CONNECTIONS);
    load.more(500).await;
    let victim = cluster.pods("app=api").remove(0);
    // Everything in the container but the shell that says so, which dies with the rest soon enough: how
    // this command ends is a race.
    let _ = cluster
        .kubectl(&["exec", &victim, "--", "sh", "-c", "kill -9 -1"])
        .output();
    eventually("the container is restarted and ready", async || {
        let pod = cluster.get(&["pod", &victim]);
        let status = &pod["status"]["containerStatuses"][0];
        if status["restartCount"] == 1 && status["ready"] == true {
            return Ok(());
        }
        Err(status.to_string())
    })
    .await;
    load.more(500).await;
    let tally = load.stop().await;
    // A POST that was in flight on the killed pod cannot be repeated safely; a third of the load was
    // there, a quarter of it POSTs.
    let in_flight = CONNECTIONS as u64 / 3;
    assert!(tally.failures() <= in_flight, "{tally:?}");
    assert!(tally.good > 500, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unready_pod_leaves_the_rotation_within_a_second_and_no_request_fails() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let cluster = Cluster::shop().await;
    let load = Load::start(cluster.http(), HOST, "/api", CONNECTIONS);
    load.more(300).await;
    let (victim, ip) = addresses(&cluster).remove(0);
    let switch = format!("http://{ip}:8000/readyz/off");
    cluster.kubectl_output(&["exec", &victim, "--", "curl", "-sS", "-X", "PUT", &switch]);
    let switched = Instant::now();
    // The probe's period is one second; the rest of the way must not show.
    tokio::time::sleep_until((switched + Duration::from_millis(1300)).into()).await;
    let mut connection = Connection::open(cluster.http()).await.unwrap();
    for _ in 0..100 {
        let answer = connection.send(Method::GET, HOST, "/api").await.unwrap();
        assert_ne!(answer.pod(), victim, "not ready, yet it gets traffic");
    }
    let tally = load.stop().await;
    assert_eq!(tally.failures(), 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_scaling_and_rollback_lose_no_request() {
    if !has("kubectl") {
        return;
    }
    let cluster = Cluster::shop().await;
    let load = Load::start(cluster.http(), HOST, "/api", CONNECTIONS);
    load.more(200).await;
    cluster.kubectl_output(&["set", "image", "deployment/api", "api=sealane/echo:2.0"]);
    rolled_out(&cluster).await;
    answered_by(&cluster, "2.0").await;
    for replicas in ["6", "2"] {
        let replicas = format!("--replicas={replicas}");
        cluster.kubectl_output(&["scale", "deployment/api", &replicas]);
        rolled_out(&cluster).await;
    }
    cluster.kubectl_output(&["rollout", "undo", "deployment/api"]);
    rolled_out(&cluster).await;
    answered_by(&cluster, "1.0").await;
    load.more(200).await;
    let tally = load.stop().await;
    assert_eq!(tally.failures(), 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_nobody_mapped_stalls_the_rollout_and_undo_recovers() {
    if !has("kubectl") {
        return;
    }
    let cluster = Cluster::shop().await;
    let load = Load::start(cluster.http(), HOST, "/api", 8);
    cluster.kubectl_output(&[
        "set",
        "image",
        "deployment/api",
        "api=registry.example/api:9",
    ]);
    eventually("the new pod cannot start", async || {
        let pods = cluster.kubectl_output(&["get", "pods", "-l", "app=api"]);
        let stuck = pods.contains("ImagePullBackOff") || pods.contains("ErrImagePull");
        if stuck { Ok(()) } else { Err(pods) }
    })
    .await;
    let described = cluster.kubectl_output(&["describe", "pods", "-l", "app=api"]);
    assert!(
        described.contains("--image 'registry.example/api"),
        "{described}"
    );
    load.more(100).await;
    let deployment = cluster.get(&["deployment", "api"]);
    assert_eq!(
        deployment["status"]["availableReplicas"], 3,
        "old pods keep serving"
    );
    cluster.kubectl_output(&["rollout", "undo", "deployment/api"]);
    rolled_out(&cluster).await;
    let tally = load.stop().await;
    assert_eq!(tally.failures(), 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_never_ready_gets_no_traffic_and_a_failing_liveness_probe_restarts() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("late.yaml");
    std::fs::write(
        &file,
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: late}
spec:
  selector: {matchLabels: {app: late}}
  template:
    metadata: {labels: {app: late}}
    spec:
      containers:
      - name: late
        image: sealane/echo:1
        args: [--ready-after, '3600']
        readinessProbe: {httpGet: {path: /readyz, port: 8000}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: live}
spec:
  selector: {matchLabels: {app: live}}
  template:
    metadata: {labels: {app: live}}
    spec:
      containers:
      - name: live
        image: sealane/echo:1
        livenessProbe: {httpGet: {path: /healthz, port: 8000}, periodSeconds: 1, failureThreshold: 2}
---
apiVersion: v1
kind: Service
metadata: {name: late}
spec:
  selector: {app: late}
  ports: [{port: 80, targetPort: 8000}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: late}
spec:
  rules:
  - host: late.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: late, port: {number: 80}}}}
",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let cluster = Options::default()
        .args(&["-f", file, "--wait", "3"])
        .start()
        .await;
    assert_eq!(cluster.summary["ready"], false);
    let reasons = cluster.summary["notReady"].to_string();
    assert!(reasons.contains("late"), "{reasons}");
    eventually("it runs and is not ready", async || {
        let pods = cluster.kubectl_output(&["get", "pods", "-l", "app=late"]);
        if pods.contains("0/1     Running") {
            Ok(())
        } else {
            Err(pods)
        }
    })
    .await;
    for _ in 0..20 {
        let answer = get(cluster.http(), "late.example", "/").await.unwrap();
        assert_eq!(answer.status.as_u16(), 503, "{answer:?}");
    }
    let pod = cluster.pods("app=live").remove(0);
    cluster.kubectl_output(&[
        "exec",
        &pod,
        "--",
        "curl",
        "-sS",
        "-X",
        "PUT",
        "http://127.0.0.1:8000/healthz/off",
    ]);
    eventually("the container is restarted", async || {
        let pod = cluster.get(&["pod", &pod]);
        let status = &pod["status"]["containerStatuses"][0];
        if status["restartCount"] == 1 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
}
