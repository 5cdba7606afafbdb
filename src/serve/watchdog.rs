//! Finds workers that are stuck: a worker is one thread, so whatever blocks it blocks all of its
//! connections.
//!
//! Each worker beats once a second. One that has not for five seconds is told of, with what its thread
//! is doing; a process that was stopped as a whole, watchdog and all, has no stuck worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{describe_gauge, gauge};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How often a worker beats, and is looked at.
const BEAT: Duration = Duration::from_secs(1);

/// A worker that was silent for this long is stuck.
const SILENCE: Duration = Duration::from_secs(5);

const STALLED: &str = "sealane_worker_stalled";

/// What a worker tells of itself.
#[derive(Debug)]
pub(super) struct Beat {
    epoch: Instant,
    /// Milliseconds since the epoch; 0 before the first and after the last beat.
    at: AtomicU64,
    thread: AtomicI32,
}

impl Beat {
    fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            at: AtomicU64::new(0),
            thread: AtomicI32::new(0),
        }
    }

    /// Beats on the calling thread's runtime, until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        self.thread.store(nix::unistd::gettid().as_raw(), Relaxed);
        let beating = async {
            loop {
                self.at.store(millis(self.epoch.elapsed()).max(1), Relaxed);
                sleep(BEAT).await;
            }
        };
        stop.run_until_cancelled(beating).await;
        self.at.store(0, Relaxed);
    }
}

/// Looks at the workers.
#[derive(Debug)]
pub(super) struct Watchdog {
    epoch: Instant,
    looked: Instant,
    /// A worker, and whether it is stuck.
    workers: Vec<(Arc<Beat>, bool)>,
}

impl Watchdog {
    pub(super) fn new(workers: usize) -> Self {
        describe_gauge!(STALLED, "1 while a worker is stuck");
        let epoch = Instant::now();
        Self {
            epoch,
            looked: epoch,
            workers: (0..workers)
                .map(|_| (Arc::new(Beat::new(epoch)), false))
                .collect(),
        }
    }

    pub(super) fn beat(&self, worker: usize) -> Arc<Beat> {
        Arc::clone(&self.workers[worker].0)
    }

    /// The workers that have got stuck since it was looked last.
    pub(super) fn look(&mut self) -> Vec<usize> {
        let was_stopped = self.looked.elapsed() > 2 * BEAT;
        self.looked = Instant::now();
        if was_stopped {
            return Vec::new();
        }
        let now = millis(self.epoch.elapsed());
        let mut stuck = Vec::new();
        for (worker, (beat, is_stuck)) in self.workers.iter_mut().enumerate() {
            let at = beat.at.load(Relaxed);
            let is_silent = at != 0 && now.saturating_sub(at) >= millis(SILENCE);
            if is_silent && !*is_stuck {
                stuck.push(worker);
                tracing::error!(
                    worker,
                    "a worker is stuck: {}",
                    doing(beat.thread.load(Relaxed))
                );
            }
            if is_silent != *is_stuck {
                *is_stuck = is_silent;
                let value = if is_silent { 1.0 } else { 0.0 };
                gauge!(STALLED, "worker" => worker.to_string()).set(value);
            }
        }
        stuck
    }
}

/// What a thread is doing (proc_pid_status(5), proc_pid_wchan(5), proc_pid_syscall(5)).
fn doing(thread: i32) -> String {
    let read = |file: &str| {
        let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/{file}"));
        text.unwrap_or_default()
    };
    let status = read("status");
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    format!(
        "state {}, kernel function {:?}, system call {:?}",
        state.unwrap_or("unknown").trim(),
        read("wchan").trim(),
        read("syscall").trim(),
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reliability_f41_a_worker_that_does_not_beat_is_found() {
        let mut watchdog = Watchdog::new(2);
        let (good, bad) = (watchdog.beat(0), watchdog.beat(1));
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move { good.run(token).await });
        let stuck = CancellationToken::new();
        let token = stuck.clone();
        let beating = Arc::clone(&bad);
        let task = tokio::spawn(async move { beating.run(token).await });
        for _ in 0..10 {
            sleep(BEAT).await;
            assert!(watchdog.look().is_empty(), "both beat");
        }
        // As if its thread were blocked: no beat, and no end.
        task.abort();
        let mut found = Vec::new();
        for second in 1..=10 {
            sleep(BEAT).await;
            found.extend(watchdog.look().into_iter().map(|worker| (worker, second)));
        }
        assert!(matches!(found[..], [(1, 4..=6)]), "told once: {found:?}");
        stop.cancel();
        for _ in 0..10 {
            sleep(BEAT).await;
            assert!(
                watchdog.look().is_empty(),
                "one has ended, the other is known"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reliability_f41_a_process_that_was_stopped_has_no_stuck_worker() {
        let mut watchdog = Watchdog::new(1);
        watchdog.beat(0).at.store(1, Relaxed);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(watchdog.look().is_empty());
        assert!(doing(nix::unistd::gettid().as_raw()).contains("state R"));
    }
}
