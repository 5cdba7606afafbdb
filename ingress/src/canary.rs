//! Who takes a request: the rule's own backends, or its canary (ingress-nginx `canary`).
//!
//! A session of either side stays there. Without one the header field is asked first, then the cookie, then the weight. A canary that cannot be served
//! or has no endpoint takes nothing, as in ingress-nginx: what would be its requests stay where they
//! were before there was a canary.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use sealane_config::Snapshot;
use sealane_config::model::{Canary, CanaryHeader, CanaryShare, HeaderTest, RouteRule, Scope};
use sealane_proxy::balance::Balancer;

use crate::cookies;
use crate::filters::affinity;

/// What of a request decided about a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The session that it belongs to.
    Session,
    /// A header field.
    Header,
    /// A cookie.
    Cookie,
}

/// The canary, if it takes this request.
pub(crate) fn choose<'a>(
    snapshot: &Snapshot,
    rule: &'a RouteRule,
    headers: &HeaderMap,
    balancer: &Balancer,
) -> Option<&'a Arc<RouteRule>> {
    let canary = rule.canary.as_ref().filter(|_| rule.invalid.is_none())?;
    if !serves(snapshot, canary) {
        return None;
    }
    let takes = match asked(rule, canary, headers) {
        Some((takes, _)) => takes,
        None => drawn(&canary.share, balancer),
    };
    takes.then_some(&canary.rule)
}

/// There is an endpoint that the canary's requests can go to.
pub fn serves(snapshot: &Snapshot, canary: &Canary) -> bool {
    let rule = &canary.rule;
    let mut backends = rule.backends.iter();
    rule.invalid.is_none()
        && backends.any(|weighted| {
            let port = snapshot.backend(&weighted.backend);
            port.is_some_and(|port| !port.within(Scope::Cluster).is_empty())
        })
}

/// Whether the request itself asks for the canary, or not to get it, and by what; `None` leaves it to
/// the weight.
pub fn asked(rule: &RouteRule, canary: &Canary, headers: &HeaderMap) -> Option<(bool, By)> {
    if let Some(takes) = by_session(rule, canary, headers) {
        return Some((takes, By::Session));
    }
    let share = &canary.share;
    let header = share.header.as_ref();
    let by_header = header.and_then(|header| by_header(header, headers));
    let by_cookie = || {
        let value = cookies::find(headers, share.cookie.as_ref()?)?;
        always_or_never(value)
    };
    by_header
        .map(|takes| (takes, By::Header))
        .or_else(|| Some((by_cookie()?, By::Cookie)))
}

/// The side of a request that belongs to a session.
fn by_session(rule: &RouteRule, canary: &Canary, headers: &HeaderMap) -> Option<bool> {
    let policy = rule.filters.policy.as_ref()?;
    let affinity = policy.affinity.as_ref();
    let affinity = affinity.filter(|_| !canary.share.ignores_sessions)?;
    let backend = affinity::backend(affinity, headers)?;
    let has = |rule: &RouteRule| {
        let mut backends = rule.backends.iter().map(|weighted| &weighted.backend);
        backends.any(|it| affinity.key.backend(&it.service, it.port) == backend)
    };
    if has(rule) {
        return Some(false);
    }
    has(&canary.rule).then_some(true)
}

fn by_header(header: &CanaryHeader, headers: &HeaderMap) -> Option<bool> {
    let value = value(header, headers)?;
    match &header.test {
        HeaderTest::AlwaysOrNever => always_or_never(&value),
        HeaderTest::Value(wanted) => (**wanted == *value).then_some(true),
        HeaderTest::Pattern(pattern) => match pattern.0.is_match(&*value) {
            Ok(matches) => matches.then_some(true),
            Err(_too_many_steps) => Some(false),
        },
        HeaderTest::Never => Some(false),
    }
}

/// The field's value; several are read as one list (RFC 9110, 5.3).
fn value<'a>(header: &CanaryHeader, headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(&header.name).into_iter();
    let mut value = String::from_utf8_lossy(values.next()?.as_bytes());
    for further in values {
        let value = value.to_mut();
        value.push_str(", ");
        value.push_str(&String::from_utf8_lossy(further.as_bytes()));
    }
    Some(value)
}

fn always_or_never(value: &str) -> Option<bool> {
    match value {
        "always" => Some(true),
        "never" => Some(false),
        _ => None,
    }
}

fn drawn(share: &CanaryShare, balancer: &Balancer) -> bool {
    let rest = share.total.saturating_sub(share.weight);
    balancer.pick_weighted([share.weight, rest].into_iter()) == Some(0)
}
