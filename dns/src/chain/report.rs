//! What is said of every query: counts, the query log, failures.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;

use super::Asked;
use crate::answer::Answer;
use crate::config::{ErrorsSettings, LogClass, LogSettings, Plugins};
use crate::message::flag;
use crate::metrics::{Counter, Observed, Writer, names};
use crate::observe::{Entry, Failure, Format, Line, LogSink, Observe, class_of};

/// Extended error of a query that a rule of `acl` stopped: no failure.
const BLOCKED: u16 = 15;

/// Where a block reports to.
#[derive(Debug)]
pub(super) struct Report {
    log: LogSink,
    rules: Vec<Rule>,
    errors: Option<Arc<ErrorsSettings>>,
    /// Lines that there was no room for.
    lost: Counter,
}

/// A line of `log`.
#[derive(Debug)]
struct Rule {
    settings: LogSettings,
    format: Arc<Format>,
}

/// A reply with this code may be about something that went wrong here.
fn is_failure(rcode: ResponseCode) -> bool {
    matches!(rcode, ResponseCode::ServFail | ResponseCode::Refused)
}

impl Report {
    pub(super) fn new(plugins: &Plugins, observe: &Observe) -> Self {
        let rule = |settings: &LogSettings| Rule {
            format: Arc::new(Format::new(&settings.format)),
            settings: settings.clone(),
        };
        Self {
            log: observe.log.clone(),
            rules: plugins.log.iter().map(rule).collect(),
            errors: plugins.errors.clone().map(Arc::new),
            lost: observe.metrics.counter(&names::DROPPED, &["log"]),
        }
    }

    /// Answers with this code are needed decoded.
    pub(super) fn looks_inside(&self, rcode: ResponseCode) -> bool {
        !self.rules.is_empty() || self.errors.is_some() && is_failure(rcode)
    }

    /// Counts a query with its reply as it was encoded.
    pub(super) fn count(&self, asked: &Asked, rcode: ResponseCode, reply: &[u8], writer: Writer) {
        asked.counts.record(&Observed {
            is_udp: asked.transport.is_udp(),
            client: asked.client.ip(),
            record_type: asked.query.question.record_type,
            dnssec_ok: asked.query.dnssec_ok(),
            rcode,
            writer,
            request_size: asked.request_size,
            response_size: reply.len(),
            duration: asked.started.elapsed(),
        });
    }

    /// The same, and writes it to the logs that want it.
    pub(super) fn record(&self, asked: &Asked, answer: &Answer, reply: &[u8], writer: Writer) {
        self.count(asked, answer.rcode, reply, writer);
        let query = &asked.query;
        let flags = match reply {
            [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        if !asked.transport.is_udp() && flags & flag::TC != 0 && !answer.truncated {
            asked.counts.truncated_over_tcp();
        }
        if !self.rules.is_empty() {
            self.log_query(asked, answer, (flags, reply.len()));
        }
        if let (Some(settings), Some(error)) = (&self.errors, &answer.error)
            && is_failure(answer.rcode)
            && error.code != BLOCKED
        {
            self.send(Line::Failure(Box::new(Failure {
                settings: Arc::clone(settings),
                rcode: answer.rcode,
                name: query.question.name.clone(),
                record_type: query.question.record_type,
                message: error.text.clone().into_owned(),
            })));
        }
    }

    fn log_query(&self, asked: &Asked, answer: &Answer, (flags, response_size): (u16, usize)) {
        let question = &asked.query.question;
        let mut rules = self.rules.iter();
        let is_for = |rule: &&Rule| {
            let mut zones = rule.settings.zones.iter();
            zones.any(|zone| question.name.is_within(zone))
        };
        // The first line for the zone decides, whether or not its classes fit.
        let Some(rule) = rules.find(is_for) else {
            return;
        };
        let classes = &rule.settings.classes;
        let is_logged = classes.is_empty()
            || classes.contains(&LogClass::All)
            || classes.contains(&class_of(answer));
        if !is_logged {
            return;
        }
        self.send(Line::Query(Box::new(Entry {
            format: Arc::clone(&rule.format),
            client: asked.client,
            is_udp: asked.transport.is_udp(),
            id: asked.query.id,
            name: question.name.clone(),
            record_type: question.record_type,
            class: question.class,
            edns: asked.query.edns.map(|edns| (edns.udp_size, edns.dnssec_ok)),
            request_size: asked.request_size,
            rcode: answer.rcode,
            flags,
            response_size,
            duration: asked.started.elapsed(),
        })));
    }

    fn send(&self, line: Line) {
        if !self.log.send(line) {
            self.lost.increment();
        }
    }
}
