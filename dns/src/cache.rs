//! Cache of forwarded answers.
//!
//! Rules:
//! - Kept for the lowest TTL of the answer, at most [`MAX_POSITIVE`]; negative answers for the lower
//!   of the SOA record's TTL and its `minimum` (RFC 2308 section 5), at most [`MAX_NEGATIVE`].
//! - Served with TTLs lowered by the time since then, record by record; a TTL is never raised, and
//!   what has TTL 0 is not kept.
//! - Not kept: failures, negative answers without an SOA record.
//! - Positive and negative answers have a budget each, in entries and in bytes, so that a flood of
//!   names that do not exist cannot push out the ones that do. The oldest entry that was not read
//!   since it was last passed over goes first (clock).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::name::Name;
use crate::record::{RData, Record};

/// Longest life of a positive answer, seconds.
pub const MAX_POSITIVE: u32 = 3600;
/// Longest life of a negative answer, seconds.
pub const MAX_NEGATIVE: u32 = 1800;
/// Entries of each kind.
const ENTRIES: usize = 10_000;
/// Bytes of each kind, estimated.
const BYTES: usize = 4 << 20;

/// What an answer is for. Class is IN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The name in lower case.
    pub name: Name,
    /// The type.
    pub record_type: RecordType,
    /// DNSSEC records are wanted.
    pub dnssec_ok: bool,
    /// Data that fails validation is wanted too.
    pub checking_disabled: bool,
}

/// The cache. One a worker.
#[derive(Debug)]
pub struct Cache {
    positive: Store,
    negative: Store,
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(ENTRIES, BYTES)
    }
}

impl Cache {
    /// An empty cache with this many entries and bytes for positive answers and as much again for
    /// negative ones.
    pub fn new(entries: usize, bytes: usize) -> Self {
        Self {
            positive: Store::new(entries, bytes),
            negative: Store::new(entries, bytes),
        }
    }

    /// The answer, with TTLs as they are now.
    pub fn get(&mut self, key: &Key) -> Option<Answer> {
        let now = Instant::now();
        let positive = self.positive.get(key, now);
        positive.or_else(|| self.negative.get(key, now))
    }

    /// Keeps an answer if the rules allow it.
    pub fn insert(&mut self, key: Key, answer: &Answer) {
        let Some(life) = Life::of(&key, answer) else {
            return;
        };
        let now = Instant::now();
        let entry = Entry {
            answer: answer.clone(),
            from: now,
            until: now + Duration::from_secs(life.seconds.into()),
            bytes: weight(&key, answer),
            read: false,
        };
        let (to, other) = match life.positive {
            true => (&mut self.positive, &mut self.negative),
            false => (&mut self.negative, &mut self.positive),
        };
        other.expire(&key, now);
        to.insert(key, entry);
    }
}

/// How long an answer may be kept, and whether it is positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    seconds: u32,
    positive: bool,
}

impl Life {
    /// `None` if the answer may not be kept.
    fn of(key: &Key, answer: &Answer) -> Option<Self> {
        let lowest = answer.answers.iter().map(|record| record.ttl).min();
        let asked_for = |record: &Record| {
            key.record_type == RecordType::ANY || record.record_type() == key.record_type
        };
        let positive = match answer.rcode {
            ResponseCode::NoError => answer.answers.iter().any(asked_for),
            ResponseCode::NXDomain => false,
            _ => return None,
        };
        let seconds = if positive {
            lowest?.min(MAX_POSITIVE)
        } else {
            let soa = answer
                .authority
                .iter()
                .find_map(|record| match &record.data {
                    RData::Soa(soa) => Some(record.ttl.min(soa.minimum)),
                    _ => None,
                });
            soa?.min(lowest.unwrap_or(u32::MAX)).min(MAX_NEGATIVE)
        };
        (seconds > 0).then_some(Self { seconds, positive })
    }
}

/// Bytes that an entry takes, roughly.
fn weight(key: &Key, answer: &Answer) -> usize {
    let record = |record: &Record| {
        let data = match &record.data {
            RData::Other(_, data) => data.len(),
            _ => 64,
        };
        size_of::<Record>() + record.name.wire().len() + data
    };
    let records = answer.answers.iter().chain(&answer.authority);
    size_of::<Entry>() + 2 * key.name.wire().len() + records.map(record).sum::<usize>()
}

#[derive(Debug)]
struct Entry {
    answer: Answer,
    from: Instant,
    until: Instant,
    bytes: usize,
    read: bool,
}

/// Entries of one kind. `order` holds every key of `entries` once.
#[derive(Debug)]
struct Store {
    entries: HashMap<Key, Entry>,
    order: VecDeque<Key>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

impl Store {
    fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            max_entries,
            max_bytes,
        }
    }

    fn get(&mut self, key: &Key, now: Instant) -> Option<Answer> {
        let entry = self
            .entries
            .get_mut(key)
            .filter(|entry| now < entry.until)?;
        entry.read = true;
        let age = now.duration_since(entry.from).as_secs() as u32;
        let mut answer = entry.answer.clone();
        for record in &mut answer.answers {
            record.ttl = record.ttl.saturating_sub(age);
        }
        for record in &mut answer.authority {
            if let RData::Soa(soa) = &record.data {
                record.ttl = record.ttl.min(soa.minimum);
            }
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    /// Makes sure that the key is not served from here any more.
    fn expire(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.until = now;
        }
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        if entry.bytes > self.max_bytes {
            return;
        }
        self.bytes += entry.bytes;
        match self.entries.insert(key.clone(), entry) {
            Some(replaced) => self.bytes -= replaced.bytes,
            None => self.order.push_back(key),
        }
        while self.bytes > self.max_bytes || self.entries.len() > self.max_entries {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let now = Instant::now();
        while let Some(key) = self.order.pop_front() {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            if entry.read && now < entry.until {
                entry.read = false;
                self.order.push_back(key);
                continue;
            }
            self.bytes -= entry.bytes;
            self.entries.remove(&key);
            return;
        }
    }
}

#[cfg(test)]
mod tests;
