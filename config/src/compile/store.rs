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
///
/// A list comes page by page: a beginning, any number of pages, an end. Nothing of it counts before
/// the end; a list that breaks off is followed by the beginning of another.
#[derive(Debug)]
pub enum Delta<R> {
    /// A list begins.
    ListBegin,
    /// Some of the objects in the list.
    Page(Vec<(ObjectKey, Decoded<R>)>),
    /// The list is complete: what was in none of its pages does not exist.
    ListEnd,
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
    pub(super) old: Option<Box<R>>,
}

/// The records of one kind.
///
/// An object that cannot be decoded keeps the record that it had: the last good one.
#[derive(Debug)]
pub(super) struct Store<R> {
    kind: &'static str,
    /// Boxed, since the table has room for up to twice as many.
    records: HashMap<ObjectKey, Box<R>>,
    /// Objects whose last version could not be decoded.
    undecodable: HashSet<ObjectKey>,
    stage: Option<Stage<R>>,
}

/// The pages of a list that is not complete.
///
/// Most lists say what is known already, so only what differs is kept: a list of everything again
/// costs no more memory than the names of the objects.
#[derive(Debug)]
struct Stage<R> {
    listed: HashSet<ObjectKey>,
    differing: Vec<(ObjectKey, Decoded<Box<R>>)>,
}

impl<R: PartialEq> Store<R> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            records: HashMap::new(),
            undecodable: HashSet::new(),
            stage: None,
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&R> {
        self.records.get(key).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut R> {
        self.records.get_mut(key).map(AsMut::as_mut)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &R)> {
        self.records.iter().map(|(key, record)| (key, &**record))
    }

    /// Takes an event in. An object that is the same as before is not reported.
    pub(super) fn apply(&mut self, delta: Delta<R>, problems: &mut Problems) -> Vec<Changed<R>> {
        match delta {
            Delta::Set(key, decoded) => {
                let changed = self.set(key, boxed(decoded), problems);
                changed.into_iter().collect()
            }
            Delta::Remove(key) => self.remove(key, problems).into_iter().collect(),
            Delta::ListBegin => {
                self.stage = Some(Stage {
                    listed: HashSet::new(),
                    differing: Vec::new(),
                });
                Vec::new()
            }
            Delta::Page(objects) => {
                self.stage(objects);
                Vec::new()
            }
            Delta::ListEnd => self.replace(problems),
        }
    }

    fn stage(&mut self, objects: Vec<(ObjectKey, Decoded<R>)>) {
        let Some(stage) = &mut self.stage else {
            return;
        };
        for (key, decoded) in objects {
            let known = self.records.get_key_value(&key);
            let is_same = known.is_some_and(|(_, old)| {
                matches!(&decoded, Ok(Some(new)) if new == &**old)
                    && !self.undecodable.contains(&key)
            });
            let known = known.map_or(&key, |(known, _)| known);
            stage.listed.insert(known.clone());
            if !is_same {
                stage.differing.push((key, boxed(decoded)));
            }
        }
    }

    fn replace(&mut self, problems: &mut Problems) -> Vec<Changed<R>> {
        let Some(stage) = self.stage.take() else {
            return Vec::new();
        };
        let gone: Vec<ObjectKey> = self
            .records
            .keys()
            .chain(&self.undecodable)
            .filter(|key| !stage.listed.contains(*key))
            .cloned()
            .collect();
        let mut changed: Vec<_> = gone
            .into_iter()
            .filter_map(|key| self.remove(key, problems))
            .collect();
        for (key, decoded) in stage.differing {
            changed.extend(self.set(key, decoded, problems));
        }
        changed
    }

    fn set(
        &mut self,
        key: ObjectKey,
        decoded: Decoded<Box<R>>,
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

fn boxed<R>(decoded: Decoded<R>) -> Decoded<Box<R>> {
    decoded.map(|record| record.map(Box::new))
}
