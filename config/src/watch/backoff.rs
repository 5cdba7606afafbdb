//! Pauses between attempts: doubling, with jitter, so that a thousand nodes do not come back to a
//! restarted API server in step.

use std::time::Duration;

use crate::defaults::RETRY_PAUSE;

/// The pause before the next attempt.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self {
            next: *RETRY_PAUSE.start(),
        }
    }

    /// Something worked: the next pause is the shortest again.
    pub(super) fn reset(&mut self) {
        self.next = *RETRY_PAUSE.start();
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.draw()).await;
    }

    fn draw(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(*RETRY_PAUSE.end());
        rand::random_range(longest / 2..=longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new();
        let mut longest = *RETRY_PAUSE.start();
        for _ in 0..12 {
            let pause = backoff.draw();
            assert!(
                (longest / 2..=longest).contains(&pause),
                "{pause:?} of {longest:?}"
            );
            longest = (longest * 2).min(*RETRY_PAUSE.end());
        }
        assert_eq!(longest, *RETRY_PAUSE.end());
        backoff.reset();
        assert!(backoff.draw() <= *RETRY_PAUSE.start());
    }
}
