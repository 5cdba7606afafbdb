//! Who gets a key that several objects claim.
//!
//! Two Services may name the same external IP and port. The table holds the entry of the claim that
//! ranks first; when that one goes, the next takes its place.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use rpds::HashTrieMapSync;

use super::store::ObjectKey;

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

/// All claims on the keys of one table.
#[derive(Debug)]
pub(super) struct Claims<K, V> {
    by_key: HashMap<K, BTreeMap<Rank, V>>,
}

impl<K: Clone + Eq + Hash, V: Clone> Claims<K, V> {
    pub(super) fn new() -> Self {
        Self {
            by_key: HashMap::new(),
        }
    }

    /// Replaces what one object claimed `before` by what it claims `after`, and puts the winners into
    /// `table`. Everyone whose claim met another goes into `contested`.
    pub(super) fn exchange(
        &mut self,
        before: &HashMap<K, (Rank, V)>,
        after: &HashMap<K, (Rank, V)>,
        table: &mut HashTrieMapSync<K, V>,
        contested: &mut HashSet<ObjectKey>,
    ) {
        for (key, (rank, _)) in before {
            let stays = after.get(key).is_some_and(|(new, _)| new == rank);
            if !stays {
                self.set(key, rank, None, table, contested);
            }
        }
        for (key, (rank, value)) in after {
            self.set(key, rank, Some(value.clone()), table, contested);
        }
    }

    fn set(
        &mut self,
        key: &K,
        rank: &Rank,
        value: Option<V>,
        table: &mut HashTrieMapSync<K, V>,
        contested: &mut HashSet<ObjectKey>,
    ) {
        let claims = self.by_key.entry(key.clone()).or_default();
        let before = claims.len();
        match value {
            Some(value) => drop(claims.insert(rank.clone(), value)),
            None => drop(claims.remove(rank)),
        }
        if before.max(claims.len()) > 1 {
            contested.insert(rank.owner.clone());
            contested.extend(claims.keys().map(|rank| rank.owner.clone()));
        }
        if let Some(winner) = claims.values().next() {
            table.insert_mut(key.clone(), winner.clone());
        } else {
            table.remove_mut(key);
            self.by_key.remove(key);
        }
    }

    /// The claim that has the key.
    pub(super) fn winner(&self, key: &K) -> Option<&Rank> {
        self.by_key.get(key)?.keys().next()
    }
}
