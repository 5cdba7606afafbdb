//! Session affinity: which endpoint a client is at (`sessionAffinity: ClientIP`, proxy S12).
//!
//! The table is keyed by client address and Service port, so that whatever address of the Service a
//! client dials, and whichever worker takes the connection, it comes to the same endpoint. An entry
//! counts for as long as the Service's policy says after it was last used, and only while its
//! endpoint is one of those that may be chosen: not ready, removed, replaced by another pod with the
//! same address, ejected for its failures and not to be connected to all end it. It is judged when
//! it is used; nothing walks the table when endpoints change.
//!
//! The table is bounded by forgetting the clients that were used longest ago. Each shard has two
//! halves: what is used moves to the younger one, and when that is full it becomes the older one and
//! what was in the older one is gone. Any client among the last `CAPACITY / 2` is known.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sealane_config::model::{
    Endpoint, EndpointAddr, EndpointStats, Protocol, ServiceKey, ServicePort,
};

use super::eject;
use crate::clock;

/// Clients of Service ports that a process remembers.
pub const CAPACITY: usize = 100_000;

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 16;

/// Entries of the younger half of a shard.
const HALF: usize = CAPACITY / SHARDS / 2;

/// The table; clones share it. One for all workers of a process.
#[derive(Clone, Debug, Default)]
pub struct Affinity(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// A client of a Service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: IpAddr,
    service: ServiceKey,
    port: u16,
    protocol: Protocol,
}

/// Where it is.
#[derive(Debug)]
struct Entry {
    addr: EndpointAddr,
    /// Tells the endpoint from a successor at the same address.
    stats: Weak<EndpointStats>,
    /// On the process's monotonic clock, nanoseconds.
    used: u64,
}

#[derive(Debug, Default)]
struct Shard {
    younger: HashMap<Key, Entry>,
    older: HashMap<Key, Entry>,
}

impl Key {
    fn new(client: IpAddr, port: &ServicePort) -> Self {
        Self {
            client: client.to_canonical(),
            service: port.service.clone(),
            port: port.port,
            protocol: port.protocol,
        }
    }
}

impl Affinity {
    /// The endpoint that the client is at, if it may be chosen from `endpoints`; else the one that
    /// `pick` chooses, which it is at from now on. `avoid` is passed over but not forgotten: the
    /// request that failed there may be to blame.
    pub(super) fn choose<'a>(
        &self,
        (client, port, timeout): (IpAddr, &ServicePort, Duration),
        endpoints: &'a [Arc<Endpoint>],
        avoid: impl Fn(&Endpoint) -> bool,
        pick: impl FnOnce() -> Option<&'a Arc<Endpoint>>,
    ) -> Option<&'a Arc<Endpoint>> {
        let key = Key::new(client, port);
        let now = clock::now();
        let mut shard = self.shard(&key);
        if let Some(entry) = shard.younger_of(&key) {
            let live = now.saturating_sub(entry.used) < clock::nanos(timeout);
            let kept = entry.find(endpoints);
            if let Some(kept) = kept.filter(|e| live && is_usable(e, endpoints, now)) {
                entry.used = now;
                if avoid(kept) {
                    drop(shard);
                    return pick();
                }
                return Some(kept);
            }
        }
        let picked = pick()?;
        let entry = Entry {
            addr: picked.addr,
            stats: Arc::downgrade(&picked.stats),
            used: now,
        };
        shard.insert(key, entry);
        Some(picked)
    }

    /// The client cannot be connected to this endpoint: it is at it no more.
    pub(super) fn forget(&self, client: IpAddr, port: &ServicePort, endpoint: &Endpoint) {
        let key = Key::new(client, port);
        let mut shard = self.shard(&key);
        if shard
            .younger_of(&key)
            .is_some_and(|entry| entry.is_at(endpoint))
        {
            shard.younger.remove(&key);
        }
    }

    /// A lock is held for a few comparisons, never across an await.
    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let hash = usize::try_from(self.0.hasher.hash_one(key) % SHARDS as u64);
        let index = hash.expect("below the number of shards");
        let shard = &self.0.shards[index];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The endpoint, from a list that is sorted by address.
    fn find<'a>(&self, endpoints: &'a [Arc<Endpoint>]) -> Option<&'a Arc<Endpoint>> {
        let index = endpoints.binary_search_by_key(&self.addr, |e| e.addr);
        let found = endpoints.get(index.ok()?)?;
        self.is_at(found).then_some(found)
    }

    fn is_at(&self, endpoint: &Endpoint) -> bool {
        // The weak reference keeps the address from being given to another endpoint's counters.
        std::ptr::eq(self.stats.as_ptr(), Arc::as_ptr(&endpoint.stats))
    }
}

impl Shard {
    /// The entry, moved to the younger half.
    fn younger_of(&mut self, key: &Key) -> Option<&mut Entry> {
        if let Some(entry) = self.older.remove(key) {
            self.insert(key.clone(), entry);
        }
        self.younger.get_mut(key)
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        if self.younger.len() >= HALF && !self.younger.contains_key(&key) {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(key, entry);
    }
}

/// It is not ejected, or so many are that ejection is ignored.
fn is_usable(endpoint: &Endpoint, endpoints: &[Arc<Endpoint>], now: u64) -> bool {
    eject::state(&endpoint.stats, now) == eject::State::Open || eject::in_panic(endpoints, now)
}

#[cfg(test)]
mod tests;
