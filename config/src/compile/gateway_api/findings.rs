//! Problems of one object of Gateway API.

use crate::compile::store::ObjectKey;
use crate::model::{Problem, ProblemKind};

/// Problems of one object.
pub(super) struct Findings<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) kind: &'static str,
    pub(super) problems: Vec<Problem>,
}

impl Findings<'_> {
    pub(super) fn add(&mut self, field: String, message: impl Into<String>) {
        self.problems.push(Problem {
            object: self.key.of_kind(self.kind),
            field,
            kind: ProblemKind::BadField,
            message: message.into(),
        });
    }
}
