//! `any`: a query of type ANY gets one small record (RFC 8482 section 4.2).

use bytes::Bytes;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::answer::Answer;
use crate::message::Question;
use crate::record::{RData, Record};

/// Seconds for which the record may be kept.
const TTL: u32 = 8482;
/// The two strings of the HINFO record, each after its length.
const HINFO: &[u8] = b"\x0dANY obsoleted\x0cSee RFC 8482";

/// The answer, if it is such a query.
pub(crate) fn answer(question: &Question) -> Option<Answer> {
    (question.record_type == RecordType::ANY).then(|| {
        let mut answer = Answer::code(ResponseCode::NoError, None);
        answer.answers.push(Record {
            name: question.name.clone(),
            ttl: TTL,
            data: RData::Other(RecordType::HINFO, Bytes::from_static(HINFO)),
        });
        answer
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_any_queries_get_a_hinfo_record() {
        let ask = |record_type| answer(&Question::new("A.test".parse().unwrap(), record_type));
        assert_eq!(ask(RecordType::A), None);
        let answer = ask(RecordType::ANY).unwrap();
        assert_eq!(
            (answer.rcode, answer.authoritative),
            (ResponseCode::NoError, false)
        );
        let [record] = &answer.answers[..] else {
            panic!("{answer:?}");
        };
        assert_eq!(
            (record.name.to_string().as_str(), record.ttl),
            ("A.test.", 8482)
        );
    }
}
