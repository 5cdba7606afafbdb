//! Cache of forwarded answers.
//!
//! Rules:
//! - Kept for the lowest TTL of the answer; negative answers for the lower of the SOA record's TTL
//!   and its `minimum` (RFC 2308 section 5). The settings bound that from above and below. TTL 0
//!   means that nothing is to be kept (RFC 1035 section 3.2.1).
//! - Served with TTLs lowered by the time since then, record by record. A TTL is never raised: an
//!   answer that is kept beyond its TTL, because the settings say for how long at least, has TTL 0
//!   by then. `compat` restores CoreDNS's way: one TTL for all records, within the bounds.
//! - Failures are kept for seconds (RFC 9520) and never instead of an answer that is still good.
//! - Not kept: what was truncated, refused or malformed, negative answers without an SOA record,
//!   aliases that lead to nothing without one, and answers that are about another name.
//! - Positive and negative answers have a budget each, in entries and in bytes, so that a flood of
//!   names that do not exist cannot push out the ones that do. Within it what was asked for once goes
//!   before what is asked for often (clock with a probation queue and a memory of what it evicted).
//! - With `serve_stale` what has expired stays for a while (RFC 8767). A new answer, also one that
//!   says that there is nothing, ends that.

use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::answer::packed::{Packed, Serving, Ttl};
use crate::config::{CacheSettings, StaleRefresh};
use crate::metrics::{CacheMetrics, Part};
use crate::name::{MAX_NAME, Name};

mod life;
mod store;

use life::Life;
use store::{Entry, Store};

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

/// How long at least what could not be fetched anew is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// Length of what follows the name in a [`Slot`].
const SUFFIX: usize = 3;

/// A key as bytes, on the stack, so that looking one up allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    bytes: [u8; MAX_NAME + SUFFIX],
    length: usize,
}

impl Slot {
    /// The slot of a name, whatever its case.
    pub fn new(
        name: &Name,
        record_type: RecordType,
        dnssec_ok: bool,
        checking_disabled: bool,
    ) -> Self {
        let mut bytes = [0; MAX_NAME + SUFFIX];
        let wire = name.wire();
        let length = wire.len() + SUFFIX;
        bytes[..wire.len()].copy_from_slice(wire);
        // Length bytes are at most 63, below 'A', so they stay as they are.
        bytes[..wire.len()].make_ascii_lowercase();
        let [high, low] = u16::from(record_type).to_be_bytes();
        let flags = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
        bytes[wire.len()..length].copy_from_slice(&[high, low, flags]);
        Self { bytes, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl From<&Key> for Slot {
    fn from(key: &Key) -> Self {
        Self::new(
            &key.name,
            key.record_type,
            key.dnssec_ok,
            key.checking_disabled,
        )
    }
}

/// The cache. One a worker.
#[derive(Debug)]
pub struct Cache {
    settings: CacheSettings,
    compat: bool,
    positive: Store,
    negative: Store,
    metrics: CacheMetrics,
}

/// An answer that can be served.
#[derive(Clone, Debug)]
pub struct Served {
    /// The answer.
    pub packed: Rc<Packed>,
    /// How it is served.
    pub serving: Serving,
    /// It has records of the type asked for.
    pub positive: bool,
}

impl Served {
    fn part(&self) -> Part {
        match self.positive {
            true => Part::Success,
            false => Part::Denial,
        }
    }
}

/// What the cache has.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The answer.
    pub served: Served,
    /// What is to be done with it.
    pub state: State,
}

/// What is to be done with a [`Hit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Serve it.
    Fresh,
    /// Serve it, and fetch it anew: it is asked for often and expires soon.
    Popular,
    /// It has expired. Serve it, then fetch it anew.
    StaleThenAsk,
    /// It has expired. Serve it if it cannot be fetched.
    AskThenStale,
    /// It has expired. Serve it; it was not to be had lately.
    Stale,
}

impl Cache {
    /// An empty cache. With `compat` it serves what CoreDNS would where that departs from an RFC.
    pub fn new(settings: CacheSettings, compat: bool, metrics: CacheMetrics) -> Self {
        Self {
            positive: Store::new(&settings.success),
            negative: Store::new(&settings.denial),
            settings,
            compat,
            metrics,
        }
    }

    /// What is counted.
    pub fn metrics(&self) -> &CacheMetrics {
        &self.metrics
    }

    /// The settings.
    pub fn settings(&self) -> &CacheSettings {
        &self.settings
    }

    /// What there is for a question.
    pub fn get(&self, slot: &Slot, now: Instant) -> Option<Hit> {
        let metrics = &self.metrics;
        metrics.requests.increment();
        let positive = self.positive.get(slot.bytes());
        if let Some(entry) = positive.filter(|entry| now < entry.until) {
            metrics.hit(Part::Success);
            return Some(self.fresh(entry, true, now));
        }
        let negative = self.negative.get(slot.bytes());
        let denial = negative.filter(|entry| now < entry.until);
        let stale = positive.and_then(|entry| self.stale(entry, true, now));
        if let Some(denial) = denial {
            let settings = self.settings.serve_stale.as_ref();
            let masked = settings.is_some_and(|stale| stale.prefer_positive);
            let hit = match stale.filter(|_| masked) {
                Some(stale) => Hit {
                    state: State::Stale,
                    ..stale
                },
                None => self.fresh(denial, false, now),
            };
            metrics.hit(hit.served.part());
            return Some(hit);
        }
        let stale = stale.or_else(|| self.stale(negative?, false, now));
        match &stale {
            Some(hit) if hit.state != State::AskThenStale => metrics.hit(hit.served.part()),
            _ => metrics.misses.increment(),
        }
        stale
    }

    /// The name does not exist, and so nothing below it (RFC 8020): this is the answer that says so.
    pub fn missing(&self, slot: &Slot, now: Instant) -> Option<Served> {
        let entry = self.known_denial(slot, now)?;
        (entry.packed.rcode() == ResponseCode::NXDomain)
            .then(|| self.fresh(entry, false, now).served)
    }

    /// Whether anything is kept for a question.
    pub fn knows(&self, slot: &Slot, now: Instant) -> bool {
        self.has_records(slot, now) || self.known_denial(slot, now).is_some()
    }

    /// Records are kept for a question.
    pub fn has_records(&self, slot: &Slot, now: Instant) -> bool {
        let positive = self.positive.get(slot.bytes());
        positive.is_some_and(|entry| now < entry.until)
    }

    fn known_denial(&self, slot: &Slot, now: Instant) -> Option<&Entry> {
        let entry = self.negative.get(slot.bytes())?;
        (now < entry.until).then_some(entry)
    }

    /// Keeps an answer if the rules allow it, and returns it as it is to be served.
    pub fn insert(&mut self, key: &Key, mut answer: Answer, now: Instant) -> Served {
        let slot = Slot::from(key);
        let life = Life::of(key, &answer, &self.settings, self.compat);
        if life.is_none() && life::is_about_another(key, &answer) {
            self.metrics.drops.increment();
        }
        life::set_ttls(&mut answer, life.as_ref(), &self.settings, self.compat);
        let positive = life.as_ref().is_some_and(|life| life.part == Part::Success);
        let served = Served {
            packed: Rc::new(Packed::new(&key.name, answer)),
            serving: self.serving(Ttl::Lowered(0), false),
            positive,
        };
        if let Some(life) = life {
            self.keep(&slot, &life, Rc::clone(&served.packed), now);
        } else {
            self.failed(&slot, PAUSE, now);
        }
        served
    }

    /// Remembers for `seconds` that a question could not be answered (RFC 9520).
    pub fn insert_failure(&mut self, key: &Key, answer: Answer, life: Duration, now: Instant) {
        let slot = Slot::from(key);
        let life = Life {
            part: Part::Denial,
            duration: life.min(self.settings.servfail),
            answers: false,
        };
        if !life.duration.is_zero() && life::is_kept_for(&key.name, &self.settings.zones) {
            let packed = Rc::new(Packed::new(&key.name, answer));
            self.keep(&slot, &life, packed, now);
        }
    }

    fn keep(&mut self, slot: &Slot, life: &Life, packed: Rc<Packed>, now: Instant) {
        let bytes = slot.bytes();
        if !life.answers && self.failed(slot, life.duration, now) {
            return;
        }
        let stale = self.settings.serve_stale.as_ref();
        let store = match life.part {
            Part::Success => {
                self.negative.remove(bytes);
                &mut self.positive
            }
            Part::Denial => {
                match stale.is_some_and(|stale| stale.prefer_positive) {
                    true => self.positive.expire(bytes, now),
                    false => self.positive.remove(bytes),
                }
                &mut self.negative
            }
        };
        let evicted = store.insert(bytes, packed, now, life.duration);
        (0..evicted).for_each(|_| self.metrics.evicted(life.part));
        self.metrics.entries(Part::Success, self.positive.len());
        self.metrics.entries(Part::Denial, self.negative.len());
    }

    /// What was kept could not be fetched anew: that is not tried again for the recheck time, or this
    /// time if that is longer. Returns whether there is anything that may be served meanwhile.
    pub fn failed(&self, slot: &Slot, pause: Duration, now: Instant) -> bool {
        let stale = self.settings.serve_stale.as_ref();
        let (recheck, max_age) =
            stale.map_or_else(Default::default, |stale| (stale.recheck, stale.max_age));
        let mut usable = false;
        for store in [&self.positive, &self.negative] {
            let entry = store.get(slot.bytes());
            let entry = entry.filter(|entry| is_answer(&entry.packed));
            if let Some(entry) = entry.filter(|entry| entry.is_kept(max_age, now)) {
                entry.recheck_at.set(Some(now + recheck.max(pause)));
                usable = true;
            }
        }
        usable
    }

    fn fresh(&self, entry: &Entry, positive: bool, now: Instant) -> Hit {
        let age = match self.settings.keep_ttl {
            true => 0,
            false => now.duration_since(entry.from).as_secs() as u32,
        };
        let popular = match &self.settings.prefetch {
            Some(prefetch) => entry.is_popular(prefetch, now),
            None => false,
        };
        Hit {
            served: Served {
                packed: Rc::clone(&entry.packed),
                serving: self.serving(Ttl::Lowered(age), true),
                positive,
            },
            state: match popular {
                true => State::Popular,
                false => State::Fresh,
            },
        }
    }

    /// What has expired, if it may still be served.
    fn stale(&self, entry: &Entry, positive: bool, now: Instant) -> Option<Hit> {
        let settings = self.settings.serve_stale.as_ref()?;
        if !entry.is_kept(settings.max_age, now) || !is_answer(&entry.packed) {
            return None;
        }
        let state = if entry.is_paused(now) {
            State::Stale
        } else {
            match settings.refresh {
                // That there is nothing is not said without having asked.
                StaleRefresh::Immediate if positive => State::StaleThenAsk,
                StaleRefresh::Immediate | StaleRefresh::Verify { .. } => State::AskThenStale,
            }
        };
        Some(Hit {
            served: Served {
                packed: Rc::clone(&entry.packed),
                serving: self.serving(Ttl::Fixed(settings.ttl), true),
                positive,
            },
            state,
        })
    }

    fn serving(&self, ttl: Ttl, hit: bool) -> Serving {
        Serving {
            ttl,
            authoritative: hit && self.compat,
        }
    }
}

/// Neither a failure nor a refusal.
pub(crate) fn is_answer(packed: &Packed) -> bool {
    matches!(
        packed.rcode(),
        ResponseCode::NoError | ResponseCode::NXDomain
    )
}

#[cfg(test)]
mod tests;
