//! Start, stop, start again; kill and start again.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::{Cluster, Options, processes};
use crate::support::http::get;
use crate::support::{eventually, has};

const HOST: &str = "api.mycompany.com";

/// A stop takes at most this long.
const STOP: Duration = Duration::from_secs(5);

/// What has to survive: uids and addresses of Services, Deployments and pods.
fn identities(cluster: &Cluster) -> Vec<String> {
    let objects = cluster.get(&["deployments,services,secrets,ingresses,pods"]);
    let items = objects["items"].as_array().unwrap().iter();
    let mut lines: Vec<String> = items
        .map(|item| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {} {} {}",
                text(&item["kind"]),
                text(&item["metadata"]["name"]),
                text(&item["metadata"]["uid"]),
                text(&item["spec"]["clusterIP"]),
                text(&item["status"]["podIP"])
            )
        })
        .collect();
    lines.sort();
    lines
}

/// No process names the cluster's data directory any more, and nothing is mounted from it. Network
/// namespaces and links are only held by processes.
async fn nothing_left(data_dir: &std::path::Path) {
    let name = data_dir.to_str().unwrap();
    eventually("no process is left", async || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(name), "{mounts}");
        let left = processes(name);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_requests_and_leaves_nothing_and_a_start_comes_back() {
    if !has("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::default().data_dir(dir.path());
    let mut cluster = options().args(&["-f", "examples/shop"]).start().await;
    cluster.assert_ready();
    let before = identities(&cluster);
    let http = cluster.http();
    let in_flight = tokio::spawn(async move { get(http, HOST, "/api?delay=1s").await });
    eventually("the request is in flight", async || {
        if in_flight.is_finished() {
            Err("answered already".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let containers = echo_processes(cluster.pid());
    assert!(!containers.is_empty(), "the pods' processes are ours");
    cluster.signal("TERM");
    let (took, status) = cluster.wait(STOP);
    assert!(
        status.success(),
        "{status} after {took:?}\n{}",
        cluster.log()
    );
    let answer = in_flight.await.unwrap().unwrap();
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    for pid in containers {
        let gone = !std::path::Path::new(&format!("/proc/{pid}")).exists();
        assert!(gone, "process {pid} is left");
    }
    nothing_left(dir.path()).await;
    drop(cluster);

    let cluster = options().start().await;
    cluster.assert_ready();
    assert_eq!(identities(&cluster), before);
    let answer = get(cluster.http(), HOST, "/api").await.unwrap();
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_next_start_works_and_nothing_of_the_last_is_left() {
    if !has("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = || {
        Options::default()
            .data_dir(dir.path())
            .args(&["-f", "examples/shop"])
    };
    let mut cluster = options().start().await;
    cluster.assert_ready();
    let before = identities(&cluster);
    let containers = echo_processes(cluster.pid());
    cluster.signal("KILL");
    cluster.wait(STOP);
    eventually("containers end with their parent", async || {
        let left: Vec<_> = containers
            .iter()
            .filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists())
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    drop(cluster);
    let cluster = options().start().await;
    cluster.assert_ready();
    assert_eq!(identities(&cluster), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_comes_within_seconds() {
    let started = Instant::now();
    let cluster = Options::default()
        .args(&["-f", "examples/shop", "--ephemeral"])
        .start()
        .await;
    cluster.assert_ready();
    let answer = get(cluster.http(), HOST, "/api").await.unwrap();
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    eprintln!(
        "first 200 through the gateway {:.2} s after the start (summary after {} s)",
        started.elapsed().as_secs_f64(),
        cluster.summary["seconds"]
    );
}

/// The descendants of a process, by `/proc/PID/stat`.
fn echo_processes(of: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = processes("")
        .iter()
        .filter_map(|(pid, _)| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            Some((*pid, rest.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        found.extend(
            all.iter()
                .filter(|(_, p)| *p == parent)
                .map(|(pid, _)| *pid),
        );
    }
    found.split_off(1)
}
