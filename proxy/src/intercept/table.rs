//! The table `inet sealane`: its sets, chains and rules, and the elements of its sets.
//!
//! What happens to a packet from a pod, in this order:
//!
//! 1. it came in through `lo`: passes, so that our own connections are never caught
//! 2. it is TCP for a transparent socket of ours: delivered. Connections go on whatever became of
//!    the Service in the meantime (S19), and replies to connections that were made from a client's
//!    address come back (S23)
//! 3. it is for a Service port with endpoints: delivered to the proxy
//! 4. it is for a Service port without: refused at once (S4)
//! 5. it is for an address of this node: passes
//! 6. it is for another port of a Service's address: refused; for an address of the Service CIDR
//!    that no Service has: lost (S1)
//! 7. it is for a pod: passes, unless it is a datagram for a transparent socket of ours, or an ICMP
//!    error about one: delivered. Only endpoints' answers come here: what clients send to a Service
//!    was dealt with above, so that a Service that is gone takes no more datagrams of old flows (S18)
//! 8. it is TCP to an address that is no destination outside, such as loopback or link-local:
//!    refused
//! 9. other TCP: delivered to the proxy, which is the way out
//!
//! 8 and 9 only with [`InterceptOptions::egress`].
//!
//! The sets hold Services, never endpoints, so that endpoints coming and going write nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::libc;
use sealane_config::model::Protocol;

use super::netlink::{Attributes, Batch};
use super::rule::{DATA_VALUE, Family, LIST_ELEMENT, Rule};
use super::state::{Change, Element, Set};
use super::{InterceptOptions, Method};

/// The table's name.
pub(super) const TABLE: &str = "sealane";
const PROBE: &str = "sealane-probe";
const ENTRY: &str = "prerouting";
const REDIRECT: &str = "redirect";
const CAPTURE: &str = "capture";
const REFUSE: &str = "refuse";

/// `lo` has this index in every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// `NF_IP_PRI_MANGLE`: before the routing decision, so that the mark counts for it.
const PRIORITY: i32 = -150;

/// `NF_IP_PRI_NAT_DST`, which `nft` 1.0.6 does not know by name on every hook.
pub(super) const NAT_PRIORITY: i32 = -100;

/// Set elements in one message: 36 bytes each at most, and an attribute ends at 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 1000;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_ID: u16 = 10;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;

/// Types as `nft list` knows them: `ipv4_addr`, `ipv6_addr`, `inet_proto`, `inet_service`; a
/// concatenation has six bits for each.
const TYPE_V4: u32 = 7;
const TYPE_V6: u32 = 8;
const TYPE_PROTOCOL_AND_PORT: u32 = (12 << 6) | 13;

/// Creates the table anew, in place of one that an earlier run left, with empty sets.
pub(super) fn create(batch: &mut Batch, options: &InterceptOptions) {
    remove(batch, TABLE);
    fill(batch, TABLE, options);
}

/// Removes a table, if there is one.
pub(super) fn remove(batch: &mut Batch, table: &str) {
    // Created first, because deleting what does not exist fails.
    create_table(batch, table);
    batch.delete(libc::NFT_MSG_DELTABLE, |a| table_name(a, table));
}

/// Creates an empty table.
pub(super) fn create_table(batch: &mut Batch, table: &str) {
    batch.create(libc::NFT_MSG_NEWTABLE, |a| table_name(a, table));
}

/// Creates such a table under another name and deletes it again, to see whether the kernel has
/// what it takes. No packet ever meets it.
pub(super) fn probe(batch: &mut Batch, options: &InterceptOptions) {
    fill(batch, PROBE, options);
    batch.delete(libc::NFT_MSG_DELTABLE, |a| table_name(a, PROBE));
}

fn table_name(attributes: &mut Attributes, table: &str) {
    attributes.string(TABLE_NAME, table);
}

fn fill(batch: &mut Batch, table: &str, options: &InterceptOptions) {
    create_table(batch, table);
    for (id, set) in Set::ALL.into_iter().enumerate() {
        create_set(batch, table, set, id as u32 + 1);
    }
    for chain in [CAPTURE, REFUSE] {
        batch.create(libc::NFT_MSG_NEWCHAIN, |attributes| {
            attributes.string(CHAIN_TABLE, table);
            attributes.string(CHAIN_NAME, chain);
        });
    }
    let hook = libc::NF_INET_PRE_ROUTING;
    base_chain(batch, table, ENTRY, "filter", (hook, PRIORITY));
    if options.method == Method::Redirect {
        base_chain(batch, table, REDIRECT, "nat", (hook, NAT_PRIORITY));
    }
    add_rules(batch, table, options);
}

/// A chain that packets enter at a hook, in the order of priorities.
pub(super) fn base_chain(
    batch: &mut Batch,
    table: &str,
    name: &str,
    kind: &str,
    (hook_number, priority): (i32, i32),
) {
    batch.create(libc::NFT_MSG_NEWCHAIN, |attributes| {
        attributes.string(CHAIN_TABLE, table);
        attributes.string(CHAIN_NAME, name);
        attributes.nest(CHAIN_HOOK, |hook| {
            hook.number(HOOK_NUMBER, hook_number as u32);
            hook.number(HOOK_PRIORITY, priority as u32);
        });
        attributes.number(CHAIN_POLICY, libc::NF_ACCEPT as u32);
        attributes.string(CHAIN_TYPE, kind);
    });
}

/// Applies changes of the sets' elements: what leaves a set goes before what enters one.
pub(super) fn change(batch: &mut Batch, changes: &[Change]) {
    for set in Set::ALL {
        let of = |add: bool| -> Vec<&Element> {
            let chosen = changes.iter().filter(|c| c.set == set && c.add == add);
            chosen.map(|c| &c.element).collect()
        };
        for part in of(false).chunks(ELEMENTS_PER_MESSAGE) {
            batch.delete(libc::NFT_MSG_DELSETELEM, |a| elements(a, set, part));
        }
        for part in of(true).chunks(ELEMENTS_PER_MESSAGE) {
            batch.create(libc::NFT_MSG_NEWSETELEM, |a| elements(a, set, part));
        }
    }
}

fn set_name(set: Set) -> &'static str {
    match set {
        Set::Capture(Family::V4) => "capture4",
        Set::Capture(Family::V6) => "capture6",
        Set::Refuse(Family::V4) => "refuse4",
        Set::Refuse(Family::V6) => "refuse6",
        Set::ServiceAddresses(Family::V4) => "addresses4",
        Set::ServiceAddresses(Family::V6) => "addresses6",
        Set::NodeAddresses(Family::V4) => "node4",
        Set::NodeAddresses(Family::V6) => "node6",
    }
}

fn create_set(batch: &mut Batch, table: &str, set: Set, id: u32) {
    let (Set::Capture(family)
    | Set::Refuse(family)
    | Set::ServiceAddresses(family)
    | Set::NodeAddresses(family)) = set;
    let (address_type, address_length) = match family {
        Family::V4 => (TYPE_V4, 4),
        Family::V6 => (TYPE_V6, 16),
    };
    let (key_type, key_length) = match set {
        Set::Capture(_) | Set::Refuse(_) => (
            (address_type << 12) | TYPE_PROTOCOL_AND_PORT,
            address_length + 8,
        ),
        Set::ServiceAddresses(_) | Set::NodeAddresses(_) => (address_type, address_length),
    };
    batch.create(libc::NFT_MSG_NEWSET, |attributes| {
        attributes.string(SET_TABLE, table);
        attributes.string(SET_NAME, set_name(set));
        attributes.number(SET_FLAGS, 0);
        attributes.number(SET_KEY_TYPE, key_type);
        attributes.number(SET_KEY_LENGTH, key_length);
        attributes.number(SET_ID, id);
    });
}

fn elements(attributes: &mut Attributes, set: Set, elements: &[&Element]) {
    attributes.string(ELEMENTS_TABLE, TABLE);
    attributes.string(ELEMENTS_SET, set_name(set));
    attributes.nest(ELEMENTS, |list| {
        for element in elements {
            list.nest(LIST_ELEMENT, |entry| {
                entry.nest(ELEMENT_KEY, |key| {
                    key.bytes(DATA_VALUE, &element_key(element));
                });
            });
        }
    });
}

/// Each part of a concatenated key fills whole 4-byte registers.
fn element_key(element: &Element) -> Vec<u8> {
    let address = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    match element {
        Element::Address(ip) => address(ip),
        Element::Service(ip, protocol, port) => {
            let protocol = match protocol {
                Protocol::Tcp => libc::IPPROTO_TCP,
                Protocol::Udp => libc::IPPROTO_UDP,
            };
            let [high, low] = port.to_be_bytes();
            let mut key = address(ip);
            key.extend_from_slice(&[protocol as u8, 0, 0, 0, high, low, 0, 0]);
            key
        }
    }
}

fn add_rules(batch: &mut Batch, table: &str, options: &InterceptOptions) {
    let mut add = |chain: &str, rule: Rule| add_rule(batch, table, chain, &rule);
    let rule = Rule::default;
    let deliver = |rule: Rule| rule.set_mark(options.mark).accept();
    match options.method {
        Method::Transparent => add(CAPTURE, deliver(rule().tproxy(options.port))),
        // The `redirect` chain gets it next, because the mark is on.
        Method::Redirect => {
            add(CAPTURE, deliver(rule()));
            for family in [Family::V4, Family::V6] {
                let mut of_family = options.node_ips.iter();
                let Some(ip) = of_family.find(|ip| Family::of(**ip) == family) else {
                    continue;
                };
                let captured = rule().marked(options.mark).family(family).tcp();
                add(REDIRECT, captured.destination_nat(*ip, options.port));
            }
        }
    }
    add(REFUSE, rule().tcp().reject_with_reset());
    add(REFUSE, rule().reject_port_unreachable());

    add(ENTRY, rule().input_device(LOOPBACK).accept());
    match options.method {
        Method::Transparent => add(ENTRY, deliver(rule().tcp().for_transparent_socket())),
        Method::Redirect => add(ENTRY, rule().redirected().accept()),
    }
    for family in [Family::V4, Family::V6] {
        let of_family = || rule().family(family);
        let for_service = |set| of_family().service_in_set(family, set_name(set));
        let for_address = |set| of_family().destination_in_set(family, set_name(set));
        add(ENTRY, for_service(Set::Capture(family)).goto(CAPTURE));
        add(ENTRY, for_service(Set::Refuse(family)).goto(REFUSE));
        add(ENTRY, for_address(Set::NodeAddresses(family)).accept());
        let active = for_address(Set::ServiceAddresses(family));
        add(ENTRY, active.goto(REFUSE));
        for cidr in of(&options.service_cidrs, family) {
            add(ENTRY, within(of_family(), &cidr).drop());
        }
        let pods: Vec<_> = of(&options.pod_cidrs, family).collect();
        for cidr in &pods {
            if options.method == Method::Transparent {
                for answer in [of_family().udp(), of_family().icmp(family)] {
                    let answer = within(answer, cidr).for_transparent_socket();
                    add(ENTRY, deliver(answer));
                }
            }
            add(ENTRY, within(of_family(), cidr).accept());
        }
        if pods.is_empty() || !options.egress {
            continue;
        }
        for cidr in of(&super::NEVER_OUTSIDE, family) {
            add(ENTRY, within(of_family().tcp(), &cidr).goto(REFUSE));
        }
        add(ENTRY, of_family().tcp().goto(CAPTURE));
    }
}

/// Adds a rule to the end of a chain.
pub(super) fn add_rule(batch: &mut Batch, table: &str, chain: &str, rule: &Rule) {
    batch.append(libc::NFT_MSG_NEWRULE, |attributes| {
        attributes.string(RULE_TABLE, table);
        attributes.string(RULE_CHAIN, chain);
        attributes.nest(RULE_EXPRESSIONS, |list| {
            list.append(rule.expressions());
        });
    });
}

fn of(cidrs: &[IpNet], family: Family) -> impl Iterator<Item = IpNet> {
    let wanted = cidrs.iter().copied();
    wanted.filter(move |cidr| Family::of(cidr.addr()) == family)
}

/// Only packets whose destination is in a prefix.
pub(super) fn within(rule: Rule, cidr: &IpNet) -> Rule {
    match cidr {
        IpNet::V4(net) => {
            rule.destination_in(Family::V4, &net.network().octets(), &net.netmask().octets())
        }
        IpNet::V6(net) => {
            rule.destination_in(Family::V6, &net.network().octets(), &net.netmask().octets())
        }
    }
}
