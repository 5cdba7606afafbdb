//! Everything at once for a long time: idle connections, endpoint updates, restarts, requests.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::churn::Churn;
use crate::cluster::{Cluster, allow_descriptors};
use crate::idle::Idle;
use crate::load::Tally;
use crate::restart::{REPLICAS, Restarts, start_loads, stop_loads};
use crate::samples::{Sample, Trend};

/// From one look at the process to the next, and from one line of the table to the next.
const LOOK: Duration = Duration::from_secs(1);
const LINE: u32 = 10;

/// How long, how much.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 600)]
    pub(crate) seconds: u64,
    /// Idle connections through the gateway
    #[arg(long, default_value_t = 10_000)]
    pub(crate) idle: usize,
    /// Endpoint updates a second
    #[arg(long, default_value_t = 1_000)]
    pub(crate) updates: u32,
    /// Requests a second, half of them by the cluster IP and half through the gateway
    #[arg(long, default_value_t = 1_000)]
    pub(crate) rate: u32,
    /// Seconds from one restart of all pods to the next
    #[arg(long, default_value_t = 5)]
    pub(crate) every: u64,
}

/// What came of it.
pub(crate) struct Outcome {
    loads: Vec<Tally>,
    idle_lost: u64,
    updates: u64,
    updates_failed: u64,
    restarts: u32,
    pods: usize,
    seconds: f64,
    memory: Trend,
    descriptors: Trend,
    threads: Trend,
}

impl Outcome {
    /// No request failed, no idle connection was lost and every update was taken.
    pub(crate) fn lost_nothing(&self) -> bool {
        self.loads
            .iter()
            .all(|load| load.failures() == 0 && load.good > 0)
            && self.idle_lost == 0
            && self.updates_failed == 0
            && self.updates > 0
            && self.restarts > 0
    }

    /// Nothing was lost, and nothing grows.
    pub(crate) fn passed(&self) -> bool {
        self.lost_nothing()
            && self.memory.is_flat(0.03, 4096.0)
            && self.descriptors.is_flat(0.01, 32.0)
            && self.threads.is_flat(0.0, 1.0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{} restarts, {} pods replaced",
            self.restarts, self.pods
        )?;
        for load in &self.loads {
            writeln!(f, "{load}")?;
        }
        writeln!(
            f,
            "{:.0} endpoint updates a second, {} writes failed; {} idle connections lost",
            self.updates as f64 / self.seconds,
            self.updates_failed,
            self.idle_lost
        )?;
        for (name, trend, unit) in [
            ("memory", self.memory, " KiB"),
            ("descriptors", self.descriptors, ""),
            ("threads", self.threads, ""),
        ] {
            let Trend { before, after } = trend;
            let change = (after / before - 1.0) * 100.0;
            writeln!(
                f,
                "{name:<12} third quarter {before:.0}{unit}, last {after:.0}{unit} ({change:+.1}%)"
            )?;
        }
        Ok(())
    }
}

/// Runs it on a cluster of its own and prints a line every ten seconds.
///
/// # Errors
/// The cluster cannot be started or asked.
pub(crate) async fn run(sealane: Option<PathBuf>, options: &Options) -> anyhow::Result<Outcome> {
    allow_descriptors();
    let cluster = Cluster::start(sealane).await?;
    let pid = cluster.pid()?;
    let idle = Idle::open(options.idle, cluster.http).await;
    let churn = Churn::start(cluster.client.clone(), options.updates).await?;
    let loads = start_loads(&cluster, options.rate).await?;
    let restarts = Restarts::start(cluster.client.clone(), options.every, REPLICAS);
    println!(
        "{:>6} {:>11} {:>6} {:>8} {:>9} {:>7} {:>6} {:>5} {:>10} {:>8}",
        "time",
        "memory",
        "fds",
        "threads",
        "requests",
        "failed",
        "idle",
        "lost",
        "updates",
        "restarts"
    );
    let started = Instant::now();
    let mut samples = Vec::new();
    let mut ticks = tokio::time::interval(LOOK);
    for look in 0_u32.. {
        ticks.tick().await;
        let at = started.elapsed();
        let sample = Sample::take(pid, at);
        let sample = sample.map_err(|error| error.context(cluster.log()))?;
        samples.push(sample);
        if look.is_multiple_of(LINE) {
            let counts = loads.iter().map(|load| load.counts());
            let (sent, failed) = counts.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            let (open, lost) = idle.counts();
            println!(
                "{:>4} s {:>7.0} KiB {:>6} {:>8} {sent:>9} {failed:>7} {open:>6} {lost:>5} {:>10} {:>8}",
                sample.at.as_secs(),
                sample.memory,
                sample.descriptors,
                sample.threads,
                churn.counts().0,
                restarts.count()
            );
        }
        if at >= Duration::from_secs(options.seconds) {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let (updates, updates_failed) = churn.counts();
    drop(churn);
    let (restarts, pods) = restarts.stop().await?;
    let loads = stop_loads(loads)?;
    let (_, idle_lost) = idle.counts();
    Ok(Outcome {
        loads,
        idle_lost,
        updates,
        updates_failed,
        restarts,
        pods,
        seconds,
        memory: Trend::of(&samples, |sample| sample.memory),
        descriptors: Trend::of(&samples, |sample| sample.descriptors),
        threads: Trend::of(&samples, |sample| sample.threads),
    })
}
