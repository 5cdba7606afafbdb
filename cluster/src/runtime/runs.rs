//! The runs of a pod's containers, for those who read logs and run commands in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::container::Container;
use super::logs::LogTail;

/// A container's latest run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Counted from 0, over restarts of the agent: the container's `restartCount`.
    pub(super) number: u32,
    /// The container while it runs.
    pub(super) container: Option<Arc<Container>>,
    /// The end of its log.
    pub(super) tail: Option<LogTail>,
}

/// The latest run of each container that was started.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<BTreeMap<String, Run>>);

impl Runs {
    /// The latest run of a container.
    pub(super) fn get(&self, container: &str) -> Option<Run> {
        self.lock().get(container).cloned()
    }

    /// A run that begins, or that was before the agent's own start.
    pub(super) fn set(&self, container: &str, run: Run) {
        self.lock().insert(container.to_owned(), run);
    }

    /// The run has ended; its log stays.
    pub(super) fn ended(&self, container: &str) {
        if let Some(run) = self.lock().get_mut(container) {
            run.container = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Run>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
