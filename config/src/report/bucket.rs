//! Pace: a bucket of tokens that fills up evenly.

use std::time::Duration;

use tokio::time::Instant;

/// Lets through `burst` at once and then one each `period`.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    burst: f64,
    period: Duration,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn full(burst: u32, period: Duration, now: Instant) -> Self {
        Self {
            burst: f64::from(burst),
            period,
            tokens: f64::from(burst),
            at: now,
        }
    }

    /// Whether there is a token.
    pub(super) fn has(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() / self.period.as_secs_f64();
        self.tokens = (self.tokens + earned).min(self.burst);
        self.at = now;
        self.tokens >= 1.0
    }

    /// Takes a token, or says how long to wait for the next one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if !self.has(now) {
            return Err(self.period.mul_f64(1.0 - self.tokens));
        }
        self.tokens -= 1.0;
        Ok(())
    }

    /// When a token was last asked for.
    pub(super) fn used(&self) -> Instant {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_an_even_pace() {
        let start = Instant::now();
        let mut bucket = Bucket::full(3, Duration::from_secs(10), start);
        let taken = (0..5).filter(|_| bucket.take(start).is_ok()).count();
        assert_eq!(taken, 3);
        let wait = bucket.take(start + Duration::from_secs(4)).unwrap_err();
        assert!((5.9..=6.1).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(bucket.take(start + Duration::from_millis(10_100)).is_ok());
        let late = start + Duration::from_secs(1_000);
        let taken = (0..5).filter(|_| bucket.take(late).is_ok()).count();
        assert_eq!(taken, 3, "no more than the burst is saved up");
    }
}
