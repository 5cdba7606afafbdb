//! The lookup: pure, from a snapshot and a question to an outcome.
//!
//! Zones are asked in turn, cluster first, then reverse; each says *done*, *not mine* or *stop*.
//! Aliases (ExternalName Services) are followed here as long as they lead to names of ours, at most
//! [`MAX_ALIASES`] times; one that leads out is handed back with the aliases so far.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_config::Snapshot;

use crate::answer::Answer;
use crate::message::Question;
use crate::name::Name;
use crate::rcode::{LocalFailure, local_failure};
use crate::record::{RData, Record};
use crate::settings::DnsSettings;
use crate::zone::{Found, Lookup};

pub use crate::zone::Zone;

/// Aliases followed one after another.
pub const MAX_ALIASES: usize = 10;

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is the answer.
    Done(Answer),
    /// The name is of a zone of ours, but cannot be answered now, and nobody else is to be asked.
    Stop(Answer),
    /// The aliases so far lead to a name that is not ours: its records complete the answer.
    Alias {
        /// The aliases.
        answer: Answer,
        /// The name that they lead to.
        target: Name,
    },
    /// No zone of ours has this name.
    NotMine,
}

/// A zone was asked for a name.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The zone.
    pub zone: Zone,
    /// The name.
    pub name: &'a Name,
    /// What it said.
    pub said: Said<'a>,
}

/// What a zone says of a name.
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// The answer.
    Answer(&'a Answer),
    /// The name stands for this one.
    Alias(&'a Name),
    /// The name is of another zone.
    NotMine,
}

/// Answers a question from the snapshot.
pub fn answer(snapshot: &Snapshot, settings: &DnsSettings, question: &Question) -> Outcome {
    answer_observed(snapshot, settings, question, |_| {})
}

/// As [`answer`]; every zone that is asked is shown to `seen`.
pub fn answer_observed(
    snapshot: &Snapshot,
    settings: &DnsSettings,
    question: &Question,
    mut seen: impl FnMut(Step<'_>),
) -> Outcome {
    let mut aliases: Vec<Record> = Vec::new();
    let mut name = question.name.clone();
    loop {
        let lookup = Lookup {
            snapshot,
            settings,
            name: &name,
            record_type: question.record_type,
        };
        match first_found(&lookup, &mut seen) {
            Found::NotMine if aliases.is_empty() => return Outcome::NotMine,
            Found::NotMine => {
                let mut answer = Answer::local(ResponseCode::NoError);
                answer.answers = aliases;
                return Outcome::Alias {
                    answer,
                    target: name,
                };
            }
            Found::Stop(answer) => return Outcome::Stop(answer),
            Found::Done(answer)
                if settings.compat_coredns && !aliases.is_empty() && answer.answers.is_empty() =>
            {
                return no_data(snapshot, settings, question);
            }
            Found::Done(mut answer) => {
                aliases.append(&mut answer.answers);
                answer.answers = aliases;
                return Outcome::Done(answer);
            }
            Found::Alias(target) => {
                let known = aliases
                    .iter()
                    .any(|record| record.name.eq_ignore_case(&target));
                let repeats = known || name.eq_ignore_case(&target);
                aliases.push(Record {
                    name,
                    ttl: settings.ttl,
                    data: RData::Cname(target.clone()),
                });
                if question.record_type == RecordType::CNAME {
                    let mut answer = Answer::local(ResponseCode::NoError);
                    answer.answers = aliases;
                    return Outcome::Done(answer);
                }
                if settings.compat_coredns && (repeats || aliases.len() > MAX_ALIASES) {
                    return no_data(snapshot, settings, question);
                }
                if repeats {
                    return Outcome::Stop(local_failure(LocalFailure::AliasLoop, None));
                }
                if aliases.len() > MAX_ALIASES {
                    return Outcome::Stop(local_failure(LocalFailure::LongChain, None));
                }
                name = target;
            }
        }
    }
}

/// What CoreDNS says of an alias that leads to nothing of the cluster: as if there were none.
fn no_data(snapshot: &Snapshot, settings: &DnsSettings, question: &Question) -> Outcome {
    let lookup = Lookup {
        snapshot,
        settings,
        name: &question.name,
        record_type: question.record_type,
    };
    let zone = question.name.split_longest_zone(&settings.zones);
    Outcome::Done(lookup.no_data_of(&zone.map_or_else(Name::root, |(_, zone)| zone)))
}

fn first_found(lookup: &Lookup<'_>, seen: &mut impl FnMut(Step<'_>)) -> Found {
    for zone in Zone::CHAIN {
        let found = zone.find(lookup);
        seen(Step {
            zone,
            name: lookup.name,
            said: match &found {
                Found::Done(answer) | Found::Stop(answer) => Said::Answer(answer),
                Found::Alias(target) => Said::Alias(target),
                Found::NotMine => Said::NotMine,
            },
        });
        if found != Found::NotMine {
            return found;
        }
    }
    Found::NotMine
}

#[cfg(test)]
mod tests;
