//! The ConfigMaps that are referred to: by the gateway's own options, and by Ingresses.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1;

use super::store::{Decoded, Delta, ObjectKey};

/// A ConfigMap that is referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapRecord {
    /// `data`; what is in `binaryData` is no text and not for us.
    pub(super) data: BTreeMap<String, String>,
}

impl ConfigMapRecord {
    /// Reads a ConfigMap.
    pub fn read(map: v1::ConfigMap) -> Self {
        Self {
            data: map.data.unwrap_or_default(),
        }
    }
}

/// What is known of the ConfigMaps that are referred to.
#[derive(Debug, Default)]
pub(super) struct ConfigMaps {
    states: HashMap<ObjectKey, ConfigMapState>,
    /// References made so far: the number of the next one.
    next_reference: u64,
    version: u64,
}

/// What is known of one ConfigMap.
#[derive(Debug)]
pub(super) struct ConfigMapState {
    reference: u64,
    /// The API server has said something about it, if only that it does not exist.
    pub(super) is_known: bool,
    /// Its last version: it stays when the ConfigMap is deleted, as certificates do.
    pub(super) good: Option<ConfigMapRecord>,
    /// Why there is no current version.
    pub(super) problem: Option<&'static str>,
    /// What a list that is not complete says.
    listed: Decoded<ConfigMapRecord>,
}

impl ConfigMaps {
    /// A reference to this ConfigMap exists.
    pub(super) fn refer(&mut self, key: &ObjectKey) {
        if !self.states.contains_key(key) {
            let state = ConfigMapState {
                reference: self.next_reference,
                is_known: false,
                good: None,
                problem: None,
                listed: Ok(None),
            };
            self.states.insert(key.clone(), state);
            self.next_reference += 1;
            self.version += 1;
        }
    }

    /// Changes whenever [`Self::references`] does.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&ConfigMapState> {
        self.states.get(key)
    }

    /// All ConfigMaps that are referred to, each with the number of its reference: one that was
    /// forgotten and is referred to again has another one, and must be read again.
    pub(super) fn references(&self) -> impl Iterator<Item = (&ObjectKey, u64)> {
        self.states
            .iter()
            .map(|(key, state)| (key, state.reference))
    }

    /// Whether the API server has spoken about each of them.
    pub(super) fn all_known(&self) -> bool {
        self.states.values().all(|state| state.is_known)
    }

    /// Takes an event about one ConfigMap in; returns whether anything changed. Late events about
    /// one that is no longer referred to are dropped.
    pub(super) fn apply(&mut self, key: &ObjectKey, delta: Delta<ConfigMapRecord>) -> bool {
        let Some(state) = self.states.get_mut(key) else {
            return false;
        };
        let decoded = match delta {
            Delta::Set(_, decoded) => decoded,
            Delta::Remove(_) => Ok(None),
            Delta::ListBegin => {
                state.listed = Ok(None);
                return false;
            }
            Delta::Page(objects) => {
                if let Some((_, found)) = objects.into_iter().find(|(listed, _)| listed == key) {
                    state.listed = found;
                }
                return false;
            }
            Delta::ListEnd => std::mem::replace(&mut state.listed, Ok(None)),
        };
        let mut is_changed = !std::mem::replace(&mut state.is_known, true);
        let problem = match decoded {
            Ok(Some(record)) => {
                is_changed |= state.good.as_ref() != Some(&record);
                state.good = Some(record);
                None
            }
            Ok(None) => Some("does not exist"),
            Err(_undecodable) => Some("cannot be decoded"),
        };
        is_changed | (std::mem::replace(&mut state.problem, problem) != problem)
    }
}
