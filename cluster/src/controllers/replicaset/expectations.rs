//! Own writes that the watch has not shown yet.
//!
//! Without them a controller that looks at a stale cache would create the same replica twice. Exact
//! rules, by uid: a created pod is expected until the watch shows it, which may be before the
//! creation's answer arrives; a deleted pod is expected until the watch shows it terminating or gone.
//! After five minutes an expectation counts as met, so that a lost event cannot stop a ReplicaSet.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::controllers::informer::Key;

/// How long an expectation holds.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What each ReplicaSet waits to see.
#[derive(Default)]
pub(super) struct Expectations {
    sets: Mutex<HashMap<Key, Expected>>,
}

struct Expected {
    /// Creations whose answer has not arrived.
    creating: usize,
    /// Pods that were seen while creations were under way.
    early: HashSet<String>,
    /// Created pods that were not seen.
    unseen: HashSet<String>,
    /// Deleted pods that were not seen to go.
    leaving: HashSet<String>,
    since: Instant,
}

impl Expected {
    fn new() -> Self {
        Self {
            creating: 0,
            early: HashSet::new(),
            unseen: HashSet::new(),
            leaving: HashSet::new(),
            since: Instant::now(),
        }
    }

    fn is_met(&self) -> bool {
        self.creating == 0 && self.unseen.is_empty() && self.leaving.is_empty()
    }
}

impl Expectations {
    /// Whether the cache shows everything that was written for this ReplicaSet.
    pub(super) fn are_met(&self, set: &Key) -> bool {
        let mut sets = self.lock();
        let Some(expected) = sets.get(set) else {
            return true;
        };
        let met = expected.is_met() || expected.since.elapsed() >= TIMEOUT;
        if met {
            sets.remove(set);
        }
        met
    }

    /// A creation is about to be asked for.
    pub(super) fn creating(&self, set: &Key) {
        self.with(set, |expected| expected.creating += 1);
    }

    /// The creation was answered with this pod's uid, or failed.
    pub(super) fn created(&self, set: &Key, uid: Option<&str>) {
        self.with(set, |expected| {
            expected.creating = expected.creating.saturating_sub(1);
            if let Some(uid) = uid
                && !expected.early.remove(uid)
            {
                expected.unseen.insert(uid.to_owned());
            }
            if expected.creating == 0 {
                expected.early.clear();
            }
        });
    }

    /// The watch shows the pod.
    pub(super) fn seen(&self, set: &Key, uid: &str) {
        if let Some(expected) = self.lock().get_mut(set)
            && !expected.unseen.remove(uid)
            && expected.creating > 0
        {
            expected.early.insert(uid.to_owned());
        }
    }

    /// A deletion is about to be asked for.
    pub(super) fn deleting(&self, set: &Key, uid: &str) {
        self.with(set, |expected| {
            expected.leaving.insert(uid.to_owned());
        });
    }

    /// The watch shows the pod terminating or gone, or its deletion failed.
    pub(super) fn left(&self, set: &Key, uid: &str) {
        if let Some(expected) = self.lock().get_mut(set) {
            expected.leaving.remove(uid);
            expected.unseen.remove(uid);
        }
    }

    /// The ReplicaSet is gone.
    pub(super) fn forget(&self, set: &Key) {
        self.lock().remove(set);
    }

    fn with(&self, set: &Key, change: impl FnOnce(&mut Expected)) {
        let mut sets = self.lock();
        let expected = sets.entry(set.clone()).or_insert_with(Expected::new);
        expected.since = Instant::now();
        change(expected);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Expected>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cluster_a3_expectations_wait_for_own_writes() {
        let set = Key::new("ns", "rs");
        let expectations = Expectations::default();
        assert!(expectations.are_met(&set));

        expectations.creating(&set);
        assert!(!expectations.are_met(&set), "asked, not answered");
        expectations.created(&set, Some("a"));
        assert!(!expectations.are_met(&set), "answered, not seen");
        expectations.seen(&set, "b");
        assert!(!expectations.are_met(&set), "another pod was seen");
        expectations.seen(&set, "a");
        assert!(expectations.are_met(&set));

        expectations.creating(&set);
        expectations.seen(&set, "c");
        expectations.created(&set, Some("c"));
        assert!(expectations.are_met(&set), "seen before the answer");

        expectations.creating(&set);
        expectations.created(&set, None);
        assert!(expectations.are_met(&set), "failed");

        expectations.deleting(&set, "a");
        assert!(!expectations.are_met(&set));
        expectations.left(&set, "a");
        assert!(expectations.are_met(&set));
    }

    #[tokio::test(start_paused = true)]
    async fn cluster_a3_expectations_end_after_five_minutes() {
        let set = Key::new("ns", "rs");
        let expectations = Expectations::default();
        expectations.creating(&set);
        expectations.created(&set, Some("a"));
        tokio::time::advance(TIMEOUT.saturating_sub(Duration::from_secs(1))).await;
        assert!(!expectations.are_met(&set));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(expectations.are_met(&set));
    }
}
