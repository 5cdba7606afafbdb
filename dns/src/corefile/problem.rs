//! What is wrong with a Corefile.

use super::token::{Place, Token};

/// Something that is wrong, or probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} - {message}")]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// Where.
    pub place: Place,
    /// What, and what to do about it.
    pub message: String,
}

/// Kind of a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// Braces, keys or imports are not in order.
    Syntax,
    /// A directive or a property that does not exist.
    Unknown,
    /// One that CoreDNS has and this server has not.
    Unsupported,
    /// An argument that cannot be.
    Value,
    /// Two blocks want the same names at the same address.
    Overlap,
    /// Names or lines that no query gets to.
    Unreachable,
    /// A line that changes nothing.
    NoEffect,
}

impl ProblemKind {
    /// A lenient reader goes on without what has such a problem.
    pub(super) fn is_skipped_when_lenient(self) -> bool {
        matches!(self, Self::Unknown | Self::Unsupported)
    }
}

/// What reading something comes to.
pub(super) type Result<T> = std::result::Result<T, Problem>;

impl Token {
    /// Something is wrong here.
    pub(super) fn problem(&self, kind: ProblemKind, message: impl Into<String>) -> Problem {
        Problem {
            kind,
            place: self.place.clone(),
            message: message.into(),
        }
    }

    /// The value cannot be.
    pub(super) fn bad(&self, message: impl Into<String>) -> Problem {
        self.problem(ProblemKind::Value, message)
    }
}
