//! All pods of a Service restart again and again under load.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, DEADLINE, HOST};
use crate::load::{Load, Plan, Tally};

/// Pods of the Deployment, if nobody asks for more.
pub(crate) const REPLICAS: u32 = 3;

/// How long, how fast, how often.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 120)]
    pub(crate) seconds: u64,
    /// Requests a second, half of them by the cluster IP and half through the gateway
    #[arg(long, default_value_t = 2_000)]
    pub(crate) rate: u32,
    /// Seconds from one restart to the next
    #[arg(long, default_value_t = 5)]
    pub(crate) every: u64,
    /// Pods of the Deployment
    #[arg(long, default_value_t = REPLICAS)]
    pub(crate) replicas: u32,
}

/// What came of it.
pub(crate) struct Outcome {
    seconds: f64,
    wanted: u64,
    loads: Vec<Tally>,
    restarts: u32,
    pods: usize,
    replicas: u32,
}

impl Outcome {
    /// Nothing was lost, and there was something to lose.
    pub(crate) fn passed(&self) -> bool {
        let good: u64 = self.loads.iter().map(|load| load.good).sum();
        self.loads.iter().all(|load| load.failures() == 0)
            && good > self.wanted / 2
            && self.pods >= (self.replicas * self.restarts / 2) as usize
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let good: u64 = self.loads.iter().map(|load| load.good).sum();
        writeln!(
            f,
            "{} restarts, {} pods replaced, {:.0} requests a second",
            self.restarts,
            self.pods,
            good as f64 / self.seconds
        )?;
        let mut loads = self.loads.iter();
        loads.try_for_each(|load| writeln!(f, "{load}"))
    }
}

/// Runs it on a cluster of its own.
///
/// # Errors
/// The cluster cannot be started or asked.
pub(crate) async fn run(sealane: Option<PathBuf>, options: &Options) -> anyhow::Result<Outcome> {
    let cluster = Cluster::start(sealane).await?;
    scale(&cluster.client, options.replicas).await?;
    let loads = start_loads(&cluster, options.rate).await?;
    let restarts = Restarts::start(cluster.client.clone(), options.every, options.replicas);
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let seconds = started.elapsed().as_secs_f64();
    let (restarts, pods) = restarts.stop().await?;
    Ok(Outcome {
        seconds,
        wanted: options.seconds * u64::from(options.rate),
        loads: stop_loads(loads)?,
        restarts,
        pods,
        replicas: options.replicas,
    })
}

/// Sets how many pods there are, and waits until they are ready.
async fn scale(client: &Client, replicas: u32) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let params = PatchParams::default();
    deployments.patch("api", &params, &patch).await?;
    let until = Instant::now() + DEADLINE;
    loop {
        let status = deployments.get("api").await?.status.unwrap_or_default();
        if status.ready_replicas == i32::try_from(replicas).ok() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < until, "too few are ready: {status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Half of the requests by the cluster IP, from a pod, and half through the gateway.
pub(crate) async fn start_loads(cluster: &Cluster, rate: u32) -> anyhow::Result<Vec<Load>> {
    let inside = Plan {
        name: "cluster IP",
        addr: cluster_ip(&cluster.client, "api").await?,
        host: "api.default.svc",
        rate: rate / 2,
    };
    let outside = Plan {
        name: "gateway",
        addr: cluster.http,
        host: HOST,
        rate: rate / 2,
    };
    Ok(vec![
        Load::start(inside, Some(&cluster.client_pod))?,
        Load::start(outside, None)?,
    ])
}

pub(crate) fn stop_loads(loads: Vec<Load>) -> anyhow::Result<Vec<Tally>> {
    loads.into_iter().map(Load::stop).collect()
}

/// Where a Service is reached from pods.
pub(crate) async fn cluster_ip(client: &Client, name: &str) -> anyhow::Result<SocketAddr> {
    let service = Api::<Service>::default_namespaced(client.clone())
        .get(name)
        .await?;
    let spec = service.spec.context("a spec")?;
    let ip: IpAddr = spec.cluster_ip.context("a cluster IP")?.parse()?;
    Ok(SocketAddr::new(ip, 80))
}

/// Replaces all pods of the Deployment again and again, as `kubectl rollout restart` does.
pub(crate) struct Restarts {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU32>,
    task: JoinHandle<anyhow::Result<usize>>,
}

impl Restarts {
    pub(crate) fn start(client: Client, every: u64, replicas: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU32::new(0));
        let task = tokio::spawn(restart(
            client,
            Duration::from_secs(every),
            replicas,
            Arc::clone(&stop),
            Arc::clone(&count),
        ));
        Self { stop, count, task }
    }

    /// How many so far.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits for the last one. Returns how many there were and how many pods they made.
    pub(crate) async fn stop(self) -> anyhow::Result<(u32, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        let pods = self.task.await.context("the restarts broke")??;
        Ok((self.count.load(Ordering::Relaxed), pods))
    }
}

async fn restart(
    client: Client,
    every: Duration,
    replicas: u32,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU32>,
) -> anyhow::Result<usize> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut seen = BTreeSet::new();
    let mut next = tokio::time::interval(every);
    next.tick().await;
    loop {
        next.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let number = count.fetch_add(1, Ordering::Relaxed);
        let annotations = json!({"soak.sealane.dev/restart": number.to_string()});
        let template = json!({"template": {"metadata": {"annotations": annotations}}});
        let patch = Patch::Merge(json!({"spec": template}));
        deployments
            .patch("api", &PatchParams::default(), &patch)
            .await?;
        see(&pods, &mut seen).await?;
    }
    let until = Instant::now() + DEADLINE;
    loop {
        see(&pods, &mut seen).await?;
        let status = deployments.get("api").await?.status.unwrap_or_default();
        let all = i32::try_from(replicas).ok();
        if status.updated_replicas == all && status.replicas == all {
            // The first ones were not made by a restart.
            return Ok(seen.len().saturating_sub(replicas as usize));
        }
        anyhow::ensure!(Instant::now() < until, "the last restart hangs: {status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Remembers the pods that there are.
async fn see(pods: &Api<Pod>, seen: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let params = ListParams::default().labels("app=api");
    let list = pods.list(&params).await?;
    seen.extend(list.items.into_iter().filter_map(|pod| pod.metadata.uid));
    Ok(())
}
