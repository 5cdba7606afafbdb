//! `template`: answers that are made from the question by patterns.
//!
//! Templates are tried in order. One whose zone, class, type and expression fit answers; one whose
//! expressions do not fit ends the search with NXDOMAIN, unless it falls through. A record whose text
//! cannot be read once it is filled in makes the answer SERVFAIL, as nothing else would be true.
//!
//! Patterns are the part of Go's templates that stands in Corefiles, see [`pattern`].

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use regex::Regex;

use crate::answer::{Answer, ExtendedError};
use crate::chain::Local;
use crate::config::{TemplateRecord, TemplateSettings};
use crate::message::{Question, class};
use crate::metrics::labels::class_label;
use crate::record::{RData, Record};

mod pattern;
mod text;

pub use pattern::PatternError;
use pattern::{Data, Pattern};

impl TemplateRecord {
    /// Checks the pattern; what it will be filled with is not known yet.
    ///
    /// # Errors
    /// What cannot be understood or is not supported.
    pub fn check(&self) -> Result<(), PatternError> {
        self.0.parse::<Pattern>().map(drop)
    }
}

/// The templates of a server block.
#[derive(Debug, Default)]
pub(crate) struct Templates(Vec<Template>);

#[derive(Debug)]
struct Template {
    settings: TemplateSettings,
    answer: Vec<Pattern>,
    additional: Vec<Pattern>,
    authority: Vec<Pattern>,
}

/// What the templates say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The outcome.
    pub(crate) local: Local,
    /// An expression matched, whatever came of it.
    pub(crate) is_match: bool,
}

impl Templates {
    /// # Errors
    /// A pattern that cannot be understood.
    pub(crate) fn new(settings: &[TemplateSettings]) -> Result<Self, PatternError> {
        let patterns = |records: &[TemplateRecord]| -> Result<Vec<Pattern>, PatternError> {
            records.iter().map(|record| record.0.parse()).collect()
        };
        let templates = settings.iter().map(|settings| {
            let mut template = Template {
                answer: patterns(&settings.answer)?,
                additional: patterns(&settings.additional)?,
                authority: patterns(&settings.authority)?,
                settings: settings.clone(),
            };
            if template.settings.matches.is_empty() {
                let all = Regex::new(".*").expect("it is an expression");
                template.settings.matches.push(all);
            }
            Ok(template)
        });
        templates.collect::<Result<_, _>>().map(Self)
    }

    /// The first template's answer whose expression matches.
    pub(crate) fn answer(&self, question: &Question, client: IpAddr) -> Said {
        let said = |local, is_match| Said { local, is_match };
        let mut candidates = self.0.iter().filter(|template| template.is_for(question));
        let Some(mut template) = candidates.next() else {
            return said(Local::Pass, false);
        };
        let name = question.name.to_lowercase().to_string();
        loop {
            let mut matches = template.settings.matches.iter();
            let found = matches.find_map(|regex| Some((regex, regex.captures(&name)?)));
            if let Some((regex, captures)) = found {
                let data = Data {
                    name: &name,
                    question_name: question.name.to_string(),
                    zone: template.zone(question),
                    class: class_label(match question.class {
                        class::ANY => template.settings.class.unwrap_or(class::ANY),
                        class => class,
                    }),
                    record_type: match question.record_type {
                        RecordType::ANY => template.settings.record_type.unwrap_or(RecordType::ANY),
                        record_type => record_type,
                    },
                    remote: client.to_canonical(),
                    regex,
                    captures,
                };
                return said(template.fill(question, &data), true);
            }
            if !template.settings.fallthrough.allows(&question.name) {
                return said(
                    Local::Done(Answer::code(ResponseCode::NXDomain, None)),
                    false,
                );
            }
            match candidates.next() {
                Some(next) => template = next,
                None => return said(Local::Pass, false),
            }
        }
    }
}

impl Template {
    fn is_for(&self, question: &Question) -> bool {
        let settings = &self.settings;
        let is_class = question.class == class::ANY
            || settings.class.is_none_or(|class| class == question.class);
        let is_type = question.record_type == RecordType::ANY
            || settings
                .record_type
                .is_none_or(|it| it == question.record_type);
        is_class
            && is_type
            && settings
                .zones
                .iter()
                .any(|zone| question.name.is_within(zone))
    }

    /// The longest of the zones that the name is in, as text.
    fn zone(&self, question: &Question) -> String {
        let zone = question.name.split_longest_zone(&self.settings.zones);
        zone.map_or_else(String::new, |(_, zone)| zone.to_lowercase().to_string())
    }

    fn fill(&self, question: &Question, data: &Data<'_>) -> Local {
        if self.settings.rcode == ResponseCode::ServFail {
            return failed("a template says so");
        }
        let records = |patterns: &[Pattern]| -> Result<Vec<Record>, String> {
            let records = patterns.iter().map(|pattern| {
                let text = pattern.fill(data).map_err(|error| error.to_string())?;
                text::record(&text).ok_or_else(|| format!("no record: {text}"))
            });
            records.collect()
        };
        let sections = records(&self.answer).and_then(|answers| {
            Ok((
                answers,
                records(&self.additional)?,
                records(&self.authority)?,
            ))
        });
        let (answers, additional, authority) = match sections {
            Ok(sections) => sections,
            Err(error) => return failed(&format!("template: {error}")),
        };
        let extended = self.settings.extended_error.as_ref();
        let answer = Answer {
            answers,
            additional,
            authority,
            error: extended.map(|(code, text)| ExtendedError {
                code: *code,
                text: text.clone().into(),
            }),
            ..Answer::local(self.settings.rcode)
        };
        let is_address = matches!(question.record_type, RecordType::A | RecordType::AAAA);
        let target = match answer.answers.last().map(|record| &record.data) {
            // What the alias leads to is looked up for those who ask for addresses.
            Some(RData::Cname(target)) if is_address => Some(target.clone()),
            _ => None,
        };
        match target {
            Some(target) => Local::Alias(answer, target),
            None => Local::Done(answer),
        }
    }
}

fn failed(why: &str) -> Local {
    let error = ExtendedError {
        code: 0,
        text: why.to_owned().into(),
    };
    Local::Done(Answer::code(ResponseCode::ServFail, Some(error)))
}

#[cfg(test)]
mod tests;
