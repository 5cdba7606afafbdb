//! Precedence of Ingresses and of the paths of one host.

use std::cmp::Reverse;
use std::sync::Arc;

use super::ingress::{PathKind, PathRecord};
use super::store::ObjectKey;

/// Precedence of objects: the oldest first, then by namespace and name (as in Gateway API).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Age {
    /// `metadata.creationTimestamp`, seconds since the Unix epoch.
    pub(super) created: i64,
    pub(super) key: ObjectKey,
}

/// Precedence of paths; the smallest is tried first.
///
/// Plain paths (Ingress API, "multiple matches"): the longest first, and Exact before Prefix of the
/// same length. The trailing slash of a Prefix does not add to its length, since `/foo/` matches
/// `/foo` too and must not come before Exact `/foo`; only among prefixes `/foo/` is before `/foo`.
///
/// Regular expressions (ingress-nginx): the longest pattern first, then in reverse lexical order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathRank {
    length: Reverse<usize>,
    kind: PathKind,
    written: Reverse<Arc<str>>,
}

impl PathRank {
    pub(super) fn plain(path: &PathRecord) -> Self {
        let counted = match path.kind {
            PathKind::Exact => &path.path,
            PathKind::Prefix => path.path.trim_end_matches('/'),
        };
        Self {
            length: Reverse(counted.len()),
            kind: path.kind,
            written: Reverse(Arc::clone(&path.path)),
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
