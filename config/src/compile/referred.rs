//! Objects that are read one by one, because others refer to them by name: Secrets and ConfigMaps.

use std::collections::HashMap;
use std::fmt;

use super::store::{Decoded, Delta, ObjectKey};

/// What is known of the objects of a kind that are referred to.
#[derive(Debug)]
pub(super) struct Referred<S: Referent> {
    states: HashMap<ObjectKey, Entry<S>>,
    /// References made so far: the number of the next one.
    next_reference: u64,
    version: u64,
}

/// What is known of one object.
pub(super) trait Referent: Default {
    /// What is kept of an object.
    type Record: fmt::Debug;

    /// Takes in what the API server says of the object; returns whether anything changed.
    fn apply(&mut self, key: &ObjectKey, decoded: Decoded<Self::Record>) -> bool;

    /// Whether the API server has said anything about it, if only that it does not exist.
    fn is_known(&self) -> bool;

    /// Nobody refers to it any more.
    fn forgotten(&self, _key: &ObjectKey) {}
}

#[derive(Debug)]
struct Entry<S: Referent> {
    reference: u64,
    state: S,
    /// What a list that is not complete says.
    listed: Decoded<S::Record>,
}

impl<S: Referent> Default for Referred<S> {
    fn default() -> Self {
        Self {
            states: HashMap::new(),
            next_reference: 0,
            version: 0,
        }
    }
}

impl<S: Referent> Referred<S> {
    /// A reference to this object exists.
    pub(super) fn refer(&mut self, key: &ObjectKey) {
        if !self.states.contains_key(key) {
            let entry = Entry {
                reference: self.next_reference,
                state: S::default(),
                listed: Ok(None),
            };
            self.states.insert(key.clone(), entry);
            self.next_reference += 1;
            self.version += 1;
        }
    }

    /// No reference is left: what is known of the object goes too.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.states.remove(key) {
            self.version += 1;
            entry.state.forgotten(key);
        }
    }

    /// Changes whenever [`Self::references`] does.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&S> {
        self.states.get(key).map(|entry| &entry.state)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &S)> {
        self.states.iter().map(|(key, entry)| (key, &entry.state))
    }

    /// All objects that are referred to, each with the number of its reference: one that was
    /// forgotten and is referred to again has another one, and must be read again.
    pub(super) fn references(&self) -> impl Iterator<Item = (&ObjectKey, u64)> {
        self.states
            .iter()
            .map(|(key, entry)| (key, entry.reference))
    }

    /// Whether the API server has spoken about each of them.
    pub(super) fn all_known(&self) -> bool {
        self.states.values().all(|entry| entry.state.is_known())
    }

    /// Takes an event about one object in; returns whether anything changed. Late events about one
    /// that is no longer referred to are dropped.
    pub(super) fn apply(&mut self, key: &ObjectKey, delta: Delta<S::Record>) -> bool {
        let Some(Entry { state, listed, .. }) = self.states.get_mut(key) else {
            return false;
        };
        let decoded = match delta {
            Delta::Set(_, decoded) => decoded,
            Delta::Remove(_) => Ok(None),
            Delta::ListBegin => {
                *listed = Ok(None);
                return false;
            }
            Delta::Page(objects) => {
                if let Some((_, found)) = objects.into_iter().find(|(listed, _)| listed == key) {
                    *listed = found;
                }
                return false;
            }
            Delta::ListEnd => std::mem::replace(listed, Ok(None)),
        };
        state.apply(key, decoded)
    }
}
