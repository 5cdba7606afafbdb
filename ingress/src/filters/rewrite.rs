//! Rewriting the path (ingress-nginx `rewrite-target`).

use http::uri::PathAndQuery;
use http::{Request, Uri};
use sealane_config::model::{PathMatch, Rewrite, RouteRule};
use sealane_proxy::http::Body;
use sealane_proxy::http::path::CanonicalPath;
use sealane_proxy::{Error, ErrorKind};

/// Writes the path that the backend gets: the rule's rewrite, or the canonical path.
///
/// # Errors
/// The result is not a path, or the rule's pattern took too many steps.
pub(crate) fn apply(
    request: &mut Request<Body>,
    rule: &RouteRule,
    path: Option<&Path>,
) -> Result<(), Error> {
    let rewritten = match (&rule.filters.rewrite, path) {
        (Some(Rewrite::Template(template)), path) => {
            let matched = path.map_or(request.uri().path(), |p| p.matched.as_str());
            let mut path = expand(template, &rule.path, matched)?;
            if !path.starts_with('/') {
                path.insert(0, '/');
            }
            Some(path)
        }
        // The client was sent there.
        (Some(Rewrite::Url(_)), _) => None,
        (None, Some(path)) => path.forwarded.clone(),
        (None, None) => None,
    };
    if let Some(path) = rewritten {
        set_path(request, path)?;
    }
    Ok(())
}

/// What of a canonical path has to be remembered once the request is changed; `None` in its place
/// says that the request's own path is canonical, matched and forwarded form alike.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    matched: String,
    forwarded: Option<String>,
}

impl Path {
    pub(crate) fn of(canonical: &CanonicalPath<'_>) -> Option<Self> {
        let forwarded = (!canonical.is_unchanged()).then(|| canonical.forwarded().to_owned());
        let same = forwarded.is_none() && canonical.matched() == canonical.forwarded();
        (!same).then(|| Self {
            matched: canonical.matched().to_owned(),
            forwarded,
        })
    }
}

/// Fills `$1`…`$9` with the groups of the rule's pattern. A group that took no part is empty, and
/// so is every group of a rule without a pattern.
fn expand(template: &str, rule: &PathMatch, path: &str) -> Result<String, Error> {
    let groups = match rule {
        PathMatch::Regex(regex) => regex.captures(path).map_err(|_too_many_steps| {
            Error::new(
                ErrorKind::InvalidRoute,
                "the rule's pattern took too many steps",
            )
        })?,
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Start(_) => None,
    };
    let mut out = String::with_capacity(template.len() + path.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let digit = after
            .chars()
            .next()
            .and_then(|c| c.to_digit(10))
            .filter(|d| *d > 0);
        rest = match digit {
            Some(digit) => {
                let group = groups.as_ref().and_then(|g| g.get(digit as usize));
                out.push_str(group.map_or("", |group| group.as_str()));
                after.get(1..).unwrap_or_default()
            }
            None => {
                out.push('$');
                after
            }
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// The URL that a request is sent to, if its rule rewrites to one.
///
/// # Errors
/// The rule's pattern took too many steps.
pub(crate) fn url(
    rule: &RouteRule,
    path: &str,
    query: Option<&str>,
) -> Result<Option<String>, Error> {
    let Some(Rewrite::Url(template)) = &rule.filters.rewrite else {
        return Ok(None);
    };
    let url = expand(template, &rule.path, path)?;
    Ok(Some(with_query(url, query)))
}

/// Puts the query behind a path or URL, which may have one already. As in nginx, `?` at its end
/// keeps the query away.
fn with_query(mut path: String, query: Option<&str>) -> String {
    if path.ends_with('?') {
        path.pop();
        return path;
    }
    match query {
        Some(query) if path.contains('?') => format!("{path}&{query}"),
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

/// Replaces the path and keeps the query.
fn set_path(request: &mut Request<Body>, path: String) -> Result<(), Error> {
    let target = with_query(path, request.uri().query());
    let target = PathAndQuery::try_from(target).map_err(|_invalid| {
        Error::new(ErrorKind::BadRequest, "the rewritten path is not a path")
    })?;
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

#[cfg(test)]
mod tests;
