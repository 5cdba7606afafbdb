//! Who gets a key that several objects claim.
//!
//! Two Services may name the same external IP and port. The table holds the entry of the claim that
//! ranks first; when that one goes, the next takes its place.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use rpds::HashTrieMapSync;

use super::store::ObjectKey;
use crate::model::AddressTable;

/// Precedence of a claim; the smallest wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// An external address gives way to a cluster IP, which the API server allocates.
    pub(super) external: bool,
    /// The older object wins: `metadata.creationTimestamp`, seconds.
    pub(super) created: i64,
    /// Ties.
    pub(super) owner: ObjectKey,
}

/// What one object claims in one table, sorted by key: each key once.
pub(super) type Wanted<K, V> = Vec<(K, Rank, V)>;

/// Sorts claims by key. Of several on the same key the first counts.
pub(super) fn wanted<K: Copy + Ord, V>(mut claims: Wanted<K, V>) -> Wanted<K, V> {
    claims.sort_by_key(|claim| claim.0);
    claims.dedup_by_key(|claim| claim.0);
    claims.shrink_to_fit();
    claims
}

/// Where the winners are put.
pub(super) trait Table<K, V> {
    /// Puts the winner of a key in.
    fn put(&mut self, key: K, value: V);
    /// Nobody claims the key any more.
    fn clear(&mut self, key: &K);
}

impl<K: Eq + Hash, V, H: BuildHasher + Clone> Table<K, V> for HashTrieMapSync<K, V, H> {
    fn put(&mut self, key: K, value: V) {
        self.insert_mut(key, value);
    }

    fn clear(&mut self, key: &K) {
        self.remove_mut(key);
    }
}

impl<V: Clone> Table<IpAddr, V> for AddressTable<V> {
    fn put(&mut self, key: IpAddr, value: V) {
        self.insert_mut(key, value);
    }

    fn clear(&mut self, key: &IpAddr) {
        self.remove_mut(key);
    }
}

/// All claims on the keys of one table, the best of each key first.
#[derive(Debug)]
pub(super) struct Claims<K, V> {
    by_key: HashMap<K, Vec<(Rank, V)>>,
}

impl<K: Copy + Ord + Hash, V: Clone> Claims<K, V> {
    pub(super) fn new() -> Self {
        Self {
            by_key: HashMap::new(),
        }
    }

    /// Replaces what one object claimed `before` by what it claims `after`, and puts the winners into
    /// `table`. Everyone whose claim met another goes into `contested`.
    pub(super) fn exchange(
        &mut self,
        before: &Wanted<K, V>,
        after: &Wanted<K, V>,
        table: &mut impl Table<K, V>,
        contested: &mut HashSet<ObjectKey>,
    ) {
        for (key, rank, _) in before {
            let again = after.binary_search_by_key(key, |claim| claim.0);
            let stays = again.is_ok_and(|index| after[index].1 == *rank);
            if !stays {
                self.set(*key, rank, None, table, contested);
            }
        }
        for (key, rank, value) in after {
            self.set(*key, rank, Some(value.clone()), table, contested);
        }
    }

    fn set(
        &mut self,
        key: K,
        rank: &Rank,
        value: Option<V>,
        table: &mut impl Table<K, V>,
        contested: &mut HashSet<ObjectKey>,
    ) {
        // Nearly always there is one claim, so that is what there is room for.
        let claims = self
            .by_key
            .entry(key)
            .or_insert_with(|| Vec::with_capacity(1));
        let before = claims.len();
        match (claims.binary_search_by(|claim| claim.0.cmp(rank)), value) {
            (Ok(index), Some(value)) => claims[index].1 = value,
            (Err(index), Some(value)) => claims.insert(index, (rank.clone(), value)),
            (Ok(index), None) => drop(claims.remove(index)),
            (Err(_), None) => {}
        }
        if before.max(claims.len()) > 1 {
            contested.insert(rank.owner.clone());
            contested.extend(claims.iter().map(|(rank, _)| rank.owner.clone()));
        }
        if let Some((_, winner)) = claims.first() {
            table.put(key, winner.clone());
        } else {
            table.clear(&key);
            self.by_key.remove(&key);
        }
    }

    /// The claim that has the key.
    pub(super) fn winner(&self, key: &K) -> Option<&Rank> {
        self.by_key.get(key)?.first().map(|claim| &claim.0)
    }
}
