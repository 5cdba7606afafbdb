//! The newest changes, oldest first.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{HISTORY_EVENTS, Key};

/// How long changes are kept at least, unless there are more than [`HISTORY_EVENTS`] or they take
/// more than [`HISTORY_BYTES`].
const HISTORY_AGE: Duration = Duration::from_secs(300);

/// Memory that the history may take, by [`weight`]: large objects that change all the time would
/// otherwise fill gigabytes in five minutes.
const HISTORY_BYTES: usize = 64 << 20;

/// Entries that the smallest map has room for.
const NODE: usize = 11;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventType,
    /// To which object.
    pub key: Key,
    /// The object afterwards; for a deletion its last state with the version of the deletion.
    pub object: Arc<Value>,
    /// The object before.
    pub previous: Option<Arc<Value>>,
    /// Version of this change.
    pub revision: u64,
    /// When it was made.
    pub at: Instant,
}

impl Event {
    /// Whether it belongs to this kind and namespace (`None`: any).
    pub fn concerns(&self, resource: &str, namespace: Option<&str>) -> bool {
        self.key.resource == resource && namespace.is_none_or(|ns| ns == self.key.namespace)
    }
}

#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    /// Bytes of each of them, and of all.
    weights: VecDeque<usize>,
    bytes: usize,
    /// Every change after this version is in `events`.
    floor: u64,
}

impl History {
    pub(super) fn new(floor: u64) -> Self {
        Self {
            events: VecDeque::new(),
            weights: VecDeque::new(),
            bytes: 0,
            floor,
        }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        let now = event.at;
        // The state before is the one after another change, or the last reference to one.
        let weight = weight(&event.object);
        self.bytes += weight;
        self.weights.push_back(weight);
        self.events.push_back(event);
        while let Some(oldest) = self.events.front()
            && (self.events.len() > HISTORY_EVENTS
                || self.bytes > HISTORY_BYTES
                || now - oldest.at > HISTORY_AGE)
        {
            self.floor = oldest.revision;
            self.events.pop_front();
            self.bytes -= self.weights.pop_front().unwrap_or_default();
        }
    }

    /// The changes after `revision`; `None` if some of them are forgotten.
    pub(super) fn since(&self, revision: u64) -> Option<Iter<'_, Arc<Event>>> {
        if revision < self.floor {
            return None;
        }
        let first = self
            .events
            .partition_point(|event| event.revision <= revision);
        Some(self.events.range(first..))
    }
}

/// About how much memory a value holds.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => {
            let inside: usize = items.iter().map(weight).sum();
            items.len() * size_of::<Value>() + inside
        }
        Value::Object(fields) => {
            let entry = size_of::<String>() + size_of::<Value>();
            let inside = fields
                .iter()
                .map(|(name, value)| name.len() + weight(value));
            fields.len().max(NODE) * entry + inside.sum::<usize>()
        }
    }
}
