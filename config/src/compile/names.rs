//! What recurs in many objects (namespaces, nodes, zones, port names, locations, lists of ports) is
//! kept once: a cluster with 250,000 endpoints has a few thousand of them.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use super::service::PortRecord;
use super::store::ObjectKey;
use crate::model::{EndpointPorts, Location, Protocol, TrafficPolicy};

/// Unused ones are looked for when there are this many more than twice as many as last time.
const SLACK: usize = 64;

/// What recurs in one kind's records.
#[derive(Debug, Default)]
pub struct Names {
    strings: Shared<str>,
    locations: Shared<Location>,
    ports: Shared<Vec<(Arc<str>, Protocol, u16)>>,
    service_ports: Shared<[PortRecord]>,
    policies: Shared<TrafficPolicy>,
}

impl Names {
    /// The one copy of a string.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        self.strings.get(text, |text| text.into())
    }

    /// A key whose namespace is shared. Object names hardly recur.
    pub fn key(&mut self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            namespace: self.get(namespace),
            name: name.into(),
        }
    }

    /// The one copy of a location.
    pub(super) fn location(&mut self, location: Location) -> Arc<Location> {
        self.locations.get(&location, |it| Arc::new(it.clone()))
    }

    /// The one copy of a list of ports.
    pub(super) fn ports(&mut self, ports: Vec<(Arc<str>, Protocol, u16)>) -> EndpointPorts {
        self.ports.get(&ports, |ports| Arc::new(ports.clone()))
    }

    /// The one copy of the ports of a Service.
    pub(super) fn service_ports(&mut self, ports: Vec<PortRecord>) -> Arc<[PortRecord]> {
        self.service_ports.get(&ports, |ports| ports.into())
    }

    /// The one copy of a policy.
    pub(super) fn policy(&mut self, policy: TrafficPolicy) -> Arc<TrafficPolicy> {
        self.policies.get(&policy, |it| Arc::new(it.clone()))
    }
}

/// Values that are kept once, for as long as they are used elsewhere.
#[derive(Debug)]
struct Shared<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// How many were in use when that was last counted.
    in_use: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            in_use: 0,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    fn get(&mut self, value: &T, make: impl FnOnce(&T) -> Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(value) {
            return Arc::clone(known);
        }
        if self.known.len() > 2 * self.in_use + SLACK {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.in_use = self.known.len();
        }
        let new = make(value);
        self.known.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_shared_while_used_and_forgotten_afterwards() {
        let mut names = Names::default();
        let kept = names.get("kept");
        assert!(Arc::ptr_eq(&kept, &names.get("kept")));
        for index in 0..1_000 {
            names.get(&format!("passing-{index}"));
            let strings = &names.strings;
            assert!(strings.known.len() <= 2 * strings.in_use.max(1) + SLACK + 1);
        }
        assert!(Arc::ptr_eq(&kept, &names.get("kept")));
    }
}
