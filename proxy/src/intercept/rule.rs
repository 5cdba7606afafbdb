//! nf_tables rules as chains of expressions over registers.
//!
//! An expression that does not match ends its rule; the next rule goes on. Values live in 4-byte
//! registers, and a value shorter than its registers is padded with zeros.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use nix::libc;

use super::netlink::Attributes;

// `enum nft_*_attributes` of `linux/netfilter/nf_tables.h`. Attributes of a single expression are
// given by number where they are written.
pub(super) const LIST_ELEMENT: u16 = 1;
pub(super) const DATA_VALUE: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `NFT_OBJECT_COUNTER`.
pub(super) const OBJECT_COUNTER: u32 = 1;

/// Registers 8 to 23 are the 4-byte ones.
const FIRST: u32 = libc::NFT_REG32_00 as u32;

/// The address families that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Where the source address is in the network header, and how long it is.
    fn source(self) -> (u32, u32) {
        match self {
            Self::V4 => (12, 4),
            Self::V6 => (8, 16),
        }
    }

    /// Where the destination address is in the network header, and how long it is.
    fn destination(self) -> (u32, u32) {
        match self {
            Self::V4 => (16, 4),
            Self::V6 => (24, 16),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::V4 => libc::NFPROTO_IPV4 as u8,
            Self::V6 => libc::NFPROTO_IPV6 as u8,
        }
    }
}

/// A rule under construction.
#[derive(Debug, Default)]
pub(super) struct Rule {
    expressions: Attributes,
}

impl Rule {
    /// The expressions, for `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn expressions(&self) -> &Attributes {
        &self.expressions
    }

    /// Only packets that came in through this device.
    pub(super) fn input_device(self, index: u32) -> Self {
        self.load_meta(libc::NFT_META_IIF, FIRST)
            .equals(&index.to_ne_bytes())
    }

    /// Only packets that go out through this device.
    pub(super) fn output_device(self, index: u32) -> Self {
        self.load_meta(libc::NFT_META_OIF, FIRST)
            .equals(&index.to_ne_bytes())
    }

    /// Only packets of sockets that this user has made (output only).
    pub(super) fn user(self, uid: u32) -> Self {
        self.load_meta(libc::NFT_META_SKUID, FIRST)
            .equals(&uid.to_ne_bytes())
    }

    /// Only packets with this mark.
    pub(super) fn marked(self, mark: u32) -> Self {
        self.load_meta(libc::NFT_META_MARK, FIRST)
            .equals(&mark.to_ne_bytes())
    }

    /// Only packets of this family.
    pub(super) fn family(self, family: Family) -> Self {
        self.load_meta(libc::NFT_META_NFPROTO, FIRST)
            .equals(&[family.number()])
    }

    /// Only TCP.
    pub(super) fn tcp(self) -> Self {
        self.load_meta(libc::NFT_META_L4PROTO, FIRST)
            .equals(&[libc::IPPROTO_TCP as u8])
    }

    /// Only UDP.
    pub(super) fn udp(self) -> Self {
        self.load_meta(libc::NFT_META_L4PROTO, FIRST)
            .equals(&[libc::IPPROTO_UDP as u8])
    }

    /// Only the family's ICMP.
    pub(super) fn icmp(self, family: Family) -> Self {
        let protocol = match family {
            Family::V4 => libc::IPPROTO_ICMP,
            Family::V6 => libc::IPPROTO_ICMPV6,
        };
        self.load_meta(libc::NFT_META_L4PROTO, FIRST)
            .equals(&[protocol as u8])
    }

    /// Only packets to these ports; the packet has to be TCP or UDP.
    pub(super) fn destination_port_in(self, ports: &RangeInclusive<u16>) -> Self {
        self.load_payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, FIRST)
            .compare(libc::NFT_CMP_GTE, &ports.start().to_be_bytes())
            .compare(libc::NFT_CMP_LTE, &ports.end().to_be_bytes())
    }

    /// Only TCP segments behind a connection's first one.
    pub(super) fn later_segments(self) -> Self {
        const FLAGS: u32 = 13;
        const FIN_SYN_RST_ACK: u8 = 0x17;
        const SYN: u8 = 0x02;
        self.tcp()
            .load_payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, FLAGS, 1, FIRST)
            .masked(&[FIN_SYN_RST_ACK])
            .compare(libc::NFT_CMP_NEQ, &[SYN])
    }

    /// Only packets whose source address is within a prefix.
    pub(super) fn source_in(self, family: Family, network: &[u8], mask: &[u8]) -> Self {
        let (offset, length) = family.source();
        self.load_payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, FIRST)
            .masked(mask)
            .equals(network)
    }

    /// Only packets whose destination address is within a prefix.
    pub(super) fn destination_in(self, family: Family, network: &[u8], mask: &[u8]) -> Self {
        self.load_destination(family).masked(mask).equals(network)
    }

    /// Only packets whose destination address is in a set.
    pub(super) fn destination_in_set(self, family: Family, set: &str) -> Self {
        self.load_destination(family).lookup(set)
    }

    /// Only packets whose (destination address, protocol, destination port) is in a set.
    pub(super) fn service_in_set(self, family: Family, set: &str) -> Self {
        self.load_service(family).lookup(set)
    }

    /// Only packets whose (destination address, protocol, destination port, source address) is not
    /// in a set.
    pub(super) fn service_and_source_not_in_set(self, family: Family, set: &str) -> Self {
        const INVERT: u32 = 1;
        let (offset, length) = family.source();
        let source = FIRST + length / 4 + 2;
        self.load_service(family)
            .load_payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, source)
            .expression("lookup", |data| {
                data.string(1, set).number(2, FIRST).number(5, INVERT);
            })
    }

    /// Only packets for a transparent socket that is bound or connected to one address: replies to
    /// connections made from a client's address, and later packets of intercepted ones. An ICMP
    /// error is for the socket that it is about.
    pub(super) fn for_transparent_socket(self) -> Self {
        self.transparent_socket().bound_to_one_address(true)
    }

    /// Only packets for a transparent socket, a listening one and one that is half open among them.
    pub(super) fn transparent_socket(self) -> Self {
        const TRANSPARENT: u32 = 0;
        self.load_socket(TRANSPARENT).equals(&[1])
    }

    /// Only packets for a socket that is bound to one address, or for one that is not. Sockets that are
    /// half open, or closed and waiting, are neither.
    pub(super) fn bound_to_one_address(self, is_bound: bool) -> Self {
        const WILDCARD: u32 = 2;
        self.load_socket(WILDCARD).equals(&[u8::from(!is_bound)])
    }

    /// Only packets that some socket here would get as they are, a listening one among them.
    pub(super) fn for_a_socket(self) -> Self {
        // The expression ends the rule if it finds no socket; what it loads does not matter.
        const TRANSPARENT: u32 = 0;
        self.load_socket(TRANSPARENT)
    }

    /// Delivers to the listener on this port, whatever the destination is.
    pub(super) fn tproxy(self, port: u16) -> Self {
        self.load(FIRST, &port.to_be_bytes())
            .expression("tproxy", |data| {
                data.number(1, libc::NFPROTO_UNSPEC as u32);
                data.number(3, FIRST);
            })
    }

    /// Delivers to the listener on this port of this machine (a `nat` chain); see
    /// [`original_destination`](super::original_destination).
    pub(super) fn redirect(self, port: u16) -> Self {
        self.load(FIRST, &port.to_be_bytes())
            .expression("redir", |data| {
                data.number(1, FIRST);
            })
    }

    /// Delivers to this address and port (a `nat` chain), as [`Self::redirect`] does. That one takes
    /// an address of the device that the packet came in through, which routed pods' devices lack.
    pub(super) fn destination_nat(self, ip: IpAddr, port: u16) -> Self {
        const DESTINATION: u32 = 1;
        let (family, address) = match ip {
            IpAddr::V4(ip) => (libc::NFPROTO_IPV4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (libc::NFPROTO_IPV6, ip.octets().to_vec()),
        };
        let port_register = FIRST + address.len() as u32 / 4;
        self.load(FIRST, &address)
            .load(port_register, &port.to_be_bytes())
            .expression("nat", |data| {
                data.number(1, DESTINATION).number(2, family as u32);
                data.number(3, FIRST).number(5, port_register);
            })
    }

    /// Only packets of connections whose destination was changed: redirected ones.
    pub(super) fn redirected(self) -> Self {
        const DESTINATION_CHANGED: u32 = 1 << 5;
        self.expression("ct", |data| {
            data.number(1, FIRST).number(2, libc::NFT_CT_STATUS as u32);
        })
        .masked(&DESTINATION_CHANGED.to_ne_bytes())
        .equals(&DESTINATION_CHANGED.to_ne_bytes())
    }

    /// Marks the packet for routing.
    pub(super) fn set_mark(self, mark: u32) -> Self {
        self.load(FIRST, &mark.to_ne_bytes())
            .expression("meta", |data| {
                data.number(2, libc::NFT_META_MARK as u32);
                data.number(3, FIRST);
            })
    }

    /// Lets the packet pass.
    pub(super) fn accept(self) -> Self {
        self.verdict(libc::NF_ACCEPT, None)
    }

    /// Counts the packet with a counter of the table.
    pub(super) fn count(self, counter: &str) -> Self {
        self.expression("objref", |data| {
            data.number(1, OBJECT_COUNTER).string(2, counter);
        })
    }

    /// Loses the packet.
    pub(super) fn drop(self) -> Self {
        self.verdict(libc::NF_DROP, None)
    }

    /// Goes on in another chain and does not return.
    pub(super) fn goto(self, chain: &str) -> Self {
        self.verdict(libc::NFT_GOTO, Some(chain))
    }

    /// Goes on in another chain, and then behind this rule.
    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(libc::NFT_JUMP, Some(chain))
    }

    /// Goes on where this chain was entered.
    pub(super) fn back(self) -> Self {
        self.verdict(libc::NFT_RETURN, None)
    }

    /// Answers with a TCP reset; the packet has to be TCP.
    pub(super) fn reject_with_reset(self) -> Self {
        self.expression("reject", |data| {
            data.number(1, 1);
        })
    }

    /// Answers with ICMP or ICMPv6 "port unreachable".
    pub(super) fn reject_port_unreachable(self) -> Self {
        self.expression("reject", |data| {
            data.number(1, 2).bytes(2, &[1]);
        })
    }

    fn load_service(self, family: Family) -> Self {
        let (_, address) = family.destination();
        let protocol = FIRST + address / 4;
        self.load_destination(family)
            .load_meta(libc::NFT_META_L4PROTO, protocol)
            .load_payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, protocol + 1)
    }

    fn load_destination(self, family: Family) -> Self {
        let (offset, length) = family.destination();
        self.load_payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, FIRST)
    }

    fn load_payload(self, base: i32, offset: u32, length: u32, register: u32) -> Self {
        self.expression("payload", |data| {
            data.number(1, register).number(2, base as u32);
            data.number(3, offset).number(4, length);
        })
    }

    fn load_meta(self, key: i32, register: u32) -> Self {
        self.expression("meta", |data| {
            data.number(1, register).number(2, key as u32);
        })
    }

    fn load_socket(self, key: u32) -> Self {
        self.expression("socket", |data| {
            data.number(1, key).number(2, FIRST);
        })
    }

    fn load(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |data| {
            data.number(1, register).nest(2, |content| {
                content.bytes(DATA_VALUE, value);
            });
        })
    }

    fn masked(self, mask: &[u8]) -> Self {
        self.expression("bitwise", |data| {
            data.number(1, FIRST).number(2, FIRST);
            data.number(3, mask.len() as u32);
            data.nest(4, |mask_data| {
                mask_data.bytes(DATA_VALUE, mask);
            });
            data.nest(5, |xor| {
                xor.bytes(DATA_VALUE, &vec![0; mask.len()]);
            });
        })
    }

    fn equals(self, value: &[u8]) -> Self {
        self.compare(libc::NFT_CMP_EQ, value)
    }

    /// Values compare as numbers only if they are big-endian.
    fn compare(self, operator: i32, value: &[u8]) -> Self {
        self.expression("cmp", |data| {
            data.number(1, FIRST).number(2, operator as u32);
            data.nest(3, |content| {
                content.bytes(DATA_VALUE, value);
            });
        })
    }

    fn lookup(self, set: &str) -> Self {
        self.expression("lookup", |data| {
            data.string(1, set).number(2, FIRST);
        })
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.expression("immediate", |data| {
            data.number(1, libc::NFT_REG_VERDICT as u32);
            data.nest(2, |content| {
                content.nest(DATA_VERDICT, |verdict| {
                    verdict.number(VERDICT_CODE, code as u32);
                    if let Some(chain) = chain {
                        verdict.string(VERDICT_CHAIN, chain);
                    }
                });
            });
        })
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nest(LIST_ELEMENT, |element| {
            element.string(EXPRESSION_NAME, name);
            element.nest(EXPRESSION_DATA, fill);
        });
        self
    }
}
