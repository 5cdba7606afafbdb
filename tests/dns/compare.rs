//! Where two replies differ.

use std::collections::BTreeSet;

use crate::wire::{Record, Reply, flag};

/// A part of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Rcode,
    Aa,
    Tc,
    Ra,
    Ad,
    /// RD and CD, which are the query's.
    Asked,
    Question,
    Answer,
    /// The same answers with other TTLs.
    AnswerTtl,
    Authority,
    AuthorityTtl,
    Additional,
    AdditionalTtl,
    Opt,
}

/// Serials are the time of the last change, which the servers learn one after the other.
const SERIALS_APART: i64 = 15;

/// The parts in which the replies differ. Order within a section does not count: both shuffle. What
/// was cut off counts by its flag only, because different records fit.
pub(crate) fn differences(ours: &Reply, theirs: &Reply) -> BTreeSet<Part> {
    let mut parts = BTreeSet::new();
    let mut note = |part: Part, same: bool| {
        if !same {
            parts.insert(part);
        }
    };
    note(Part::Rcode, ours.rcode == theirs.rcode);
    let same = |mask: u16| ours.flags & mask == theirs.flags & mask;
    note(Part::Aa, same(flag::AA));
    note(Part::Tc, same(flag::TC));
    note(Part::Ra, same(flag::RA));
    note(Part::Ad, same(flag::AD));
    note(Part::Asked, same(flag::RD | flag::CD | flag::QR));
    note(Part::Question, ours.question == theirs.question);
    note(Part::Opt, ours.opt == theirs.opt);
    if ours.has(flag::TC) || theirs.has(flag::TC) {
        return parts;
    }
    for (ours, theirs, set, ttl) in [
        (&ours.answer, &theirs.answer, Part::Answer, Part::AnswerTtl),
        (
            &ours.authority,
            &theirs.authority,
            Part::Authority,
            Part::AuthorityTtl,
        ),
        (
            &ours.additional,
            &theirs.additional,
            Part::Additional,
            Part::AdditionalTtl,
        ),
    ] {
        let mut ours = ours.clone();
        follow_serials(&mut ours, theirs);
        let sorted = |records: &[Record], with_ttl: bool| {
            let mut records = records.to_vec();
            if !with_ttl {
                records.iter_mut().for_each(|record| record.ttl = 0);
            }
            records.sort();
            records
        };
        if sorted(&ours, false) != sorted(theirs, false) {
            parts.insert(set);
        } else if sorted(&ours, true) != sorted(theirs, true) {
            parts.insert(ttl);
        }
    }
    parts
}

/// Gives our SOA the serial of theirs if it is about the same.
fn follow_serials(ours: &mut [Record], theirs: &[Record]) {
    for our in ours {
        for their in theirs.iter().filter(|their| their.kind == our.kind) {
            let (Some(mine), Some(serial)) = (serial(our), serial(their)) else {
                continue;
            };
            if mine > 0 && (mine - serial).abs() <= SERIALS_APART {
                our.data = our.data.replacen(&mine.to_string(), &serial.to_string(), 1);
            }
        }
    }
}

fn serial(record: &Record) -> Option<i64> {
    if record.kind != crate::wire::kind::SOA {
        return None;
    }
    record.data.split(' ').nth(2)?.parse().ok()
}
