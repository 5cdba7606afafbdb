//! An answer put together from our aliases and what was found for the name that they lead to.

use crate::answer::Answer;
use crate::cache::Served;
use crate::chain::{Reply, unpack};
use crate::forward::ForwardError;
use crate::name::Name;
use crate::rcode::forward_failure;
use crate::record::Record;

/// What was found for the name that was asked for, or for the one that our aliases lead to.
pub(super) fn join(
    served: Served,
    name: &Name,
    aliases: Option<Answer>,
    compatible: bool,
) -> Reply {
    if aliases.is_none() {
        return Reply::Packed(served);
    }
    let answer = unpack(&served.packed, name, served.serving);
    Reply::Plain(complete(answer, name, aliases, compatible))
}

/// The answer when nothing could be found out about the name that our aliases lead to.
pub(super) fn failed(error: ForwardError, aliases: Option<Answer>, compatible: bool) -> Answer {
    match aliases {
        Some(aliases) if compatible => aliases,
        _ => forward_failure(error),
    }
}

/// Joins our aliases with what was found for the name that they lead to. The code is the one of the
/// last name (RFC 6604); to be compatible with CoreDNS, the one of the alias.
pub(super) fn complete(
    mut answer: Answer,
    name: &Name,
    aliases: Option<Answer>,
    compatible: bool,
) -> Answer {
    for record in &mut answer.answers {
        give_case(record, name);
    }
    if let Some(mut aliases) = aliases {
        aliases.answers.append(&mut answer.answers);
        if compatible {
            return aliases;
        }
        // AA is about the first name of the answer (RFC 1035 section 4.1.1).
        answer.authoritative = true;
        answer.recursion_available = false;
        answer.authentic = false;
        answer.answers = aliases.answers;
    }
    answer
}

/// Owners that are the name asked for are spelled as it was, whatever spelling is in the cache.
fn give_case(record: &mut Record, name: &Name) {
    if record.name != *name && record.name.eq_ignore_case(name) {
        record.name = name.clone();
    }
}
