//! Values of labels. There are finitely many, whatever comes in.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::config::Scheme;

/// `view`: views are not supported, so there is none.
pub const NO_VIEW: &str = "";
/// `zone` of queries that no server block is for.
pub const NO_ZONE: &str = "dropped";

/// The types that have a value of their own, by index; the last stands for all others.
const TYPES: [&str; 20] = [
    "A", "AAAA", "CNAME", "DNSKEY", "DS", "HTTPS", "SVCB", "MX", "NSEC", "NSEC3", "NS", "PTR",
    "RRSIG", "SOA", "SRV", "TXT", "IXFR", "AXFR", "ANY", "other",
];
/// How many values `type` has.
pub(super) const TYPE_COUNT: usize = TYPES.len();

/// The index of a type.
pub(super) fn type_index(record_type: RecordType) -> usize {
    match record_type {
        RecordType::A => 0,
        RecordType::AAAA => 1,
        RecordType::CNAME => 2,
        RecordType::DNSKEY => 3,
        RecordType::DS => 4,
        RecordType::HTTPS => 5,
        RecordType::SVCB => 6,
        RecordType::MX => 7,
        RecordType::NSEC => 8,
        RecordType::NSEC3 => 9,
        RecordType::NS => 10,
        RecordType::PTR => 11,
        RecordType::RRSIG => 12,
        RecordType::SOA => 13,
        RecordType::SRV => 14,
        RecordType::TXT => 15,
        RecordType::IXFR => 16,
        RecordType::AXFR => 17,
        RecordType::ANY => 18,
        _ => TYPE_COUNT - 1,
    }
}

/// `type`: a few types by name, `other` for the rest.
pub fn type_label(record_type: RecordType) -> &'static str {
    TYPES[type_index(record_type)]
}

/// The codes by index, then one for those without a name.
const RCODES: [&str; 25] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "DSOTYPENI",
    "RCODE12",
    "RCODE13",
    "RCODE14",
    "RCODE15",
    "BADVERS",
    "BADKEY",
    "BADTIME",
    "BADMODE",
    "BADNAME",
    "BADALG",
    "BADTRUNC",
    "BADCOOKIE",
    "other",
];
/// How many values `rcode` has.
pub(super) const RCODE_COUNT: usize = RCODES.len();

/// The index of a code.
pub(super) fn rcode_index(rcode: ResponseCode) -> usize {
    usize::from(u16::from(rcode)).min(RCODE_COUNT - 1)
}

/// `rcode`: the code's name.
pub fn rcode_label(rcode: ResponseCode) -> &'static str {
    RCODES[rcode_index(rcode)]
}

/// `class`: the class's name.
pub fn class_label(class: u16) -> &'static str {
    match class {
        1 => "IN",
        3 => "CH",
        4 => "HS",
        254 => "NONE",
        255 => "ANY",
        _ => "other",
    }
}

/// `server`: `dns://:53`, or `dns://10.0.0.1:53` for one of its addresses.
pub fn server_label(scheme: Scheme, bind: Option<IpAddr>, port: u16) -> String {
    let scheme = match scheme {
        Scheme::Dns => "dns",
        Scheme::Tls => "tls",
        Scheme::Https => "https",
        Scheme::Quic => "quic",
    };
    match bind {
        Some(IpAddr::V6(ip)) => format!("{scheme}://[{ip}]:{port}"),
        Some(ip) => format!("{scheme}://{ip}:{port}"),
        None => format!("{scheme}://:{port}"),
    }
}

/// `zones` of a cache: its zones with commas.
pub fn zones_label(zones: &[crate::Name]) -> String {
    let zones: Vec<String> = zones.iter().map(ToString::to_string).collect();
    zones.join(",")
}
