//! What a cache counts, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A part of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Answers with records.
    Success,
    /// Answers that say that there is nothing, and failures.
    Denial,
}

/// What one worker's cache counts. Written by that worker only, read by anybody.
#[derive(Debug, Default)]
pub struct CacheCounters {
    requests: AtomicU64,
    misses: AtomicU64,
    hits: [AtomicU64; 2],
    prefetches: AtomicU64,
    drops: AtomicU64,
    served_stale: AtomicU64,
    evictions: [AtomicU64; 2],
    entries: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
}

impl CacheCounters {
    /// Questions that the cache was asked.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Questions that had to be forwarded.
    pub fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }

    /// Questions that were answered with this kind of answer.
    pub fn hits(&self, part: Part) -> u64 {
        self.hits[part as usize].load(Relaxed)
    }

    /// Answers fetched anew before they expired.
    pub fn prefetches(&self) -> u64 {
        self.prefetches.load(Relaxed)
    }

    /// Answers not kept because they are about another name.
    pub fn drops(&self) -> u64 {
        self.drops.load(Relaxed)
    }

    /// Answers served after they had expired.
    pub fn served_stale(&self) -> u64 {
        self.served_stale.load(Relaxed)
    }

    /// Answers that had to make room.
    pub fn evictions(&self, part: Part) -> u64 {
        self.evictions[part as usize].load(Relaxed)
    }

    /// Answers in the cache.
    pub fn entries(&self, part: Part) -> u64 {
        self.entries[part as usize].load(Relaxed)
    }

    /// Bytes that they take.
    pub fn bytes(&self, part: Part) -> u64 {
        self.bytes[part as usize].load(Relaxed)
    }

    pub(super) fn request(&self) {
        add(&self.requests, 1);
    }

    pub(super) fn miss(&self) {
        add(&self.misses, 1);
    }

    pub(super) fn hit(&self, part: Part) {
        add(&self.hits[part as usize], 1);
    }

    pub(super) fn drop_answer(&self) {
        add(&self.drops, 1);
    }

    pub(super) fn evicted(&self, part: Part, count: usize) {
        add(&self.evictions[part as usize], count as u64);
    }

    pub(super) fn holds(&self, part: Part, entries: usize, bytes: u64) {
        self.entries[part as usize].store(entries as u64, Relaxed);
        self.bytes[part as usize].store(bytes, Relaxed);
    }

    pub(crate) fn prefetch(&self) {
        add(&self.prefetches, 1);
    }

    pub(crate) fn serve_stale(&self) {
        add(&self.served_stale, 1);
    }
}

/// There is one writer, so that no other can come between the two steps; a locked addition would
/// cost more than the rest of a hit.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}
