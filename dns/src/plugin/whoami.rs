//! `whoami`: tells clients their own address and port, in the additional section.

use std::net::SocketAddr;

use hickory_proto::op::ResponseCode;

use crate::answer::Answer;
use crate::message::Question;
use crate::name::Name;
use crate::record::{RData, Record, Srv};

/// The answer, whatever is asked.
pub(crate) fn answer(question: &Question, client: SocketAddr, is_udp: bool) -> Answer {
    let name = question.name.clone();
    let mut answer = Answer::local(ResponseCode::NoError);
    let address = Record::address(name.clone(), 0, client.ip().to_canonical());
    answer.additional.push(address);
    let protocol = if is_udp { "_udp" } else { "_tcp" };
    if let Some(name) = Name::prepend([protocol], &name) {
        answer.additional.push(Record {
            name,
            ttl: 0,
            data: RData::Srv(Srv {
                priority: 0,
                weight: 0,
                port: client.port(),
                target: Name::root(),
            }),
        });
    }
    answer
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;

    #[test]
    fn dns_whoami_tells_address_and_port() {
        for (client, is_udp, expected) in [
            (
                "192.0.2.1:4242",
                true,
                [
                    "a.test. 0 IN A 192.0.2.1",
                    "_udp.a.test. 0 IN SRV 0 0 4242 .",
                ],
            ),
            (
                "[::ffff:192.0.2.1]:4242",
                false,
                [
                    "a.test. 0 IN A 192.0.2.1",
                    "_tcp.a.test. 0 IN SRV 0 0 4242 .",
                ],
            ),
            (
                "[2001:db8::1]:53",
                true,
                [
                    "a.test. 0 IN AAAA 2001:db8::1",
                    "_udp.a.test. 0 IN SRV 0 0 53 .",
                ],
            ),
        ] {
            let question = Question::new("a.test".parse().unwrap(), RecordType::MX);
            let answer = answer(&question, client.parse().unwrap(), is_udp);
            let additional = answer.additional.iter().map(ToString::to_string);
            assert_eq!(additional.collect::<Vec<_>>(), expected);
            assert!(answer.answers.is_empty() && answer.authoritative);
        }
    }
}
