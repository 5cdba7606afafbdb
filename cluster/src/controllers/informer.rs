//! Watched objects: a store for each kind, kept up to date by a watcher, and handlers that hear of
//! every change.
//!
//! Rules: a relist is staged and applied as a whole, so the store never holds half a list; handlers
//! are called after the store has changed, in the order of the changes; they only queue work.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::chain;

/// Namespace and name; the namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    /// Namespace.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    /// A key of its parts.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub(crate) fn of(object: &impl Resource) -> Self {
        Self::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One change of the store: the object before (none: it is new) and after (none: it is gone).
pub(crate) struct Change<'a, K> {
    /// Before.
    pub(crate) old: Option<&'a Arc<K>>,
    /// After.
    pub(crate) new: Option<&'a Arc<K>>,
}

impl<'a, K> Change<'a, K> {
    /// The object after the change, or its last state if it is gone.
    pub(crate) fn latest(&self) -> Option<&'a Arc<K>> {
        self.new.or(self.old)
    }

    /// Both states, the older first.
    pub(crate) fn states(&self) -> impl Iterator<Item = &'a Arc<K>> + use<'a, K> {
        self.old.into_iter().chain(self.new)
    }
}

type Handler<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;

/// The watched objects of one kind.
pub(crate) struct Store<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K: Resource> Store<K> {
    /// An empty store.
    pub(crate) fn new() -> Self {
        Self {
            objects: RwLock::default(),
            handlers: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }

    /// Calls `handler` on every change from now on. Handlers are added before the store is filled.
    pub(crate) fn on_change(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        self.handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(handler));
    }

    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().get(key).cloned()
    }

    /// The objects of a namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read()
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Every object, by namespace and name.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.read().values().cloned().collect()
    }

    /// Waits until the first list has arrived.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as the store, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Stores an object, newer than the one held.
    pub(crate) fn set(&self, object: K) {
        let new = Arc::new(object);
        let old = self.write().insert(Key::of(new.as_ref()), new.clone());
        if old
            .as_ref()
            .is_some_and(|old| version(old.as_ref()) == version(new.as_ref()))
        {
            return;
        }
        self.notify(old.as_ref(), Some(&new));
    }

    /// Forgets an object.
    pub(crate) fn remove(&self, key: &Key) {
        let old = self.write().remove(key);
        if old.is_some() {
            self.notify(old.as_ref(), None);
        }
    }

    /// Replaces everything; afterwards the store counts as synced.
    pub(crate) fn replace(&self, objects: Vec<K>) {
        let fresh: BTreeMap<Key, Arc<K>> = objects
            .into_iter()
            .map(|object| (Key::of(&object), Arc::new(object)))
            .collect();
        let old = std::mem::replace(&mut *self.write(), fresh.clone());
        for (key, before) in &old {
            if !fresh.contains_key(key) {
                self.notify(Some(before), None);
            }
        }
        for (key, after) in &fresh {
            let before = old.get(key);
            if before.is_none_or(|before| version(before.as_ref()) != version(after.as_ref())) {
                self.notify(before, Some(after));
            }
        }
        self.synced.send_replace(true);
    }

    fn notify(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        for handler in self
            .handlers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            handler(Change { old, new });
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version<K: Resource>(object: &K) -> (Option<&String>, Option<&String>) {
    let meta = object.meta();
    (meta.uid.as_ref(), meta.resource_version.as_ref())
}

/// Keeps a store up to date until shut down. Errors are logged; the watcher reconnects with back-off
/// (0.8 s to 30 s, jitter) and relists when its version has expired.
pub(crate) async fn follow<K>(
    kind: &str,
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    store: &Store<K>,
    shutdown: &CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = std::pin::pin!(events.default_backoff());
    let mut staged = Vec::new();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(event)) => apply(store, &mut staged, event),
            Some(Err(error)) => {
                tracing::warn!(kind, error = %chain(&error), "watch failed, trying again");
            }
            None => return,
        }
    }
}

fn apply<K: Resource>(store: &Store<K>, staged: &mut Vec<K>, event: watcher::Event<K>) {
    // The managers of fields are never read here and are the larger part of many objects.
    let trim = |mut object: K| {
        object.meta_mut().managed_fields = None;
        object
    };
    match event {
        watcher::Event::Init => staged.clear(),
        watcher::Event::InitApply(object) => staged.push(trim(object)),
        watcher::Event::InitDone => store.replace(std::mem::take(staged)),
        watcher::Event::Apply(object) => store.set(trim(object)),
        watcher::Event::Delete(object) => store.remove(&Key::of(&object)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn map(name: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".to_owned()),
                name: Some(name.to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    #[test]
    fn a_relist_is_applied_as_a_whole_and_only_differences_are_told() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let store = Store::new();
        let log = seen.clone();
        store.on_change(move |change: Change<'_, ConfigMap>| {
            let text = format!(
                "{} {}>{}",
                change.latest().unwrap().name_any(),
                change
                    .old
                    .and_then(|o| o.resource_version())
                    .unwrap_or_default(),
                change
                    .new
                    .and_then(|o| o.resource_version())
                    .unwrap_or_default(),
            );
            log.lock().unwrap().push(text);
        });
        let mut staged = Vec::new();
        let mut feed = |event| apply(&store, &mut staged, event);
        feed(watcher::Event::Init);
        feed(watcher::Event::InitApply(map("a", "1")));
        feed(watcher::Event::InitApply(map("b", "1")));
        assert!(store.all().is_empty(), "half a list is not visible");
        feed(watcher::Event::InitDone);
        feed(watcher::Event::Apply(map("a", "2")));
        feed(watcher::Event::Apply(map("a", "2")));
        feed(watcher::Event::Init);
        feed(watcher::Event::InitApply(map("a", "2")));
        feed(watcher::Event::InitApply(map("c", "3")));
        feed(watcher::Event::InitDone);
        feed(watcher::Event::Delete(map("c", "4")));
        assert_eq!(
            *seen.lock().unwrap(),
            ["a >1", "b >1", "a 1>2", "b 1>", "c >3", "c 3>"]
        );
    }
}
