//! The cluster's domain (Kubernetes DNS specification 1.1.0).
//!
//! | labels left of the domain | what it is |
//! |---|---|
//! | none | the apex: SOA, NS |
//! | `svc`, `pod`, `dns` | nothing but names below |
//! | `dns-version` | TXT: version of the specification |
//! | NAMESPACE `svc`, NAMESPACE `pod` | nothing but names below, if the namespace exists |
//! | `ns.dns` | addresses of the name servers |
//! | SERVICE NAMESPACE `svc` | cluster IPs, ready endpoints (headless) or an alias (ExternalName) |
//! | ENDPOINT SERVICE NAMESPACE `svc` | that endpoint |
//! | `_PROTOCOL` SERVICE NAMESPACE `svc` | nothing but names below |
//! | `_PORT _PROTOCOL` SERVICE NAMESPACE `svc` | SRV; as CoreDNS also addresses, and without underscores |
//! | `1-2-3-4` NAMESPACE `pod` | that address; as CoreDNS also with one or two labels before it |
//!
//! A name that exists never is NXDOMAIN, whatever type is asked for: some resolvers take NXDOMAIN
//! for AAAA as the end of the search for A too (RFC 8020, musl).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_config::model::{Protocol, Service, ServiceEndpoint, ServiceKind};

use super::{Found, Lookup, endpoint, nameserver};
use crate::answer::Answer;
use crate::name::Name;
use crate::record::{RData, Record, Srv};
use crate::settings::PodsMode;

/// Most labels left of the domain that a name can have.
const MAX_LABELS: usize = 5;
/// Version of the Kubernetes DNS specification.
const VERSION: &[u8] = b"1.1.0";
/// Seconds for which the version may be kept.
const VERSION_TTL: u32 = 28_800;

pub(super) fn find(lookup: &Lookup<'_>) -> Found {
    let Some((left, zone)) = lookup.name.split_longest_zone(&lookup.settings.zones) else {
        return Found::NotMine;
    };
    let lower = lookup.name.to_lowercase();
    let mut labels = [""; MAX_LABELS];
    if left > MAX_LABELS {
        return absent(lookup, &zone);
    }
    for (slot, label) in labels.iter_mut().zip(lower.labels()).take(left) {
        let Ok(label) = std::str::from_utf8(label) else {
            return absent(lookup, &zone);
        };
        *slot = label;
    }
    match labels[..left] {
        [] => apex(lookup, &zone),
        ["svc"] => bare(lookup, &zone),
        ["pod"] => bare(lookup, &zone),
        ["dns"] => empty_non_terminal(lookup, &zone),
        ["dns-version"] => version(lookup, &zone),
        ["ns", "dns"] => name_server(lookup, &zone),
        [namespace, "svc"] if has_namespace(lookup, namespace) => bare(lookup, &zone),
        [namespace, "pod"] if has_pods(lookup, namespace) => bare(lookup, &zone),
        [.., label, namespace, "pod"] if has_pods(lookup, namespace) => {
            pod(lookup, &zone, namespace, label)
        }
        [ref below @ .., name, namespace, "svc"] => {
            let Some(service) = service(lookup, namespace, name) else {
                return absent(lookup, &zone);
            };
            let found = match *below {
                [] => of_service(lookup, &zone, service),
                [label] => of_endpoint(lookup, &zone, service, label),
                [port, protocol] => of_port(lookup, &zone, service, port, protocol),
                _ => None,
            };
            found.unwrap_or_else(|| absent(lookup, &zone))
        }
        _ => absent(lookup, &zone),
    }
}

fn has_namespace(lookup: &Lookup<'_>, namespace: &str) -> bool {
    lookup.settings.exposes(namespace) && lookup.snapshot.namespaces.contains_key(namespace)
}

fn has_pods(lookup: &Lookup<'_>, namespace: &str) -> bool {
    lookup.settings.pods != PodsMode::Disabled && has_namespace(lookup, namespace)
}

fn service<'a>(lookup: &Lookup<'a>, namespace: &str, name: &str) -> Option<&'a Service> {
    if !has_namespace(lookup, namespace) {
        return None;
    }
    lookup.snapshot.service(namespace, name).map(AsRef::as_ref)
}

/// A name that does not exist.
fn absent(lookup: &Lookup<'_>, zone: &Name) -> Found {
    let soa_hides_it = lookup.settings.compat_coredns && lookup.record_type == RecordType::SOA;
    if soa_hides_it && lookup.snapshot.synced {
        return lookup.no_data(zone);
    }
    lookup.missing(zone)
}

/// `svc`, `pod` and namespaces: they exist and have no records.
fn bare(lookup: &Lookup<'_>, zone: &Name) -> Found {
    if lookup.settings.compat_coredns && lookup.record_type == RecordType::TXT {
        return lookup.missing(zone);
    }
    lookup.no_data(zone)
}

/// A name that exists only because there are names below it.
fn empty_non_terminal(lookup: &Lookup<'_>, zone: &Name) -> Found {
    if lookup.settings.compat_coredns {
        return absent(lookup, zone);
    }
    lookup.no_data(zone)
}

fn apex(lookup: &Lookup<'_>, zone: &Name) -> Found {
    match lookup.record_type {
        RecordType::SOA => lookup.records(zone, vec![lookup.soa(zone)]),
        RecordType::NS => {
            if lookup.settings.compat_coredns && !lookup.settings.zones.contains(zone) {
                return lookup.no_data(zone);
            }
            let mut answer = Answer::local(ResponseCode::NoError);
            for (name, addrs) in nameserver::servers(lookup, zone) {
                answer.answers.push(lookup.record(RData::Ns(name.clone())));
                let glue = addrs.into_iter();
                let glue = glue.map(|ip| Record::address(name.clone(), lookup.settings.ttl, ip));
                answer.additional.extend(glue);
            }
            Found::Done(answer)
        }
        _ => bare(lookup, zone),
    }
}

fn version(lookup: &Lookup<'_>, zone: &Name) -> Found {
    match lookup.record_type {
        RecordType::TXT => {
            let mut text = vec![VERSION.len() as u8];
            text.extend_from_slice(VERSION);
            let mut record = lookup.record(RData::Other(RecordType::TXT, text.into()));
            record.ttl = VERSION_TTL;
            lookup.records(zone, vec![record])
        }
        _ => empty_non_terminal(lookup, zone),
    }
}

fn name_server(lookup: &Lookup<'_>, zone: &Name) -> Found {
    let servers = nameserver::servers(lookup, zone);
    let addrs = servers.into_iter().flat_map(|(_, addrs)| addrs);
    addresses(lookup, zone, addrs)
}

fn pod(lookup: &Lookup<'_>, zone: &Name, namespace: &str, label: &str) -> Found {
    let addr = endpoint::parse_dashed(label).map(|addr| addr.to_canonical());
    let is_there = |addr: &IpAddr| {
        lookup.settings.pods != PodsMode::Verified || {
            let pods = lookup.snapshot.pods.get(addr);
            pods.is_some_and(|pods| pods.iter().any(|pod| &*pod.namespace == namespace))
        }
    };
    match addr.filter(is_there) {
        Some(addr) if lookup.settings.compat_coredns && lookup.record_type == RecordType::SRV => {
            pod_location(lookup, zone, [label, namespace, "pod"], addr)
        }
        Some(addr) => addresses(lookup, zone, std::iter::once(addr)),
        None => absent(lookup, zone),
    }
}

/// CoreDNS's SRV record of a pod, which has no port.
fn pod_location(lookup: &Lookup<'_>, zone: &Name, labels: [&str; 3], addr: IpAddr) -> Found {
    let Some(target) = Name::prepend(labels, zone) else {
        return lookup.no_data(zone);
    };
    let mut answer = Answer::local(ResponseCode::NoError);
    answer.answers.push(lookup.record(RData::Srv(Srv {
        priority: 0,
        weight: 100,
        port: 0,
        target: target.clone(),
    })));
    let glue = Record::address(target, lookup.settings.ttl, addr);
    answer.additional.push(glue);
    Found::Done(answer)
}

/// A host of a Service: the Service itself by its cluster IPs, or one of its endpoints.
enum Host<'a> {
    Service(&'a Service),
    Endpoint(&'a ServiceEndpoint),
}

/// Which ports are asked for: by name and protocol.
type PortFilter<'a> = Option<(&'a str, Protocol)>;

impl<'a> Host<'a> {
    fn addrs(&self) -> &'a [IpAddr] {
        match self {
            Self::Service(service) => &service.cluster_ips,
            Self::Endpoint(endpoint) => std::slice::from_ref(&endpoint.info.addr),
        }
    }

    /// The numbers of the ports that are asked for.
    fn ports(&self, filter: PortFilter<'a>) -> impl Iterator<Item = u16> + 'a {
        let fits = move |(name, protocol, _): &&(Arc<str>, Protocol, u16)| {
            filter.is_none_or(|wanted| (&**name, *protocol) == wanted)
        };
        self.listed_ports().iter().filter(fits).map(|port| port.2)
    }

    fn listed_ports(&self) -> &'a [(Arc<str>, Protocol, u16)] {
        match self {
            Self::Service(service) => &service.listed_ports,
            Self::Endpoint(endpoint) => &endpoint.ports,
        }
    }

    fn label(&self, pod_names: bool) -> Option<Cow<'a, str>> {
        match self {
            Self::Service(_) => None,
            Self::Endpoint(endpoint) => Some(endpoint::label(endpoint, pod_names)),
        }
    }
}

fn ready<'a>(
    lookup: &Lookup<'_>,
    service: &'a Service,
) -> impl Iterator<Item = &'a ServiceEndpoint> {
    let looked_at = !lookup.settings.no_endpoints;
    let endpoints = service.endpoints.iter();
    endpoints.filter(move |endpoint| looked_at && endpoint.ready)
}

/// The hosts that a Service's own name stands for. None if the name does not exist.
fn hosts<'a>(lookup: &Lookup<'_>, service: &'a Service) -> Vec<Host<'a>> {
    match service.kind {
        ServiceKind::ClusterIp => {
            let ignored =
                lookup.settings.ignore_empty_service && ready(lookup, service).next().is_none();
            (!ignored)
                .then_some(Host::Service(service))
                .into_iter()
                .collect()
        }
        ServiceKind::Headless => ready(lookup, service).map(Host::Endpoint).collect(),
        ServiceKind::ExternalName(_) => Vec::new(),
    }
}

fn of_service(lookup: &Lookup<'_>, zone: &Name, service: &Service) -> Option<Found> {
    if let ServiceKind::ExternalName(target) = &service.kind {
        return external(lookup, zone, target);
    }
    let hosts = match (&service.kind, lookup.settings.ignore_empty_service) {
        (ServiceKind::ClusterIp, false) => &[Host::Service(service)][..],
        _ => &hosts(lookup, service),
    };
    (!hosts.is_empty()).then(|| answer(lookup, zone, service, hosts, None))
}

/// An alias. An address is none, and a name that cannot be one does not exist either.
fn external(lookup: &Lookup<'_>, zone: &Name, target: &str) -> Option<Found> {
    if target.parse::<IpAddr>().is_ok() {
        return None;
    }
    let target: Name = target.parse().ok()?;
    Some(match lookup.record_type {
        RecordType::A | RecordType::AAAA | RecordType::CNAME => Found::Alias(target),
        _ => lookup.no_data(zone),
    })
}

fn of_endpoint(lookup: &Lookup<'_>, zone: &Name, service: &Service, label: &str) -> Option<Found> {
    if matches!(service.kind, ServiceKind::ExternalName(_)) {
        return None;
    }
    let pod_names = lookup.settings.endpoint_pod_names;
    let addr = endpoint::from_dashed(label);
    let called =
        |endpoint: &&ServiceEndpoint| endpoint::is_called(endpoint, pod_names, label, addr);
    let named: Vec<_> = ready(lookup, service)
        .filter(called)
        .map(Host::Endpoint)
        .collect();
    if !named.is_empty() {
        return Some(answer(lookup, zone, service, &named, None));
    }
    let protocol = protocol(label.strip_prefix('_')?)?;
    let mut below = hosts(lookup, service).into_iter();
    let has_named_port = below.any(|host| {
        let mut ports = host.listed_ports().iter();
        ports.any(|(name, with, _)| *with == protocol && !name.is_empty())
    });
    has_named_port.then(|| empty_non_terminal(lookup, zone))
}

fn of_port(
    lookup: &Lookup<'_>,
    zone: &Name,
    service: &Service,
    port: &str,
    protocol_label: &str,
) -> Option<Found> {
    let bare = |label| str::strip_prefix(label, '_').unwrap_or(label);
    let port = Some(bare(port)).filter(|name| !name.is_empty())?;
    let filter = Some((port, protocol(bare(protocol_label))?));
    let mut hosts = hosts(lookup, service);
    hosts.retain(|host| host.ports(filter).next().is_some());
    (!hosts.is_empty()).then(|| answer(lookup, zone, service, &hosts, filter))
}

fn protocol(label: &str) -> Option<Protocol> {
    match label {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// The records of a name that stands for these hosts.
fn answer(
    lookup: &Lookup<'_>,
    zone: &Name,
    service: &Service,
    hosts: &[Host<'_>],
    filter: PortFilter<'_>,
) -> Found {
    match lookup.record_type {
        RecordType::A | RecordType::AAAA => {
            let addrs = hosts.iter().flat_map(|host| host.addrs()).copied();
            addresses(lookup, zone, addrs)
        }
        RecordType::SRV => locations(lookup, zone, service, hosts, filter),
        _ => lookup.no_data(zone),
    }
}

/// A or AAAA records, each address once.
fn addresses(lookup: &Lookup<'_>, zone: &Name, addrs: impl Iterator<Item = IpAddr>) -> Found {
    let wanted = addrs.filter(|addr| lookup.wants(*addr));
    let record = |addr| Record::address(lookup.name.clone(), lookup.settings.ttl, addr);
    let mut records: Vec<Record> = wanted.map(record).collect();
    if records.len() > 1 {
        records.sort_unstable_by_key(Record::ip);
        records.dedup_by_key(|record| record.ip());
    }
    lookup.records(zone, records)
}

/// SRV records, one for each host and port, with the hosts' addresses. The weight is an equal
/// share of 100, at least 1.
fn locations(
    lookup: &Lookup<'_>,
    zone: &Name,
    service: &Service,
    hosts: &[Host<'_>],
    filter: PortFilter<'_>,
) -> Found {
    let pod_names = lookup.settings.endpoint_pod_names;
    let mut targets: Vec<(Option<Cow<'_, str>>, u16)> = Vec::with_capacity(hosts.len());
    let mut glue: Vec<(Option<Cow<'_, str>>, IpAddr)> = Vec::with_capacity(hosts.len());
    for host in hosts {
        let label = host.label(pod_names);
        let before = targets.len();
        targets.extend(host.ports(filter).map(|port| (label.clone(), port)));
        if targets.len() > before {
            glue.extend(host.addrs().iter().map(|addr| (label.clone(), *addr)));
        }
    }
    for_each_once(&mut targets);
    for_each_once(&mut glue);
    let weight = (100 / targets.len().max(1)).max(1) as u16;
    let key = &service.key;
    let name = |label: Option<Cow<'_, str>>| {
        let labels = label.as_deref().into_iter();
        Name::prepend(labels.chain([&*key.name, &*key.namespace, "svc"]), zone)
    };
    let records = targets.into_iter().filter_map(|(label, port)| {
        let target = name(label)?;
        Some(lookup.record(RData::Srv(Srv {
            priority: 0,
            weight,
            port,
            target,
        })))
    });
    let mut found = lookup.records(zone, records.collect());
    if let Found::Done(answer) = &mut found {
        let ttl = lookup.settings.ttl;
        let record = |(label, addr)| Some(Record::address(name(label)?, ttl, addr));
        answer.additional = glue.into_iter().filter_map(record).collect();
    }
    found
}

fn for_each_once<T: Ord>(items: &mut Vec<T>) {
    items.sort_unstable();
    items.dedup();
}
