//! Delays between attempts: none, then 10 s, doubled each time up to 300 s (the rules for restarts of
//! containers and for image pulls).

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// A run this long is a good one: the delays begin anew.
const GOOD_RUN: Duration = Duration::from_secs(600);

/// The delays of one container. It reads no clock: it is told how long a run lasted.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Option<Duration>,
}

impl Backoff {
    /// Delays that begin with 10 s, as those of image pulls.
    pub(super) fn pulling() -> Self {
        Self { next: Some(FIRST) }
    }

    /// How long to wait after an attempt that lasted `ran`.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= GOOD_RUN {
            self.next = None;
        }
        let delay = self.next.unwrap_or_default();
        self.next = Some(if delay.is_zero() {
            FIRST
        } else {
            (delay * 2).min(LONGEST)
        });
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_b3_restart_delays_double_and_begin_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        let mut seconds = |ran| backoff.after(Duration::from_secs(ran)).as_secs();
        let short: Vec<u64> = (0..8).map(|_| seconds(1)).collect();
        assert_eq!(short, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(seconds(599), 300);
        assert_eq!(seconds(600), 0);
        assert_eq!(seconds(1), 10);
    }

    #[test]
    fn cluster_b6_pull_delays_begin_with_ten_seconds() {
        let mut backoff = Backoff::pulling();
        let delays: Vec<u64> = (0..7)
            .map(|_| backoff.after(Duration::ZERO).as_secs())
            .collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }
}
