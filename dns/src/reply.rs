//! Replies of upstreams: checked, read, and cut down to what was asked.
//!
//! A reply counts only if id, opcode and question match; anything else is somebody's guess and is
//! ignored. Of the answer section only the chain that starts at the question's name is kept, of the
//! authority section only an SOA record above the last name of the chain (or everything there above
//! it, if DNSSEC records are wanted), of the additional section nothing: so a reply can say nothing
//! about names that it was not asked about.

use bytes::Bytes;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::answer::{Answer, ExtendedError};
use crate::message::{HEADER, Question, class, flag, option};
use crate::name::Name;
use crate::record::{RData, Record, Soa, Srv};
use crate::wire::{Cursor, Malformed};

/// Aliases followed within one reply.
const MAX_CHAIN: usize = 16;
/// Longest text of an extended error that is passed on, bytes.
const MAX_ERROR_TEXT: usize = 128;

/// Why a message is not the reply that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not a reply to this query: keep waiting.
    #[error("the message is no reply to this query")]
    NotOurs,
    /// The upstream cannot read the query: ask again without EDNS (RFC 6891 section 7).
    #[error("the upstream answers {0}")]
    NoEdns(ResponseCode),
    /// A reply to this query that cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Reads the reply to a query that was sent with this id.
///
/// # Errors
/// [`ReplyError`].
pub fn parse(
    message: &[u8],
    id: u16,
    question: &Question,
    dnssec_ok: bool,
) -> Result<Answer, ReplyError> {
    if let Some(rcode) = cannot_read_query(message, id) {
        return Err(ReplyError::NoEdns(rcode));
    }
    let (flags, counts, mut cursor) = matching(message, id, question).ok_or(ReplyError::NotOurs)?;
    let truncated = flags & flag::TC != 0;
    let mut read = |count| match section(&mut cursor, count) {
        // What was cut off may have been cut anywhere.
        Err(Malformed) if truncated => Ok(Vec::new()),
        records => records,
    };
    let (answers, authority) = (read(counts[0])?, read(counts[1])?);
    let opt = opt(&mut cursor, counts[2]).unwrap_or_default();
    let low = (flags & flag::RCODE) as u8;
    let mut answer = Answer::code(ResponseCode::from(opt.rcode_high, low), opt.error);
    answer.truncated = truncated;
    answer.authoritative = flags & flag::AA != 0;
    answer.recursion_available = flags & flag::RA != 0;
    answer.authentic = flags & flag::AD != 0;
    let last = keep_chain(&mut answer.answers, answers, question);
    answer.authority = authority
        .into_iter()
        .filter(|record| dnssec_ok || record.record_type() == RecordType::SOA)
        .filter(|record| dnssec_ok || last.is_within(&record.name))
        .collect();
    Ok(answer)
}

/// FORMERR or NOTIMP, if the reply has this id and says so. It need not repeat a question that it did
/// not understand.
fn cannot_read_query(message: &[u8], id: u16) -> Option<ResponseCode> {
    let mut cursor = Cursor::new(message, 0);
    let (Ok(their_id), Ok(flags), HEADER..) = (cursor.u16(), cursor.u16(), message.len()) else {
        return None;
    };
    let rcode = ResponseCode::from_low((flags & flag::RCODE) as u8);
    let refuses = matches!(rcode, ResponseCode::FormErr | ResponseCode::NotImp);
    let ours = their_id == id && flags & flag::QR != 0 && flags & flag::OPCODE == 0;
    (ours && refuses).then_some(rcode)
}

/// Flags, counts of answer, authority and additional section, and what follows the question, if the message is
/// a reply to this query.
fn matching<'a>(
    message: &'a [u8],
    id: u16,
    question: &Question,
) -> Option<(u16, [u16; 3], Cursor<'a>)> {
    let mut cursor = Cursor::new(message, 0);
    let mut word = || cursor.u16().ok();
    let (their_id, flags, questions) = (word()?, word()?, word()?);
    let counts = [word()?, word()?, word()?];
    if their_id != id || flags & flag::QR == 0 || flags & flag::OPCODE != 0 || questions != 1 {
        return None;
    }
    let mut cursor = Cursor::new(message, HEADER);
    let same = cursor.plain_name().ok()?.eq_ignore_case(&question.name)
        && cursor.u16().ok()? == u16::from(question.record_type)
        && cursor.u16().ok()? == class::IN;
    same.then_some((flags, counts, cursor))
}

/// What is read from the OPT record of a reply.
#[derive(Debug, Default)]
struct Opt {
    rcode_high: u8,
    error: Option<ExtendedError>,
}

/// Finds the OPT record. `None` if there is none, or the section is malformed: nothing else in it is
/// used.
fn opt(cursor: &mut Cursor<'_>, count: u16) -> Option<Opt> {
    for _ in 0..count {
        cursor.skip_name().ok()?;
        let record_type = RecordType::from(cursor.u16().ok()?);
        let _size = cursor.u16().ok()?;
        let rcode_high = cursor.u8().ok()?;
        let _version_and_flags = cursor.bytes(3).ok()?;
        let length = cursor.u16().ok()?;
        let data = cursor.bytes(length.into()).ok()?;
        if record_type == RecordType::OPT {
            let error = extended_error(data);
            return Some(Opt { rcode_high, error });
        }
    }
    None
}

/// The first extended error among the options of an OPT record.
fn extended_error(data: &[u8]) -> Option<ExtendedError> {
    let mut cursor = Cursor::new(data, 0);
    loop {
        let code = cursor.u16().ok()?;
        let length = cursor.u16().ok()?;
        let data = cursor.bytes(length.into()).ok()?;
        if code == option::EXTENDED_ERROR {
            let (code, text) = data.split_first_chunk()?;
            let text = &text[..text.len().min(MAX_ERROR_TEXT)];
            return Some(ExtendedError {
                code: u16::from_be_bytes(*code),
                text: String::from_utf8_lossy(text).into_owned().into(),
            });
        }
    }
}

/// Reads records; those of other classes than IN are left out.
pub(crate) fn section(cursor: &mut Cursor<'_>, count: u16) -> Result<Vec<Record>, Malformed> {
    let mut records = Vec::new();
    for _ in 0..count {
        if let Some(record) = record(cursor)? {
            records.push(record);
        }
    }
    Ok(records)
}

/// Reads a record. `None` if it is not of class IN.
fn record(cursor: &mut Cursor<'_>) -> Result<Option<Record>, Malformed> {
    let name = cursor.name()?;
    let record_type = RecordType::from(cursor.u16()?);
    let class = cursor.u16()?;
    let ttl = cursor.u32()?;
    let length = usize::from(cursor.u16()?);
    let mut inside = cursor.clone();
    let data = cursor.bytes(length)?;
    if class != class::IN {
        return Ok(None);
    }
    let data = rdata(record_type, data, &mut inside)?;
    let compressible = !matches!(data, RData::A(_) | RData::Aaaa(_) | RData::Other(..));
    if compressible && inside.position() != cursor.position() {
        return Err(Malformed);
    }
    // The top bit makes a TTL negative, which means zero (RFC 2181 section 8).
    let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
    Ok(Some(Record { name, ttl, data }))
}

/// Reads record data. Names may be compressed in the types of RFC 1035, and are so by some servers
/// in SRV.
fn rdata(
    record_type: RecordType,
    data: &[u8],
    inside: &mut Cursor<'_>,
) -> Result<RData, Malformed> {
    Ok(match record_type {
        RecordType::A => RData::A(<[u8; 4]>::try_from(data).map_err(|_size| Malformed)?.into()),
        RecordType::AAAA => RData::Aaaa(
            <[u8; 16]>::try_from(data)
                .map_err(|_size| Malformed)?
                .into(),
        ),
        RecordType::CNAME => RData::Cname(inside.name()?),
        RecordType::NS => RData::Ns(inside.name()?),
        RecordType::PTR => RData::Ptr(inside.name()?),
        RecordType::SRV => RData::Srv(Srv {
            priority: inside.u16()?,
            weight: inside.u16()?,
            port: inside.u16()?,
            target: inside.name()?,
        }),
        RecordType::SOA => RData::Soa(Box::new(Soa {
            mname: inside.name()?,
            rname: inside.name()?,
            serial: inside.u32()?,
            refresh: inside.u32()?,
            retry: inside.u32()?,
            expire: inside.u32()?,
            minimum: inside.u32()?,
        })),
        RecordType::MX => {
            let preference = inside.u16()?;
            let mut wire = preference.to_be_bytes().to_vec();
            wire.extend_from_slice(inside.name()?.wire());
            RData::Other(record_type, wire.into())
        }
        _ => RData::Other(record_type, Bytes::copy_from_slice(data)),
    })
}

/// Keeps the records of the alias chain that starts at the question's name, and returns the name at
/// which it ends.
fn keep_chain(kept: &mut Vec<Record>, records: Vec<Record>, question: &Question) -> Name {
    let mut last = question.name.clone();
    let mut chain = vec![last.clone()];
    if question.record_type != RecordType::CNAME && question.record_type != RecordType::ANY {
        while chain.len() < MAX_CHAIN {
            let alias = records.iter().find_map(|record| match &record.data {
                RData::Cname(target) if record.name.eq_ignore_case(&last) => Some(target),
                _ => None,
            });
            let Some(target) = alias else { break };
            if chain.iter().any(|name| name.eq_ignore_case(target)) {
                break;
            }
            last = target.clone();
            chain.push(last.clone());
        }
    }
    let in_chain = |record: &Record| {
        let dname = record.record_type() == RecordType::DNAME;
        chain.iter().any(|name| {
            name.eq_ignore_case(&record.name) || (dname && name.is_within(&record.name))
        })
    };
    kept.extend(records.into_iter().filter(in_chain));
    // Aliases in order, before what they lead to, also if the upstream sent them otherwise.
    kept.sort_by_key(|record| {
        let link = chain
            .iter()
            .position(|name| name.eq_ignore_case(&record.name));
        link.unwrap_or(0)
    });
    last
}

#[cfg(test)]
mod tests;
