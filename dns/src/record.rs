//! Resource records, class IN.

use std::fmt;
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

    /// The address of an A or AAAA record.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.data {
            RData::A(addr) => Some((*addr).into()),
            RData::Aaaa(addr) => Some((*addr).into()),
            _ => None,
        }
    }

    /// The record is an A or AAAA record.
    pub fn is_address(&self) -> bool {
        matches!(self.data, RData::A(_) | RData::Aaaa(_))
    }
}

impl fmt::Display for Record {
    /// As in a zone file (RFC 1035 section 5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, ttl) = (&self.name, self.ttl);
        write!(f, "{name} {ttl} IN {} {}", self.record_type(), self.data)
    }
}

impl fmt::Display for RData {
    /// As in a zone file; of the types that are not understood TXT in quotes and the others in hex
    /// (RFC 3597 section 5).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(addr) => addr.fmt(f),
            Self::Aaaa(addr) => addr.fmt(f),
            Self::Cname(name) | Self::Ns(name) | Self::Ptr(name) => name.fmt(f),
            Self::Srv(srv) => {
                let (priority, weight) = (srv.priority, srv.weight);
                write!(f, "{priority} {weight} {} {}", srv.port, srv.target)
            }
            Self::Soa(soa) => {
                write!(f, "{} {}", soa.mname, soa.rname)?;
                let times = [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum];
                times.iter().try_for_each(|time| write!(f, " {time}"))
            }
            Self::Other(RecordType::TXT, data) => {
                let mut rest = &data[..];
                while let Some((&length, tail)) = rest.split_first() {
                    let (text, tail) = tail.split_at(tail.len().min(length.into()));
                    write!(f, "\"{}\"", text.escape_ascii())?;
                    rest = tail;
                }
                Ok(())
            }
            Self::Other(_, data) => {
                write!(f, "\\# {} ", data.len())?;
                data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}
