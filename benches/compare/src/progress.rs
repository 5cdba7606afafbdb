//! How far a run is, and how long it goes on.

use std::time::{Duration, Instant};

/// Counts planned time; what a plan leaves out is learned from how long things took so far.
pub(crate) struct Progress {
    begun: Instant,
    done: Duration,
    total: Duration,
}

impl Progress {
    pub(crate) fn new(total: Duration) -> Self {
        Self {
            begun: Instant::now(),
            done: Duration::ZERO,
            total,
        }
    }

    /// Says what begins.
    pub(crate) fn begin(&self, what: &str) {
        let left = left(self.begun.elapsed(), self.done, self.total);
        let minutes = left.as_secs().div_ceil(60);
        let share = 100.0 * self.done.as_secs_f64() / self.total.as_secs_f64().max(1.0);
        eprintln!("[{share:3.0} %, {minutes} min left] {what}");
    }

    /// What was planned to take so long is done.
    pub(crate) fn end(&mut self, planned: Duration) {
        self.done += planned;
    }
}

/// The rest of the plan, at the pace so far.
fn left(elapsed: Duration, done: Duration, total: Duration) -> Duration {
    let rest = total.saturating_sub(done);
    // The beginning says little.
    if done.is_zero() || done * 20 < total {
        return rest;
    }
    rest.mul_f64(elapsed.as_secs_f64() / done.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_the_plan_at_first_and_then_the_pace() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        for (elapsed, done, total, expected) in [
            (0, 0, 30, 30),
            (9, 1, 30, 29),
            (12, 10, 30, 24),
            (5, 10, 30, 10),
            (33, 30, 30, 0),
            (1, 0, 0, 0),
        ] {
            let left = left(minutes(elapsed), minutes(done), minutes(total));
            assert_eq!(left, minutes(expected), "{elapsed} {done} {total}");
        }
    }
}
