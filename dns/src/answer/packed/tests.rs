use hickory_proto::op::ResponseCode;

use super::*;
use crate::message::{Edns, Question, flag};
use crate::record::{RData, Soa, Srv};

const TCP: Transport = Transport::Tcp { idle: 100 };

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn query(text: &str, record_type: RecordType, udp_size: Option<u16>) -> Query {
    Query {
        id: 7,
        flags: flag::RD,
        question: Question::new(name(text), record_type),
        edns: udp_size.map(|udp_size| Edns {
            udp_size,
            dnssec_ok: false,
            keepalive: false,
        }),
    }
}

fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record {
        name: name(owner),
        ttl,
        data,
    }
}

fn with(answers: Vec<Record>) -> Answer {
    let mut answer = Answer::code(ResponseCode::NoError, None);
    answer.recursion_available = true;
    answer.answers = answers;
    answer
}

fn addresses(owner: &str, count: u8) -> Vec<Record> {
    let address = |last| record(owner, 60, RData::A([10, 0, 0, last].into()));
    (1..=count).map(address).collect()
}

fn soa(ttl: u32) -> Record {
    let soa = Soa {
        mname: name("ns.example"),
        rname: name("host.example"),
        serial: 1,
        refresh: 2,
        retry: 3,
        expire: 4,
        minimum: 30,
    };
    record("example", ttl, RData::Soa(Box::new(soa)))
}

/// Answers of all shapes that upstreams give.
fn answers() -> Vec<(&'static str, Answer)> {
    let alias = |from, to| record(from, 300, RData::Cname(name(to)));
    let mut chain = vec![
        alias("www.example", "edge.cdn.example"),
        alias("edge.cdn.example", "a.other.test"),
    ];
    chain.extend(addresses("a.other.test", 3));
    let mut missing = Answer::code(ResponseCode::NXDomain, None);
    missing.authority.push(soa(600));
    missing.authentic = true;
    let mut failed = Answer::code(ResponseCode::ServFail, None);
    failed.error = Some(ExtendedError {
        code: 22,
        text: "upstreams failed".into(),
    });
    let srv = Srv {
        priority: 1,
        weight: 2,
        port: 443,
        target: name("a.www.example"),
    };
    let mut mx = vec![0, 10];
    mx.extend_from_slice(name("mail.example").wire());
    vec![
        ("addresses", with(addresses("www.example", 3))),
        ("chain", with(chain)),
        ("missing", missing),
        ("failed", failed),
        (
            "service",
            with(vec![record("www.example", 5, RData::Srv(srv))]),
        ),
        (
            "other types",
            with(vec![
                record(
                    "www.example",
                    9,
                    RData::Other(RecordType::TXT, b"\x02hi".as_slice().into()),
                ),
                record("www.example", 9, RData::Other(RecordType::MX, mx.into())),
            ]),
        ),
        (
            "empty",
            Answer {
                truncated: true,
                ..with(Vec::new())
            },
        ),
    ]
}

#[test]
fn dns_cache_a_packed_answer_is_the_same_reply() {
    for (case, answer) in answers() {
        for (asked, transport, udp_size) in [
            ("www.example", Transport::Udp, None),
            ("www.example", Transport::Udp, Some(4096)),
            ("www.example", TCP, Some(512)),
        ] {
            let query = query(asked, RecordType::A, udp_size);
            let packed = Packed::new(&name("www.example"), answer.clone());
            let (mut expected, mut found) = (b"before".to_vec(), b"before".to_vec());
            encode::reply(&query, &answer, transport, &mut expected);
            assert!(packed.reply(&query, Serving::PLAIN, false, transport, &mut found));
            assert_eq!(found, expected, "{case} {transport:?}");
            let unpacked = packed.unpack(&name("www.example"), Serving::PLAIN);
            assert_eq!(unpacked.unwrap(), answer, "{case}");
        }
    }
}

#[test]
fn dns_cache_a_packed_answer_takes_the_case_of_its_query() {
    let packed = Packed::new(&name("www.example"), with(addresses("www.example", 2)));
    let query = query("wWw.ExAmPlE", RecordType::A, None);
    let mut reply = Vec::new();
    assert!(packed.reply(&query, Serving::PLAIN, true, Transport::Udp, &mut reply));
    let reply = hickory_proto::op::Message::from_vec(&reply).unwrap();
    assert_eq!(reply.queries[0].name.to_ascii(), "wWw.ExAmPlE.");
    for record in &reply.answers {
        assert_eq!(record.name.to_ascii(), "wWw.ExAmPlE.");
    }
    let answer = packed.unpack(&name("wWw.ExAmPlE"), Serving::PLAIN).unwrap();
    assert_eq!(answer.answers[0].name, name("wWw.ExAmPlE"));
}

#[test]
fn dns_cache_ttls_of_a_packed_answer() {
    let mut answer = with(vec![
        record("www.example", 300, RData::Cname(name("a.example"))),
        record("a.example", 60, RData::A([10, 0, 0, 1].into())),
    ]);
    answer.authority.push(soa(20));
    let packed = Packed::new(&name("www.example"), answer);
    for (ttl, expected) in [
        (Ttl::Lowered(0), [300, 60, 20]),
        (Ttl::Lowered(25), [275, 35, 0]),
        (Ttl::Fixed(30), [30, 30, 30]),
    ] {
        let serving = Serving {
            ttl,
            authoritative: true,
        };
        let query = query("www.example", RecordType::A, Some(1232));
        let mut reply = Vec::new();
        assert!(packed.reply(&query, serving, true, Transport::Udp, &mut reply));
        let reply = hickory_proto::op::Message::from_vec(&reply).unwrap();
        assert!(reply.metadata.authoritative);
        let records = reply.answers.iter().chain(&reply.authorities);
        let found: Vec<u32> = records.map(|record| record.ttl).collect();
        assert_eq!(found, expected, "{ttl:?}");
        let unpacked = packed.unpack(&name("www.example"), serving).unwrap();
        let records = unpacked.answers.iter().chain(&unpacked.authority);
        let found: Vec<u32> = records.map(|record| record.ttl).collect();
        assert_eq!(found, expected, "{ttl:?}");
    }
}

#[test]
fn dns_cache_a_packed_answer_that_does_not_fit_is_left_to_the_encoder() {
    let packed = Packed::new(&name("www.example"), with(addresses("www.example", 100)));
    let serving = Serving::PLAIN;
    for (transport, udp_size, fits) in [
        (Transport::Udp, None, false),
        (Transport::Udp, Some(1232), false),
        (TCP, None, true),
    ] {
        let query = query("www.example", RecordType::A, udp_size);
        let mut out = b"before".to_vec();
        let replied = packed.reply(&query, serving, true, transport, &mut out);
        assert_eq!(replied, fits, "{transport:?}");
        assert_eq!(out.len() > 6, fits, "nothing is left behind");
    }
}

#[test]
fn dns_cache_addresses_are_shuffled_behind_their_aliases() {
    let mut chain = vec![record("www.example", 300, RData::Cname(name("a.example")))];
    chain.extend(addresses("a.example", 8));
    let packed = Packed::new(&name("www.example"), with(chain.clone()));
    let query = query("www.example", RecordType::A, None);
    let mut orders = std::collections::HashSet::new();
    for _ in 0..50 {
        let mut reply = Vec::new();
        assert!(packed.reply(&query, Serving::PLAIN, true, Transport::Udp, &mut reply));
        let reply = hickory_proto::op::Message::from_vec(&reply).unwrap();
        let shown: Vec<String> = reply.answers.iter().map(ToString::to_string).collect();
        assert!(shown[0].contains("CNAME"));
        let mut sorted = shown.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 9, "none is lost");
        orders.insert(shown);
    }
    assert!(orders.len() > 40, "{} orders", orders.len());
}
