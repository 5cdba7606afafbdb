//! Which endpoints of a Service port can take traffic, and why each other one cannot.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use sealane_config::model::{
    Endpoint, ObjectRef, Service, ServiceEndpoint, ServiceKey, ServicePort,
};
use sealane_proxy::balance::{self, Ejection};

use super::model::{Mark, Phase, Trail};

/// Endpoints that are named one by one, of either kind; the rest is counted.
const SHOWN: usize = 20;

/// Writes down every endpoint; returns how many can be chosen.
pub(super) fn explain(trail: &mut Trail, service: &Service, port: &ServicePort) -> usize {
    let usable = &port.endpoints;
    let ignores_ejection = balance::ignores_ejection(usable);
    for endpoint in usable.iter().take(SHOWN) {
        one(trail, &service.key, endpoint, ignores_ejection);
    }
    more(trail, usable.len(), Mark::Chosen, "can be chosen");
    let chosen: BTreeSet<IpAddr> = usable.iter().map(|endpoint| endpoint.addr.ip()).collect();
    let others = service.endpoints.iter();
    let others: Vec<&ServiceEndpoint> = others.filter(|e| !chosen.contains(&e.addr())).collect();
    for endpoint in others.iter().take(SHOWN) {
        let why = why_not(endpoint, port, usable);
        let step = trail.step(
            Phase::Endpoint,
            Mark::Rejected,
            endpoint.addr().to_string(),
            why,
        );
        if let Some(name) = endpoint.pod() {
            step.of(&pod(&service.key, name), "");
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

/// The pod behind an endpoint, which is in the Service's namespace.
fn pod(service: &ServiceKey, name: &str) -> ObjectRef {
    ObjectRef {
        kind: "Pod",
        namespace: Arc::clone(&service.namespace),
        name: name.into(),
    }
}

fn one(trail: &mut Trail, service: &ServiceKey, endpoint: &Endpoint, ignores_ejection: bool) {
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
    for (name, value) in [("node", endpoint.node()), ("zone", endpoint.zone())] {
        if let Some(value) = value {
            why.push_str(&format!(", {name} {value}"));
        }
    }
    let step = trail.step(Phase::Endpoint, mark, endpoint.addr.to_string(), why);
    if let Some(name) = endpoint.pod() {
        step.of(&pod(service, name), "");
    }
}

fn why_not(endpoint: &ServiceEndpoint, port: &ServicePort, usable: &[Arc<Endpoint>]) -> String {
    let mut same = endpoint.ports.iter();
    if !same.any(|(name, protocol, _)| *name == port.name && *protocol == port.protocol) {
        return if port.name.is_empty() {
            "it does not have the port".to_owned()
        } else {
            format!("it has no port named `{}`", port.name)
        };
    }
    let conditions = endpoint.info.conditions;
    if !endpoint.ready {
        return match (conditions.terminating, conditions.is_serving_terminating()) {
            (false, _) => "it is not ready".to_owned(),
            (true, true) => {
                "it is terminating, and takes traffic only if no ready one is left".to_owned()
            }
            (true, false) => "it is terminating, and no longer ready".to_owned(),
        };
    }
    let mut chosen = usable.iter().map(|endpoint| endpoint.addr.socket());
    if !usable.is_empty() && chosen.all(|addr| addr.is_ipv4() != endpoint.addr().is_ipv4()) {
        return "it is of the other address family".to_owned();
    }
    let location = &endpoint.info.location;
    match (&*location.for_nodes, &*location.for_zones) {
        ([], []) => "others are preferred".to_owned(),
        ([], zones) => format!("topology hints keep it for {}", listed("zone", zones)),
        (nodes, _) => format!("topology hints keep it for {}", listed("node", nodes)),
    }
}

fn listed(what: &str, names: &[Arc<str>]) -> String {
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    format!("{what} {}", names.join(", "))
}

fn more(trail: &mut Trail, count: usize, mark: Mark, what: &str) {
    if let Some(left @ 1..) = count.checked_sub(SHOWN) {
        trail.step(Phase::Endpoint, mark, format!("{left} more"), what);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::Ordering::Relaxed;

    use sealane_config::model::{AppProtocol, Protocol, ServiceKind};

    use super::*;
    use crate::explain::model::Outcome;

    /// A Service with this many ready endpoints, the first of which are ejected.
    fn world(count: u8, ejected: usize) -> Service {
        let key = ServiceKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let endpoints = (1..=count).map(|last| {
            let addr = SocketAddr::from(([192, 0, 2, last], 80));
            Arc::new(Endpoint::at(addr))
        });
        let endpoints: Arc<[Arc<Endpoint>]> = endpoints.collect();
        for endpoint in endpoints.iter().take(ejected) {
            endpoint.stats.ejected_until.store(u64::MAX - 1, Relaxed);
        }
        let port = ServicePort {
            service: key.clone(),
            name: "".into(),
            port: 80,
            protocol: Protocol::Tcp,
            node_port: None,
            app_protocol: AppProtocol::Detect,
            endpoints,
            local: None,
            everywhere: None,
            policy: Arc::default(),
            http: Arc::default(),
        };
        Service {
            key,
            kind: ServiceKind::ClusterIp,
            cluster_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            external_ips: Vec::new(),
            policy: Arc::default(),
            ports: vec![Arc::new(port)],
            listed_ports: Arc::default(),
            endpoints: Arc::new([]),
        }
    }

    #[test]
    fn ejected_endpoints_are_told_and_so_is_when_that_is_ignored() {
        for (name, count, ejected, mark, why) in [
            ("one of three", 3, 1, Mark::Rejected, "ejected for a while"),
            ("most of them", 3, 2, Mark::Chosen, "which is ignored"),
        ] {
            let service = world(count, ejected);
            let mut trail = Trail::default();
            let usable = explain(&mut trail, &service, &service.ports[0]);
            assert_eq!(usable, usize::from(count), "{name}");
            let end = trail.end(String::new(), Outcome::Served, None, "");
            let first = &end.steps[0];
            assert_eq!(first.mark, mark, "{name}");
            assert!(first.why.contains(why), "{name}: {}", first.why);
            let last = &end.steps[usize::from(count) - 1];
            assert_eq!((last.mark, &*last.why), (Mark::Chosen, "ready"), "{name}");
        }
    }

    #[test]
    fn endpoints_beyond_those_that_are_shown_are_counted() {
        let service = world(200, 0);
        let mut trail = Trail::default();
        assert_eq!(explain(&mut trail, &service, &service.ports[0]), 200);
        let end = trail.end(String::new(), Outcome::Served, None, "");
        assert_eq!(end.steps.len(), SHOWN + 1);
        assert_eq!(end.steps[SHOWN].what, "180 more");
    }
}
