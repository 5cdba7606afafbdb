//! One worker's handles of metrics, by what they are about.
//!
//! A series that nobody changes for ten minutes expires, so that Services and routes that are gone do
//! not stay in the metrics for ever. A handle that was resolved before would count into nothing from
//! then on. So handles that nobody asks for are dropped in half that time, and the series of those
//! that are kept, some of which change rarely, are kept as well.

use std::cell::{Cell, RefCell};
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use rustc_hash::FxHashMap;

/// How often [`Cache::upkeep`] is called.
pub const UPKEEP: Duration = Duration::from_secs(60);

/// Handles that were not asked for between so many calls are dropped.
const STALE: u32 = 5;

/// Handles of several series that stand and fall together.
pub trait Series {
    /// Keeps counters from expiring: counts nothing, which is a change all the same. A histogram is
    /// kept while somebody holds it.
    fn keep(&self);
}

/// Handles that are in use. What they are for is named by the cluster's objects, not by clients, so that
/// a hash needs no protection.
#[derive(Debug)]
pub struct Cache<K, V> {
    known: RefCell<FxHashMap<K, Known<V>>>,
    now: Cell<u32>,
}

#[derive(Debug)]
struct Known<V> {
    handles: Rc<V>,
    used: Cell<u32>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self {
            known: RefCell::default(),
            now: Cell::new(0),
        }
    }
}

impl<K: Clone + Eq + Hash, V: Series> Cache<K, V> {
    /// The handles for `key`, made by `new` if there are none.
    pub fn get(&self, key: &K, new: impl FnOnce() -> V) -> Rc<V> {
        let now = self.now.get();
        if let Some(known) = self.known.borrow().get(key) {
            known.used.set(now);
            return Rc::clone(&known.handles);
        }
        let handles = Rc::new(new());
        let known = Known {
            handles: Rc::clone(&handles),
            used: Cell::new(now),
        };
        self.known.borrow_mut().insert(key.clone(), known);
        handles
    }

    /// What there are handles for.
    pub fn keys(&self) -> Vec<K> {
        self.known.borrow().keys().cloned().collect()
    }

    /// Drops the handles for what is none of these.
    pub fn retain(&self, is_there: impl Fn(&K) -> bool) {
        self.known.borrow_mut().retain(|key, _| is_there(key));
    }

    /// Drops what was not asked for for a while and nobody holds, and keeps the rest alive.
    pub fn upkeep(&self) {
        let now = self.now.get().wrapping_add(1);
        self.now.set(now);
        self.known.borrow_mut().retain(|_, known| {
            let is_held = Rc::strong_count(&known.handles) > 1;
            let is_used = is_held || now.wrapping_sub(known.used.get()) < STALE;
            if is_used {
                known.handles.keep();
            }
            is_used
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Cell<u32>);

    impl Series for Kept {
        fn keep(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn proxy_o4_handles_that_nobody_uses_are_dropped_and_the_others_kept() {
        let cache: Cache<&'static str, Kept> = Cache::default();
        let known = |cache: &Cache<&'static str, Kept>| -> Vec<&'static str> {
            let mut known = cache.keys();
            known.sort_unstable();
            known
        };
        let held = cache.get(&"held", Kept::default);
        cache.get(&"gone", Kept::default);
        for _ in 1..STALE {
            cache.upkeep();
            cache.get(&"used", Kept::default);
        }
        assert_eq!(known(&cache), ["gone", "held", "used"]);
        cache.upkeep();
        assert_eq!(known(&cache), ["held", "used"]);
        assert_eq!(held.0.get(), STALE, "its series are kept at each time");
        drop(held);
        for _ in 0..STALE {
            cache.upkeep();
        }
        assert!(known(&cache).is_empty());
    }
}
