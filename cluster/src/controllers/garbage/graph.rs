//! Who owns whom, as a pure data structure.
//!
//! Rules (Kubernetes documentation, "Garbage collection"):
//! - A dependent whose owners are all gone is deleted; if some are gone, only those references are
//!   removed from it.
//! - Foreground: the owner keeps the finalizer `foregroundDeletion` until no dependent with
//!   `blockOwnerDeletion` is left; an owner in that state counts as gone for its dependents.
//! - Orphan: the owner keeps the finalizer `orphan` until its reference is removed everywhere.
//! - A reference means an object of the dependent's own namespace, or of the cluster. One from a
//!   cluster-scoped object to a namespaced kind can never be resolved, so nothing is deleted for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::controllers::informer::Key;
use crate::controllers::resources::Kind;

/// Finalizer of an owner that waits for its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner that leaves its dependents behind.
pub(super) const ORPHAN: &str = "orphan";

/// One object of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its kind.
    pub(super) kind: Arc<Kind>,
    /// Its namespace and name.
    pub(super) key: Key,
    /// Its identity.
    pub(super) uid: String,
    /// The version that was seen.
    pub(super) version: Option<String>,
    /// `metadata.ownerReferences`.
    pub(super) owners: Vec<OwnerReference>,
    /// `metadata.finalizers`.
    pub(super) finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub(super) going: bool,
}

impl Item {
    /// The item for an object; none if it has no uid yet.
    pub(super) fn of(kind: &Arc<Kind>, key: Key, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            kind: kind.clone(),
            key,
            uid: meta.uid.clone()?,
            version: meta.resource_version.clone(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            going: meta.deletion_timestamp.is_some(),
        })
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|own| own == finalizer)
    }

    /// Whether it waits for its dependents to go.
    pub(super) fn waits_for_dependents(&self) -> bool {
        self.going && self.has(FOREGROUND)
    }

    /// Whether it waits for its dependents to be orphaned.
    pub(super) fn orphans_dependents(&self) -> bool {
        self.going && self.has(ORPHAN)
    }

    /// How the object wants its own dependents to be treated when it is deleted.
    pub(super) fn policy(&self) -> Policy {
        if self.has(ORPHAN) {
            Policy::Orphan
        } else if self.has(FOREGROUND) {
            Policy::Foreground
        } else {
            Policy::Background
        }
    }
}

/// `propagationPolicy` of a deletion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Policy {
    /// Dependents follow.
    Background,
    /// Dependents first.
    Foreground,
    /// Dependents stay.
    Orphan,
}

/// State of an owner as far as the dependent is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// It is there.
    Solid,
    /// It waits for its dependents to go.
    Waiting,
    /// It is gone for sure: the API said so.
    Absent,
    /// It can never be resolved.
    Unresolvable,
}

/// What to do with an object that has owners.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Nothing.
    Keep,
    /// Remove the references with these uids.
    Disown(Vec<String>),
    /// Delete it.
    Delete(Policy),
}

/// Decides about an object from the states of its owners, given in the order of its references.
pub(super) fn verdict(item: &Item, owners: &[Owner], has_dependents: bool) -> Verdict {
    if owners.is_empty() || owners.contains(&Owner::Unresolvable) {
        return Verdict::Keep;
    }
    if owners.contains(&Owner::Solid) {
        let lost: Vec<String> = item
            .owners
            .iter()
            .zip(owners)
            .filter(|(_, state)| **state != Owner::Solid)
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        return if lost.is_empty() {
            Verdict::Keep
        } else {
            Verdict::Disown(lost)
        };
    }
    if owners.contains(&Owner::Waiting) && has_dependents {
        return Verdict::Delete(Policy::Foreground);
    }
    Verdict::Delete(item.policy())
}

/// All objects and their references, by uid.
#[derive(Default)]
pub(super) struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// One object.
    pub(super) fn get(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    /// The objects that name this one as their owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Item> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.items.get(uid))
            .cloned()
            .collect()
    }

    /// Whether any object names this one as its owner.
    pub(super) fn has_dependents(&self, uid: &str) -> bool {
        self.dependents
            .get(uid)
            .is_some_and(|uids| !uids.is_empty())
    }

    /// Stores an object; answers with the uids that have to be looked at.
    pub(super) fn set(&mut self, item: Item) -> Vec<String> {
        let mut due = Vec::new();
        let uid = item.uid.clone();
        let before = self.items.insert(uid.clone(), item.clone());
        let owners_before: &[OwnerReference] = before.as_ref().map_or(&[], |item| &item.owners);
        for owner in owners_before
            .iter()
            .filter(|owner| !names(&item.owners, &owner.uid))
        {
            self.unlink(&owner.uid, &uid);
        }
        for owner in &item.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        let owners_changed = owners_before != item.owners;
        if owners_changed {
            due.extend(self.waiting(owners_before));
        }
        // A waiting owner is due with every change: an earlier attempt may have met a newer version.
        if (owners_changed && !item.owners.is_empty())
            || item.waits_for_dependents()
            || item.orphans_dependents()
        {
            due.push(uid);
        }
        due
    }

    /// Forgets an object; answers with the uids that have to be looked at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(item) = self.items.remove(uid) else {
            return Vec::new();
        };
        for owner in &item.owners {
            self.unlink(&owner.uid, uid);
        }
        let mut due = self.waiting(&item.owners);
        due.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        due
    }

    /// The owners that wait for dependents.
    fn waiting(&self, owners: &[OwnerReference]) -> Vec<String> {
        owners
            .iter()
            .filter(|owner| {
                self.items
                    .get(&owner.uid)
                    .is_some_and(|item| item.waits_for_dependents() || item.orphans_dependents())
            })
            .map(|owner| owner.uid.clone())
            .collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(uids) = self.dependents.get_mut(owner) {
            uids.remove(dependent);
            if uids.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

/// Whether the references name this uid.
pub(super) fn names(owners: &[OwnerReference], uid: &str) -> bool {
    owners.iter().any(|owner| owner.uid == uid)
}

/// Whether the item's reference to this owner blocks the owner's deletion.
pub(super) fn blocks(item: &Item, owner: &str) -> bool {
    item.owners
        .iter()
        .any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
}
