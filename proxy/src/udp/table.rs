//! The flows of one worker, and when they end.
//!
//! Flows are in two lists, each ordered by last use: those that no endpoint has answered yet, and
//! those that one has. Ending what is idle looks at the front of each list, so that it costs what
//! ends, not what there is; so does making room when there are too many flows, which takes the
//! longest unanswered one first: a flood of datagrams that nobody answers cannot drive out
//! conversations.

use std::collections::HashMap;
use std::time::Duration;

use sealane_config::model::{ClientAddr, VipAddr};
use tokio::time::Instant;

/// A flow that no endpoint has answered ends after this without a datagram
/// (`nf_conntrack_udp_timeout`).
pub(super) const UNANSWERED: Duration = Duration::from_secs(30);

/// A flow that an endpoint has answered ends after this (`nf_conntrack_udp_timeout_stream`).
pub(super) const ANSWERED: Duration = Duration::from_secs(120);

/// "No flow", in links between them.
const NONE: u32 = u32::MAX;

/// What makes a flow: who sends, and which address of a Service it dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    pub(super) client: ClientAddr,
    pub(super) vip: VipAddr,
}

/// A flow's place. It is given to another flow once this one is removed.
pub(super) type FlowId = u32;

/// Flows by key, with a `T` each.
#[derive(Debug)]
pub(super) struct FlowTable<T> {
    index: HashMap<FlowKey, FlowId>,
    slots: Vec<Option<Slot<T>>>,
    free: Vec<FlowId>,
    unanswered: List,
    answered: List,
}

#[derive(Debug)]
struct Slot<T> {
    key: FlowKey,
    used: Instant,
    is_answered: bool,
    earlier: FlowId,
    later: FlowId,
    value: T,
}

/// Ends of a list; the longest unused flow comes first.
#[derive(Clone, Copy, Debug)]
struct List {
    first: FlowId,
    last: FlowId,
}

impl List {
    const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };
}

impl<T> FlowTable<T> {
    pub(super) fn new() -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            unanswered: List::EMPTY,
            answered: List::EMPTY,
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<FlowId> {
        self.index.get(key).copied()
    }

    pub(super) fn get(&self, id: FlowId) -> Option<(&FlowKey, &T)> {
        let slot = self.slots.get(id as usize)?.as_ref()?;
        Some((&slot.key, &slot.value))
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        Some(&mut self.slots.get_mut(id as usize)?.as_mut()?.value)
    }

    /// Adds an unanswered flow; one with this key is not in the table yet. `make` is told its place.
    ///
    /// # Errors
    /// That of `make`; nothing was added.
    pub(super) fn insert<E>(
        &mut self,
        key: FlowKey,
        now: Instant,
        make: impl FnOnce(FlowId) -> Result<T, E>,
    ) -> Result<FlowId, E> {
        // At most one flow for each descriptor, of which there are fewer than 2³².
        let next = u32::try_from(self.slots.len()).unwrap_or(NONE);
        let id = self.free.last().copied().unwrap_or(next);
        let value = make(id)?;
        if self.free.pop().is_none() {
            self.slots.push(None);
        }
        self.slots[id as usize] = Some(Slot {
            key,
            used: now,
            is_answered: false,
            earlier: NONE,
            later: NONE,
            value,
        });
        self.index.insert(key, id);
        self.link(id);
        Ok(id)
    }

    /// A datagram went from the client to the endpoint.
    pub(super) fn asked(&mut self, id: FlowId, now: Instant) {
        self.used(id, now, false);
    }

    /// A datagram came back.
    pub(super) fn answered(&mut self, id: FlowId, now: Instant) {
        self.used(id, now, true);
    }

    pub(super) fn remove(&mut self, id: FlowId) -> Option<T> {
        self.unlink(id);
        let slot = self.slots.get_mut(id as usize)?.take()?;
        self.index.remove(&slot.key);
        self.free.push(id);
        Some(slot.value)
    }

    /// The flow that goes first when there are too many.
    pub(super) fn expendable(&self) -> Option<FlowId> {
        let lists = [self.unanswered.first, self.answered.first];
        lists.into_iter().find(|first| *first != NONE)
    }

    /// Removes a flow that has been idle for too long.
    pub(super) fn pop_idle(&mut self, now: Instant) -> Option<T> {
        let lists = [
            (self.unanswered.first, UNANSWERED),
            (self.answered.first, ANSWERED),
        ];
        let idle = lists.into_iter().find(|(first, limit)| {
            let slot = self.slot(*first);
            slot.is_some_and(|slot| slot.used + *limit <= now)
        });
        self.remove(idle?.0)
    }

    /// The flows for which `choose` says so.
    pub(super) fn chosen(&self, choose: impl Fn(&FlowKey, &T) -> bool) -> Vec<FlowId> {
        let chosen = self.index.iter().filter(|(key, id)| {
            let slot = self.slot(**id);
            slot.is_some_and(|slot| choose(key, &slot.value))
        });
        chosen.map(|(_, &id)| id).collect()
    }

    fn used(&mut self, id: FlowId, now: Instant, by_endpoint: bool) {
        self.unlink(id);
        if let Some(slot) = self.slot_mut(id) {
            slot.used = now;
            slot.is_answered |= by_endpoint;
        }
        self.link(id);
    }

    fn slot(&self, id: FlowId) -> Option<&Slot<T>> {
        self.slots.get(id as usize)?.as_ref()
    }

    fn slot_mut(&mut self, id: FlowId) -> Option<&mut Slot<T>> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    fn list_mut(&mut self, is_answered: bool) -> &mut List {
        if is_answered {
            &mut self.answered
        } else {
            &mut self.unanswered
        }
    }

    fn unlink(&mut self, id: FlowId) {
        let Some(slot) = self.slot(id) else { return };
        let (earlier, later, is_answered) = (slot.earlier, slot.later, slot.is_answered);
        match self.slot_mut(earlier) {
            Some(slot) => slot.later = later,
            None => self.list_mut(is_answered).first = later,
        }
        match self.slot_mut(later) {
            Some(slot) => slot.earlier = earlier,
            None => self.list_mut(is_answered).last = earlier,
        }
    }

    /// Puts an unlinked flow at the end of its list.
    fn link(&mut self, id: FlowId) {
        let Some(slot) = self.slot(id) else { return };
        let is_answered = slot.is_answered;
        let list = self.list_mut(is_answered);
        let last = std::mem::replace(&mut list.last, id);
        if last == NONE {
            list.first = id;
        }
        if let Some(slot) = self.slot_mut(last) {
            slot.later = id;
        }
        if let Some(slot) = self.slot_mut(id) {
            (slot.earlier, slot.later) = (last, NONE);
        }
    }
}

#[cfg(test)]
mod tests;
