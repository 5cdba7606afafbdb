//! Paths of rules to matchers.

use std::collections::HashMap;
use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};

use super::annotations::redirect;
use super::ingress::{PathKind, PathRecord};
use crate::model::{
    Filters, HostRoutes, Mode, ObjectRef, Part, PathMatch, Redirect, Rewrite, RoutePolicy,
    RouteRule, Template,
};

/// Steps that a regular expression may take for one text; a pattern that needs more does not match.
const STEP_LIMIT: usize = 10_000;

/// Compiled size of one regular expression, bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// How a path that is no regular expression is compared. Where the API leaves it to us,
/// ingress-nginx compares characters, and we compare elements.
pub(super) fn kind(path: &PathRecord, mode: Mode) -> PathKind {
    match (path.kind, mode) {
        (PathKind::ImplementationSpecific, Mode::Strict) => PathKind::Prefix,
        // Everything begins with `/` in either way.
        (PathKind::ImplementationSpecific, Mode::Compat) if *path.path == *"/" => PathKind::Prefix,
        // nginx's location for `/foo/` does not take `/foo`, of which there is a location more for
        // a Prefix without the slash only.
        (PathKind::Prefix, Mode::Compat) if directory(path).is_some() => {
            PathKind::ImplementationSpecific
        }
        (kind, _) => kind,
    }
}

/// Whether ingress-nginx takes the path for its type (`strict-validate-path-type`).
pub(super) fn is_allowed(path: &PathRecord) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
    path.kind == PathKind::ImplementationSpecific || path.path.bytes().all(is_plain)
}

/// The matcher of a plain path.
///
/// # Errors
/// Why no request can match it.
pub(super) fn plain(path: &PathRecord, kind: PathKind) -> Result<PathMatch, &'static str> {
    if !path.path.starts_with('/') {
        return Err("a path that is not a regular expression starts with `/`");
    }
    Ok(match kind {
        PathKind::Exact => PathMatch::Exact(Arc::clone(&path.path)),
        PathKind::Prefix => PathMatch::Prefix(path.path.trim_end_matches('/').into()),
        PathKind::ImplementationSpecific => PathMatch::Start(Arc::clone(&path.path)),
    })
}

/// The path without the slash at its end, if it has one: nginx sends requests for it to the path
/// with the slash.
pub(super) fn directory(path: &PathRecord) -> Option<&str> {
    path.path.strip_suffix('/').filter(|bare| !bare.is_empty())
}

/// The rule that does so. The place is named without a host, so that scheme and port stay.
pub(super) fn to_directory(bare: &str, source: ObjectRef, field: &str) -> RouteRule {
    let location = [
        Part::Text(format!("{bare}/").into()),
        Part::QuestionMark,
        Part::Query,
    ];
    let policy = RoutePolicy {
        redirect: Some(Redirect {
            location: Template(location.into()),
            status: 301,
        }),
        ..RoutePolicy::default()
    };
    RouteRule {
        source,
        field: field.into(),
        path: PathMatch::Exact(bare.into()),
        filters: Filters {
            mode: Mode::Compat,
            policy: Some(Arc::new(policy)),
            ..Filters::default()
        },
        backends: Vec::new(),
        invalid: None,
        canary: None,
    }
}

/// The meaning of a `rewrite-target`.
pub(super) fn rewrite(target: &Arc<str>) -> Rewrite {
    if redirect::is_url(target) {
        Rewrite::Url(Arc::clone(target))
    } else {
        Rewrite::Template(Arc::clone(target))
    }
}

/// The pattern of a plain path, for a host whose paths are regular expressions because of another
/// object.
pub(super) fn pattern(path: &PathRecord) -> String {
    match path.kind {
        PathKind::Exact => format!("{}$", fancy_regex::escape(&path.path)),
        PathKind::Prefix | PathKind::ImplementationSpecific => {
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
            PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Start(_) => None,
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
