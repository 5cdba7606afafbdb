//! Names of addresses.
//!
//! A cluster IP has one name, that of its Service, and wins over endpoints. Any other address has
//! one name for each Service that has it as a ready endpoint, those with an explicit host name
//! first. Addresses that are not known are forwarded or do not exist, as configured; before the
//! first sync they fail, because the upstream's NXDOMAIN would be remembered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::RecordType;

use sealane_config::model::ServiceKey;

use super::{Found, Lookup, endpoint};
use crate::name::{Labels, Name};
use crate::record::{RData, Record};

pub(super) fn find(lookup: &Lookup<'_>) -> Found {
    let zones = &lookup.settings.reverse_zones;
    let Some((left, zone)) = lookup.name.split_longest_zone(zones) else {
        return Found::NotMine;
    };
    let names = address(lookup.name).map_or_else(Vec::new, |addr| names(lookup, addr));
    if !names.is_empty() {
        return match lookup.record_type {
            RecordType::PTR => lookup.records(&zone, names),
            _ => lookup.no_data(&zone),
        };
    }
    match (left, lookup.record_type) {
        (0, RecordType::SOA) => lookup.records(&zone, vec![lookup.soa(&zone)]),
        (0, _) => lookup.no_data(&zone),
        _ => lookup.missing(&zone),
    }
}

/// PTR records of an address.
fn names(lookup: &Lookup<'_>, addr: IpAddr) -> Vec<Record> {
    let snapshot = lookup.snapshot;
    let zone = lookup.settings.primary_zone();
    let exposed = |key: &&ServiceKey| lookup.settings.exposes(&key.namespace);
    if let Some(service) = snapshot.cluster_ips.get(&addr).filter(exposed) {
        let name = Name::prepend([&*service.name, &*service.namespace, "svc"], zone);
        return name
            .into_iter()
            .map(|name| lookup.record(RData::Ptr(name)))
            .collect();
    }
    let services = snapshot.endpoint_ips.get(&addr);
    let services = services.filter(|_| !lookup.settings.no_endpoints);
    let services = services.into_iter().flat_map(|keys| keys.iter());
    let services = services.filter(exposed);
    let mut found: Vec<(bool, Name)> = services
        .filter_map(|key| snapshot.services.get(key))
        .flat_map(|service| {
            let ready = service.endpoints.iter();
            let ready = ready.filter(|endpoint| endpoint.ready && endpoint.addr() == addr);
            ready.filter_map(|endpoint| {
                let label = endpoint::label(endpoint, lookup.settings.endpoint_pod_names);
                let key = &service.key;
                let name = Name::prepend([&label, &*key.name, &*key.namespace, "svc"], zone)?;
                Some((endpoint.hostname().is_none(), name))
            })
        })
        .collect();
    found.sort_by_key(|(derived, _)| *derived);
    if lookup.settings.ptr_hostname_only && found.first().is_some_and(|(derived, _)| !derived) {
        found.retain(|(derived, _)| !derived);
    }
    let mut records: Vec<Record> = Vec::with_capacity(found.len());
    for (_, name) in found {
        let record = lookup.record(RData::Ptr(name));
        if !records.contains(&record) {
            records.push(record);
        }
    }
    records
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for. Compared as an address,
/// so the case of nibbles does not matter.
pub(crate) fn address(name: &Name) -> Option<IpAddr> {
    let mut labels = name.labels();
    let ends_with = |labels: &mut Labels<'_>, domain: &str| {
        let rest = [labels.next(), labels.next(), labels.next()];
        let [Some(first), Some(second), None] = rest else {
            return false;
        };
        first.eq_ignore_ascii_case(domain.as_bytes()) && second.eq_ignore_ascii_case(b"arpa")
    };
    match name.labels().count() {
        6 => {
            let mut octets = [0u8; 4];
            for octet in octets.iter_mut().rev() {
                let label = std::str::from_utf8(labels.next()?).ok()?;
                *octet = label.parse().ok()?;
                // One spelling only: no sign, no leading zero.
                if octet.to_string() != label {
                    return None;
                }
            }
            ends_with(&mut labels, "in-addr").then(|| Ipv4Addr::from(octets).into())
        }
        34 => {
            let mut bits = 0u128;
            for shift in (0..128).step_by(4) {
                let [nibble] = labels.next()? else {
                    return None;
                };
                bits |= u128::from(char::from(*nibble).to_digit(16)?) << shift;
            }
            ends_with(&mut labels, "ip6").then(|| Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}
