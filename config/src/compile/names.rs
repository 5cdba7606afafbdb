//! Strings that recur in many objects (namespaces, nodes, zones, port names) are kept once: a
//! cluster with 250,000 endpoints has a few thousand of them.

use std::collections::HashSet;
use std::sync::Arc;

use super::store::ObjectKey;

/// Unused strings are looked for when there are this many more than twice as many as last time.
const SLACK: usize = 64;

/// The strings of one kind's records.
#[derive(Debug, Default)]
pub struct Names {
    known: HashSet<Arc<str>>,
    /// How many were in use when that was last counted.
    in_use: usize,
}

impl Names {
    /// The one copy of a string.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() > 2 * self.in_use + SLACK {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.in_use = self.known.len();
        }
        let new: Arc<str> = text.into();
        self.known.insert(Arc::clone(&new));
        new
    }

    /// A key whose namespace is shared. Object names hardly recur.
    pub fn key(&mut self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            namespace: self.get(namespace),
            name: name.into(),
        }
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
            assert!(names.known.len() <= 2 * names.in_use.max(1) + SLACK + 1);
        }
        assert!(Arc::ptr_eq(&kept, &names.get("kept")));
    }
}
