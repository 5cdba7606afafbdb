//! Replies to queries that were asked before.
//!
//! The queries of a cluster are the same few thousand over and over. A reply that follows from the
//! query, the configuration and the snapshot alone is kept as it was sent, under all bytes of the
//! query but its id, so that the next one costs a hash, a comparison and a copy.
//!
//! Rules:
//! - What was kept is forgotten when there is a new snapshot or configuration.
//! - Not kept: what the server says depends on something else; truncated replies, which hold a random
//!   part of the answer; queries with EDNS options, which may ask for something of the moment; what
//!   is too long for a slot.
//! - Addresses are in a new random order each time, if they are to be. Their records are all equally
//!   long then; where they are not, the reply is not kept.
//! - A query belongs to one set of four slots and overwrites one of them if none is free. Names that
//!   somebody makes up push out others and cost those a lookup, never memory. The hash is keyed, so
//!   nobody can aim at a set.

use std::hash::{BuildHasher, RandomState};

use rand::Rng;

use crate::message::HEADER;
use crate::server::Counted;
use crate::wire::Cursor;

/// Sets of slots; a power of two.
const SETS: usize = 2048;
/// Slots of a set.
const WAYS: usize = 4;
/// Bytes of a slot, for query and reply.
const ROOM: usize = 384;
/// Length of an OPT record without options.
const OPT: usize = 11;

/// Whether a reply may be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// It holds for this query only.
    No,
    /// As it stands.
    AsIs,
    /// With addresses in another order.
    Shuffled,
}

/// Kept replies of one socket.
#[derive(Debug)]
pub(super) struct Repeats {
    hasher: RandomState,
    heads: Vec<Head>,
    /// A slot for each head. Memory that was never written to is none.
    bytes: Vec<u8>,
    /// Slots of earlier epochs are free.
    epoch: u32,
    /// The way that is overwritten next.
    next: usize,
}

/// What is in a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    epoch: u32,
    /// Part of the hash that is not the number of the set.
    tag: u32,
    query: u16,
    reply: u16,
    addresses: Addresses,
    counted: Option<Counted>,
}

/// Records of a reply that are shuffled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Addresses {
    /// Where the first begins.
    start: u16,
    count: u8,
    /// Length of each.
    length: u8,
}

impl Repeats {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            heads: vec![Head::default(); SETS * WAYS],
            bytes: vec![0; SETS * WAYS * ROOM],
            epoch: 1,
            next: 0,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.heads.fill(Head::default());
            self.epoch = 1;
        }
    }

    /// The place of a query, for [`Self::append`] and [`Self::keep`]. `None` if it is no query.
    pub(super) fn place(&self, query: &[u8]) -> Option<Place> {
        let body = query.get(2..).filter(|body| body.len() > HEADER)?;
        let hash = self.hasher.hash_one(body);
        Some(Place {
            set: hash as usize % SETS * WAYS,
            tag: (hash >> 32) as u32,
        })
    }

    /// Appends the reply to a query that was kept, and says what it is counted as. `None` if there is
    /// none.
    pub(super) fn append(&self, place: Place, query: &[u8], out: &mut Vec<u8>) -> Option<Counted> {
        let set = place.set..place.set + WAYS;
        for (slot, head) in set.clone().zip(&self.heads[set]) {
            if head.epoch != self.epoch || head.tag != place.tag {
                continue;
            }
            let slot = &self.bytes[slot * ROOM..][..ROOM];
            let (kept, rest) = slot.split_at(head.query.into());
            if kept[2..] != query[2..] {
                continue;
            }
            let start = out.len();
            out.extend_from_slice(&rest[..head.reply.into()]);
            out[start..start + 2].copy_from_slice(&query[..2]);
            head.addresses.shuffle(&mut out[start..]);
            return head.counted;
        }
        None
    }

    /// Keeps a reply if the rules allow it.
    pub(super) fn keep(
        &mut self,
        place: Place,
        query: &[u8],
        (reply, counted): (&[u8], Counted),
        reuse: Reuse,
    ) {
        if reuse == Reuse::No || query.len() + reply.len() > ROOM {
            return;
        }
        let Some(addresses) = Addresses::of(query, reply, reuse) else {
            return;
        };
        let epoch = self.epoch;
        let ways = &self.heads[place.set..place.set + WAYS];
        let way = ways.iter().position(|head| head.epoch != epoch);
        let slot = place.set
            + way.unwrap_or_else(|| {
                self.next = (self.next + 1) % WAYS;
                self.next
            });
        let room = &mut self.bytes[slot * ROOM..][..ROOM];
        room[..query.len()].copy_from_slice(query);
        room[query.len()..query.len() + reply.len()].copy_from_slice(reply);
        self.heads[slot] = Head {
            epoch,
            tag: place.tag,
            query: query.len() as u16,
            reply: reply.len() as u16,
            addresses,
            counted: Some(counted),
        };
    }
}

/// Where a query's reply would be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The set's first slot.
    set: usize,
    tag: u32,
}

impl Addresses {
    /// What is to be shuffled in a reply. `None` if the reply cannot be given again.
    fn of(query: &[u8], reply: &[u8], reuse: Reuse) -> Option<Self> {
        let truncated = reply[2] & 0x02 != 0;
        let mut cursor = Cursor::new(reply, HEADER);
        cursor.skip_name().ok()?;
        cursor.bytes(4).ok()?;
        let question_end = cursor.position();
        let additional = u16::from_be_bytes([query[10], query[11]]);
        let plain = match additional {
            0 => query.len() == question_end,
            1 => query.len() == question_end + OPT,
            _ => false,
        };
        if truncated || !plain {
            return None;
        }
        let mut found = Self::default();
        if reuse == Reuse::AsIs {
            return Some(found);
        }
        let answers = u16::from_be_bytes([reply[6], reply[7]]);
        for _ in 0..answers {
            let start = cursor.position();
            cursor.skip_name().ok()?;
            let record_type = cursor.u16().ok()?;
            cursor.bytes(6).ok()?;
            let length = cursor.u16().ok()?;
            cursor.bytes(length.into()).ok()?;
            let length = u8::try_from(cursor.position() - start).ok();
            let is_address = matches!(record_type, 1 | 28);
            match (is_address, found.count) {
                // Aliases stay in front, and what has no addresses stays as it is.
                (false, 0) => {}
                (true, 0) => {
                    found = Self {
                        start: u16::try_from(start).ok()?,
                        count: 1,
                        length: length?,
                    };
                }
                (true, _) if length == Some(found.length) => {
                    found.count = found.count.checked_add(1)?;
                }
                _ => return None,
            }
        }
        Some(found)
    }

    /// Puts them in random order.
    fn shuffle(self, reply: &mut [u8]) {
        if self.count < 2 {
            return;
        }
        let length = usize::from(self.length);
        let records = &mut reply[usize::from(self.start)..][..length * usize::from(self.count)];
        let mut rng = rand::rng();
        for last in (1..usize::from(self.count)).rev() {
            let other = rng.random_range(0..=last);
            if other < last {
                let (before, from_last) = records.split_at_mut(last * length);
                before[other * length..][..length].swap_with_slice(&mut from_last[..length]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
