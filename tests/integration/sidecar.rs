//! A workload with a sidecar, as `examples/sidecar` has it.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Options};
use crate::support::http::get;
use crate::support::load::Load;
use crate::support::{eventually, has, output};

const HOST: &str = "hello.example.com";

/// The example, all ready.
async fn start() -> Option<Cluster> {
    if !has("kubectl") || !has("curl") {
        return None;
    }
    let cluster = Options::default()
        .args(&["-f", "deploy/sidecar.yaml", "-f", "examples/sidecar"])
        .start()
        .await;
    cluster.assert_ready();
    Some(cluster)
}

/// What curl says in the application's container.
fn curl(cluster: &Cluster, pod: &str, args: &[&str]) -> String {
    let exec = [
        "exec",
        pod,
        "-c",
        "hello",
        "--",
        "curl",
        "-sS",
        "--max-time",
        "10",
    ];
    let args: Vec<&str> = exec.iter().chain(args).copied().collect();
    output(&mut cluster.kubectl(&args))
}

/// The value of the series with these labels in a sidecar's metrics; 0 if there is none.
fn metric(cluster: &Cluster, pod: &str, name: &str, labels: &[&str]) -> f64 {
    let text = curl(cluster, pod, &["http://127.0.0.1:9900/metrics"]);
    let mut lines = text.lines().filter(|line| line.starts_with(name));
    let line = lines.find(|line| labels.iter().all(|label| line.contains(label)));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_o8_a_native_sidecar_carries_its_pod_from_start_to_end() {
    let Some(cluster) = start().await else { return };
    let answer = get(cluster.http(), HOST, "/").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    traffic_from_the_pod(&cluster);
    jobs_end(&cluster).await;
    in_flight_requests_outlive_a_deletion(&cluster).await;
    a_rolling_restart_is_not_noticed(&cluster).await;
}

fn traffic_from_the_pod(cluster: &Cluster) {
    let pod = cluster.pods("app=hello").remove(0);
    let statuses = "sealane_requests_total";
    let outbound = ["service=\"hello\"", "code=\"2xx\""];
    let before = metric(cluster, &pod, statuses, &outbound);
    for _ in 0..4 {
        curl(cluster, &pod, &["--fail", "http://hello/"]);
    }
    assert!(metric(cluster, &pod, statuses, &outbound) >= before + 4.0);
    let inbound = ["traffic=\"inbound\"", "code=\"2xx\""];
    assert!(metric(cluster, &pod, statuses, &inbound) > 0.0);

    cluster.kubectl_output(&["create", "service", "clusterip", "nobody", "--tcp=80"]);
    let begun = Instant::now();
    let code = loop {
        let format = ["-o", "/dev/null", "-w", "%{http_code}", "http://nobody/"];
        let code = curl(cluster, &pod, &format);
        // The Service is new to the sidecar for a moment, and the name to its DNS.
        if code == "503" || begun.elapsed() > Duration::from_secs(10) {
            break code;
        }
    };
    assert_eq!(code, "503");
}

/// A pod that runs once ends when its container has, whatever its sidecar would do.
async fn jobs_end(cluster: &Cluster) {
    let deployment = cluster.get(&["deployment", "hello"]);
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"] = json!({"labels": {"app": "once"}});
    template["spec"]["restartPolicy"] = "Never".into();
    let once = &mut template["spec"]["containers"][0];
    once["command"] = json!(["curl", "-sS", "--fail", "http://hello/"]);
    once["readinessProbe"] = Value::Null;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "once", "labels": {"app": "once"}},
        "spec": template["spec"],
    });
    let file = cluster.data_dir().join("once.json");
    std::fs::write(&file, pod.to_string()).unwrap();
    cluster.kubectl_output(&["apply", "-f", file.to_str().unwrap()]);
    eventually("the pod has ended well", async || {
        let pod = cluster.get(&["pod", "once"]);
        match pod["status"]["phase"].as_str() {
            Some("Succeeded") => Ok(()),
            _ => Err(pod["status"].to_string()),
        }
    })
    .await;
}

async fn in_flight_requests_outlive_a_deletion(cluster: &Cluster) {
    let http = cluster.http();
    let before = cluster.pods("app=hello");
    let slow: Vec<_> = (0..8)
        .map(|_| tokio::spawn(async move { get(http, HOST, "/?delay=3s").await }))
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let delete = ["delete", "pod", "--wait=false", &before[0]];
    cluster.kubectl_output(&delete);
    for answer in slow {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    eventually("the pod is gone, and another there", async || {
        let now = cluster.pods("app=hello");
        let deployment = cluster.get(&["deployment", "hello"]);
        let ready = &deployment["status"]["readyReplicas"];
        if !now.contains(&before[0]) && *ready == 2 {
            Ok(())
        } else {
            Err(format!("{now:?}, {ready} ready"))
        }
    })
    .await;
}

async fn a_rolling_restart_is_not_noticed(cluster: &Cluster) {
    let before = cluster.pods("app=hello");
    let load = Load::start(cluster.http(), HOST, "/", 8);
    load.more(100).await;
    for _ in 0..2 {
        cluster.kubectl_output(&["rollout", "restart", "deployment/hello"]);
        let status = ["rollout", "status", "deployment/hello", "--timeout=60s"];
        cluster.kubectl_output(&status);
    }
    load.more(100).await;
    let tally = load.stop().await;
    assert_eq!(tally.failures(), 0, "{tally:?}");
    assert!(
        cluster
            .pods("app=hello")
            .iter()
            .all(|pod| !before.contains(pod))
    );
}
