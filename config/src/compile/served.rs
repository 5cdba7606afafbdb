//! Which objects are served, and which of them a change elsewhere concerns.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;

use super::ingress::{BackendRecord, IngressRecord};
use super::rank::{Age, SourceKey};
use super::store::ObjectKey;
use crate::model::HostMatch;

/// What an object added to the indexes.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) age: Age,
    pub(super) hosts: HashSet<HostMatch>,
    services: HashSet<ObjectKey>,
    pub(super) secrets: HashSet<ObjectKey>,
    pub(super) config_maps: HashSet<ObjectKey>,
    pub(super) is_catch_all: bool,
}

/// The objects that are served, by what they depend on.
#[derive(Debug, Default)]
pub(super) struct Index {
    served: HashMap<SourceKey, Served>,
    by_host: HashMap<HostMatch, BTreeSet<Age>>,
    /// Objects for all hosts, the oldest first.
    pub(super) catch_all: BTreeSet<Age>,
    by_service: HashMap<ObjectKey, BTreeSet<SourceKey>>,
    by_secret: HashMap<ObjectKey, BTreeSet<SourceKey>>,
    by_config_map: HashMap<ObjectKey, BTreeSet<SourceKey>>,
}

impl Index {
    /// The objects that name a host, the oldest first.
    pub(super) fn of_host(&self, host: &HostMatch) -> Option<&BTreeSet<Age>> {
        self.by_host.get(host)
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostMatch> {
        self.by_host.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SourceKey, &Served)> {
        self.served.iter()
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &SourceKey> {
        self.served.keys()
    }

    /// The objects with a backend of this Service.
    pub(super) fn of_service(&self, service: &ObjectKey) -> impl Iterator<Item = &Served> {
        self.of(&self.by_service, service)
    }

    /// The objects that refer to this Secret.
    pub(super) fn of_secret(&self, secret: &ObjectKey) -> impl Iterator<Item = &Served> {
        self.of(&self.by_secret, secret)
    }

    /// The objects that refer to this ConfigMap.
    pub(super) fn of_config_map(&self, map: &ObjectKey) -> impl Iterator<Item = &Served> {
        self.of(&self.by_config_map, map)
    }

    fn of<'a>(
        &'a self,
        by: &'a HashMap<ObjectKey, BTreeSet<SourceKey>>,
        key: &ObjectKey,
    ) -> impl Iterator<Item = &'a Served> {
        let sources = by.get(key).into_iter().flatten();
        sources.filter_map(|source| self.served.get(source))
    }

    pub(super) fn insert(&mut self, source: &SourceKey, new: Served) {
        for host in &new.hosts {
            let ages = self.by_host.entry(host.clone()).or_default();
            ages.insert(new.age.clone());
        }
        for (by, keys) in [
            (&mut self.by_service, &new.services),
            (&mut self.by_secret, &new.secrets),
            (&mut self.by_config_map, &new.config_maps),
        ] {
            for key in keys {
                by.entry(key.clone()).or_default().insert(source.clone());
            }
        }
        if new.is_catch_all {
            self.catch_all.insert(new.age.clone());
        }
        self.served.insert(source.clone(), new);
    }

    /// Takes an object out; returns what it had added.
    pub(super) fn remove(&mut self, source: &SourceKey) -> Option<Served> {
        let old = self.served.remove(source)?;
        for host in &old.hosts {
            unlink(&mut self.by_host, host, &old.age);
        }
        for (by, keys) in [
            (&mut self.by_service, &old.services),
            (&mut self.by_secret, &old.secrets),
            (&mut self.by_config_map, &old.config_maps),
        ] {
            for key in keys {
                unlink(by, key, source);
            }
        }
        if old.is_catch_all {
            self.catch_all.remove(&old.age);
        }
        Some(old)
    }
}

impl Served {
    pub(super) fn of(source: &SourceKey, record: &IngressRecord, cross_namespace: bool) -> Self {
        let mut services = HashSet::new();
        for backend in record.backends() {
            match backend {
                BackendRecord::Service { name, .. } => {
                    services.insert(source.sibling(name));
                }
                BackendRecord::Weighted(refs) => {
                    services.extend(refs.iter().map(|found| found.service.clone()));
                }
                BackendRecord::Resource | BackendRecord::Refused(_) => {}
            }
        }
        let errors = record.policy.errors.as_ref();
        let answers = errors.and_then(|errors| errors.backend.as_ref());
        services.extend(answers.map(|name| source.sibling(name)));
        // The certificate of a canary's host is that of the Ingress that it belongs to.
        let tls = match record.policy.canary {
            Some(_) => &[],
            None => record.tls.as_slice(),
        };
        let certificates = tls.iter().filter_map(|tls| tls.secret.as_ref());
        let of_tls = record.policy.tls.iter().flat_map(|tls| tls.secrets());
        let users = record.policy.secrets(&source.key, cross_namespace);
        Self {
            age: Age {
                created: record.created,
                source: source.clone(),
            },
            hosts: record
                .hosts()
                .cloned()
                .chain(record.further_names())
                .collect(),
            services,
            secrets: certificates
                .map(|name| source.sibling(name))
                .chain(users.chain(of_tls).cloned())
                .collect(),
            config_maps: record
                .policy
                .config_maps(&source.key, cross_namespace)
                .cloned()
                .collect(),
            is_catch_all: record.is_catch_all,
        }
    }
}

fn unlink<K: Eq + Hash, V: Ord>(index: &mut HashMap<K, BTreeSet<V>>, from: &K, value: &V) {
    if let Some(values) = index.get_mut(from) {
        values.remove(value);
        if values.is_empty() {
            index.remove(from);
        }
    }
}
