//! Paths of rules to matchers.

use std::collections::HashMap;
use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};

use super::ingress::{PathKind, PathRecord};
use crate::model::{HostRoutes, PathMatch};

/// Steps that a regular expression may take for one text; a pattern that needs more does not match.
const STEP_LIMIT: usize = 10_000;

/// Compiled size of one regular expression, bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// The matcher of a plain path.
///
/// # Errors
/// Why no request can match it.
pub(super) fn plain(path: &PathRecord) -> Result<PathMatch, &'static str> {
    if !path.path.starts_with('/') {
        return Err("a path that is not a regular expression starts with `/`");
    }
    Ok(match path.kind {
        PathKind::Exact => PathMatch::Exact(Arc::clone(&path.path)),
        PathKind::Prefix => PathMatch::Prefix(path.path.trim_end_matches('/').into()),
    })
}

/// The pattern of a plain path, for a host whose paths are regular expressions because of another
/// object.
pub(super) fn pattern(path: &PathRecord) -> String {
    match path.kind {
        PathKind::Exact => format!("{}$", fancy_regex::escape(&path.path)),
        PathKind::Prefix => {
            let prefix = path.path.trim_end_matches('/');
            format!("{}(?:/|$)", fancy_regex::escape(prefix))
        }
    }
}

/// Compiles the patterns of one host, reusing those of its last compilation.
pub(super) struct Patterns {
    known: HashMap<String, Arc<Regex>>,
}

impl Patterns {
    pub(super) fn of(before: Option<&HostRoutes>) -> Self {
        let rules = before.into_iter().flat_map(|host| &host.rules);
        let known = rules.filter_map(|rule| match &rule.path {
            PathMatch::Regex(regex) => Some((regex.as_str().to_owned(), Arc::clone(regex))),
            PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
        });
        Self {
            known: known.collect(),
        }
    }

    /// The matcher of a pattern: ignores case, anchored at its start only.
    ///
    /// # Errors
    /// The pattern is not a regular expression: why, and a matcher for everything that starts like
    /// the pattern. Its rule answers an error there; if it matched nothing, requests that it was
    /// written to keep away from a broader rule would reach that one.
    pub(super) fn compile(&self, pattern: &str) -> Result<PathMatch, (String, PathMatch)> {
        match self.build(&format!("^(?:{pattern})")) {
            Ok(regex) => Ok(PathMatch::Regex(regex)),
            Err(error) => {
                let literal = fancy_regex::escape(literal_start(pattern)).into_owned();
                let guard = match self.build(&format!("^{literal}")) {
                    Ok(regex) => PathMatch::Regex(regex),
                    Err(_too_long) => PathMatch::Prefix("".into()),
                };
                Err((error.to_string(), guard))
            }
        }
    }

    // The error is large, but this is no hot path.
    fn build(&self, pattern: &str) -> Result<Arc<Regex>, Box<fancy_regex::Error>> {
        if let Some(regex) = self.known.get(pattern) {
            return Ok(Arc::clone(regex));
        }
        Ok(Arc::new(regex(pattern, true)?))
    }
}

/// A regular expression that neither takes too many steps nor gets too large.
pub(super) fn regex(pattern: &str, ignore_case: bool) -> Result<Regex, Box<fancy_regex::Error>> {
    let mut builder = RegexBuilder::new(pattern);
    builder
        .case_insensitive(ignore_case)
        .backtrack_limit(STEP_LIMIT)
        .delegate_size_limit(SIZE_LIMIT);
    Ok(builder.build()?)
}

/// The part of a pattern that every path it could have meant starts with.
fn literal_start(pattern: &str) -> &str {
    const META: [char; 13] = [
        '\\', '.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '|', '^',
    ];
    let Some(end) = pattern.find(|c| META.contains(&c) || c == '$') else {
        return pattern;
    };
    let literal = &pattern[..end];
    if pattern.contains('|') {
        return "";
    }
    // A quantifier may make the character before it optional.
    if pattern[end..].starts_with(['*', '?', '{']) {
        let mut chars = literal.chars();
        chars.next_back();
        return chars.as_str();
    }
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_start_never_says_too_much() {
        for (pattern, want) in [
            ("/plain", "/plain"),
            ("/api/(v1", "/api/"),
            ("/api?(", "/ap"),
            ("/a|/b(", ""),
            ("[", ""),
            ("/v\\d+", "/v"),
        ] {
            assert_eq!(literal_start(pattern), want, "{pattern}");
        }
    }
}
