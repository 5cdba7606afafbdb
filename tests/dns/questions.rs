//! What both servers are asked: every form of a name, with every type, spelled and sized at random.

use serde_json::Value;

use crate::objects::NAMESPACE;
use crate::support::Numbers;
use crate::wire::{Query, kind};

/// Types asked for names of the cluster.
const TYPES: [u16; 12] = [
    kind::A,
    kind::AAAA,
    kind::SRV,
    kind::PTR,
    kind::TXT,
    kind::CNAME,
    kind::MX,
    kind::NS,
    kind::SOA,
    kind::HINFO,
    kind::HTTPS,
    kind::ANY,
];

/// OPT records: none, and sizes that clients have.
const EDNS: [Option<u16>; 6] = [
    None,
    Some(512),
    Some(1232),
    Some(1232),
    Some(1400),
    Some(4096),
];

/// Queries about `services`, a list as the API server gives it.
pub(crate) fn all(services: &Value, seed: u64) -> Vec<Query> {
    let mut numbers = Numbers(seed);
    let mut names = fixed();
    names.extend(below_services(services));
    let mut queries = Vec::new();
    for name in names {
        for kind in TYPES {
            queries.push(Query {
                name: spelled(&name, &mut numbers),
                ..drawn(kind, &mut numbers)
            });
        }
    }
    for name in reverse(services) {
        for kind in [kind::PTR, kind::PTR, kind::A, kind::SOA, kind::TXT] {
            queries.push(Query {
                name: spelled(&name, &mut numbers),
                ..drawn(kind, &mut numbers)
            });
        }
    }
    for service in ["hd-some", "hd-many"] {
        for kind in [kind::A, kind::SRV] {
            for size in [512, 1232, 4096] {
                let name = format!("{service}.{NAMESPACE}.svc.cluster.local");
                queries.push(Query {
                    edns: Some((size, false)),
                    ..Query::new(&name, kind)
                });
            }
        }
    }
    for name in FORWARDED {
        for kind in [kind::A, kind::AAAA, kind::TXT, kind::SRV] {
            // Twice: the second answer may come from a cache.
            for _ in 0..2 {
                queries.push(Query {
                    name: (*name).to_owned(),
                    recurse: true,
                    ..drawn(kind, &mut numbers)
                });
            }
        }
    }
    queries
}

/// Names of others.
const FORWARDED: &[&str] = &[
    "www.example.com",
    "alias.example.com",
    "quick.example.com",
    "empty.example.com",
    "missing.example.com",
    "broken.example.com",
];

fn drawn(kind: u16, numbers: &mut Numbers) -> Query {
    let edns = EDNS[numbers.below(EDNS.len())];
    Query {
        name: String::new(),
        kind,
        recurse: numbers.below(4) > 0,
        edns: edns.map(|size| (size, numbers.below(3) == 0)),
    }
}

/// Half of the names as they are, the others in mixed case.
fn spelled(name: &str, numbers: &mut Numbers) -> String {
    if numbers.below(2) == 0 {
        return name.to_owned();
    }
    let letters = name.chars().map(|letter| match numbers.below(2) {
        0 => letter.to_ascii_uppercase(),
        _ => letter,
    });
    letters.collect()
}

/// Names that do not depend on a Service.
fn fixed() -> Vec<String> {
    let pods = [
        "",
        "10-244-1-7.",
        "172-16-2-1.",
        "fd00-3--1.",
        "1-2-3.",
        "1-2-3-400.",
        "web.",
        "a.10-244-1-7.",
    ];
    let names = [
        "cluster.local",
        "svc.cluster.local",
        "pod.cluster.local",
        "other.cluster.local",
        "testns.other.cluster.local",
        "svc-v4.testns.other.cluster.local",
        "dns-version.cluster.local",
        "a.dns-version.cluster.local",
        "dns.cluster.local",
        "ns.dns.cluster.local",
        "a.ns.dns.cluster.local",
        "testns.svc.cluster.local",
        "bare.svc.cluster.local",
        "missingns.svc.cluster.local",
        "svc-v4.missingns.svc.cluster.local",
        "missing.testns.svc.cluster.local",
        "a.missing.testns.svc.cluster.local",
        "_http._tcp.missing.testns.svc.cluster.local",
        "*.testns.svc.cluster.local",
        "any.testns.svc.cluster.local",
        "svc-v4.*.svc.cluster.local",
        "svc-v4.any.svc.cluster.local",
        "*.*.svc.cluster.local",
        "*.hd-names.testns.svc.cluster.local",
        "kube-dns.kube-system.svc.cluster.local",
        "_dns._udp.kube-dns.kube-system.svc.cluster.local",
        "kubernetes.default.svc.cluster.local",
        "_https._tcp.kubernetes.default.svc.cluster.local",
        "www.example.com.testns.svc.cluster.local",
        "www.example.com.svc.cluster.local",
        "www.example.com.cluster.local",
        "svc-v4.testns.svc.cluster.local.testns.svc.cluster.local",
        "missingns.pod.cluster.local",
        "10-244-1-7.missingns.pod.cluster.local",
        "10-244-1-7.pod.cluster.local",
    ];
    let mut names: Vec<String> = names.map(str::to_owned).to_vec();
    names.extend(pods.map(|pod| format!("{pod}{NAMESPACE}.pod.cluster.local")));
    names
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// Each Service, its ports, its endpoints, and what is below them.
fn below_services(services: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for service in services["items"].as_array().expect("a list") {
        let name = text(&service["metadata"], "name");
        let namespace = text(&service["metadata"], "namespace");
        if namespace != NAMESPACE {
            continue;
        }
        let full = format!("{name}.{namespace}.svc.cluster.local");
        names.extend(
            ["", "a.", "a.b.", "a.b.c.", "_tcp.", "_udp.", "_none._tcp."]
                .map(|left| format!("{left}{full}")),
        );
        for port in service["spec"]["ports"].as_array().unwrap_or(&Vec::new()) {
            let port_name = text(port, "name");
            if port_name.is_empty() {
                names.push(format!("_x._tcp.{full}"));
                continue;
            }
            let protocol = text(port, "protocol").to_lowercase();
            let other = if protocol == "tcp" { "udp" } else { "tcp" };
            names.push(format!("_{port_name}._{protocol}.{full}"));
            names.push(format!("_{port_name}._{other}.{full}"));
            names.push(format!("{port_name}.{protocol}.{full}"));
            names.push(format!("a._{port_name}._{protocol}.{full}"));
        }
        names.extend(
            endpoints(name)
                .iter()
                .map(|label| format!("{label}.{full}")),
        );
    }
    names
}

/// Labels of endpoints: those that there are, and some that there are not.
fn endpoints(service: &str) -> &'static [&'static str] {
    match service {
        "svc-manual" => &["ep1a", "ep1c", "172-16-1-1", "172-16-1-2", "172-16-1-3"],
        "hd-names" => &["web-0", "web-1", "web-9", "172-16-2-1", "_http._tcp.web-0"],
        "hd-dash" => &[
            "172-16-3-1",
            "172-16-3-9",
            "fd00-3--1",
            "5678-abcd--0",
            "5678-abcd--",
            "5678-abcd--1",
            "a.172-16-3-1",
        ],
        "hd-v6" => &["six-0", "fd00-4--1", "fd00-4--2"],
        "hd-dual" => &["both-0", "172-16-5-1"],
        "hd-unready" => &["off-0", "172-16-6-1"],
        "hd-mixed" => &["on", "off", "ending", "unknown"],
        "hd-same-host" => &["twin"],
        "hd-same-ip" => &["172-16-9-1"],
        "hd-noports" => &["np-0"],
        "hd-ports" => &["p-0", "p-1", "_admin._tcp", "_dns._udp"],
        "hd-many" => &["172-20-0-1", "172-20-7-250"],
        "db" | "db-early" => &["db-0", "db-1", "db-2", "172-16-20-1"],
        _ => &[],
    }
}

/// Names of addresses: cluster IPs, endpoints, strangers, and what is no address.
fn reverse(services: &Value) -> Vec<String> {
    let mut addresses: Vec<String> = [
        "172.16.1.1",
        "172.16.1.2",
        "172.16.1.3",
        "172.16.2.1",
        "172.16.3.1",
        "172.16.7.2",
        "172.16.7.4",
        "172.16.8.1",
        "172.16.9.1",
        "172.16.20.1",
        "172.16.20.2",
        "172.20.3.3",
        "10.244.9.9",
        "fd00:3::1",
        "fd00:4::1",
        "5678:abcd::",
        "fd00:99::1",
    ]
    .map(str::to_owned)
    .to_vec();
    for service in services["items"].as_array().expect("a list") {
        let ips = service["spec"]["clusterIPs"].as_array();
        let ips = ips.into_iter().flatten().filter_map(Value::as_str);
        addresses.extend(ips.filter(|ip| *ip != "None").map(str::to_owned));
    }
    let mut names: Vec<String> = addresses
        .iter()
        .map(|text| match text.parse().expect("an address") {
            std::net::IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            std::net::IpAddr::V6(ip) => {
                let digits = ip.octets().map(|octet| format!("{octet:02x}")).concat();
                let labels: Vec<String> = digits.chars().rev().map(String::from).collect();
                format!("{}.ip6.arpa", labels.join("."))
            }
        })
        .collect();
    let others = [
        "in-addr.arpa",
        "ip6.arpa",
        "16.172.in-addr.arpa",
        "1.2.16.172.in-addr.arpa.in-addr.arpa",
        "a.1.2.16.172.in-addr.arpa",
        "300.2.16.172.in-addr.arpa",
        "0.0.d.f.ip6.arpa",
    ];
    names.extend(others.map(str::to_owned));
    names
}
