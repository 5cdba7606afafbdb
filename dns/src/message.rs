//! Queries: checked and read.
//!
//! The header comes first: what is no query, has an unknown opcode or does not hold exactly one
//! question is turned away after twelve bytes, so a count can never make anything be reserved.
//! Then the question, then at most three records, of which only OPT is read.
//!
//! | message | answer |
//! |---|---|
//! | shorter than a header, or a response | silence: a reply to a reply could loop |
//! | opcode other than QUERY | NOTIMP, header only |
//! | other counts than 1, 0, 0, few; bad name; cut off; class 0; two OPTs; OPT elsewhere | FORMERR, header only |
//! | class CH, HS, …; AXFR and IXFR | REFUSED |
//! | EDNS version above 0 | BADVERS with OPT |
//! | bytes after the message | ignored |

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::name::Name;
use crate::wire::{Cursor, Malformed};

/// Length of a message's header.
pub const HEADER: usize = 12;
/// Records of the additional section that a query may have: OPT, a signature, one to spare.
const MAX_ADDITIONAL: u16 = 3;

/// Flags of a header, as masks on its second 16-bit word.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const AD: u16 = 0x0020;
    pub(crate) const CD: u16 = 0x0010;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// Classes (RFC 1035 section 3.2.4).
pub(crate) mod class {
    pub(crate) const NONE: u16 = 0;
    pub(crate) const IN: u16 = 1;
    pub(crate) const CH: u16 = 3;
    pub(crate) const ANY: u16 = 255;
}

/// EDNS options.
pub(crate) mod option {
    /// edns-tcp-keepalive (RFC 7828).
    pub(crate) const KEEPALIVE: u16 = 11;
    /// Extended DNS error (RFC 8914).
    pub(crate) const EXTENDED_ERROR: u16 = 15;
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name as typed.
    pub name: Name,
    /// The type.
    pub record_type: RecordType,
    /// The class as typed: IN, or ANY which is taken as IN.
    pub class: u16,
}

impl Question {
    /// A question of class IN.
    pub fn new(name: Name, record_type: RecordType) -> Self {
        Self {
            name,
            record_type,
            class: class::IN,
        }
    }
}

/// The OPT record of a query (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Largest UDP message that the client takes, bytes, as it says.
    pub udp_size: u16,
    /// Wants DNSSEC records.
    pub dnssec_ok: bool,
    /// Asks how long an idle connection is kept.
    pub keepalive: bool,
}

/// A query that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Message id.
    pub id: u16,
    /// The header's flags as they came.
    pub flags: u16,
    /// What is asked.
    pub question: Question,
    /// OPT record, if there is one.
    pub edns: Option<Edns>,
}

impl Query {
    /// The client asks for validated data to be marked, or for DNSSEC records.
    pub fn wants_authentic(&self) -> bool {
        self.flags & flag::AD != 0 || self.dnssec_ok()
    }

    /// DO is set.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// RD is set.
    pub fn recursion_desired(&self) -> bool {
        self.flags & flag::RD != 0
    }

    /// CD is set.
    pub fn checking_disabled(&self) -> bool {
        self.flags & flag::CD != 0
    }
}

/// A message that is not answered by a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// No reply.
    Silence,
    /// A header with this code and nothing else.
    Header {
        /// Message id.
        id: u16,
        /// The header's flags as they came.
        flags: u16,
        /// The code.
        rcode: ResponseCode,
    },
    /// A reply with this code that repeats the question.
    Code(Query, ResponseCode),
}

/// Checks and reads a query.
///
/// # Errors
/// What to do instead of a lookup: see the table above.
pub fn parse(message: &[u8]) -> Result<Query, Rejected> {
    let mut header = Cursor::new(message, 0);
    let mut word = || header.u16().map_err(|_short| Rejected::Silence);
    let (id, flags) = (word()?, word()?);
    let counts = [word()?, word()?, word()?, word()?];
    if flags & flag::QR != 0 {
        return Err(Rejected::Silence);
    }
    let reject = |rcode| Rejected::Header { id, flags, rcode };
    if flags & flag::OPCODE != 0 {
        return Err(reject(ResponseCode::NotImp));
    }
    let body = Body::parse(message, counts);
    let (body, code) = body.map_err(|Malformed| reject(ResponseCode::FormErr))?;
    let query = Query {
        id,
        flags,
        question: body.question,
        edns: body.edns,
    };
    match code {
        None => Ok(query),
        Some(rcode) => Err(Rejected::Code(query, rcode)),
    }
}

struct Body {
    question: Question,
    edns: Option<Edns>,
}

impl Body {
    /// Reads what follows the header. The code says why a well-formed query is not looked up.
    fn parse(
        message: &[u8],
        [questions, answers, authority, additional]: [u16; 4],
    ) -> Result<(Self, Option<ResponseCode>), Malformed> {
        if questions != 1 {
            return Err(Malformed);
        }
        let mut cursor = Cursor::new(message, HEADER);
        let question = Question {
            name: cursor.plain_name()?,
            record_type: cursor.u16()?.into(),
            class: cursor.u16()?,
        };
        let transfer = matches!(question.record_type, RecordType::AXFR | RecordType::IXFR);
        if transfer {
            // IXFR carries an SOA record in the authority section, so counts are not looked at.
            let body = Self {
                question,
                edns: None,
            };
            return Ok((body, Some(ResponseCode::Refused)));
        }
        let meta = matches!(
            question.record_type,
            RecordType::OPT | RecordType::TSIG | RecordType::Unknown(TKEY)
        );
        let counts_fit = answers == 0 && authority == 0 && additional <= MAX_ADDITIONAL;
        if meta || question.class == class::NONE || !counts_fit {
            return Err(Malformed);
        }
        let (edns, version) = additional_records(&mut cursor, additional)?;
        let code = if version > 0 {
            Some(ResponseCode::BADVERS)
        } else if !matches!(question.class, class::IN | class::ANY) {
            Some(ResponseCode::Refused)
        } else {
            None
        };
        Ok((Self { question, edns }, code))
    }
}

/// TKEY (RFC 2930): only ever in the additional section of queries.
const TKEY: u16 = 249;

/// Steps through the additional section and reads the OPT record and its version.
fn additional_records(
    cursor: &mut Cursor<'_>,
    count: u16,
) -> Result<(Option<Edns>, u8), Malformed> {
    let mut found = None;
    let mut version = 0;
    for _ in 0..count {
        let owner = cursor.position();
        cursor.skip_name()?;
        let at_root = cursor.position() == owner + 1;
        let record_type = RecordType::from(cursor.u16()?);
        let class = cursor.u16()?;
        let ttl = cursor.u32()?;
        let length = cursor.u16()?;
        let data = cursor.bytes(usize::from(length))?;
        if record_type != RecordType::OPT {
            continue;
        }
        if !at_root || found.is_some() {
            return Err(Malformed);
        }
        version = (ttl >> 16) as u8;
        found = Some(Edns {
            udp_size: class,
            dnssec_ok: ttl & 0x8000 != 0,
            keepalive: has_keepalive(data)?,
        });
    }
    Ok((found, version))
}

/// Walks the options of an OPT record.
fn has_keepalive(data: &[u8]) -> Result<bool, Malformed> {
    let mut cursor = Cursor::new(data, 0);
    let mut keepalive = false;
    while cursor.position() < data.len() {
        keepalive |= cursor.u16()? == option::KEEPALIVE;
        let length = cursor.u16()?;
        cursor.bytes(usize::from(length))?;
    }
    Ok(keepalive)
}

#[cfg(test)]
mod tests;
