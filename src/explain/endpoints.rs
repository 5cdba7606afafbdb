//! Which endpoints of a Service port can take traffic, and why each other one cannot.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sealane_config::model::{Endpoint, Service, ServiceEndpoint, ServicePort};
use sealane_proxy::balance::{self, Ejection};

use super::model::{Mark, Phase, Trail};

/// Endpoints that are named one by one, of either kind; the rest is counted.
const SHOWN: usize = 20;

/// Writes down every endpoint; returns how many can be chosen.
pub(super) fn explain(trail: &mut Trail, service: &Service, port: &ServicePort) -> usize {
    let usable = &port.endpoints;
    let ignores_ejection = balance::ignores_ejection(usable);
    for endpoint in usable.iter().take(SHOWN) {
        one(trail, endpoint, ignores_ejection);
    }
    more(trail, usable.len(), Mark::Chosen, "can be chosen");
    let chosen: BTreeSet<IpAddr> = usable.iter().map(|endpoint| endpoint.addr.0.ip()).collect();
    let others = service.endpoints.iter();
    let others: Vec<&ServiceEndpoint> = others.filter(|e| !chosen.contains(&e.addr)).collect();
    for endpoint in others.iter().take(SHOWN) {
        let why = why_not(endpoint, port, usable);
        let step = trail.step(
            Phase::Endpoint,
            Mark::Rejected,
            endpoint.addr.to_string(),
            why,
        );
        if let Some(pod) = &endpoint.target {
            step.of(pod, "");
        }
    }
    more(trail, others.len(), Mark::Rejected, "cannot be chosen");
    if usable.is_empty() && others.is_empty() {
        let what = format!("Service {}", service.key);
        trail.step(
            Phase::Endpoint,
            Mark::Failed,
            what,
            "it has no endpoints at all",
        );
    }
    usable.len()
}

fn one(trail: &mut Trail, endpoint: &Endpoint, ignores_ejection: bool) {
    let (mark, mut why) = match balance::ejection(endpoint) {
        Ejection::Open => (Mark::Chosen, String::new()),
        Ejection::Ejected if ignores_ejection => (
            Mark::Chosen,
            "ejected, which is ignored because most endpoints are".to_owned(),
        ),
        Ejection::Ejected => (
            Mark::Rejected,
            "ejected for a while, because it failed several times in a row".to_owned(),
        ),
        Ejection::Probation => (
            Mark::Chosen,
            "was ejected; it gets one request, to see whether it has recovered".to_owned(),
        ),
    };
    if why.is_empty() {
        why = if endpoint.ready {
            "ready".to_owned()
        } else {
            "terminating, and used because no ready endpoint is left".to_owned()
        };
    }
    for (name, value) in [("node", &endpoint.node), ("zone", &endpoint.zone)] {
        if let Some(value) = value {
            why.push_str(&format!(", {name} {value}"));
        }
    }
    let step = trail.step(Phase::Endpoint, mark, endpoint.addr.to_string(), why);
    if let Some(pod) = &endpoint.target {
        step.of(pod, "");
    }
}

fn why_not(
    endpoint: &ServiceEndpoint,
    port: &ServicePort,
    usable: &[std::sync::Arc<Endpoint>],
) -> String {
    let mut same = endpoint.ports.iter();
    if !same.any(|(name, protocol, _)| *name == port.name && *protocol == port.protocol) {
        return if port.name.is_empty() {
            "it does not have the port".to_owned()
        } else {
            format!("it has no port named `{}`", port.name)
        };
    }
    if !endpoint.ready {
        return "it is not ready, or terminating".to_owned();
    }
    let other_family = usable
        .iter()
        .all(|e| e.addr.0.is_ipv4() != endpoint.addr.is_ipv4());
    if other_family {
        "it is of the other address family".to_owned()
    } else {
        "others are preferred".to_owned()
    }
}

fn more(trail: &mut Trail, count: usize, mark: Mark, what: &str) {
    if let Some(left @ 1..) = count.checked_sub(SHOWN) {
        trail.step(Phase::Endpoint, mark, format!("{left} more"), what);
    }
}
