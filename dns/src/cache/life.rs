//! What may be kept, for how long, and with which TTLs.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::Key;
use crate::answer::Answer;
use crate::config::{CacheSettings, CacheShare};
use crate::metrics::Part;
use crate::name::Name;
use crate::record::{RData, Record};

/// How long an answer may be kept, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) part: Part,
    pub(super) duration: Duration,
    /// It says what there is or that there is nothing; otherwise it is a failure.
    pub(super) answers: bool,
}

impl Life {
    /// `None` if the answer may not be kept.
    pub(super) fn of(
        key: &Key,
        answer: &Answer,
        settings: &CacheSettings,
        compat: bool,
    ) -> Option<Self> {
        if answer.truncated || !is_kept_for(&key.name, &settings.zones) {
            return None;
        }
        let asked_for = |record: &Record| {
            key.record_type == RecordType::ANY || record.record_type() == key.record_type
        };
        let part = match answer.rcode {
            ResponseCode::NoError if answer.answers.iter().any(asked_for) => Part::Success,
            ResponseCode::NoError | ResponseCode::NXDomain => Part::Denial,
            ResponseCode::ServFail | ResponseCode::NotImp => {
                return (!settings.servfail.is_zero()).then_some(Self {
                    part: Part::Denial,
                    duration: settings.servfail,
                    answers: false,
                });
            }
            _ => return None,
        };
        if is_about_another(key, answer) {
            return None;
        }
        let (share, disabled, ttl) = match part {
            Part::Success => (
                &settings.success,
                &settings.disable_success,
                lowest(&answer.answers)?,
            ),
            Part::Denial => (
                &settings.denial,
                &settings.disable_denial,
                denial_ttl(answer)?,
            ),
        };
        let kept = (ttl > 0 || compat) && !is_kept_for(&key.name, disabled);
        kept.then(|| Self {
            part,
            duration: bounded(ttl, share),
            answers: true,
        })
    }
}

fn bounded(ttl: u32, share: &CacheShare) -> Duration {
    let ttl = Duration::from_secs(ttl.into());
    ttl.max(share.min_ttl).min(share.max_ttl)
}

fn lowest(records: &[Record]) -> Option<u32> {
    records.iter().map(|record| record.ttl).min()
}

/// Seconds for which it may be kept that there is nothing (RFC 2308 section 5), not longer than the
/// aliases that lead there.
fn denial_ttl(answer: &Answer) -> Option<u32> {
    let soa = answer.authority.iter().find_map(soa_ttl)?;
    Some(soa.min(lowest(&answer.answers).unwrap_or(u32::MAX)))
}

fn soa_ttl(record: &Record) -> Option<u32> {
    match &record.data {
        RData::Soa(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    }
}

/// The name is in one of these zones.
pub(super) fn is_kept_for(name: &Name, zones: &[Name]) -> bool {
    zones.iter().any(|zone| name.is_within(zone))
}

/// No record of the answer section is about the name that was asked for.
pub(super) fn is_about_another(key: &Key, answer: &Answer) -> bool {
    let about = |record: &Record| {
        record.name.eq_ignore_case(&key.name)
            || record.record_type() == RecordType::DNAME && key.name.is_within(&record.name)
    };
    !answer.answers.is_empty() && !answer.answers.iter().any(about)
}

/// Gives records the TTLs with which the answer is served first. `life`: for how long it is kept, if
/// it is.
pub(super) fn set_ttls(
    answer: &mut Answer,
    life: Option<&Life>,
    settings: &CacheSettings,
    compat: bool,
) {
    let part = match life {
        Some(life) => life.part,
        None if answer.answers.is_empty() => Part::Denial,
        None => Part::Success,
    };
    let share = match part {
        Part::Success => &settings.success,
        Part::Denial => &settings.denial,
    };
    let sections = [
        &mut answer.answers,
        &mut answer.authority,
        &mut answer.additional,
    ];
    if compat {
        let ttls = sections.iter().flat_map(|section| section.iter());
        let lowest = ttls
            .map(|record| soa_ttl(record).unwrap_or(record.ttl))
            .min();
        let one = bounded(lowest.unwrap_or(0), share).as_secs() as u32;
        for record in sections.into_iter().flatten() {
            record.ttl = one;
        }
    } else if life.is_some() {
        let cap = share.max_ttl.as_secs() as u32;
        for record in sections.into_iter().flatten() {
            let ttl = match part {
                Part::Success => record.ttl,
                Part::Denial => soa_ttl(record).unwrap_or(record.ttl),
            };
            record.ttl = ttl.min(cap);
        }
    }
}
