//! Resource records, class IN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use hickory_proto::rr::RecordType;

use crate::name::Name;

/// A resource record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Owner.
    pub name: Name,
    /// Seconds for which it may be kept.
    pub ttl: u32,
    /// Type and data.
    pub data: RData,
}

/// Data of a record. What is not understood here is carried as it came (RFC 3597).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RData {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Alias.
    Cname(Name),
    /// Name server.
    Ns(Name),
    /// Name of an address.
    Ptr(Name),
    /// Where a service is (RFC 2782).
    Srv(Srv),
    /// Start of authority.
    Soa(Box<Soa>),
    /// Any other type, names in it uncompressed.
    Other(RecordType, Bytes),
}

/// Data of an SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among records of the same priority.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Host.
    pub target: Name,
}

/// Data of an SOA record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// Primary name server.
    pub mname: Name,
    /// Mailbox of the person responsible.
    pub rname: Name,
    /// Version of the zone.
    pub serial: u32,
    /// Seconds between refreshes by secondaries.
    pub refresh: u32,
    /// Seconds between retries by secondaries.
    pub retry: u32,
    /// Seconds until secondaries give up.
    pub expire: u32,
    /// Seconds for which a negative answer may be kept (RFC 2308).
    pub minimum: u32,
}

impl Record {
    /// The record's type.
    pub fn record_type(&self) -> RecordType {
        match &self.data {
            RData::A(_) => RecordType::A,
            RData::Aaaa(_) => RecordType::AAAA,
            RData::Cname(_) => RecordType::CNAME,
            RData::Ns(_) => RecordType::NS,
            RData::Ptr(_) => RecordType::PTR,
            RData::Srv(_) => RecordType::SRV,
            RData::Soa(_) => RecordType::SOA,
            RData::Other(record_type, _) => *record_type,
        }
    }

    /// An A or AAAA record.
    pub fn address(name: Name, ttl: u32, addr: IpAddr) -> Self {
        let data = match addr {
            IpAddr::V4(addr) => RData::A(addr),
            IpAddr::V6(addr) => RData::Aaaa(addr),
        };
        Self { name, ttl, data }
    }

    /// The record is an A or AAAA record.
    pub fn is_address(&self) -> bool {
        matches!(self.data, RData::A(_) | RData::Aaaa(_))
    }
}
