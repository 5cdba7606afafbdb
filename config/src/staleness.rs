//! How long ago the API server was last heard of, by kind.
//!
//! Each watch has a [`Contact`] of its own for as long as it lives, so the age of a kind is that of
//! the watch which has waited longest. An open watch is quiet while nothing changes, up to about a
//! minute: ages beyond that mean that the state may be old.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The last signs of life of all watches. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Staleness(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    contacts: Mutex<Vec<Weak<Contact>>>,
    /// Wakes watches that wait out a pause when another one has reached the server.
    is_back: Notify,
}

/// The last sign of life of one watch: an event, a bookmark, a list, or an orderly end.
#[derive(Debug)]
pub(crate) struct Contact {
    kind: &'static str,
    start: Instant,
    /// Milliseconds since `start`.
    last: AtomicU64,
    shared: Arc<Shared>,
}

impl Staleness {
    /// Time since the API server was last heard of, for each kind that is watched, sorted by kind.
    pub fn ages(&self) -> Vec<(&'static str, Duration)> {
        let mut contacts = self.lock();
        contacts.retain(|contact| contact.strong_count() > 0);
        let mut ages: Vec<(&'static str, Duration)> = contacts
            .iter()
            .filter_map(Weak::upgrade)
            .map(|contact| (contact.kind, contact.age()))
            .collect();
        ages.sort_unstable_by(|(a, one), (b, other)| a.cmp(b).then(other.cmp(one)));
        ages.dedup_by_key(|(kind, _)| *kind);
        ages
    }

    /// The greatest of [`Self::ages`]: the state is not older than this. Zero if nothing is watched.
    pub fn oldest(&self) -> Duration {
        let ages = self.ages().into_iter().map(|(_, age)| age);
        ages.max().unwrap_or_default()
    }

    pub(crate) fn add(&self, kind: &'static str) -> Arc<Contact> {
        let contact = Arc::new(Contact {
            kind,
            start: Instant::now(),
            last: AtomicU64::new(0),
            shared: Arc::clone(&self.0),
        });
        self.lock().push(Arc::downgrade(&contact));
        contact
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Contact>>> {
        let contacts = &self.0.contacts;
        contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contact {
    /// The server was heard of now.
    pub(crate) fn heard(&self) {
        let elapsed = self.start.elapsed().as_millis();
        let millis = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// The server answers again: those that wait for it need not wait on.
    pub(crate) fn tell_others(&self) {
        self.shared.is_back.notify_waiters();
    }

    /// Waits until another watch says that the server answers again.
    pub(crate) async fn told(&self) {
        self.shared.is_back.notified().await;
    }

    fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watch_that_waited_longest_counts_and_ended_ones_do_not() {
        let staleness = Staleness::default();
        assert_eq!(staleness.oldest(), Duration::ZERO);
        let (first, second) = (staleness.add("Secret"), staleness.add("Secret"));
        let service = staleness.add("Service");
        tokio::time::advance(Duration::from_secs(3)).await;
        first.heard();
        service.heard();
        tokio::time::advance(Duration::from_secs(2)).await;
        let seconds = Duration::from_secs;
        assert_eq!(
            staleness.ages(),
            [("Secret", seconds(5)), ("Service", seconds(2))]
        );
        drop(second);
        assert_eq!(
            staleness.ages(),
            [("Secret", seconds(2)), ("Service", seconds(2))]
        );
        drop((first, service));
        assert_eq!(staleness.oldest(), Duration::ZERO);
    }
}
