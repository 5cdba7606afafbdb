//! One `forward` line as a source of answers.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;

use super::{Fetch, Source};
use crate::answer::Answer;
use crate::config::ForwardSettings;
use crate::forward::{Forward, ForwardError, Via};
use crate::name::Name;
use crate::rcode::forward_failure;

/// A `forward` line.
#[derive(Debug)]
pub(crate) struct Line {
    settings: Arc<ForwardSettings>,
    forward: Forward,
}

impl Line {
    pub(crate) fn new(forward: Forward) -> Self {
        Self {
            settings: Arc::clone(forward.plan().settings()),
            forward,
        }
    }
}

impl Source for Line {
    fn takes(&self, name: &Name) -> bool {
        self.settings.takes(name)
    }

    async fn ask(&self, fetch: &Fetch) -> Result<Answer, ForwardError> {
        let via = match fetch.stream {
            true => Via::Stream,
            false => Via::Datagram,
        };
        let (key, recursion_desired) = (&fetch.key, fetch.recursion_desired);
        self.forward.resolve(key, recursion_desired, via).await
    }

    fn hands_on(&self, result: &Result<Answer, ForwardError>) -> bool {
        hands_on(&self.settings, result)
    }
}

/// `next` and `next_on_nodata`. An upstream that cannot be asked counts with the code that its client
/// would get.
fn hands_on(settings: &ForwardSettings, result: &Result<Answer, ForwardError>) -> bool {
    match result {
        Ok(answer) => {
            let no_data = answer.rcode == ResponseCode::NoError && answer.answers.is_empty();
            settings.next.contains(&answer.rcode) || settings.next_on_nodata && no_data
        }
        Err(error) => settings.next.contains(&forward_failure(*error).rcode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_forward_next_hands_on_to_the_next_line() {
        let mut with_records = Answer::code(ResponseCode::NoError, None);
        with_records.answers.push(crate::record::Record::address(
            Name::root(),
            1,
            [10, 0, 0, 1].into(),
        ));
        let code = |rcode| Ok(Answer::code(rcode, None));
        let plain = ForwardSettings::to(Vec::new());
        let nxdomain = ForwardSettings {
            next: vec![ResponseCode::NXDomain],
            ..plain.clone()
        };
        let servfail = ForwardSettings {
            next: vec![ResponseCode::ServFail],
            ..plain.clone()
        };
        let no_data = ForwardSettings {
            next_on_nodata: true,
            ..plain.clone()
        };
        let timed_out = || Err(ForwardError::TimedOut);
        for (name, settings, result, expected) in [
            ("off", &plain, code(ResponseCode::NXDomain), false),
            ("off, failure", &plain, timed_out(), false),
            ("code", &nxdomain, code(ResponseCode::NXDomain), true),
            ("other code", &nxdomain, code(ResponseCode::ServFail), false),
            ("failure is SERVFAIL", &servfail, timed_out(), true),
            ("no data", &no_data, code(ResponseCode::NoError), true),
            ("records", &no_data, Ok(with_records), false),
            ("not no data", &no_data, code(ResponseCode::NXDomain), false),
        ] {
            assert_eq!(hands_on(settings, &result), expected, "{name}");
        }
    }
}
