//! Pauses between attempts: doubling, with jitter, so that a thousand nodes do not come back to a
//! restarted API server in step.

use std::time::Duration;

use super::failure::FollowError;
use crate::defaults::{LONGEST_RETRY_AFTER, RETRY_PAUSE};
use crate::staleness::Contact;

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

    /// Waits as long as `error` asks for; less if another watch finds an outage over.
    pub(super) async fn wait(&mut self, error: &FollowError, contact: &Contact) {
        let pause = self.draw(error.longest_pause(), error.retry_after());
        if !error.is_outage() {
            tokio::time::sleep(pause).await;
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = contact.told() => {
                // Not all at once.
                let pause = pause.min(*RETRY_PAUSE.start());
                tokio::time::sleep(rand::random_range(Duration::ZERO..=pause)).await;
            }
        }
    }

    fn draw(&mut self, longest: Duration, retry_after: Option<Duration>) -> Duration {
        let upper = self.next.min(longest);
        self.next = (upper * 2).min(*RETRY_PAUSE.end());
        let pause = rand::random_range(upper / 2..=upper);
        match retry_after {
            // The jitter is added: earlier than asked for is refused again.
            Some(asked) => asked.min(LONGEST_RETRY_AFTER).max(upper) + upper - pause,
            None => pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over() {
        for longest in [*RETRY_PAUSE.end(), Duration::from_secs(4)] {
            let mut backoff = Backoff::new();
            let mut upper = *RETRY_PAUSE.start();
            for _ in 0..12 {
                let pause = backoff.draw(longest, None);
                assert!(
                    (upper / 2..=upper).contains(&pause),
                    "{pause:?} of {upper:?}"
                );
                upper = (upper * 2).min(longest);
            }
            assert_eq!(upper, longest);
            backoff.reset();
            assert!(backoff.draw(longest, None) <= *RETRY_PAUSE.start());
        }
    }

    #[test]
    fn reliability_f31_never_earlier_than_asked_for() {
        let seconds = Duration::from_secs;
        let asked = |backoff: &mut Backoff, after| backoff.draw(seconds(30), Some(after));
        let mut backoff = Backoff::new();
        let pause = asked(&mut backoff, seconds(7));
        assert!(pause >= seconds(7) && pause < seconds(8), "{pause:?}");
        let pause = asked(&mut backoff, seconds(86_400));
        assert!(pause <= LONGEST_RETRY_AFTER * 2, "bounded: {pause:?}");
        for _ in 0..12 {
            backoff.draw(seconds(30), None);
        }
        let pause = asked(&mut backoff, seconds(1));
        assert!(
            pause >= seconds(30),
            "a longer pause of ours stays: {pause:?}"
        );
    }
}
