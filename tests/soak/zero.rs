//! A Service is scaled to zero and back.

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, DEADLINE};
use crate::namespace;
use crate::restart::cluster_ip;

/// A refusal takes at most this long.
const REFUSAL: Duration = Duration::from_millis(10);

/// From the first ready endpoint to the first answer.
const SERVED: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How long twenty refusals took, sorted.
    refusals: Vec<Duration>,
    /// From an endpoint's being ready to the first answer.
    served: Duration,
}

impl Outcome {
    /// Both are in time. One refusal may have met a busy machine.
    pub(crate) fn passed(&self) -> bool {
        let most = self.refusals.get(self.refusals.len().saturating_sub(2));
        most.is_some_and(|most| *most < REFUSAL) && self.served < SERVED
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "refused in {:?} to {:?}, served {:?} after the first endpoint was ready",
            self.refusals.first().copied().unwrap_or_default(),
            self.refusals.last().copied().unwrap_or_default(),
            self.served
        )
    }
}

/// Runs it on a cluster of its own.
///
/// # Errors
/// The cluster cannot be started or asked, or does not follow.
pub(crate) async fn run(sealane: Option<PathBuf>) -> anyhow::Result<Outcome> {
    let cluster = Cluster::start(sealane).await?;
    let vip = cluster_ip(&cluster.client, "api").await?;
    let pod = cluster.client_pod.clone();
    scale(&cluster, 0).await?;
    until(&cluster, false).await?;
    let refusals = namespace::spawn(&pod, move || refusals(vip))?;
    let refusals = tokio::task::spawn_blocking(|| refusals.join()).await?;
    let refusals = refusals.ok().context("the client broke")???;

    let answered = namespace::spawn(&pod, move || first_answer(vip))?;
    scale(&cluster, 3).await?;
    let ready = until(&cluster, true).await?;
    let answered = tokio::task::spawn_blocking(|| answered.join()).await?;
    let answered = answered.ok().context("the client broke")???;
    Ok(Outcome {
        refusals,
        // It may have been quicker than the one who asked the API.
        served: answered.saturating_duration_since(ready),
    })
}

async fn scale(cluster: &Cluster, replicas: u32) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client.clone());
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments
        .patch("api", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// Waits until there is a ready endpoint, or none at all; says when.
async fn until(cluster: &Cluster, ready: bool) -> anyhow::Result<Instant> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client.clone());
    let params = ListParams::default().labels("kubernetes.io/service-name=api");
    let until = Instant::now() + DEADLINE;
    loop {
        let list = slices.list(&params).await?;
        let now = Instant::now();
        let mut endpoints = list.items.iter().flat_map(|slice| &slice.endpoints);
        let is_ready = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.is_some_and(|conditions| conditions.ready == Some(true))
        };
        if ready && endpoints.any(is_ready) || !ready && endpoints.next().is_none() {
            return Ok(now);
        }
        anyhow::ensure!(now < until, "endpoints did not follow");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until connections are refused, then takes the time of twenty.
fn refusals(vip: SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let until = Instant::now() + DEADLINE;
    let mut took = Vec::new();
    while took.len() < 20 {
        let started = Instant::now();
        match TcpStream::connect_timeout(&vip, Duration::from_secs(1)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                took.push(started.elapsed());
            }
            other => {
                anyhow::ensure!(took.is_empty(), "refused, and then {other:?}");
                anyhow::ensure!(Instant::now() < until, "never refused: {other:?}");
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
    }
    took.sort();
    Ok(took)
}

/// Asks until there is an answer; says when there was.
fn first_answer(vip: SocketAddr) -> anyhow::Result<Instant> {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if ask(vip).is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200")) {
            return Ok(Instant::now());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    anyhow::bail!("never served again")
}

fn ask(vip: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&vip, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer)?;
    answer.truncate(read);
    Ok(answer)
}
