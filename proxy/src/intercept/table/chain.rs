//! Chains and rules, as any of our tables has them.

use ipnet::IpNet;
use nix::libc;

use super::super::netlink::Batch;
use super::super::rule::{Family, Rule};

/// `lo` has this index in every namespace.
pub(in super::super) const LOOPBACK: u32 = 1;

/// `NF_IP_PRI_NAT_DST`, which `nft` 1.0.6 does not know by name on every hook.
pub(in super::super) const NAT_PRIORITY: i32 = -100;

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

/// Creates a chain that rules of others go to.
pub(super) fn regular_chain(batch: &mut Batch, table: &str, name: &str) {
    batch.create(libc::NFT_MSG_NEWCHAIN, |attributes| {
        attributes.string(CHAIN_TABLE, table);
        attributes.string(CHAIN_NAME, name);
    });
}

/// Creates a chain that packets enter from the network stack, at a hook and with a priority.
pub(in super::super) fn base_chain(
    batch: &mut Batch,
    table: &str,
    name: &str,
    kind: &str,
    (hook, priority): (i32, i32),
) {
    batch.create(libc::NFT_MSG_NEWCHAIN, |attributes| {
        attributes.string(CHAIN_TABLE, table);
        attributes.string(CHAIN_NAME, name);
        attributes.nest(CHAIN_HOOK, |place| {
            place.number(HOOK_NUMBER, hook as u32);
            place.number(HOOK_PRIORITY, priority as u32);
        });
        attributes.number(CHAIN_POLICY, libc::NF_ACCEPT as u32);
        attributes.string(CHAIN_TYPE, kind);
    });
}

/// Adds a rule to the end of a chain.
pub(in super::super) fn add_rule(batch: &mut Batch, table: &str, chain: &str, rule: &Rule) {
    batch.append(libc::NFT_MSG_NEWRULE, |attributes| {
        attributes.string(RULE_TABLE, table);
        attributes.string(RULE_CHAIN, chain);
        attributes.nest(RULE_EXPRESSIONS, |list| {
            list.append(rule.expressions());
        });
    });
}

/// Only packets whose destination is in a prefix, of whose family they have to be.
pub(in super::super) fn within(rule: Rule, cidr: &IpNet) -> Rule {
    let (family, network, mask) = parts(cidr);
    rule.destination_in(family, &network, &mask)
}

/// Only packets whose source is in a prefix, of whose family they have to be.
pub(super) fn from(rule: Rule, cidr: &IpNet) -> Rule {
    let (family, network, mask) = parts(cidr);
    rule.source_in(family, &network, &mask)
}

fn parts(cidr: &IpNet) -> (Family, Vec<u8>, Vec<u8>) {
    let octets = super::octets;
    let family = Family::of(cidr.addr());
    (family, octets(cidr.network()), octets(cidr.netmask()))
}
