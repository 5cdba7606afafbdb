//! How many flows there may be.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use rustix::process::{Resource, getrlimit};

/// Most UDP flows of a process.
const MAX_FLOWS: u64 = 100_000;

/// The share of the process's descriptors that flows may have, one each: a flood of datagrams must
/// leave enough for connections.
const SHARE: u64 = 4;

/// A bound on the UDP flows of all workers together. Clones share it.
#[derive(Clone, Debug)]
pub struct FlowBudget {
    open: Arc<AtomicUsize>,
    limit: usize,
}

impl Default for FlowBudget {
    /// 100,000 flows, or a quarter of the descriptors that the process may have (`RLIMIT_NOFILE`) if
    /// that is less.
    fn default() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current;
        let limit = descriptors.map_or(MAX_FLOWS, |all| (all / SHARE).min(MAX_FLOWS));
        Self::of(usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

impl FlowBudget {
    /// So many flows.
    pub fn of(limit: usize) -> Self {
        Self {
            open: Arc::default(),
            limit,
        }
    }

    /// Room for one flow until the returned value is dropped.
    pub(super) fn take(&self) -> Option<Room> {
        let taken = self.open.fetch_add(1, Relaxed);
        let room = Room(Arc::clone(&self.open));
        (taken < self.limit).then_some(room)
    }
}

/// Room for one flow.
#[derive(Debug)]
pub(super) struct Room(Arc<AtomicUsize>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget = FlowBudget::of(2);
        let other = budget.clone();
        let first = budget.take();
        let _second = other.take().unwrap();
        assert!(budget.take().is_none());
        drop(first);
        assert!(other.take().is_some());
    }
}
