//! Which rule takes a request: the host first, then the path.
//!
//! - A host is compared without case, port and trailing dot. An exact name goes before a one-label
//!   wildcard, and that before the rules without a host. The host decides: a request whose host has
//!   rules never falls through to another host's paths.
//! - The rules of a host are sorted by precedence, so the first that matches is the answer.
//! - What no rule takes goes to the `defaultBackend` of its host, then to that of an Ingress without
//!   rules ("requests that don't match any rule", Ingress API), then nowhere.

use std::borrow::Cow;
use std::sync::Arc;

use sealane_config::model::{ClientAuth, HostRoutes, PathMatch, RouteRule, RouteTable};
use sealane_proxy::{Error, ErrorKind};

/// The rule for a request, and whether its host has a certificate.
#[derive(Clone, Debug)]
pub struct Matched {
    /// The rule.
    pub rule: Arc<RouteRule>,
    /// Plain HTTP can be redirected.
    pub has_certificate: bool,
    /// Clients of its host show certificates.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// TLS connections for its host go to a backend as they come.
    pub passes_through: bool,
}

/// Finds the rule for a host, as from [`host_name`], and a canonical path.
///
/// # Errors
/// [`ErrorKind::NoRoute`]; [`ErrorKind::InvalidRoute`] if a rule's pattern took too many steps.
pub fn find(table: &RouteTable, host: &str, path: &str) -> Result<Matched, Error> {
    find_observed(table, host, path, |_, _| {})
}

/// As [`find`]; every rule that the request is compared with is shown to `seen`, in order, with
/// whether it takes the request.
///
/// # Errors
/// As [`find`].
pub fn find_observed(
    table: &RouteTable,
    host: &str,
    path: &str,
    mut seen: impl FnMut(&Arc<RouteRule>, bool),
) -> Result<Matched, Error> {
    let routes = table.host(host);
    let rule = match routes {
        Some(routes) => find_rule(routes, path, &mut seen)?.or(routes.fallback.as_ref()),
        None => None,
    };
    let rule = rule
        .or(table.default_rule.as_ref())
        .ok_or_else(|| Error::new(ErrorKind::NoRoute, "no rule takes this host and path"))?;
    Ok(Matched {
        rule: Arc::clone(rule),
        has_certificate: routes.is_some_and(|routes| routes.has_certificate),
        client_auth: routes.and_then(|routes| routes.tls.client.clone()),
        passes_through: routes.is_some_and(|routes| routes.tls.passthrough.is_some()),
    })
}

fn find_rule<'a>(
    routes: &'a HostRoutes,
    path: &str,
    seen: &mut impl FnMut(&Arc<RouteRule>, bool),
) -> Result<Option<&'a Arc<RouteRule>>, Error> {
    for rule in &routes.rules {
        let taken = takes(&rule.path, path)?;
        seen(rule, taken);
        if taken {
            return Ok(Some(rule));
        }
    }
    Ok(None)
}

fn takes(rule: &PathMatch, path: &str) -> Result<bool, Error> {
    match rule {
        PathMatch::Exact(exact) => Ok(**exact == *path),
        PathMatch::Prefix(prefix) => Ok(path
            .strip_prefix(&**prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))),
        PathMatch::Start(start) => Ok(path.starts_with(&**start)),
        PathMatch::Regex(regex) => regex.is_match(path).map_err(|_too_many_steps| {
            Error::new(
                ErrorKind::InvalidRoute,
                "the rule's pattern took too many steps",
            )
        }),
    }
}

/// The name in a `Host` field, as the table has it: lower case, no port, no trailing dot, IPv6
/// addresses in brackets.
pub fn host_name(field: &str) -> Cow<'_, str> {
    let end = if field.starts_with('[') {
        field.find(']').map_or(field.len(), |bracket| bracket + 1)
    } else {
        field.find(':').unwrap_or(field.len())
    };
    let name = field.get(..end).unwrap_or(field);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests;
