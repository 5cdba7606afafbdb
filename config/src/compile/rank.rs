//! Precedence of objects and of the paths of one host.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use super::ingress::{PathKind, PathRecord};
use super::store::ObjectKey;
use crate::model::ObjectRef;

/// An object that has rules or certificates: an Ingress, or one of Gateway API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SourceKey {
    pub(super) key: ObjectKey,
    pub(super) kind: &'static str,
}

impl SourceKey {
    pub(super) fn ingress(key: &ObjectKey) -> Self {
        Self {
            key: key.clone(),
            kind: "Ingress",
        }
    }

    pub(super) fn object(&self) -> ObjectRef {
        self.key.of_kind(self.kind)
    }

    /// An object of the same namespace.
    pub(super) fn sibling(&self, name: &Arc<str>) -> ObjectKey {
        self.key.sibling(name)
    }
}

impl fmt::Display for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// Precedence of objects: the oldest first, then by namespace and name (as in Gateway API).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Age {
    /// `metadata.creationTimestamp`, seconds since the Unix epoch.
    pub(super) created: i64,
    pub(super) source: SourceKey,
}

/// Precedence of paths; the smallest is tried first.
///
/// Plain paths (Ingress API, "multiple matches"): the longest first, and Exact before Prefix of the
/// same length. The trailing slash of a Prefix does not add to its length, since `/foo/` matches
/// `/foo` too and must not come before Exact `/foo`; only among prefixes `/foo/` is before `/foo`.
/// A prefix in characters comes last among paths of one length: it takes what the others leave.
///
/// Regular expressions (ingress-nginx): the longest pattern first, then in reverse lexical order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathRank {
    length: Reverse<usize>,
    kind: PathKind,
    written: Reverse<Arc<str>>,
}

impl PathRank {
    pub(super) fn plain(path: &PathRecord, kind: PathKind) -> Self {
        let counted = match kind {
            PathKind::Exact | PathKind::ImplementationSpecific => &path.path,
            PathKind::Prefix => path.path.trim_end_matches('/'),
        };
        Self {
            length: Reverse(counted.len()),
            kind,
            written: Reverse(Arc::clone(&path.path)),
        }
    }

    /// That of an exact path.
    pub(super) fn exact(path: &str) -> Self {
        Self {
            length: Reverse(path.len()),
            kind: PathKind::Exact,
            written: Reverse(path.into()),
        }
    }

    pub(super) fn regex(path: &PathRecord) -> Self {
        Self {
            length: Reverse(path.path.len()),
            // All of them are regular expressions, whatever their pathType says.
            kind: PathKind::Prefix,
            written: Reverse(Arc::clone(&path.path)),
        }
    }
}
