//! The objects of one kind as they were last seen, and what an event changed.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::problems::{Problems, Unit};
use crate::model::{ObjectRef, Problem, ProblemKind, ServiceKey};

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key from its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// An object of the same namespace.
    pub(super) fn sibling(&self, name: &Arc<str>) -> Self {
        Self {
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(name),
        }
    }

    /// The object with this key and that kind.
    pub(super) fn of_kind(&self, kind: &'static str) -> ObjectRef {
        ObjectRef {
            kind,
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<&ObjectKey> for ServiceKey {
    fn from(key: &ObjectKey) -> Self {
        Self {
            namespace: Arc::clone(&key.namespace),
            name: Arc::clone(&key.name),
        }
    }
}

/// An object as read at the edge: a record, `None` if it is of no concern to us, or why it could not
/// be decoded.
pub type Decoded<R> = Result<Option<R>, String>;

/// What a list or a watch event says.
#[derive(Debug)]
pub enum Delta<R> {
    /// These are all objects of the kind: the result of a complete list.
    Replace(Vec<(ObjectKey, Decoded<R>)>),
    /// An object was added or changed.
    Set(ObjectKey, Decoded<R>),
    /// An object was deleted.
    Remove(ObjectKey),
}

/// An object whose record changed.
#[derive(Debug)]
pub(super) struct Changed<R> {
    /// Which.
    pub(super) key: ObjectKey,
    /// Its record before.
    pub(super) old: Option<R>,
}

/// The records of one kind.
///
/// An object that cannot be decoded keeps the record that it had: the last good one.
#[derive(Debug)]
pub(super) struct Store<R> {
    kind: &'static str,
    records: HashMap<ObjectKey, R>,
    /// Objects whose last version could not be decoded.
    undecodable: HashSet<ObjectKey>,
}

impl<R: PartialEq> Store<R> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            records: HashMap::new(),
            undecodable: HashSet::new(),
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&R> {
        self.records.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &R)> {
        self.records.iter()
    }

    /// Takes an event in. An object that is the same as before is not reported.
    pub(super) fn apply(&mut self, delta: Delta<R>, problems: &mut Problems) -> Vec<Changed<R>> {
        match delta {
            Delta::Set(key, decoded) => self.set(key, decoded, problems).into_iter().collect(),
            Delta::Remove(key) => self.remove(key, problems).into_iter().collect(),
            Delta::Replace(objects) => self.replace(objects, problems),
        }
    }

    fn replace(
        &mut self,
        objects: Vec<(ObjectKey, Decoded<R>)>,
        problems: &mut Problems,
    ) -> Vec<Changed<R>> {
        let listed: HashSet<ObjectKey> = objects.iter().map(|(key, _)| key.clone()).collect();
        let gone: Vec<ObjectKey> = self
            .records
            .keys()
            .chain(&self.undecodable)
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect();
        let mut changed: Vec<_> = gone
            .into_iter()
            .filter_map(|key| self.remove(key, problems))
            .collect();
        for (key, decoded) in objects {
            changed.extend(self.set(key, decoded, problems));
        }
        changed
    }

    fn set(
        &mut self,
        key: ObjectKey,
        decoded: Decoded<R>,
        problems: &mut Problems,
    ) -> Option<Changed<R>> {
        match decoded {
            Ok(Some(record)) => {
                self.decodable(&key, problems);
                if self.records.get(&key) == Some(&record) {
                    return None;
                }
                let old = self.records.insert(key.clone(), record);
                Some(Changed { key, old })
            }
            Ok(None) => self.remove(key, problems),
            Err(message) => {
                let problem = Problem {
                    object: key.of_kind(self.kind),
                    field: String::new(),
                    kind: ProblemKind::BadField,
                    message: format!(
                        "the object cannot be read, its last good version stays in use: {message}"
                    ),
                };
                problems.set(Unit::Decode(self.kind, key.clone()), vec![problem]);
                self.undecodable.insert(key);
                None
            }
        }
    }

    fn remove(&mut self, key: ObjectKey, problems: &mut Problems) -> Option<Changed<R>> {
        self.decodable(&key, problems);
        let old = self.records.remove(&key)?;
        Some(Changed {
            key,
            old: Some(old),
        })
    }

    fn decodable(&mut self, key: &ObjectKey, problems: &mut Problems) {
        if self.undecodable.remove(key) {
            problems.set(Unit::Decode(self.kind, key.clone()), Vec::new());
        }
    }
}
