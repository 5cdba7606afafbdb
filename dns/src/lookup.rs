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
use crate::zone::{Found, Lookup, Zone};

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

/// Answers a question from the snapshot.
pub fn answer(snapshot: &Snapshot, settings: &DnsSettings, question: &Question) -> Outcome {
    let mut aliases: Vec<Record> = Vec::new();
    let mut name = question.name.clone();
    loop {
        let lookup = Lookup {
            snapshot,
            settings,
            name: &name,
            record_type: question.record_type,
        };
        match first_found(&lookup) {
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

fn first_found(lookup: &Lookup<'_>) -> Found {
    Zone::CHAIN
        .into_iter()
        .map(|zone| zone.find(lookup))
        .find(|found| *found != Found::NotMine)
        .unwrap_or(Found::NotMine)
}

#[cfg(test)]
mod tests;
