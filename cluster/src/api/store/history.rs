//! The newest changes, oldest first.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{HISTORY_EVENTS, Key};

/// How long changes are kept at least, unless there are more than [`HISTORY_EVENTS`].
const HISTORY_AGE: Duration = Duration::from_secs(300);

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
    /// Every change after this version is in `events`.
    floor: u64,
}

impl History {
    pub(super) fn new(floor: u64) -> Self {
        Self {
            events: VecDeque::new(),
            floor,
        }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        let now = event.at;
        self.events.push_back(event);
        while let Some(oldest) = self.events.front()
            && (self.events.len() > HISTORY_EVENTS || now - oldest.at > HISTORY_AGE)
        {
            self.floor = oldest.revision;
            self.events.pop_front();
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
