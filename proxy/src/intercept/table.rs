//! The table `inet sealane`: its sets, counters and chains, and the elements of its sets. What its
//! rules do is said in [`rules`].
//!
//! The sets hold Services, never endpoints, so that endpoints coming and going write nothing.

mod chain;
mod rules;

use std::net::IpAddr;

use nix::libc;
use sealane_config::model::Protocol;

pub(super) use chain::{LOOPBACK, NAT_PRIORITY, add_rule, base_chain, within};

use super::netlink::{Attributes, Batch, NfTables, attribute};
use super::rule::{DATA_VALUE, Family, LIST_ELEMENT, OBJECT_COUNTER};
use super::state::{Change, Element, Set};
use super::{InterceptError, InterceptOptions, Lost};

/// The name of the node's table.
pub(super) const TABLE: &str = "sealane";
const PROBE: &str = "sealane-probe";

/// Set elements in one message: 100 bytes each at most, and an attribute ends at 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;

const TABLE_NAME: u16 = 1;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const DESCRIPTION_FIELDS: u16 = 2;
const FIELD_LENGTH: u16 = 1;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_KEY_END: u16 = 10;
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER_PACKETS: u16 = 2;

/// `NFT_SET_INTERVAL | NFT_SET_CONCAT`: ranges in the parts of a concatenated key.
const RANGES: u32 = 0x4 | 0x80;

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

/// Creates a table, or leaves one that is there as it is.
pub(super) fn create_table(batch: &mut Batch, table: &str) {
    batch.create(libc::NFT_MSG_NEWTABLE, |a| table_name(a, table));
}

/// Removes a table, if there is one.
pub(super) fn remove(batch: &mut Batch, table: &str) {
    // Created first, because deleting what does not exist fails.
    create_table(batch, table);
    batch.delete(libc::NFT_MSG_DELTABLE, |a| table_name(a, table));
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
    for lost in Lost::ALL {
        batch.create(libc::NFT_MSG_NEWOBJ, |attributes| {
            attributes.string(OBJECT_TABLE, table);
            attributes.string(OBJECT_NAME, lost.label());
            attributes.number(OBJECT_TYPE, OBJECT_COUNTER);
            attributes.nest(OBJECT_DATA, |_zero| {});
        });
    }
    rules::create(batch, table, options);
}

/// How many packets one of the table's counters has seen.
pub(super) fn count(kernel: &mut NfTables, lost: Lost) -> Result<u64, InterceptError> {
    let answer = kernel.get(libc::NFT_MSG_GETOBJ, |attributes| {
        attributes.string(OBJECT_TABLE, TABLE);
        attributes.string(OBJECT_NAME, lost.label());
        attributes.number(OBJECT_TYPE, OBJECT_COUNTER);
    })?;
    let packets = attribute(&answer, OBJECT_DATA)
        .and_then(|data| attribute(data, COUNTER_PACKETS))
        .and_then(|packets| packets.try_into().ok());
    packets
        .map(u64::from_be_bytes)
        .ok_or(InterceptError::Unanswered)
}

/// Applies changes of the sets' elements: what leaves a set goes before what enters one.
pub(super) fn change(batch: &mut Batch, changes: &[Change]) {
    for (message, add) in [
        (libc::NFT_MSG_DELSETELEM, false),
        (libc::NFT_MSG_NEWSETELEM, true),
    ] {
        for set in Set::ALL {
            let chosen = changes.iter().filter(|c| c.set == set && c.add == add);
            let chosen: Vec<&Element> = chosen.map(|c| &c.element).collect();
            for part in chosen.chunks(ELEMENTS_PER_MESSAGE) {
                let fill = |attributes: &mut Attributes| elements(attributes, set, part);
                if add {
                    batch.create(message, fill);
                } else {
                    batch.delete(message, fill);
                }
            }
        }
    }
}

fn set_name(set: Set) -> &'static str {
    match set {
        Set::Capture(Family::V4) => "capture4",
        Set::Capture(Family::V6) => "capture6",
        Set::Refuse(Family::V4) => "refuse4",
        Set::Refuse(Family::V6) => "refuse6",
        Set::CutOff(Family::V4) => "cut-off4",
        Set::CutOff(Family::V6) => "cut-off6",
        Set::InsideOnly(Family::V4) => "inside-only4",
        Set::InsideOnly(Family::V6) => "inside-only6",
        Set::Restricted(Family::V4) => "restricted4",
        Set::Restricted(Family::V6) => "restricted6",
        Set::Admitted(Family::V4) => "admitted4",
        Set::Admitted(Family::V6) => "admitted6",
        Set::ServiceAddresses(Family::V4) => "addresses4",
        Set::ServiceAddresses(Family::V6) => "addresses6",
        Set::NodeAddresses(Family::V4) => "node4",
        Set::NodeAddresses(Family::V6) => "node6",
    }
}

fn create_set(batch: &mut Batch, table: &str, set: Set, id: u32) {
    let (Set::Capture(family)
    | Set::Refuse(family)
    | Set::CutOff(family)
    | Set::InsideOnly(family)
    | Set::Restricted(family)
    | Set::Admitted(family)
    | Set::ServiceAddresses(family)
    | Set::NodeAddresses(family)) = set;
    let (address_type, address_length) = match family {
        Family::V4 => (TYPE_V4, 4),
        Family::V6 => (TYPE_V6, 16),
    };
    let service_type = (address_type << 12) | TYPE_PROTOCOL_AND_PORT;
    let service_length = address_length + 8;
    let (key_type, key_length) = match set {
        Set::Capture(_)
        | Set::Refuse(_)
        | Set::CutOff(_)
        | Set::InsideOnly(_)
        | Set::Restricted(_) => (service_type, service_length),
        Set::Admitted(_) => (
            (service_type << 6) | address_type,
            service_length + address_length,
        ),
        Set::ServiceAddresses(_) | Set::NodeAddresses(_) => (address_type, address_length),
    };
    let with_ranges = matches!(set, Set::Admitted(_));
    batch.create(libc::NFT_MSG_NEWSET, |attributes| {
        attributes.string(SET_TABLE, table);
        attributes.string(SET_NAME, set_name(set));
        attributes.number(SET_FLAGS, if with_ranges { RANGES } else { 0 });
        attributes.number(SET_KEY_TYPE, key_type);
        attributes.number(SET_KEY_LENGTH, key_length);
        attributes.number(SET_ID, id);
        if with_ranges {
            attributes.nest(SET_DESCRIPTION, |description| {
                description.nest(DESCRIPTION_FIELDS, |fields| {
                    for length in [address_length, 1, 2, address_length] {
                        fields.nest(LIST_ELEMENT, |field| {
                            field.number(FIELD_LENGTH, length);
                        });
                    }
                });
            });
        }
    });
}

fn elements(attributes: &mut Attributes, set: Set, elements: &[&Element]) {
    attributes.string(ELEMENTS_TABLE, TABLE);
    attributes.string(ELEMENTS_SET, set_name(set));
    attributes.nest(ELEMENTS, |list| {
        for element in elements {
            list.nest(LIST_ELEMENT, |entry| {
                let (first, last) = element_keys(element);
                entry.nest(ELEMENT_KEY, |key| {
                    key.bytes(DATA_VALUE, &first);
                });
                if let Some(last) = last {
                    entry.nest(ELEMENT_KEY_END, |key| {
                        key.bytes(DATA_VALUE, &last);
                    });
                }
            });
        }
    });
}

/// The key of an element, and the last one where it stands for a range.
fn element_keys(element: &Element) -> (Vec<u8>, Option<Vec<u8>>) {
    match *element {
        Element::Address(ip) => (octets(ip), None),
        Element::Service(ip, protocol, port) | Element::Restricted(ip, protocol, port) => {
            (service_key(ip, protocol, port), None)
        }
        Element::Source(ip, protocol, port, net) => {
            let with = |source| [service_key(ip, protocol, port), octets(source)].concat();
            (with(net.network()), Some(with(net.broadcast())))
        }
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Each part of a concatenated key fills whole 4-byte registers.
fn service_key(ip: IpAddr, protocol: Protocol, port: u16) -> Vec<u8> {
    let protocol = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    };
    let [high, low] = port.to_be_bytes();
    let mut key = octets(ip);
    key.extend_from_slice(&[protocol as u8, 0, 0, 0, high, low, 0, 0]);
    key
}
