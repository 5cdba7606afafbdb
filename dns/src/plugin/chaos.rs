//! `chaos`: what the server is, for queries of class CH and type TXT (RFC 4892).

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use rand::seq::SliceRandom;

use crate::answer::Answer;
use crate::config::ChaosSettings;
use crate::message::{Question, class};
use crate::record::{RData, Record};

/// Longest string of a TXT record.
const MAX_STRING: usize = 255;

/// The answer, if it is such a query. Its records are of the question's class.
pub(crate) fn answer(
    settings: &ChaosSettings,
    host_name: &str,
    question: &Question,
) -> Option<Answer> {
    if question.class != class::CH || question.record_type != RecordType::TXT {
        return None;
    }
    let name = question.name.to_lowercase().to_string();
    let mut texts: Vec<&str> = match name.as_str() {
        "version.bind." | "version.server." => vec![&settings.version],
        "authors.bind." => settings.authors.iter().map(String::as_str).collect(),
        "hostname.bind." | "id.server." => vec![host_name],
        _ => return None,
    };
    texts.shuffle(&mut rand::rng());
    let mut answer = Answer::code(ResponseCode::NoError, None);
    answer.answers = texts.iter().map(|text| txt(question, text)).collect();
    Some(answer)
}

fn txt(question: &Question, text: &str) -> Record {
    let text = text.as_bytes();
    let text = &text[..text.len().min(MAX_STRING)];
    let data = [&[text.len() as u8], text].concat();
    Record {
        name: question.name.clone(),
        ttl: 0,
        data: RData::Other(RecordType::TXT, data.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_chaos_says_what_the_server_is() {
        let settings = ChaosSettings {
            version: "Sealane-1".to_owned(),
            authors: vec!["ann".to_owned(), "bob".to_owned()],
        };
        let ask = |name: &str, class| {
            let question = Question {
                class,
                ..Question::new(name.parse().unwrap(), RecordType::TXT)
            };
            let answer = answer(&settings, "node-1", &question)?;
            let mut texts: Vec<String> = answer
                .answers
                .iter()
                .map(|record| format!("{} {} {}", record.name, record.ttl, record.data))
                .collect();
            texts.sort_unstable();
            Some(texts.join(", "))
        };
        for (name, expected) in [
            ("version.bind", "version.bind. 0 \"Sealane-1\""),
            ("VERSION.server", "VERSION.server. 0 \"Sealane-1\""),
            (
                "authors.bind",
                "authors.bind. 0 \"ann\", authors.bind. 0 \"bob\"",
            ),
            ("hostname.bind", "hostname.bind. 0 \"node-1\""),
            ("id.server", "id.server. 0 \"node-1\""),
        ] {
            assert_eq!(ask(name, class::CH).as_deref(), Some(expected), "{name}");
            assert_eq!(ask(name, class::IN), None, "{name}");
        }
        assert_eq!(ask("other.bind", class::CH), None);
    }
}
