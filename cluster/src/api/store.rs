//! The store: objects in memory, a history of changes for watches, and one file for restarts.
//!
//! Rules:
//! - One counter, the resourceVersion, grows with every change of any object (W1). It survives
//!   restarts, and a start skips ahead by [`RESTART_GAP`], so that a version seen before a crash is
//!   never given out twice and every older watch gets 410 instead of silence (V5).
//! - A change is checked and applied under one lock, written to disk together with the other changes
//!   that wait (group commit), and only then acknowledged. Readers and watchers see it at once: a
//!   change takes some milliseconds less to reach the traffic, and those who saw one that a crash
//!   took back must list again, because the versions skip ahead.
//! - If the disk fails the store refuses all further writes: what is acknowledged is on disk.
//! - The history holds [`HISTORY_EVENTS`] changes, 64 MiB or five minutes, whichever is least. With it
//!   a list can also be taken as of an older version, by undoing the changes since.
//! - A watcher has a bounded queue. One that falls behind loses its queue and must list again.

mod disk;
mod history;
#[cfg(test)]
mod tests;
mod transaction;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::status::ApiError;
use disk::Disk;
use history::History;
pub use history::{Event, EventType};
pub use transaction::Transaction;
use writer::{Commit, Writer};

/// Changes kept for watches.
pub const HISTORY_EVENTS: usize = 100_000;

/// Versions skipped at every start; more than can be in flight to the disk at a crash.
pub const RESTART_GAP: u64 = 100_000;

/// Changes that may wait for the disk.
const MAX_PENDING: usize = 10_000;

/// Events that may wait for one watcher.
const WATCH_QUEUE: usize = 4_096;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// The file cannot be read or is damaged.
    #[error("cannot open {path}: {message}")]
    Open {
        /// The file.
        path: String,
        /// What went wrong.
        message: String,
    },
}

/// Identity of a stored object; ordered as lists are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Storage name of the kind, such as `pods` or `deployments.apps`.
    pub resource: &'static str,
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(
        resource: &'static str,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            resource,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// Objects as of one version.
#[derive(Debug)]
pub struct Listing {
    /// The version.
    pub revision: u64,
    /// The objects, in key order.
    pub items: Vec<(Key, Arc<Value>)>,
}

/// A live watch.
#[derive(Debug)]
pub struct Subscription {
    /// Version of `initial`, or the version the watch starts after.
    pub revision: u64,
    /// Objects that exist, if asked for.
    pub initial: Vec<Arc<Value>>,
    /// Changes since the asked version.
    pub backlog: Vec<Arc<Event>>,
    /// Later changes; ends when the watcher has fallen behind or the store is closed. It may repeat
    /// versions up to `revision`.
    pub events: mpsc::Receiver<Arc<Event>>,
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With all existing objects.
    Existing,
    /// With the first change from now on.
    Now,
    /// With the first change after this version.
    After(u64),
}

/// Handle to the store; clones share it. The file is closed when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    _writer: Option<Arc<Writer>>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    pending: Condvar,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    revision: u64,
    history: History,
    durable: bool,
    waiting: Vec<Commit>,
    watchers: HashMap<&'static str, Vec<Watcher>>,
    failed: Option<String>,
    closed: bool,
}

#[derive(Debug)]
struct Watcher {
    namespace: Option<String>,
    queue: mpsc::Sender<Arc<Event>>,
}

impl Inner {
    fn new(objects: BTreeMap<Key, Arc<Value>>, revision: u64, durable: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                objects,
                revision,
                history: History::new(revision),
                durable,
                waiting: Vec::new(),
                watchers: HashMap::new(),
                failed: None,
                closed: false,
            }),
            pending: Condvar::new(),
            newest: watch::Sender::new(revision),
        })
    }

    /// A panic while the lock was held can only come from a request's own closure, before anything
    /// was applied, so the state behind a poisoned lock is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// A store in memory only.
    pub fn ephemeral() -> Self {
        Self {
            inner: Inner::new(BTreeMap::new(), 1, false),
            _writer: None,
        }
    }

    /// Opens or creates the file and reads all objects.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (disk, loaded) = Disk::open(path)?;
        let inner = Inner::new(loaded.objects, loaded.revision + RESTART_GAP, true);
        let writer = Writer::start(&inner, disk).map_err(|error| StoreError::Open {
            path: path.display().to_string(),
            message: error.to_string(),
        })?;
        Ok(Self {
            inner,
            _writer: Some(Arc::new(writer)),
        })
    }

    /// The newest version.
    pub fn revision(&self) -> u64 {
        self.inner.lock().revision
    }

    /// Waits until `revision` is reached; false if it is not within `limit`.
    pub async fn reaches(&self, revision: u64, limit: Duration) -> bool {
        let mut newest = self.inner.newest.subscribe();
        let reached = newest.wait_for(|newest| *newest >= revision);
        tokio::time::timeout(limit, reached).await.is_ok()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.inner.lock().objects.get(key).cloned()
    }

    /// All objects of a kind, or those of one namespace.
    pub fn list(&self, resource: &'static str, namespace: Option<&str>) -> Listing {
        let state = self.inner.lock();
        Listing {
            revision: state.revision,
            items: range(&state.objects, resource, namespace)
                .map(|(key, object)| (key.clone(), Arc::clone(object)))
                .collect(),
        }
    }

    /// As [`Store::list`], as of an older version; `None` if the history does not reach back that far.
    pub fn list_at(
        &self,
        resource: &'static str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Option<Listing> {
        let state = self.inner.lock();
        let since = state.history.since(revision)?;
        let mut items: BTreeMap<&Key, &Arc<Value>> =
            range(&state.objects, resource, namespace).collect();
        for event in since.rev() {
            if event.concerns(resource, namespace) {
                match &event.previous {
                    Some(previous) => items.insert(&event.key, previous),
                    None => items.remove(&event.key),
                };
            }
        }
        Some(Listing {
            revision,
            items: items
                .into_iter()
                .map(|(key, object)| (key.clone(), Arc::clone(object)))
                .collect(),
        })
    }

    /// Follows the changes of a kind. `None` if the history does not reach back to the asked version.
    pub fn watch(
        &self,
        resource: &'static str,
        namespace: Option<&str>,
        from: WatchFrom,
    ) -> Option<Subscription> {
        let mut state = self.inner.lock();
        let (revision, initial, backlog) = match from {
            WatchFrom::Existing => (
                state.revision,
                range(&state.objects, resource, namespace)
                    .map(|(_, object)| Arc::clone(object))
                    .collect(),
                Vec::new(),
            ),
            WatchFrom::Now => (state.revision, Vec::new(), Vec::new()),
            WatchFrom::After(revision) => {
                let backlog = state
                    .history
                    .since(revision)?
                    .filter(|event| event.concerns(resource, namespace))
                    .map(Arc::clone)
                    .collect();
                (revision, Vec::new(), backlog)
            }
        };
        let (queue, events) = mpsc::channel(WATCH_QUEUE);
        let watchers = state.watchers.entry(resource).or_default();
        watchers.retain(|watcher| !watcher.queue.is_closed());
        watchers.push(Watcher {
            namespace: namespace.map(str::to_owned),
            queue,
        });
        Some(Subscription {
            revision,
            initial,
            backlog,
            events,
        })
    }

    /// The version up to which the watcher has received everything; 0 if events wait in its queue.
    pub fn received(&self, subscription: &Subscription) -> u64 {
        let state = self.inner.lock();
        if subscription.events.is_empty() {
            state.revision
        } else {
            0
        }
    }

    /// Runs `body` on the newest state, alone, and applies what it changed if it succeeds; with
    /// `dry_run` everything is checked and nothing is applied. Returns when the changes are on disk.
    ///
    /// # Errors
    /// Those of `body`; 429 if too many changes wait for the disk; 500 if the disk has failed.
    pub async fn transact<T: Send>(
        &self,
        dry_run: bool,
        body: impl FnOnce(&mut Transaction<'_>) -> Result<T, ApiError> + Send,
    ) -> Result<T, ApiError> {
        let (value, durable) = self.apply(dry_run, body)?;
        if let Some(durable) = durable {
            let outcome = durable
                .await
                .unwrap_or_else(|_| Err("the store is closed".to_owned()));
            outcome.map_err(storage_failed)?;
        }
        Ok(value)
    }

    #[allow(
        clippy::type_complexity,
        reason = "a pair used by the one caller above"
    )]
    fn apply<T>(
        &self,
        dry_run: bool,
        body: impl FnOnce(&mut Transaction<'_>) -> Result<T, ApiError>,
    ) -> Result<(T, Option<oneshot::Receiver<Result<(), String>>>), ApiError> {
        let mut state = self.inner.lock();
        if let Some(failure) = &state.failed {
            return Err(storage_failed(failure.clone()));
        }
        if state.waiting.len() >= MAX_PENDING {
            return Err(ApiError::too_many_requests());
        }
        let mut transaction = Transaction::new(&state);
        let value = body(&mut transaction)?;
        let changes = transaction.into_changes();
        if dry_run || changes.is_empty() {
            return Ok((value, None));
        }
        let durable = state.commit(changes);
        self.inner.newest.send_replace(state.revision);
        drop(state);
        if durable.is_some() {
            self.inner.pending.notify_one();
        }
        Ok((value, durable))
    }
}

fn storage_failed(message: String) -> ApiError {
    ApiError::internal(format!("storage failed: {message}"))
}

fn range<'a>(
    objects: &'a BTreeMap<Key, Arc<Value>>,
    resource: &'static str,
    namespace: Option<&str>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
    let namespace = namespace.map(str::to_owned);
    let first = Key::new(resource, namespace.clone().unwrap_or_default(), "");
    objects
        .range((Bound::Included(first), Bound::Unbounded))
        .take_while(move |(key, _)| {
            key.resource == resource && namespace.as_ref().is_none_or(|ns| *ns == key.namespace)
        })
}

impl State {
    fn commit(
        &mut self,
        changes: Vec<Arc<Event>>,
    ) -> Option<oneshot::Receiver<Result<(), String>>> {
        for event in &changes {
            match event.kind {
                EventType::Deleted => self.objects.remove(&event.key),
                EventType::Added | EventType::Modified => self
                    .objects
                    .insert(event.key.clone(), Arc::clone(&event.object)),
            };
            self.revision = event.revision;
            self.history.push(Arc::clone(event));
        }
        self.publish(&changes);
        if !self.durable {
            return None;
        }
        let (done, durable) = oneshot::channel();
        self.waiting.push(Commit {
            events: changes,
            done,
        });
        Some(durable)
    }

    fn publish(&mut self, events: &[Arc<Event>]) {
        for event in events {
            let Some(watchers) = self.watchers.get_mut(event.key.resource) else {
                continue;
            };
            watchers.retain(|watcher| {
                !event.concerns(event.key.resource, watcher.namespace.as_deref())
                    || watcher.queue.try_send(Arc::clone(event)).is_ok()
            });
        }
    }
}
