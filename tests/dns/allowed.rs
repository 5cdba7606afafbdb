//! Where we answer differently on purpose: the list that the comparison is held against.
//!
//! An entry explains parts of some replies. A reply passes if all its differing parts are explained;
//! an entry that explained nothing in a whole run fails it.

use std::collections::BTreeSet;

use crate::client::Transport;
use crate::compare::Part;
use crate::objects::NAMESPACE;
use crate::wire::{Query, Record, Reply, flag, kind, rcode};

/// A query with both replies to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    pub(crate) query: &'a Query,
    pub(crate) transport: Transport,
    pub(crate) ours: &'a Reply,
    pub(crate) theirs: &'a Reply,
}

/// What becomes of a departure under `compat coredns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compat {
    /// CoreDNS's answer is restored.
    Restored,
    /// It stays.
    Remains,
    /// Only what one of the servers happens to have in its cache makes a difference.
    ByChance,
}

impl Allowed {
    /// Whether it may be seen.
    pub(crate) fn may_be(&self, compat: bool) -> bool {
        !compat || self.compat != Compat::Restored
    }

    /// Whether it has to be seen.
    pub(crate) fn must_be(&self, compat: bool) -> bool {
        !compat || self.compat == Compat::Remains
    }
}

/// A departure.
pub(crate) struct Allowed {
    /// Row of the requirements.
    pub(crate) row: &'static str,
    /// Who is right, and why.
    pub(crate) why: &'static str,
    /// What `compat coredns` does to it.
    pub(crate) compat: Compat,
    /// The parts that it may make different.
    pub(crate) parts: &'static [Part],
    /// Whether it applies.
    pub(crate) applies: fn(&Case<'_>) -> bool,
}

/// The entries that together explain these differences; `None` if something is left.
pub(crate) fn explain(case: &Case<'_>, parts: &BTreeSet<Part>, compat: bool) -> Option<Vec<usize>> {
    let entries = LIST.iter().enumerate();
    let used: Vec<usize> = entries
        .filter(|(_, entry)| entry.may_be(compat))
        .filter(|(_, entry)| entry.parts.iter().any(|part| parts.contains(part)))
        .filter(|(_, entry)| (entry.applies)(case))
        .map(|(index, _)| index)
        .collect();
    let explained = |part: &Part| used.iter().any(|&index| LIST[index].parts.contains(part));
    parts.iter().all(explained).then_some(used)
}

/// All of them.
pub(crate) const LIST: &[Allowed] = &[
    Allowed {
        row: "A7",
        why: "names stand below it, so it exists for every type (RFC 8020)",
        compat: Compat::Restored,
        parts: &[Part::Rcode],
        applies: |case| {
            case.theirs.rcode == rcode::NXDOMAIN
                && case.ours.is_no_data()
                && is_empty_non_terminal(&case.query.name.to_lowercase())
        },
    },
    Allowed {
        row: "A7, A12",
        why: "the zone's name server exists for every type, however it is spelled",
        compat: Compat::Remains,
        parts: &[Part::Rcode, Part::Answer, Part::Authority],
        applies: |case| {
            case.query.name.eq_ignore_ascii_case("ns.dns.cluster.local")
                && case.theirs.rcode == rcode::NXDOMAIN
                && case.ours.rcode == rcode::NOERROR
        },
    },
    Allowed {
        row: "A8",
        why: "a name that does not exist has no SOA record either",
        compat: Compat::Remains,
        parts: &[Part::Rcode, Part::Aa, Part::Ra, Part::Authority],
        applies: |case| {
            case.query.kind == kind::SOA
                && case.theirs.is_no_data()
                && case.ours.rcode == rcode::NXDOMAIN
        },
    },
    Allowed {
        row: "A7",
        why: "the name of an address that is known exists for every type (RFC 8020)",
        compat: Compat::Remains,
        parts: &[Part::Rcode, Part::Aa, Part::Ra, Part::Authority],
        applies: |case| {
            case.query.kind != kind::PTR
                && is_reverse(case.query)
                && case.theirs.rcode == rcode::NXDOMAIN
                && case.ours.is_no_data()
                && case.ours.has(flag::AA)
        },
    },
    Allowed {
        row: "K1",
        why: "what CoreDNS has in its cache is spelled as the first client spelled it",
        compat: Compat::Remains,
        parts: &[Part::Answer, Part::Authority],
        applies: |case| {
            let owners_as_typed = |records: &[Record]| {
                let mut owners = records
                    .iter()
                    .map(|record| record.owner.trim_end_matches('.'));
                owners.all(|owner| case.query.name.ends_with(owner))
            };
            is_reverse(case.query)
                && owners_as_typed(&case.ours.answer)
                && lower(&case.ours.answer) == lower(&case.theirs.answer)
                && lower(&case.ours.authority) == lower(&case.theirs.authority)
        },
    },
    Allowed {
        row: "TTL side effect",
        why: "CoreDNS gives every record of a reply the lowest TTL, at least 5 s, and those of a zone of ours that went through its cache the rest of their time there",
        compat: Compat::Remains,
        parts: &[Part::AnswerTtl, Part::AuthorityTtl],
        applies: |case| {
            let lowest = |reply: &Reply| {
                let records = reply.answer.iter().chain(&reply.authority);
                records.map(|record| record.ttl).min()
            };
            let ours = lowest(case.ours).unwrap_or_default();
            let theirs = lowest(case.theirs).unwrap_or_default();
            let is_local = case.ours.has(flag::AA) && is_reverse(case.query);
            // Either may have had it in its cache for longer.
            let is_forwarded = case.ours.has(flag::RA) && case.theirs.has(flag::RA);
            theirs <= ours || is_forwarded || (is_local && ours == 30)
        },
    },
    Allowed {
        row: "SERVFAIL, flags",
        why: "an answer from the cache is not authoritative",
        compat: Compat::ByChance,
        parts: &[Part::Aa],
        applies: |case| case.theirs.has(flag::RA) && case.ours.has(flag::RA),
    },
    Allowed {
        row: "A10",
        why: "the TTL of the version record is not the cache's",
        compat: Compat::Restored,
        parts: &[Part::AnswerTtl],
        applies: |case| {
            let name = case.query.name.to_lowercase();
            let ttl = |reply: &Reply| reply.answer.first().map(|record| record.ttl);
            name == "dns-version.cluster.local"
                && (ttl(case.ours), ttl(case.theirs)) == (Some(28_800), Some(30))
        },
    },
    Allowed {
        row: "A12",
        why: "case does not matter in a name",
        compat: Compat::Restored,
        parts: &[Part::Answer, Part::Authority, Part::Additional],
        applies: |case| {
            let name = &case.query.name;
            case.query.kind == kind::NS
                && name.eq_ignore_ascii_case("cluster.local")
                && name != "cluster.local"
                && case.theirs.is_no_data()
                && !case.ours.answer.is_empty()
        },
    },
    Allowed {
        row: "V5",
        why: "weights are shares of the targets, each counted once",
        compat: Compat::Remains,
        parts: &[Part::Answer],
        applies: |case| {
            case.query.kind == kind::SRV && unweighted(case.ours) == unweighted(case.theirs)
        },
    },
    Allowed {
        row: "V8",
        why: "a pod's name has no SRV record",
        compat: Compat::Restored,
        parts: &[Part::Answer, Part::Authority, Part::Additional],
        applies: |case| {
            let name = case.query.name.to_lowercase();
            case.query.kind == kind::SRV
                && name.ends_with(".pod.cluster.local")
                && case.ours.is_no_data()
                && case
                    .theirs
                    .answer
                    .iter()
                    .all(|it| it.data.starts_with("0 100 0 "))
        },
    },
    Allowed {
        row: "E4",
        why: "an alias to a name of the cluster that does not exist is shown, and ends as that name does (RFC 6604)",
        compat: Compat::Restored,
        parts: &[Part::Rcode, Part::Answer, Part::Authority],
        applies: |case| {
            below(case.query, &["ext-missing"])
                && case.ours.rcode == rcode::NXDOMAIN
                && case.ours.answer.iter().all(|it| it.kind == kind::CNAME)
                && case.theirs.is_no_data()
        },
    },
    Allowed {
        row: "E4",
        why: "an alias to a name of the cluster without such records is shown, before the SOA record of that name",
        compat: Compat::Restored,
        parts: &[Part::Answer, Part::Authority],
        applies: |case| {
            below(case.query, &["ext-inside", "ext-headless", "ext-chain"])
                && case.query.kind == kind::AAAA
                && case.ours.rcode == rcode::NOERROR
                && case.ours.answer.iter().all(|it| it.kind == kind::CNAME)
                && lower(&case.ours.authority) == lower(&case.theirs.authority)
                && case.theirs.is_no_data()
        },
    },
    Allowed {
        row: "E4",
        why: "aliases in a circle are a failure",
        compat: Compat::Restored,
        parts: &[
            Part::Rcode,
            Part::Aa,
            Part::Answer,
            Part::Authority,
            Part::Opt,
        ],
        applies: |case| {
            below(case.query, &["ext-self", "ext-a", "ext-b"])
                && case.ours.rcode == rcode::SERVFAIL
                && case.theirs.is_no_data()
        },
    },
    Allowed {
        row: "E5",
        why: "an alias ends with the code of the last name and its SOA record",
        compat: Compat::Remains,
        parts: &[
            Part::Rcode,
            Part::Authority,
            Part::Aa,
            Part::Answer,
            Part::Opt,
        ],
        applies: |case| {
            below(case.query, &["ext-nxdomain", "ext-empty", "ext-broken"])
                && case.theirs.rcode == rcode::NOERROR
                && (!case.ours.authority.is_empty() || case.ours.rcode == rcode::SERVFAIL)
        },
    },
    Allowed {
        row: "UDP size",
        why: "we announce what we take, not what the client does",
        compat: Compat::Remains,
        parts: &[Part::Opt],
        applies: |case| match (&case.ours.opt, &case.theirs.opt, case.query.edns) {
            (Some(ours), Some(theirs), Some((asked, dnssec_ok))) => {
                ours.size == LIMIT
                    && theirs.size == asked.max(512)
                    && (ours.version, theirs.version) == (0, 0)
                    && ours.dnssec_ok == dnssec_ok
                    && theirs.dnssec_ok == dnssec_ok
                    && ours.options == theirs.options
            }
            _ => false,
        },
    },
    Allowed {
        row: "UDP size",
        why: "no datagram is longer than 1232 bytes, so that none is fragmented",
        compat: Compat::Remains,
        parts: &[Part::Tc],
        applies: |case| {
            case.transport == Transport::Udp
                && case.ours.has(flag::TC)
                && case.theirs.length > usize::from(LIMIT)
        },
    },
];

/// The largest datagram that we send.
const LIMIT: u16 = 1232;

/// The query is about one of these Services.
fn below(query: &Query, services: &[&str]) -> bool {
    let name = query.name.to_lowercase();
    services
        .iter()
        .any(|service| name == format!("{service}.{NAMESPACE}.svc.cluster.local"))
}

/// The query is for the name of an address.
fn is_reverse(query: &Query) -> bool {
    query.name.to_lowercase().ends_with(".arpa")
}

/// Records without TTLs in lower case, sorted; serials are left out.
fn lower(records: &[Record]) -> Vec<(String, String)> {
    let mut texts: Vec<_> = records
        .iter()
        .map(|record| {
            let mut data: Vec<&str> = record.data.split(' ').collect();
            if record.kind == kind::SOA {
                data.remove(2);
            }
            (record.owner.to_lowercase(), data.join(" ").to_lowercase())
        })
        .collect();
    texts.sort();
    texts
}

/// Answers without their weights.
fn unweighted(reply: &Reply) -> Vec<(&str, Vec<&str>)> {
    let mut records: Vec<_> = reply
        .answer
        .iter()
        .map(|record| {
            let mut data: Vec<&str> = record.data.split(' ').collect();
            if data.len() == 4 {
                data.remove(1);
            }
            (&*record.owner, data)
        })
        .collect();
    records.sort();
    records.dedup();
    records
}

/// Names without records that others stand below.
fn is_empty_non_terminal(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    match labels[..] {
        ["cluster", "local"]
        | ["svc" | "pod" | "dns" | "dns-version", "cluster", "local"]
        | [_, "svc" | "pod", "cluster", "local"] => true,
        [protocol, ..] => protocol == "_tcp" || protocol == "_udp",
        [] => false,
    }
}
