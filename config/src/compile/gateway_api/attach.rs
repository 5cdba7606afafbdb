//! Which routes a Gateway takes, and for which hosts (Gateway API, "Attaching to Gateways").

use super::types::{AllowedRoutes, GatewaySpec, HttpRouteSpec, Listener, ParentRef};
use super::{GROUP, Spec as _};
use crate::compile::host;
use crate::compile::store::ObjectKey;
use crate::model::{HostMatch, Refusal};

/// Hosts for which `parent`, which names this Gateway, attaches a route, or why for none.
///
/// # Errors
/// Why no listener takes the route.
pub(super) fn hosts(
    gateway: &GatewaySpec,
    gateway_key: &ObjectKey,
    route_key: &ObjectKey,
    parent: &ParentRef,
    hostnames: &[HostMatch],
) -> Result<Vec<HostMatch>, Refusal> {
    let named = |listener: &&Listener| {
        let section = parent.section_name.as_ref();
        section.is_none_or(|name| *name == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let is_http = |listener: &&Listener| matches!(&*listener.protocol, "HTTP" | "HTTPS");
    let mut why = Refusal::NoListener;
    let mut found = Vec::new();
    for listener in gateway.listeners.iter().filter(named).filter(is_http) {
        if !allows(listener.allowed_routes.as_ref(), gateway_key, route_key) {
            why = Refusal::NotAllowed;
            continue;
        }
        let Ok(of_listener) = host::parse(listener.hostname.as_deref().unwrap_or_default()) else {
            continue;
        };
        let common = intersection(&of_listener, hostnames);
        if common.is_empty() {
            why = Refusal::NoHostname;
        }
        found.extend(common);
    }
    if found.is_empty() {
        return Err(why);
    }
    Ok(found)
}

fn allows(allowed: Option<&AllowedRoutes>, gateway: &ObjectKey, route: &ObjectKey) -> bool {
    let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    let from = namespaces.and_then(|namespaces| namespaces.from.as_deref());
    let namespace = match from.unwrap_or("Same") {
        "All" => true,
        "Same" => gateway.namespace == route.namespace,
        // Labels of namespaces are not watched; the Gateway's problem says so.
        _ => false,
    };
    let kinds = allowed.map(|allowed| &*allowed.kinds).unwrap_or_default();
    let http = kinds.iter().any(|kind| {
        kind.kind == HttpRouteSpec::KIND && kind.group.as_deref().is_none_or(|g| g == GROUP)
    });
    namespace && (kinds.is_empty() || http)
}

/// The hosts that a listener and a route have in common; no hostnames on either side are all.
fn intersection(listener: &HostMatch, route: &[HostMatch]) -> Vec<HostMatch> {
    if route.is_empty() {
        return vec![listener.clone()];
    }
    route
        .iter()
        .filter_map(|host| common(listener, host))
        .collect()
}

fn common(a: &HostMatch, b: &HostMatch) -> Option<HostMatch> {
    match (a, b) {
        (HostMatch::Any, other) | (other, HostMatch::Any) => Some(other.clone()),
        (HostMatch::Wildcard(suffix), HostMatch::Exact(name))
        | (HostMatch::Exact(name), HostMatch::Wildcard(suffix)) => {
            is_below(name, suffix).then(|| HostMatch::Exact(name.clone()))
        }
        (HostMatch::Wildcard(a), HostMatch::Wildcard(b)) if a == b || is_below(a, b) => {
            Some(HostMatch::Wildcard(a.clone()))
        }
        (HostMatch::Wildcard(a), HostMatch::Wildcard(b)) => {
            is_below(b, a).then(|| HostMatch::Wildcard(b.clone()))
        }
        (HostMatch::Exact(a), HostMatch::Exact(b)) => (a == b).then(|| HostMatch::Exact(a.clone())),
    }
}

/// Whether `name` has `suffix` behind at least one label.
fn is_below(name: &str, suffix: &str) -> bool {
    let rest = name
        .strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'));
    rest.is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_common() {
        let cases: [(&str, &[&str], &[&str]); 10] = [
            ("", &[], &[""]),
            ("", &["a.test"], &["a.test"]),
            ("a.test", &[], &["a.test"]),
            ("a.test", &["a.test", "b.test"], &["a.test"]),
            (
                "*.test",
                &["a.test", "a.b.test", "test", "xtest"],
                &["a.test", "a.b.test"],
            ),
            ("a.test", &["*.test"], &["a.test"]),
            ("*.a.test", &["*.test"], &["*.a.test"]),
            ("*.test", &["*.a.test"], &["*.a.test"]),
            ("*.a.test", &["*.b.test"], &[]),
            ("*.test", &["*.test"], &["*.test"]),
        ];
        let parse = |text: &&str| host::parse(text).unwrap();
        for (listener, route, expected) in cases {
            let route: Vec<HostMatch> = route.iter().map(parse).collect();
            let expected: Vec<HostMatch> = expected.iter().map(parse).collect();
            assert_eq!(
                intersection(&parse(&listener), &route),
                expected,
                "{listener}"
            );
        }
    }
}
