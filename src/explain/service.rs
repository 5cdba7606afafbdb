//! A connection to a Service: which addresses lead there, which endpoints can take it, which routes
//! of the gateway end in it.

use std::net::SocketAddr;
use std::sync::Arc;

use sealane_config::Snapshot;
use sealane_config::model::{
    AppProtocol, HostMatch, HttpPolicy, ObjectRef, PREFIX, Protocol, RouteRule, SETTINGS, Scope,
    Service, ServiceKey, ServiceKind, ServicePort, TrafficPolicy,
};

use super::endpoints;
use super::model::{Explanation, Mark, Outcome, Phase, Trail};
use super::query::ServiceQuery;

/// Routes that are named one by one.
const SHOWN_ROUTES: usize = 20;

/// Explains a connection.
pub(crate) fn explain(snapshot: &Snapshot, query: &ServiceQuery) -> Explanation {
    let mut trail = Trail::default();
    let (outcome, summary) = walk(&mut trail, snapshot, query);
    let text = match &query.port {
        Some(port) => format!("{}:{port}", query.key),
        None => query.key.to_string(),
    };
    trail.end(text, outcome, None, summary)
}

fn walk(trail: &mut Trail, snapshot: &Snapshot, query: &ServiceQuery) -> (Outcome, String) {
    let key = &query.key;
    let what = format!("Service {key}");
    let Some(service) = snapshot.services.get(key) else {
        trail.step(Phase::Service, Mark::Failed, what, absent(snapshot, key));
        return (Outcome::NotFound, format!("Service {key} does not exist"));
    };
    let object = object(key);
    trail
        .step(Phase::Service, Mark::Chosen, what, kind(service))
        .of(&object, "");
    policy(trail, &object, &service.policy);
    if let Some(port) = service.ports.first() {
        settings(trail, &object, &port.http);
    }
    if let ServiceKind::ExternalName(target) = &service.kind {
        let summary = format!(
            "its name is an alias for {target}: clients connect there themselves, and nothing is \
             balanced"
        );
        return (Outcome::Served, summary);
    }
    let ports = match selected(service, query.port.as_deref()) {
        Ok(ports) => ports,
        Err(why) => {
            let step = trail.step(Phase::Service, Mark::Failed, "port", why.clone());
            step.of(&object, "spec.ports");
            return (Outcome::NotFound, why);
        }
    };
    let mut empty = Vec::new();
    for (index, port) in &ports {
        addresses(trail, snapshot, service, port, *index);
        if endpoints::explain(trail, service, port) == 0 {
            empty.push(shown(port));
        }
    }
    routes(trail, snapshot, key, &ports);
    match empty.as_slice() {
        [] => {
            let count = ports.iter().map(|(_, port)| port.endpoints.len()).max();
            let count = count.unwrap_or_default();
            (
                Outcome::Served,
                format!("{key} is served by {count} endpoints"),
            )
        }
        empty => {
            let what = match service.kind {
                ServiceKind::Headless => "its name has no addresses",
                _ => "connections are refused",
            };
            let ports = empty.join(", ");
            (
                Outcome::Error,
                format!("port {ports} has no endpoint that can take traffic: {what}"),
            )
        }
    }
}

fn object(key: &ServiceKey) -> ObjectRef {
    ObjectRef {
        kind: "Service",
        namespace: Arc::clone(&key.namespace),
        name: Arc::clone(&key.name),
    }
}

/// Why a Service is not there, and which ones may have been meant.
fn absent(snapshot: &Snapshot, key: &ServiceKey) -> String {
    if !snapshot.namespaces.contains_key(&key.namespace) {
        return format!("there is no namespace {}", key.namespace);
    }
    let keys = || snapshot.services.keys();
    let mut elsewhere: Vec<String> = keys()
        .filter(|other| other.name == key.name)
        .map(ToString::to_string)
        .collect();
    elsewhere.sort();
    if !elsewhere.is_empty() {
        return format!(
            "there is one of that name elsewhere: {}",
            elsewhere.join(", ")
        );
    }
    let mut near: Vec<&str> = keys()
        .filter(|other| other.namespace == key.namespace)
        .map(|other| &*other.name)
        .collect();
    near.sort_unstable();
    near.truncate(SHOWN_ROUTES);
    match near.as_slice() {
        [] => format!("namespace {} has no Service", key.namespace),
        near => format!("namespace {} has {}", key.namespace, near.join(", ")),
    }
}

fn kind(service: &Service) -> String {
    match &service.kind {
        ServiceKind::ClusterIp => {
            let ips: Vec<String> = service
                .cluster_ips
                .iter()
                .map(ToString::to_string)
                .collect();
            format!("cluster IP {}", ips.join(" and "))
        }
        ServiceKind::Headless => {
            "headless: its name stands for its endpoints, and clients connect to them directly"
                .to_owned()
        }
        ServiceKind::ExternalName(target) => format!("ExternalName: an alias for {target}"),
    }
}

/// What narrows the choice of endpoints, where the Service asks for it.
fn policy(trail: &mut Trail, object: &ObjectRef, policy: &TrafficPolicy) {
    let mut note = |field: &str, what: String, why: &str| {
        let step = trail.step(Phase::Service, Mark::Note, what, why);
        step.of(object, field);
    };
    if policy.internal == Scope::Local {
        let what = "internalTrafficPolicy: Local".to_owned();
        let why = "connections to a cluster IP only go to endpoints on the client's node";
        note("spec.internalTrafficPolicy", what, why);
    }
    if policy.external == Scope::Local {
        let what = "externalTrafficPolicy: Local".to_owned();
        let why = "connections from outside only go to endpoints on the node that they come in at";
        note("spec.externalTrafficPolicy", what, why);
    }
    if let Some(timeout) = policy.affinity {
        let what = format!("sessionAffinity: ClientIP, {} s", timeout.as_secs());
        note(
            "spec.sessionAffinity",
            what,
            "a client stays with its endpoint",
        );
    }
    if let Some(ranges) = &policy.source_ranges {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let what = format!("loadBalancerSourceRanges: {}", ranges.join(", "));
        let why = "other clients are not let in at a load balancer IP";
        note("spec.loadBalancerSourceRanges", what, why);
    }
}

/// What annotations have changed.
fn settings(trail: &mut Trail, object: &ObjectRef, policy: &HttpPolicy) {
    for setting in SETTINGS {
        let (now, default) = (setting.text(policy), setting.default_text());
        if now != default {
            let what = format!("{}: {now}", setting.name);
            let why = format!("by annotation; the default is {default}");
            let step = trail.step(Phase::Service, Mark::Note, what, why);
            let field = format!("metadata.annotations[{PREFIX}{}]", setting.name);
            step.of(object, &field);
        }
    }
}

type Ports<'a> = Vec<(usize, &'a Arc<ServicePort>)>;

/// The port that is asked for, or all.
fn selected<'a>(service: &'a Service, port: Option<&str>) -> Result<Ports<'a>, String> {
    let all = service.ports.iter().enumerate();
    let Some(wanted) = port else {
        return match service.ports.len() {
            0 => Err("the Service has no ports".to_owned()),
            _ => Ok(all.collect()),
        };
    };
    let number = wanted.parse::<u16>().ok();
    let found: Ports<'a> = all
        .filter(|(_, port)| Some(port.port) == number || *port.name == *wanted)
        .collect();
    if found.is_empty() {
        let known: Vec<String> = service.ports.iter().map(|port| shown(port)).collect();
        return Err(format!(
            "the Service has no port {wanted}; it has {}",
            known.join(", ")
        ));
    }
    Ok(found)
}

fn shown(port: &ServicePort) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match &*port.name {
        "" => format!("{}/{protocol}", port.port),
        name => format!("{}/{protocol} ({name})", port.port),
    }
}

/// The addresses of a port, and whose they are if several Services claim them.
fn addresses(
    trail: &mut Trail,
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    index: usize,
) {
    let object = object(&service.key);
    let field = format!("spec.ports[{index}]");
    let spoken = match port.app_protocol {
        AppProtocol::Detect => "the first bytes say whether requests or connections are balanced",
        AppProtocol::Http => "HTTP/1.1, by appProtocol: requests are balanced",
        AppProtocol::Http2 => "HTTP/2, by appProtocol: requests are balanced",
        AppProtocol::Tls => "TLS, by appProtocol: connections are balanced",
        AppProtocol::Tcp => "bytes, by appProtocol: connections are balanced",
    };
    let spoken = match port.protocol {
        Protocol::Tcp => spoken,
        Protocol::Udp => "datagrams, balanced by flow",
        Protocol::Sctp => "not relayed: DNS answers for it",
    };
    let step = trail.step(
        Phase::Address,
        Mark::Note,
        format!("port {}", shown(port)),
        spoken,
    );
    step.of(&object, &field);
    if service.kind == ServiceKind::Headless {
        return;
    }
    let internal = service.cluster_ips.iter().map(|ip| (ip, "cluster IP"));
    let balancers = service.load_balancer_ips.iter();
    let balancers = balancers.map(|ip| (ip, "load balancer IP"));
    let external = service.external_ips.iter().map(|ip| (ip, "external IP"));
    for (ip, what) in internal.chain(balancers).chain(external) {
        let addr = SocketAddr::new(*ip, port.port);
        let owner = snapshot
            .vip(addr.into(), port.protocol)
            .map(|found| &found.service);
        claimed(trail, &service.key, addr.to_string(), what, owner).of(&object, &field);
    }
    if let Some(node_port) = port.node_port {
        let owner = snapshot.node_ports.get(&(port.protocol, node_port));
        let owner = owner.map(|found| &found.service);
        let addr = format!("node port {node_port}");
        claimed(trail, &service.key, addr, "on every node", owner).of(&object, &field);
    }
}

fn claimed<'t>(
    trail: &'t mut Trail,
    key: &ServiceKey,
    addr: String,
    what: &str,
    owner: Option<&ServiceKey>,
) -> &'t mut super::model::Step {
    let (mark, why) = match owner {
        Some(owner) if owner == key => (Mark::Chosen, what.to_owned()),
        Some(owner) => (
            Mark::Rejected,
            format!("{what}, but Service {owner} has it"),
        ),
        None => (
            Mark::Rejected,
            format!("{what}, but another proxy looks after this Service"),
        ),
    };
    trail.step(Phase::Address, mark, addr, why)
}

/// Routes of the gateway that lead to one of the ports.
fn routes(trail: &mut Trail, snapshot: &Snapshot, key: &ServiceKey, ports: &Ports<'_>) {
    let leads_here = |rule: &RouteRule| {
        let mut backends = rule.backends.iter().map(|weighted| &weighted.backend);
        backends.any(|to| to.service == *key && ports.iter().any(|(_, p)| p.port == to.port))
    };
    let table = &snapshot.routes;
    let hosts = table
        .exact
        .values()
        .chain(table.wildcard.values())
        .chain(&table.any);
    let mut found: Vec<(String, Arc<RouteRule>)> = hosts
        .flat_map(|routes| {
            let rules = routes.rules.iter().chain(&routes.fallback);
            rules.map(|rule| (host(&routes.host), rule))
        })
        .chain(
            table
                .default_rule
                .iter()
                .map(|rule| ("any host".to_owned(), rule)),
        )
        .flat_map(|(host, rule)| {
            rule.with_canary()
                .map(move |rule| (host.clone(), Arc::clone(rule)))
        })
        .filter(|(_, rule)| leads_here(rule))
        .collect();
    found.sort_by(|a, b| (&a.0, &a.1.source, &a.1.field).cmp(&(&b.0, &b.1.source, &b.1.field)));
    for (host, rule) in found.iter().take(SHOWN_ROUTES) {
        let why = "the gateway leads here";
        let what = format!("{host} {}", super::url::describe(&rule.path));
        trail
            .step(Phase::Route, Mark::Note, what, why)
            .of(&rule.source, &rule.field);
    }
    if let Some(left @ 1..) = found.len().checked_sub(SHOWN_ROUTES) {
        trail.step(
            Phase::Route,
            Mark::Note,
            format!("{left} more routes"),
            "lead here",
        );
    }
}

fn host(host: &HostMatch) -> String {
    match host {
        HostMatch::Any => "any host".to_owned(),
        HostMatch::Exact(_) | HostMatch::Wildcard(_) => host.to_string(),
    }
}
