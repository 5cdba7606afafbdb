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
        if let Some(asked) = retry_after {
            // A server that says when knows better than we do: it asks for one second while its
            // caches fill, and a pause of ours that has grown would keep us away for many. Jitter is
            // added, because earlier than asked for is refused again.
            let asked = asked.clamp(*RETRY_PAUSE.start(), LONGEST_RETRY_AFTER);
            return asked + rand::random_range(Duration::ZERO..=asked / 4);
        }
        self.next = (upper * 2).min(longest);
        rand::random_range(upper / 2..=upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::UNREACHABLE_PAUSE;

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
    fn reliability_f31_when_the_server_asks_for_it() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new();
        for _ in 0..12 {
            backoff.draw(seconds(30), None);
        }
        for (asked, earliest, latest) in [
            (
                seconds(0),
                Duration::from_millis(100),
                Duration::from_millis(125),
            ),
            (seconds(1), seconds(1), Duration::from_millis(1_250)),
            (seconds(8), seconds(8), seconds(10)),
            (seconds(86_400), seconds(120), seconds(150)),
        ] {
            let pause = backoff.draw(seconds(30), Some(asked));
            assert!((earliest..=latest).contains(&pause), "{asked:?}: {pause:?}");
        }
    }

    #[test]
    fn a_pause_grown_in_one_trouble_is_not_carried_far_into_the_next() {
        let mut backoff = Backoff::new();
        for _ in 0..12 {
            backoff.draw(UNREACHABLE_PAUSE, None);
        }
        assert!(backoff.draw(*RETRY_PAUSE.end(), None) <= UNREACHABLE_PAUSE);
    }
}
