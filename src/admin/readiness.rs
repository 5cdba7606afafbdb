//! What has to be there before we are ready, and that we are not any more while we drain.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What [`Readiness::pending`] says while the process drains.
const DRAINING: &str = "draining";

/// The state; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is pending, with the number of its tokens.
    pending: BTreeMap<&'static str, usize>,
    draining: bool,
}

/// Something that is pending until this is dropped.
#[derive(Debug)]
pub(crate) struct Pending {
    readiness: Readiness,
    what: &'static str,
}

impl Readiness {
    /// Not ready until the token is dropped.
    pub(crate) fn wait_for(&self, what: &'static str) -> Pending {
        *self.lock().pending.entry(what).or_default() += 1;
        Pending {
            readiness: self.clone(),
            what,
        }
    }

    /// Not ready from now on.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
    }

    /// Everything that is pending, by name; nothing if we are ready.
    pub(crate) fn pending(&self) -> Vec<&'static str> {
        let state = self.lock();
        let draining = state.draining.then_some(DRAINING);
        draining
            .into_iter()
            .chain(state.pending.keys().copied())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.readiness.lock();
        if let Some(tokens) = state.pending.get_mut(self.what) {
            *tokens -= 1;
            if *tokens == 0 {
                state.pending.remove(self.what);
            }
        }
    }
}
