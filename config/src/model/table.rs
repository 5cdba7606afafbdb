//! A map whose clones share structure, for tables that requests look things up in.
//!
//! A trie costs a request a chain of dependent loads, each of which misses the caches when there are
//! more entries than they hold: with 20,000 hosts that was the largest part of what a request cost more
//! than with ten. Here a key's hash says which slot it is in: one load of a small directory, one of the
//! slot, and one each, at the same time, of key and value.
//!
//! Slots are in shards of which a change copies one, and the directory. Both grow with the square root
//! of the number of entries, so that a change of one in 20,000 copies about 250 pointers and 80 entries.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::quality::RandomState;

/// There are four times as many shards, once there are more than so many entries for each shard times
/// the number of shards.
const FULL: usize = 4;

/// A hash map; clones share structure.
#[derive(Clone)]
pub struct Table<K, V> {
    /// None before the first entry, then a power of two.
    shards: Arc<[Shard<K, V>]>,
    size: usize,
    hasher: RandomState,
}

/// Open addressing: an entry is in the slot that its hash says, or in the next that was free.
#[derive(Clone)]
struct Shard<K, V> {
    /// A power of two, and twice as many as there are entries or more; none without entries.
    slots: Arc<[Option<Slot<K, V>>]>,
    used: usize,
}

#[derive(Clone)]
struct Slot<K, V> {
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            shards: Arc::default(),
            size: 0,
            hasher: RandomState::default(),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K, V> Table<K, V> {
    /// How many entries there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// There is no entry.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let slots = self.shards.iter().flat_map(|shard| shard.slots.iter());
        slots.flatten().map(|slot| (&slot.key, &slot.value))
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// The value of a key.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if self.shards.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let slots = &self.shards[shard_of(hash, self.shards.len())].slots;
        let at = seek(slots, hash, |other| other.borrow() == key).ok()?;
        slots[at].as_ref().map(|slot| &slot.value)
    }

    /// Whether the key has a value.
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.get(key).is_some()
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Table<K, V> {
    /// Replaces the value of a key.
    pub fn insert_mut(&mut self, key: K, value: V) {
        if self.size >= FULL * self.shards.len() * self.shards.len() {
            self.split();
        }
        let hash = self.hasher.hash_one(&key);
        let shard = self.shard_mut(hash);
        match seek(&shard.slots, hash, |other| *other == key) {
            Ok(at) => {
                Arc::make_mut(&mut shard.slots)[at] = Some(Slot { hash, key, value });
            }
            Err(_) => {
                shard.add(Slot { hash, key, value });
                self.size += 1;
            }
        }
    }

    /// Removes a key; says whether it was there.
    pub fn remove_mut<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if !self.contains_key(key) {
            return false;
        }
        let hash = self.hasher.hash_one(key);
        self.shard_mut(hash)
            .rebuild(|slot| slot.hash != hash || slot.key.borrow() != key);
        self.size -= 1;
        true
    }

    /// The shard of a hash, of which there is one at least.
    fn shard_mut(&mut self, hash: u64) -> &mut Shard<K, V> {
        let shards = Arc::make_mut(&mut self.shards);
        let at = shard_of(hash, shards.len());
        &mut shards[at]
    }

    /// Distributes the entries over four times as many shards.
    fn split(&mut self) {
        let count = (self.shards.len() * 4).max(1);
        let mut shards: Vec<Shard<K, V>> = (0..count).map(|_| Shard::default()).collect();
        let slots = self.shards.iter().flat_map(|shard| shard.slots.iter());
        for slot in slots.flatten() {
            shards[shard_of(slot.hash, count)].add(slot.clone());
        }
        self.shards = shards.into();
    }
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Self {
            slots: Arc::default(),
            used: 0,
        }
    }
}

impl<K: Clone, V: Clone> Shard<K, V> {
    /// Adds an entry whose key is not there.
    fn add(&mut self, slot: Slot<K, V>) {
        if self.slots.len() < (self.used + 1) * 2 {
            self.resize(((self.used + 1) * 2).next_power_of_two(), |_| true);
        }
        put(Arc::make_mut(&mut self.slots), slot);
        self.used += 1;
    }

    /// Keeps some of the entries.
    fn rebuild(&mut self, keep: impl Fn(&Slot<K, V>) -> bool) {
        let left = self
            .slots
            .iter()
            .flatten()
            .filter(|slot| keep(slot))
            .count();
        self.resize((left * 2).next_power_of_two(), keep);
        self.used = left;
    }

    fn resize(&mut self, length: usize, keep: impl Fn(&Slot<K, V>) -> bool) {
        let mut slots: Vec<Option<Slot<K, V>>> = (0..length).map(|_| None).collect();
        for slot in self.slots.iter().flatten().filter(|slot| keep(slot)) {
            put(&mut slots, slot.clone());
        }
        self.slots = slots.into();
    }
}

/// Which shard of so many a hash is in: by the bits that slots are not found by.
fn shard_of(hash: u64, count: usize) -> usize {
    (hash >> 40) as usize & (count - 1)
}

/// The slot that a key is in, or the free one where it would be.
fn seek<K, V>(
    slots: &[Option<Slot<K, V>>],
    hash: u64,
    is_key: impl Fn(&K) -> bool,
) -> Result<usize, usize> {
    let mask = slots.len().wrapping_sub(1);
    let mut at = hash as usize & mask;
    loop {
        match slots.get(at) {
            Some(Some(slot)) if slot.hash == hash && is_key(&slot.key) => return Ok(at),
            Some(Some(_)) => at = (at + 1) & mask,
            Some(None) | None => return Err(at),
        }
    }
}

/// Puts an entry whose key is not there into slots of which one is free.
fn put<K, V>(slots: &mut [Option<Slot<K, V>>], slot: Slot<K, V>) {
    let (Ok(at) | Err(at)) = seek(slots, slot.hash, |_| false);
    slots[at] = Some(slot);
}

#[cfg(test)]
mod tests;
