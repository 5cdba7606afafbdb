//! Answers of upstreams, encoded once and served many times.
//!
//! Behind its question a reply is the same bytes for every client, but for TTLs, the order of
//! addresses and the OPT record: names are compressed against the question, whose length does not
//! depend on its case. So what a cache keeps are those bytes. A hit copies them and writes the TTLs;
//! only a reply that does not fit or has to be changed is decoded.

use hickory_proto::rr::RecordType;
use rand::Rng;

use super::encode::{self, Flags, Transport};
use super::{Answer, ExtendedError};
use crate::message::{HEADER, Query};
use crate::name::Name;
use crate::record::Record;
use crate::reply;
use crate::wire::{Cursor, Malformed};

/// Length of a record after its name and before its data.
const FIXED: usize = 10;
/// Length of type and class of a question.
const QUESTION: usize = 4;

/// An answer with its records encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    flags: Flags,
    error: Option<ExtendedError>,
    counts: [u16; 3],
    records: Box<[u8]>,
    addresses: Addresses,
}

/// Addresses that end the answer section, one after another and of one length: they may be put into
/// any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Addresses {
    start: u16,
    count: u16,
    width: u16,
}

/// What TTLs are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Those of the answer, less these seconds.
    Lowered(u32),
    /// This one for every record.
    Fixed(u32),
}

/// How a packed answer is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// What TTLs are served.
    pub ttl: Ttl,
    /// AA is set, as CoreDNS does.
    pub authoritative: bool,
}

impl Serving {
    /// As it came.
    pub const PLAIN: Self = Self {
        ttl: Ttl::Lowered(0),
        authoritative: false,
    };
}

impl Ttl {
    fn of(self, ttl: u32) -> u32 {
        match self {
            Self::Lowered(seconds) => ttl.saturating_sub(seconds),
            Self::Fixed(ttl) => ttl,
        }
    }
}

impl Packed {
    /// Encodes an answer about this name, which is in lower case.
    pub fn new(name: &Name, answer: Answer) -> Self {
        let mut message = Vec::with_capacity(512);
        let counts = encode::sections(name, &answer, &mut message);
        let records = message.split_off(HEADER + name.wire().len() + QUESTION);
        let addresses = Addresses::find(&records, counts[0]);
        Self {
            flags: Flags::of(&answer),
            error: answer.error,
            counts,
            records: records.into(),
            addresses: addresses.unwrap_or_default(),
        }
    }

    /// The code.
    pub fn rcode(&self) -> hickory_proto::op::ResponseCode {
        self.flags.rcode
    }

    /// Bytes on the heap.
    pub fn heap(&self) -> usize {
        let text = self.error.as_ref().map_or(0, |error| error.text.len());
        self.records.len() + text
    }

    /// Appends the reply to `query`, which asks for the name that the answer is about. `false` if it
    /// does not fit: nothing was appended then, and [`Self::unpack`] is to be used.
    pub fn reply(
        &self,
        query: &Query,
        serving: Serving,
        shuffle: bool,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        let flags = Flags {
            authoritative: self.flags.authoritative || serving.authoritative,
            ..self.flags
        };
        let error = self.error.as_ref();
        if !encode::reply_with(
            query,
            &flags,
            error,
            self.counts,
            &self.records,
            transport,
            out,
        ) {
            return false;
        }
        let first = start + HEADER + query.question.name.wire().len() + QUESTION;
        let records = &mut out[first..first + self.records.len()];
        if serving.ttl != Ttl::Lowered(0) {
            // What was encoded here can be walked through.
            let walked = set_ttls(records, self.counts, serving.ttl);
            debug_assert_eq!(walked, Ok(()));
        }
        if shuffle {
            self.addresses.shuffle(records);
        }
        true
    }

    /// The answer, with the owners that are `name` spelled as it is.
    ///
    /// # Errors
    /// Record data of a type with names in it was not what the type says.
    pub fn unpack(&self, name: &Name, serving: Serving) -> Result<Answer, Malformed> {
        let mut message = vec![0; HEADER];
        message.extend_from_slice(name.wire());
        message.extend_from_slice(&[0; QUESTION]);
        let first = message.len();
        message.extend_from_slice(&self.records);
        let mut cursor = Cursor::new(&message, first);
        let mut section = |count| {
            let mut records = reply::section(&mut cursor, count)?;
            for record in &mut records {
                record.ttl = serving.ttl.of(record.ttl);
            }
            Ok::<Vec<Record>, Malformed>(records)
        };
        Ok(Answer {
            rcode: self.flags.rcode,
            authoritative: self.flags.authoritative || serving.authoritative,
            recursion_available: self.flags.recursion_available,
            from_snapshot: false,
            authentic: self.flags.authentic,
            truncated: self.flags.truncated,
            answers: section(self.counts[0])?,
            authority: section(self.counts[1])?,
            additional: section(self.counts[2])?,
            error: self.error.clone(),
        })
    }
}

/// Steps over a record. Returns its type, where its TTL is and how long its data is.
fn step(cursor: &mut Cursor<'_>) -> Result<(RecordType, usize, usize), Malformed> {
    cursor.skip_name()?;
    let record_type = RecordType::from(cursor.u16()?);
    cursor.u16()?;
    let ttl_at = cursor.position();
    cursor.u32()?;
    let length = usize::from(cursor.u16()?);
    cursor.bytes(length)?;
    Ok((record_type, ttl_at, length))
}

fn set_ttls(records: &mut [u8], counts: [u16; 3], ttl: Ttl) -> Result<(), Malformed> {
    let mut at = 0;
    for _ in 0..counts.iter().copied().map(u32::from).sum() {
        let mut cursor = Cursor::new(records, at);
        let (_, ttl_at, _) = step(&mut cursor)?;
        at = cursor.position();
        let field = &mut records[ttl_at..ttl_at + 4];
        let old = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        field.copy_from_slice(&ttl.of(old).to_be_bytes());
    }
    Ok(())
}

impl Addresses {
    /// `None` if other records stand among or behind the addresses.
    fn find(records: &[u8], answers: u16) -> Option<Self> {
        let mut cursor = Cursor::new(records, 0);
        let mut found = Self::default();
        for _ in 0..answers {
            let start = cursor.position();
            let (record_type, _, length) = step(&mut cursor).ok()?;
            let width = cursor.position() - start;
            match record_type {
                // The owner has to be a pointer: a name that is written out is what later ones
                // point to.
                RecordType::A | RecordType::AAAA if width == 2 + FIXED + length => {
                    if found.count == 0 {
                        found.start = start as u16;
                        found.width = width as u16;
                    }
                    found.count += 1;
                    if usize::from(found.width) != width {
                        return None;
                    }
                }
                _ if found.count == 0 => {}
                _ => return None,
            }
        }
        Some(found)
    }

    fn shuffle(self, records: &mut [u8]) {
        let width = usize::from(self.width);
        let start = usize::from(self.start);
        let mut rng = rand::rng();
        for last in (1..usize::from(self.count)).rev() {
            let other = rng.random_range(0..=last);
            let (a, b) = (start + other * width, start + last * width);
            if a < b {
                let (left, right) = records.split_at_mut(b);
                left[a..a + width].swap_with_slice(&mut right[..width]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
