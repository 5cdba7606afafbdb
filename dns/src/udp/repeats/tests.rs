use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use super::*;
use crate::answer::Answer;
use crate::answer::encode::{self, Transport};
use crate::message;
use crate::name::Name;
use crate::record::{RData, Record};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A query with these flags, for `a.test` and the like.
fn query(id: u16, flags: u16, owner: &str, record_type: RecordType, opt: &[u8]) -> Vec<u8> {
    let mut query = Vec::new();
    for word in [id, flags, 1, 0, 0, u16::from(!opt.is_empty())] {
        query.extend_from_slice(&word.to_be_bytes());
    }
    query.extend_from_slice(name(owner).wire());
    query.extend_from_slice(&u16::from(record_type).to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query.extend_from_slice(opt);
    query
}

fn a(id: u16, owner: &str) -> Vec<u8> {
    query(id, 0x0100, owner, RecordType::A, &[])
}

/// The reply with so many addresses behind an alias.
fn reply(query: &[u8], addresses: u32) -> Vec<u8> {
    let asked = message::parse(query).unwrap();
    let mut answer = Answer::local(ResponseCode::NoError);
    let target = name("target.test");
    answer.answers.push(Record {
        name: asked.question.name.clone(),
        ttl: 5,
        data: RData::Cname(target.clone()),
    });
    let records = (0..addresses).map(|n| {
        let addr = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        Record::address(target.clone(), 5, addr)
    });
    answer.answers.extend(records);
    let mut out = Vec::new();
    encode::reply(&asked, &answer, Transport::Udp, &mut out);
    out
}

fn keep(repeats: &mut Repeats, query: &[u8], reply: &[u8], reuse: Reuse) {
    let place = repeats.place(query).unwrap();
    let asked = message::parse(query).unwrap();
    let counted = Counted::elsewhere(&asked, ResponseCode::NoError);
    repeats.keep(place, query, (reply, counted), reuse);
}

fn found(repeats: &Repeats, query: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![7];
    let place = repeats.place(query)?;
    repeats
        .append(place, query, &mut out)
        .map(|_| out.split_off(1))
}

#[test]
fn the_same_query_gets_the_same_reply_with_its_own_id() {
    let mut repeats = Repeats::new();
    let first = a(1, "a.test");
    let said = reply(&first, 1);
    keep(&mut repeats, &first, &said, Reuse::AsIs);
    let again = found(&repeats, &a(0xabcd, "a.test")).unwrap();
    assert_eq!(again[..2], [0xab, 0xcd]);
    assert_eq!(again[2..], said[2..]);
    for (what, other) in [
        ("name", a(1, "b.test")),
        ("case", a(1, "A.test")),
        ("type", query(1, 0x0100, "a.test", RecordType::AAAA, &[])),
        ("flags", query(1, 0, "a.test", RecordType::A, &[])),
        (
            "EDNS",
            query(1, 0x0100, "a.test", RecordType::A, &OPT_PLAIN),
        ),
        ("trailing byte", [a(1, "a.test"), vec![0]].concat()),
    ] {
        assert_eq!(found(&repeats, &other), None, "{what}");
    }
    repeats.clear();
    assert_eq!(found(&repeats, &first), None, "a new snapshot");
    assert!(repeats.place(&first[..12]).is_none(), "a header alone");
}

const OPT_PLAIN: [u8; OPT] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
const OPT_COOKIE: [u8; OPT + 12] = [
    0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8,
];

#[test]
fn not_everything_is_kept() {
    let with = |opt: &[u8]| query(1, 0x0100, "a.test", RecordType::A, opt);
    let cases = [
        ("plain", with(&[]), 1, Reuse::AsIs, true),
        ("plain EDNS", with(&OPT_PLAIN), 1, Reuse::AsIs, true),
        ("of this moment", with(&[]), 1, Reuse::No, false),
        ("with an option", with(&OPT_COOKIE), 1, Reuse::AsIs, false),
        ("truncated", with(&[]), 100, Reuse::Shuffled, false),
        ("long", with(&[]), 25, Reuse::Shuffled, false),
        (
            "trailing byte",
            [with(&[]), vec![0]].concat(),
            1,
            Reuse::AsIs,
            false,
        ),
    ];
    for (what, query, addresses, reuse, expected) in cases {
        let mut repeats = Repeats::new();
        keep(&mut repeats, &query, &reply(&query, addresses), reuse);
        assert_eq!(found(&repeats, &query).is_some(), expected, "{what}");
    }
}

#[test]
fn addresses_are_shuffled_behind_their_alias() {
    let mut repeats = Repeats::new();
    let query = a(1, "a.test");
    let said = reply(&query, 3);
    keep(&mut repeats, &query, &said, Reuse::Shuffled);
    let mut orders = HashSet::new();
    for _ in 0..200 {
        let again = found(&repeats, &query).unwrap();
        let decoded = Message::from_vec(&again).unwrap();
        let mut answers: Vec<String> = decoded.answers.iter().map(ToString::to_string).collect();
        assert!(answers[0].contains("CNAME"), "{answers:?}");
        orders.insert(answers.split_off(1));
    }
    assert_eq!(orders.len(), 6, "every order of three addresses");
    assert_eq!(found(&repeats, &query).unwrap().len(), said.len());
}

#[test]
fn made_up_names_overwrite_others_and_take_no_memory() {
    let mut repeats = Repeats::new();
    let size = (repeats.heads.len(), repeats.bytes.len());
    let count = 4 * SETS * WAYS;
    for n in 0..count {
        let query = a(1, &format!("n{n}.test"));
        keep(&mut repeats, &query, &reply(&query, 1), Reuse::AsIs);
    }
    assert_eq!((repeats.heads.len(), repeats.bytes.len()), size);
    let kept = (0..count).filter(|n| found(&repeats, &a(1, &format!("n{n}.test"))).is_some());
    let kept = kept.count();
    assert!(kept <= SETS * WAYS && kept > SETS * WAYS * 9 / 10, "{kept}");
    // The newest is there whatever was before it.
    assert!(found(&repeats, &a(1, &format!("n{}.test", count - 1))).is_some());
}
