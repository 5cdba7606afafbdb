//! Real kube-proxy, in nftables mode, in a network namespace of its own.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use sealane_test_kubernetes::{ControlPlane, NodeNamespace, Process, Program, kube_proxy_flags};

/// Name of the Node that it believes to be on.
pub(crate) const NODE: &str = "measured";

const METRICS: &str = "http://127.0.0.1:10249/metrics";

/// How long a first sync may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The running program; it ends with this value.
pub(crate) struct KubeProxy {
    process: Process,
    started: Instant,
    namespace: NodeNamespace,
}

impl KubeProxy {
    pub(crate) fn start(plane: &ControlPlane) -> anyhow::Result<Self> {
        let namespace = NodeNamespace::reaching(plane.api_addr())?;
        let program = sealane_test_kubernetes::path(Program::KubeProxy);
        let program = program.map_err(|reason| anyhow::anyhow!(reason.0))?;
        let flags = [program.display().to_string()]
            .into_iter()
            .chain(kube_proxy_flags(plane.kubeconfig(), NODE));
        let log = plane.directory().join("kube-proxy.log");
        let started = Instant::now();
        let enter = [format!("--net={}", namespace.file().display())];
        let flags = enter.into_iter().chain(flags);
        let process = Process::start(&PathBuf::from("nsenter"), flags, &log)?;
        Ok(Self {
            process,
            started,
            namespace,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.namespace.file().display()))
            .args(["curl", "-sS", "--max-time", "5", METRICS])
            .output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until everything is programmed once; returns how long that took from the start.
    pub(crate) fn synced(&mut self) -> anyhow::Result<Duration> {
        loop {
            self.process.check()?;
            let text = self.metrics().unwrap_or_default();
            let mut samples = samples(&text, "kubeproxy_sync_proxy_rules_last_timestamp_seconds");
            if samples.any(|(_, at)| at > 0.0) {
                return Ok(self.started.elapsed());
            }
            if self.started.elapsed() > PATIENCE {
                bail!("kube-proxy does not sync\n{}", self.process.log_tail());
            }
            thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// How long changes took from their trigger to the kernel, so far.
    pub(crate) fn programming(&self) -> anyhow::Result<Histogram> {
        let text = self.metrics()?;
        let name = "kubeproxy_network_programming_duration_seconds_bucket";
        let buckets = samples(&text, name).filter_map(|(labels, count)| {
            let bound = labels.split_once("le=\"")?.1.split_once('"')?.0;
            Some((bound.parse().ok()?, count as u64))
        });
        Ok(Histogram(buckets.collect()))
    }
}

/// Labels and values of a metric, for IPv4 where it says for which family.
fn samples<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = (&'t str, f64)> {
    let lines = text.lines().filter_map(move |line| line.strip_prefix(name));
    lines
        .filter(|rest| !rest.contains("ip_family=\"IPv6\""))
        .filter_map(|rest| {
            let (labels, value) = rest.rsplit_once(' ')?;
            Some((labels, value.parse().ok()?))
        })
}

/// Upper bounds in seconds, and how many are below each.
#[derive(Debug)]
pub(crate) struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    pub(crate) fn since(&self, before: &Self) -> Self {
        let pairs = self.0.iter().enumerate();
        let difference = pairs.map(|(index, (bound, count))| {
            let old = before.0.get(index).map_or(0, |(_, old)| *old);
            (*bound, count - old)
        });
        Self(difference.collect())
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// The upper bound of the bucket where the quantile is.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        let rank = quantile * self.count() as f64;
        let bucket = self.0.iter().find(|(_, count)| *count as f64 >= rank);
        let bound = bucket.map_or(0.0, |(bound, _)| *bound);
        Duration::try_from_secs_f64(bound).unwrap_or(Duration::MAX)
    }
}
