//! What one request sees and changes.

use std::sync::Arc;

use serde_json::Value;

use super::{Event, EventType, Key, State, range};

/// What a request sees and changes while it is alone with the store.
#[derive(Debug)]
pub struct Transaction<'a> {
    state: &'a State,
    changes: Vec<Arc<Event>>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        Self {
            state,
            changes: Vec::new(),
        }
    }

    pub(super) fn into_changes(self) -> Vec<Arc<Event>> {
        self.changes
    }

    /// One object, with the changes of this transaction.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        match self.changes.iter().rev().find(|event| event.key == *key) {
            Some(event) if event.kind == EventType::Deleted => None,
            Some(event) => Some(Arc::clone(&event.object)),
            None => self.state.objects.get(key).cloned(),
        }
    }

    /// All objects of a kind as they were when the transaction began.
    pub fn list(
        &self,
        resource: &'static str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        range(&self.state.objects, resource, namespace)
    }

    /// Creates or replaces an object; sets its resourceVersion.
    pub fn put(&mut self, key: Key, object: Value) -> Arc<Value> {
        let previous = self.get(&key);
        let kind = if previous.is_some() {
            EventType::Modified
        } else {
            EventType::Added
        };
        self.change(kind, key, object, previous)
    }

    /// Removes an object; `last` is its final state as watchers see it.
    pub fn remove(&mut self, key: Key, last: Value) -> Arc<Value> {
        let previous = self.get(&key);
        self.change(EventType::Deleted, key, last, previous)
    }

    fn change(
        &mut self,
        kind: EventType,
        key: Key,
        mut object: Value,
        previous: Option<Arc<Value>>,
    ) -> Arc<Value> {
        let revision = self.state.revision + 1 + self.changes.len() as u64;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let object = Arc::new(object);
        self.changes.push(Arc::new(Event {
            kind,
            key,
            object: Arc::clone(&object),
            previous,
            revision,
            at: tokio::time::Instant::now(),
        }));
        object
    }
}
