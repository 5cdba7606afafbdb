//! `rewrite`: what is asked is changed on the way in, what is answered on the way out.
//!
//! Rules are tried in order; after the first one that matches no other is, unless it says
//! `continue`. The reply repeats the question as it came. Records are changed back in the reverse
//! order of the rules: `answer auto` turns the name that was asked for into the one that came in,
//! also where it is the end of a longer name; for `suffix` one suffix is put in the other's place.

use std::borrow::Cow;

use regex::{Captures, Regex};

use crate::answer::Answer;
use crate::config::{AnswerRewrite, NameMatch, RewriteRule, RewriteWhat};
use crate::message::Question;
use crate::name::Name;
use crate::record::{RData, Record};

/// A rule made something of a name that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid name after rewrite: {0}")]
pub(crate) struct InvalidName(String);

/// A question that rules have changed.
#[derive(Clone, Debug)]
pub(crate) struct Rewritten {
    /// What is looked up.
    pub(crate) question: Question,
    /// What is done with the answer, in the order of the rules.
    undo: Vec<Undo>,
}

/// Change of an answer.
#[derive(Clone, Debug)]
enum Undo {
    /// Of names of owners.
    Name(Replace),
    /// Of names in data.
    Value(Replace),
    Ttl(u32, u32),
    Rcode(
        hickory_proto::op::ResponseCode,
        hickory_proto::op::ResponseCode,
    ),
}

/// Change of a name.
#[derive(Clone, Debug)]
enum Replace {
    /// A name, or the end of one.
    Tail(Name, Name),
    /// The end of its text.
    Suffix(String, String),
    Pattern(Regex, String),
}

/// The question after all rules. None if none of them matches.
///
/// # Errors
/// What a rule made of the name is no name.
pub(crate) fn rewrite(
    rules: &[RewriteRule],
    question: &Question,
) -> Result<Option<Rewritten>, InvalidName> {
    let mut rewritten: Option<Rewritten> = None;
    for rule in rules {
        let now = rewritten.as_ref().map_or(question, |it| &it.question);
        let Some((question, undo)) = apply(&rule.what, now)? else {
            continue;
        };
        let rewritten = rewritten.get_or_insert_with(|| Rewritten {
            question: question.clone(),
            undo: Vec::new(),
        });
        rewritten.question = question;
        rewritten.undo.extend(undo);
        if rule.stop {
            break;
        }
    }
    Ok(rewritten)
}

/// What a rule makes of a question, if it matches.
fn apply(
    what: &RewriteWhat,
    question: &Question,
) -> Result<Option<(Question, Vec<Undo>)>, InvalidName> {
    let mut changed = question.clone();
    let undo = match what {
        RewriteWhat::Name {
            matches,
            to,
            answers,
        } => {
            let Some(text) = renamed(matches, to, &question.name) else {
                return Ok(None);
            };
            changed.name = Name::from_escaped(&text).ok_or(InvalidName(text))?;
            let undo = answers.iter();
            let undo = undo.flat_map(|answer| undo_name(answer, matches, to, question, &changed));
            undo.collect()
        }
        RewriteWhat::Type(from, to) => {
            if question.record_type != *from {
                return Ok(None);
            }
            changed.record_type = *to;
            Vec::new()
        }
        RewriteWhat::Class(from, to) => {
            if question.class != *from {
                return Ok(None);
            }
            changed.class = *to;
            Vec::new()
        }
        RewriteWhat::Ttl { matches, min, max } => {
            if !is_match(matches, &question.name) {
                return Ok(None);
            }
            vec![Undo::Ttl(*min, *max)]
        }
        RewriteWhat::Rcode { matches, from, to } => {
            if !is_match(matches, &question.name) {
                return Ok(None);
            }
            vec![Undo::Rcode(*from, *to)]
        }
    };
    Ok(Some((changed, undo)))
}

/// A name as rules see it.
fn text(name: &Name) -> String {
    name.to_lowercase().to_string()
}

fn is_match(matches: &NameMatch, name: &Name) -> bool {
    match matches {
        NameMatch::Exact(exact) => name.eq_ignore_case(exact),
        NameMatch::Prefix(prefix) => text(name).starts_with(prefix),
        NameMatch::Suffix(suffix) => text(name).ends_with(suffix),
        NameMatch::Substring(part) => text(name).contains(part),
        NameMatch::Regex(regex) => regex.is_match(&text(name)),
    }
}

/// What a name becomes, if it matches.
fn renamed(matches: &NameMatch, to: &str, name: &Name) -> Option<String> {
    if let NameMatch::Exact(exact) = matches {
        return name.eq_ignore_case(exact).then(|| to.to_owned());
    }
    let name = text(name);
    match matches {
        NameMatch::Exact(_) => None,
        NameMatch::Prefix(prefix) => name.strip_prefix(prefix).map(|rest| format!("{to}{rest}")),
        NameMatch::Suffix(suffix) => name.strip_suffix(suffix).map(|rest| format!("{rest}{to}")),
        NameMatch::Substring(part) => name.contains(part).then(|| name.replace(part, to)),
        NameMatch::Regex(regex) => regex.captures(&name).map(|groups| fill(to, &groups)),
    }
}

/// Puts the groups of a match in the place of `{0}`, `{1}` and so on.
fn fill(to: &str, groups: &Captures<'_>) -> String {
    let mut filled = to.to_owned();
    for (number, group) in groups.iter().enumerate() {
        let mark = format!("{{{number}}}");
        if filled.contains(&mark) {
            filled = filled.replace(&mark, group.map_or("", |group| group.as_str()));
        }
    }
    filled
}

fn undo_name(
    answer: &AnswerRewrite,
    matches: &NameMatch,
    to: &str,
    before: &Question,
    after: &Question,
) -> Vec<Undo> {
    match answer {
        AnswerRewrite::Auto => {
            let replace = match matches {
                NameMatch::Suffix(suffix) => Replace::Suffix(to.to_owned(), suffix.clone()),
                _ => Replace::Tail(after.name.clone(), before.name.clone()),
            };
            vec![Undo::Name(replace.clone()), Undo::Value(replace)]
        }
        AnswerRewrite::Name(from, to) => {
            vec![Undo::Name(Replace::Pattern(from.clone(), to.clone()))]
        }
        AnswerRewrite::Value(from, to) => {
            vec![Undo::Value(Replace::Pattern(from.clone(), to.clone()))]
        }
    }
}

impl Rewritten {
    /// Changes an answer so that it fits the question as it came.
    pub(crate) fn undo(&self, answer: &mut Answer) {
        for undo in self.undo.iter().rev() {
            if let Undo::Rcode(from, to) = undo
                && answer.rcode == *from
            {
                answer.rcode = *to;
            }
            let answers = answer.answers.iter_mut();
            let all = answers
                .chain(&mut answer.authority)
                .chain(&mut answer.additional);
            all.for_each(|record| undo.record(record));
        }
    }
}

impl Undo {
    fn record(&self, record: &mut Record) {
        match self {
            Self::Name(replace) => replace.name(&mut record.name),
            Self::Value(replace) => match &mut record.data {
                RData::Cname(name) | RData::Ns(name) | RData::Ptr(name) => replace.name(name),
                RData::Srv(srv) => replace.name(&mut srv.target),
                RData::Soa(soa) => replace.name(&mut soa.mname),
                RData::A(_) | RData::Aaaa(_) | RData::Other(..) => {}
            },
            Self::Ttl(min, max) => record.ttl = record.ttl.max(*min).min(*max),
            Self::Rcode(..) => {}
        }
    }
}

impl Replace {
    /// A result that is no name leaves the name as it is.
    fn name(&self, name: &mut Name) {
        let replaced = match self {
            Self::Tail(from, to) => name.split_zone(from).and_then(|(left, _)| {
                let labels = name.labels().take(left);
                let labels: Vec<Cow<'_, str>> = labels.map(String::from_utf8_lossy).collect();
                Name::prepend(labels.iter().map(|label| &**label), to)
            }),
            Self::Suffix(from, to) => {
                let text = name.to_string();
                let start = text.len().checked_sub(from.len());
                start.and_then(|start| {
                    let (rest, end) = text.split_at_checked(start)?;
                    let fits = end.eq_ignore_ascii_case(from);
                    fits.then(|| Name::from_escaped(&format!("{rest}{to}")))?
                })
            }
            Self::Pattern(from, to) => {
                let text = name.to_string();
                let groups = from.captures(&text);
                groups.and_then(|groups| Name::from_escaped(&fill(to, &groups)))
            }
        };
        if let Some(replaced) = replaced {
            *name = replaced;
        }
    }
}

#[cfg(test)]
mod tests;
