use hickory_proto::op::{self, Message, MessageType, OpCode};
use hickory_proto::rr::rdata;
use proptest::prelude::*;

use super::*;

fn question(text: &str) -> Question {
    Question::new(text.parse().unwrap(), RecordType::A)
}

fn their_name(text: &str) -> hickory_proto::rr::Name {
    hickory_proto::rr::Name::from_ascii(text).unwrap()
}

fn a(owner: &str, last: u8) -> hickory_proto::rr::Record {
    let addr = rdata::A::new(10, 0, 0, last);
    let data = hickory_proto::rr::RData::A(addr);
    hickory_proto::rr::Record::from_rdata(their_name(owner), 60, data)
}

fn cname(owner: &str, target: &str) -> hickory_proto::rr::Record {
    let data = hickory_proto::rr::RData::CNAME(rdata::CNAME(their_name(target)));
    hickory_proto::rr::Record::from_rdata(their_name(owner), 60, data)
}

fn soa(owner: &str) -> hickory_proto::rr::Record {
    let name = their_name("ns.example.");
    let data = rdata::SOA::new(name.clone(), name, 1, 2, 3, 4, 300);
    let data = hickory_proto::rr::RData::SOA(data);
    hickory_proto::rr::Record::from_rdata(their_name(owner), 600, data)
}

fn response(asked: &str) -> Message {
    let mut message = Message::new(9, MessageType::Response, OpCode::Query);
    message.add_query(op::Query::query(their_name(asked), RecordType::A));
    message
}

fn read(message: &Message, asked: &str) -> Result<Vec<String>, ReplyError> {
    let bytes = message.to_vec().unwrap();
    let answer = parse(&bytes, 9, &question(asked), false)?;
    Ok(crate::testing::shown(&answer))
}

#[test]
fn reliability_b29_only_the_chain_is_kept() {
    let mut message = response("www.example.");
    message.add_answer(a("victim.example.", 66));
    message.add_answer(a("cdn.example.", 1));
    message.add_answer(cname("www.example.", "cdn.example."));
    message.add_authority(soa("example."));
    message.add_authority(soa("other."));
    message.add_additional(a("victim.example.", 66));
    assert_eq!(
        read(&message, "WWW.example").unwrap(),
        [
            "NOERROR",
            "www.example. 60 IN CNAME cdn.example.",
            "cdn.example. 60 IN A 10.0.0.1",
            "@example. 600 IN SOA ns.example. ns.example. 1 2 3 4 300",
        ]
    );
}

#[test]
fn an_alias_loop_ends() {
    let mut message = response("a.example.");
    message.add_answer(cname("a.example.", "b.example."));
    message.add_answer(cname("b.example.", "a.example."));
    assert_eq!(read(&message, "a.example").unwrap().len(), 3);
}

#[test]
fn what_is_no_reply_to_the_query() {
    let good = {
        let mut message = response("www.example.");
        message.add_answer(a("www.example.", 1));
        message
    };
    assert_eq!(read(&good, "www.example").unwrap().len(), 2);
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        read(&message, "www.example")
    };
    let not_ours = Err(ReplyError::NotOurs);
    assert_eq!(with(&|m| m.metadata.id = 10), not_ours);
    assert_eq!(
        with(&|m| m.metadata.message_type = MessageType::Query),
        not_ours
    );
    assert_eq!(with(&|m| m.metadata.op_code = OpCode::Status), not_ours);
    assert_eq!(with(&|m| m.queries.clear()), not_ours);
    let other_type = op::Query::query(their_name("www.example."), RecordType::AAAA);
    assert_eq!(with(&|m| m.queries = vec![other_type.clone()]), not_ours);
    let other_name = op::Query::query(their_name("ww2.example."), RecordType::A);
    assert_eq!(with(&|m| m.queries = vec![other_name.clone()]), not_ours);
    let mut cut = good.to_vec().unwrap();
    cut.pop();
    let parsed = parse(&cut, 9, &question("www.example"), false);
    assert_eq!(parsed, Err(ReplyError::Malformed(Malformed)));
    // TC: what is there counts, wherever it was cut.
    cut[2] |= 2;
    let parsed = parse(&cut, 9, &question("www.example"), false).unwrap();
    assert!(parsed.truncated && parsed.answers.is_empty());
    let mut whole = good.to_vec().unwrap();
    whole[2] |= 2;
    let parsed = parse(&whole, 9, &question("www.example"), false).unwrap();
    assert!(parsed.truncated && !parsed.answers.is_empty());
}

#[test]
fn reliability_f36_extended_errors_are_read_with_care() {
    for (name, option, expected) in [
        ("none", &[][..], None),
        (
            "code and text",
            &[0, 15, 0, 4, 0, 6, b'n', b'o'],
            Some((6, "no")),
        ),
        (
            "after another",
            &[0, 3, 0, 1, 9, 0, 15, 0, 2, 0, 23],
            Some((23, "")),
        ),
        ("too short for a code", &[0, 15, 0, 1, 0], None),
        ("longer than the record", &[0, 15, 0, 9, 0, 6], None),
        ("no text", &[0, 15, 0, 3, 0, 6, 0xff], Some((6, "\u{fffd}"))),
    ] {
        let mut bytes = response("www.example.").to_vec().unwrap();
        bytes[11] = 1;
        bytes.extend_from_slice(&[0, 0, 41, 4, 208, 1, 0, 0, 0, 0, option.len() as u8]);
        bytes.extend_from_slice(option);
        let answer = parse(&bytes, 9, &question("www.example"), false).unwrap();
        assert_eq!(
            u16::from(answer.rcode),
            16,
            "{name}: the upper bits are in OPT"
        );
        let found = answer.error.as_ref();
        let found = found.map(|error| (error.code, &*error.text));
        assert_eq!(found, expected, "{name}");
    }
    let mut lying = response("www.example.").to_vec().unwrap();
    lying[11] = 9;
    let answer = parse(&lying, 9, &question("www.example"), false).unwrap();
    assert_eq!(
        answer.rcode,
        ResponseCode::NoError,
        "the section is not needed"
    );
}

#[test]
fn ttls_above_31_bits_are_zero() {
    let mut message = response("www.example.");
    let mut record = a("www.example.", 1);
    record.ttl = 1 << 31;
    message.add_answer(record);
    assert_eq!(
        read(&message, "www.example").unwrap()[1],
        "www.example. 0 IN A 10.0.0.1"
    );
}

/// A reply to `www.example` with these counts, followed by anything.
fn nearly_a_reply() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => Just(0u8),
        2 => Just(0xc0),
        2 => Just(12u8),
        2 => 0..8u8,
        1 => any::<u8>(),
    ];
    let rest = proptest::collection::vec(byte, 0..200);
    (0..5u16, 0..5u16, rest).prop_map(|(answers, authority, rest)| {
        let words = [9, 0x8180, 1, answers, authority, 0];
        let mut bytes: Vec<u8> = words
            .iter()
            .flat_map(|word: &u16| word.to_be_bytes())
            .collect();
        bytes.extend_from_slice(b"\x03www\x07example\x00\x00\x01\x00\x01");
        bytes.extend_from_slice(&rest);
        bytes
    })
}

proptest! {
    #[test]
    fn any_reply_is_parsed(bytes in prop_oneof![
        nearly_a_reply(),
        proptest::collection::vec(any::<u8>(), 0..600),
    ]) {
        if let Ok(answer) = parse(&bytes, 9, &question("www.example"), true) {
            // A record takes eleven bytes at least, so counts cannot make more of them.
            let records = answer.answers.len() + answer.authority.len();
            prop_assert!(records * 11 <= bytes.len());
        }
    }

    #[test]
    fn a_broken_reply_is_parsed(at in 12..90usize, with in any::<u8>()) {
        let mut message = response("www.example.");
        message.add_answer(cname("www.example.", "cdn.example."));
        message.add_answer(a("cdn.example.", 1));
        message.add_authority(soa("example."));
        let mut bytes = message.to_vec().unwrap();
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = parse(&bytes, 9, &question("www.example"), true);
    }
}
