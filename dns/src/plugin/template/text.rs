//! Records from their text form (RFC 1035 section 5.1): owner, TTL and class in any order, type, data.

use hickory_proto::rr;
use hickory_proto::rr::RecordType;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use hickory_proto::serialize::txt::parse_ttl;

use crate::name::Name;
use crate::record::{RData, Record, Soa, Srv};
use crate::wire::Cursor;

/// Seconds for which a record may be kept whose text does not say.
const DEFAULT_TTL: u32 = 3600;

/// The record that a line describes. `None` if it describes none.
pub(super) fn record(line: &str) -> Option<Record> {
    let (owner, mut rest) = word(line)?;
    let mut ttl = DEFAULT_TTL;
    let record_type = loop {
        let (next, after) = word(rest)?;
        rest = after;
        if matches!(next, "IN" | "in" | "CH" | "ch") {
            continue;
        }
        let seconds = match next.parse() {
            Ok(seconds) => Some(seconds),
            Err(_) => parse_ttl(next).ok(),
        };
        match seconds {
            Some(seconds) => ttl = seconds,
            None => break next.to_ascii_uppercase().parse::<RecordType>().ok()?,
        }
    };
    let data = rr::RData::try_from_str(record_type, rest.trim()).ok()?;
    Some(Record {
        name: Name::from_escaped(owner)?,
        ttl,
        data: convert(record_type, &data)?,
    })
}

/// The first word and what comes after it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (!word.is_empty()).then_some((word, rest))
}

/// The data in this crate's form.
fn convert(record_type: RecordType, data: &rr::RData) -> Option<RData> {
    let name = |name: &rr::Name| {
        let mut wire = Vec::new();
        let mut encoder = BinEncoder::new(&mut wire);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        name.emit(&mut encoder).ok()?;
        Cursor::new(&wire, 0).plain_name().ok()
    };
    Some(match data {
        rr::RData::A(addr) => RData::A(addr.0),
        rr::RData::AAAA(addr) => RData::Aaaa(addr.0),
        rr::RData::CNAME(target) => RData::Cname(name(&target.0)?),
        rr::RData::NS(target) => RData::Ns(name(&target.0)?),
        rr::RData::PTR(target) => RData::Ptr(name(&target.0)?),
        rr::RData::SRV(srv) => RData::Srv(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: name(&srv.target)?,
        }),
        rr::RData::SOA(soa) => RData::Soa(Box::new(Soa {
            mname: name(&soa.mname)?,
            rname: name(&soa.rname)?,
            serial: soa.serial,
            refresh: u32::try_from(soa.refresh).ok()?,
            retry: u32::try_from(soa.retry).ok()?,
            expire: u32::try_from(soa.expire).ok()?,
            minimum: soa.minimum,
        })),
        other => {
            let mut wire = Vec::new();
            let mut encoder = BinEncoder::new(&mut wire);
            encoder.set_name_encoding(NameEncoding::Uncompressed);
            other.emit(&mut encoder).ok()?;
            RData::Other(record_type, wire.into())
        }
    })
}
