//! The problems of all objects, kept by the unit of work that found them, so that redoing one unit
//! replaces its own findings and nobody else's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::store::ObjectKey;
use crate::model::{HostMatch, Problem, ProblemKind};

/// A unit of work that finds problems.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    /// Decoding an object.
    Decode(&'static str, ObjectKey),
    /// Reading an object's own fields.
    Object(&'static str, ObjectKey),
    /// Addresses that a Service claims and does not get.
    Claims(ObjectKey),
    /// Compiling a host.
    Host(HostMatch),
    /// Choosing the default rule.
    DefaultRule,
    /// The default certificate.
    DefaultCertificate,
    /// Settings of the gateway as a whole.
    Settings,
}

/// All problems.
#[derive(Debug, Default)]
pub(super) struct Problems {
    by_unit: HashMap<Unit, Vec<Problem>>,
    changed: bool,
}

impl Problems {
    /// Replaces what `unit` found.
    pub(super) fn set(&mut self, unit: Unit, mut problems: Vec<Problem>) {
        for problem in &mut problems {
            printable(&mut problem.message);
            printable(&mut problem.field);
        }
        if problems.is_empty() {
            self.changed |= self.by_unit.remove(&unit).is_some();
        } else if self.by_unit.get(&unit) != Some(&problems) {
            self.by_unit.insert(unit, problems);
            self.changed = true;
        }
    }

    /// The whole list if it changed since it was last taken, sorted by object and field.
    ///
    /// `before` is the list that was taken last: what is new is logged, once, and so is what is
    /// over.
    pub(super) fn take_changed(&mut self, before: &[Problem]) -> Option<Arc<[Problem]>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut all: Vec<Problem> = self.by_unit.values().flatten().cloned().collect();
        all.sort_by(|a, b| {
            (&a.object, &a.field, &a.message).cmp(&(&b.object, &b.field, &b.message))
        });
        all.dedup();
        report(before, &all);
        Some(all.into())
    }
}

/// Messages repeat what users wrote, and are printed on terminals and in lines of logs.
fn printable(text: &mut String) {
    if text.contains(char::is_control) {
        let escaped = text.chars().map(|char| {
            if char.is_control() {
                char.escape_default().to_string()
            } else {
                char.to_string()
            }
        });
        *text = escaped.collect();
    }
}

fn report(before: &[Problem], now: &[Problem]) {
    type Identity<'a> = (&'a crate::model::ObjectRef, &'a str, &'a str);
    fn identity(problem: &Problem) -> Identity<'_> {
        (&problem.object, &problem.field, &problem.message)
    }
    let known: HashSet<Identity<'_>> = before.iter().map(identity).collect();
    for problem in now.iter().filter(|p| !known.contains(&identity(p))) {
        tracing::warn!(
            object = %problem.object,
            field = problem.field,
            kind = problem.kind.label(),
            "{}", problem.message
        );
    }
    let current: HashSet<Identity<'_>> = now.iter().map(identity).collect();
    for problem in before.iter().filter(|p| !current.contains(&identity(p))) {
        tracing::info!(
            object = %problem.object,
            field = problem.field,
            kind = problem.kind.label(),
            "no longer a problem: {}", problem.message
        );
    }
    for kind in ProblemKind::ALL {
        let count = now.iter().filter(|p| p.kind == kind).count();
        metrics::gauge!("sealane_config_problems", "kind" => kind.label()).set(count as f64);
    }
}
