#![no_main]
//! Replies of upstreams: what is kept of one is a reply that reads the same again.

use libfuzzer_sys::fuzz_target;
use sealane_dns::answer::encode::{self, Transport};
use sealane_dns::message::{self, HEADER};
use sealane_dns::reply::{self, ReplyError};

fuzz_target!(|data: &[u8]| {
    // The query that this is the reply to, if it is one.
    let mut query = data.to_vec();
    if query.len() < HEADER {
        return;
    }
    query[2..HEADER].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let Ok(query) = message::parse(&query) else {
        return;
    };
    for dnssec_ok in [false, true] {
        assert!(reply::parse(data, query.id ^ 1, &query.question, dnssec_ok).is_err());
        let Ok(answer) = reply::parse(data, query.id, &query.question, dnssec_ok) else {
            continue;
        };
        let mut encoded = Vec::new();
        encode::reply(&query, &answer, Transport::Quic, &mut encoded);
        assert!(encoded.len() <= encode::TCP_LIMIT);
        match reply::parse(&encoded, query.id, &query.question, dnssec_ok) {
            // Encoding may cut it off: names are written without pointers where those may not be.
            Ok(again) if again.truncated => {}
            Ok(again) => {
                assert_eq!(again.answers, answer.answers);
                assert_eq!(again.authority, answer.authority);
            }
            // Said as an upstream that does not know EDNS says it.
            Err(ReplyError::NoEdns(rcode)) => assert_eq!(rcode, answer.rcode),
            Err(error) => panic!("{error}: {answer:?}"),
        }
        let mut datagram = Vec::new();
        encode::reply(&query, &answer, Transport::Udp, &mut datagram);
        assert!(datagram.len() <= encode::UDP_PLAIN);
    }
});
