//! Entries of one kind, bounded in number and bytes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::unsync;
use tokio::time::Instant;

use crate::answer::packed::Packed;
use crate::config::{CacheShare, Prefetch};

/// What the allocator adds to an allocation, at most, at the sizes used here.
const ALLOCATION: usize = 16;
/// Bytes of the table for an entry: its slot, links and hash, with half as many remembered keys of
/// evicted entries, in a table that doubles when it is full.
const TABLE: usize = 3 * (size_of::<Box<[u8]>>() + size_of::<Box<Entry>>() + 21);

/// Bytes of an entry with one record, about.
const ENTRY: usize = 512;

/// An answer that is kept.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) packed: Rc<Packed>,
    pub(super) from: Instant,
    pub(super) until: Instant,
    /// Until then it is not fetched anew.
    pub(super) recheck_at: Cell<Option<Instant>>,
    popularity: Cell<Popularity>,
}

/// How often an entry was asked for without a pause.
#[derive(Clone, Copy, Debug)]
struct Popularity {
    hits: u32,
    last: Instant,
}

impl Entry {
    /// It has not expired, or less than this long ago.
    pub(super) fn is_kept(&self, max_age: Duration, now: Instant) -> bool {
        now < self.until || now.duration_since(self.until) < max_age
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.recheck_at.get().is_some_and(|at| now < at)
    }

    /// Counts a hit. Returns whether the entry is to be fetched anew before it expires.
    pub(super) fn is_popular(&self, prefetch: &Prefetch, now: Instant) -> bool {
        let Popularity { hits, last } = self.popularity.get();
        let hits = match now.duration_since(last) > prefetch.duration {
            true => 1,
            false => hits.saturating_add(1),
        };
        self.popularity.set(Popularity { hits, last: now });
        let life = self.until.duration_since(self.from);
        let share = life * u32::from(prefetch.percentage) / 100;
        hits >= prefetch.amount
            && !self.is_paused(now)
            && self.until <= now + share.max(Duration::from_secs(1))
    }
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) entries: unsync::Cache<Box<[u8]>, Box<Entry>, Weight>,
}

/// What an entry counts: its bytes, but at least the share of one of as many as there may be.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    least: u64,
}

impl Weighter<Box<[u8]>, Box<Entry>> for Weight {
    fn weight(&self, key: &Box<[u8]>, entry: &Box<Entry>) -> u64 {
        let allocations = [
            key.len(),
            size_of::<Entry>(),
            // Rc has two counters.
            size_of::<Packed>() + 2 * size_of::<usize>(),
            entry.packed.heap(),
        ];
        let heap: usize = allocations.iter().map(|bytes| bytes + ALLOCATION).sum();
        ((TABLE + heap) as u64).max(self.least)
    }
}

impl Store {
    pub(super) fn new(share: &CacheShare) -> Self {
        let bytes = share.max_bytes as u64;
        let least = bytes.div_ceil(share.capacity.max(1) as u64);
        // Half as many keys of evicted entries are remembered, so this bounds their number as well.
        let expected = share.capacity.min(share.max_bytes / ENTRY).max(1);
        Self {
            entries: unsync::Cache::with_weighter(expected, bytes, Weight { least }),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key).map(|entry| &**entry)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.entries.remove(key);
    }

    /// The entry is only good as a stale one from now on.
    pub(super) fn expire(&mut self, key: &[u8], now: Instant) {
        if let Some(mut entry) = self.entries.peek_mut(key) {
            entry.until = entry.until.min(now);
        }
    }

    /// Keeps an answer. Returns how many had to make room.
    pub(super) fn insert(
        &mut self,
        key: &[u8],
        packed: Rc<Packed>,
        now: Instant,
        life: Duration,
    ) -> usize {
        let old = self.entries.peek(key);
        let known = old.is_some();
        let popularity = old.map(|old| old.popularity.get());
        let entry = Entry {
            packed,
            from: now,
            until: now + life,
            recheck_at: Cell::new(None),
            popularity: Cell::new(popularity.unwrap_or(Popularity { hits: 0, last: now })),
        };
        let before = self.entries.len() + usize::from(!known);
        self.entries.insert(key.into(), Box::new(entry));
        before.saturating_sub(self.entries.len())
    }
}
