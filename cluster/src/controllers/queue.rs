//! A work queue of keys.
//!
//! Rules: a key that waits is queued once however often it is added; a key that is being worked on
//! is never handed out a second time, an addition meanwhile makes it due again afterwards; a failed
//! key comes back after a delay that doubles, with jitter, up to 30 s. Conflicts are counted apart
//! from failures: they come in series while the cache is behind, and the first failure after them
//! would otherwise hold a key back as if it were the tenth. The queue holds each key at most once, so
//! it is bounded by the number of objects.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Error, chain};

/// The longest delay before a failed key is tried again.
pub(crate) const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// The first delay after a failure.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// The first delay after a conflict: the cache only has to see the write that won.
const FIRST_CONFLICT_BACKOFF: Duration = Duration::from_millis(1);
/// How many keys one controller works on at a time.
const CONCURRENCY: usize = 16;

/// Why a key has to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Something failed.
    Failure,
    /// Another write was faster.
    Conflict,
}

impl Retry {
    /// The delay after the first time.
    fn first(self) -> Duration {
        match self {
            Self::Failure => FIRST_BACKOFF,
            Self::Conflict => FIRST_CONFLICT_BACKOFF,
        }
    }
}

/// How often a key had to come back since it last succeeded.
#[derive(Clone, Copy, Default)]
struct Attempts {
    failures: u32,
    conflicts: u32,
}

impl Attempts {
    /// Counts one more, and tells how many of its sort there are now.
    fn count(&mut self, retry: Retry) -> u32 {
        let counter = match retry {
            Retry::Failure => &mut self.failures,
            Retry::Conflict => &mut self.conflicts,
        };
        *counter = counter.saturating_add(1);
        *counter
    }
}

/// The queue; see the module's rules.
pub(crate) struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    running: HashSet<K>,
    again: HashSet<K>,
    timers: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    attempts: HashMap<K, Attempts>,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// An empty queue.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashSet::new(),
                running: HashSet::new(),
                again: HashSet::new(),
                timers: BTreeSet::new(),
                due: HashMap::new(),
                attempts: HashMap::new(),
            }),
            wake: Notify::new(),
        })
    }

    /// Makes the key due now.
    pub(crate) fn add(&self, key: K) {
        self.lock().add(key);
        self.wake.notify_one();
    }

    /// Makes the key due after a delay, unless it is due sooner already.
    pub(crate) fn add_after(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        let mut state = self.lock();
        match state.due.get(&key) {
            Some(known) if *known <= at => return,
            Some(known) => {
                let known = *known;
                state.timers.remove(&(known, key.clone()));
            }
            None => {}
        }
        state.due.insert(key.clone(), at);
        state.timers.insert((at, key));
        drop(state);
        self.wake.notify_one();
    }

    /// The next key that is due. It counts as running until [`Self::done`].
    pub(crate) async fn next(&self) -> K {
        loop {
            let timer = {
                let mut state = self.lock();
                state.fire(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    state.running.insert(key.clone());
                    return key;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            match timer {
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.wake.notified() => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// The work on a key has ended; a later addition starts it anew.
    pub(crate) fn done(&self, key: &K) {
        let mut state = self.lock();
        state.running.remove(key);
        if state.again.remove(key) {
            state.add(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The key succeeded: its next failure starts with the shortest delay again.
    pub(crate) fn forget(&self, key: &K) {
        self.lock().attempts.remove(key);
    }

    /// Counts what happened to the key and makes it due after the back-off, which is returned.
    pub(crate) fn retry(&self, key: K, retry: Retry) -> Duration {
        let attempts = {
            let mut state = self.lock();
            state.attempts.entry(key.clone()).or_default().count(retry)
        };
        let longest = retry
            .first()
            .saturating_mul(1 << (attempts - 1).min(20))
            .min(LONGEST_BACKOFF);
        let delay = longest.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.add_after(key, delay);
        delay
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn fire(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

/// Reconciles the keys of a queue, several at a time, until shut down.
///
/// `reconcile` answers with a delay if the key has to be looked at again without an event. Failures
/// are logged with the key and tried again; conflicts at once.
pub(crate) async fn work<K, F, Fut>(
    controller: &'static str,
    queue: &Queue<K>,
    shutdown: &CancellationToken,
    reconcile: F,
) where
    K: Clone + Eq + Hash + Ord + std::fmt::Display,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<Option<Duration>, Error>> + Send,
{
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            key = queue.next(), if running.len() < CONCURRENCY => {
                let job = Box::pin(reconcile(key.clone()));
                running.push(async move { (key, job.await) });
            }
            Some((key, result)) = running.next(), if !running.is_empty() => {
                settle(controller, queue, key, result);
            }
        }
    }
}

fn settle<K: Clone + Eq + Hash + Ord + std::fmt::Display>(
    controller: &'static str,
    queue: &Queue<K>,
    key: K,
    result: Result<Option<Duration>, Error>,
) {
    match result {
        Ok(again) => {
            queue.forget(&key);
            if let Some(delay) = again {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(error) if error.is_conflict() => {
            tracing::debug!(controller, %key, error = %chain(&error), "changed by someone else, trying again");
            queue.retry(key.clone(), Retry::Conflict);
        }
        Err(error @ Error::Waiting { .. }) => {
            let delay = queue.retry(key.clone(), Retry::Failure);
            tracing::debug!(controller, %key, ?delay, "{error}");
        }
        Err(error) => {
            let delay = queue.retry(key.clone(), Retry::Failure);
            tracing::warn!(controller, %key, ?delay, error = %error.message(), "{error}; trying again");
        }
    }
    queue.done(&key);
}

#[cfg(test)]
mod tests;
