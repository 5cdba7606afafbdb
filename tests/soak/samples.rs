//! What a process holds, over time, and whether that grows.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// A look at a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Resident memory, KiB.
    pub(crate) memory: f64,
    pub(crate) descriptors: f64,
    pub(crate) threads: f64,
}

impl Sample {
    /// Looks now.
    pub(crate) fn take(pid: u32, at: Duration) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.context("the process has ended")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse::<f64>().ok())
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
        Ok(Self {
            at,
            memory: field("VmRSS:").context("no VmRSS")?,
            descriptors: descriptors.count() as f64,
            threads: field("Threads:").context("no Threads")?,
        })
    }
}

/// How a figure moves over the second half of a run, when everything has settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trend {
    /// Mean of the third quarter.
    pub(crate) before: f64,
    /// Mean of the last one.
    pub(crate) after: f64,
}

impl Trend {
    pub(crate) fn of(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Self {
        let mean =
            |part: &[Sample]| part.iter().map(&figure).sum::<f64>() / part.len().max(1) as f64;
        let (_, second) = samples.split_at(samples.len() / 2);
        let (before, after) = second.split_at(second.len() / 2);
        Self {
            before: mean(before),
            after: mean(after),
        }
    }

    /// It grows by no more than this share, or this much.
    pub(crate) fn is_flat(&self, share: f64, amount: f64) -> bool {
        self.after - self.before <= (self.before * share).max(amount)
    }
}
