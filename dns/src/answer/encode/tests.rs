//! hickory's decoder is the judge of what is encoded here.

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

use super::*;
use crate::message::Question;
use crate::record::{Soa, Srv};
use crate::reply;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn query_for(question: Question, edns: Option<u16>) -> Query {
    Query {
        id: 77,
        flags: flag::RD,
        question,
        edns: edns.map(|udp_size| Edns {
            udp_size,
            dnssec_ok: false,
            keepalive: true,
            ..Edns::default()
        }),
    }
}

fn record(owner: &str, data: RData) -> Record {
    Record {
        name: name(owner),
        ttl: 30,
        data,
    }
}

fn encoded(query: &Query, answer: &Answer, transport: Transport) -> (Vec<u8>, Message) {
    let mut out = Vec::new();
    reply(query, answer, transport, &mut out);
    let decoded = Message::from_vec(&out).unwrap();
    (out, decoded)
}

fn lines<T: std::fmt::Display>(records: &[T]) -> Vec<String> {
    records.iter().map(ToString::to_string).collect()
}

const TCP: Transport = Transport::Tcp { idle: 100 };

#[test]
fn every_type_survives() {
    let soa = Soa {
        mname: name("ns.dns.cluster.local"),
        rname: name("hostmaster.cluster.local"),
        serial: 1,
        refresh: 2,
        retry: 3,
        expire: 4,
        minimum: 5,
    };
    let srv = Srv {
        priority: 0,
        weight: 50,
        port: 80,
        target: name("a.web.cluster.local"),
    };
    let mut answer = Answer::local(ResponseCode::NoError);
    answer.answers = vec![
        record("x.cluster.local", RData::Cname(name("web.cluster.local"))),
        record("web.cluster.local", RData::A([10, 0, 0, 1].into())),
        record("web.cluster.local", RData::Aaaa("fd00::1".parse().unwrap())),
        record("web.cluster.local", RData::Srv(srv)),
        record("web.cluster.local", RData::Ptr(name("WEB.cluster.local"))),
        record("other", RData::Ns(name("cluster.local"))),
        record(
            "other",
            RData::Other(RecordType::TXT, b"\x051.1.0"[..].into()),
        ),
    ];
    answer.authority = vec![record("cluster.local", RData::Soa(Box::new(soa)))];
    answer.additional = vec![record(
        "a.web.cluster.local",
        RData::A([10, 0, 0, 2].into()),
    )];
    let question = Question::new(name("x.cluster.local"), RecordType::A);
    let (bytes, decoded) = encoded(&query_for(question.clone(), None), &answer, TCP);
    let mut ours = lines(&answer.answers);
    // hickory shows TXT without quotes.
    ours[6] = ours[6].replace('"', "");
    assert_eq!(lines(&decoded.answers), ours);
    assert_eq!(lines(&decoded.authorities), lines(&answer.authority));
    assert_eq!(lines(&decoded.additionals), lines(&answer.additional));
    let metadata = decoded.metadata;
    assert!(metadata.authoritative && metadata.recursion_desired && !metadata.recursion_available);
    assert_eq!((metadata.id, metadata.truncation), (77, false));
    let read = reply::parse(&bytes, 77, &question, true).unwrap();
    assert_eq!(read.authority, answer.authority);
}

#[test]
fn owners_like_the_question_take_two_bytes() {
    let question = Question::new(name("Web.Cluster.local"), RecordType::A);
    let query = query_for(question, None);
    let with = |owner: &str| {
        let mut answer = Answer::local(ResponseCode::NoError);
        answer.answers = vec![record(owner, RData::A([10, 0, 0, 1].into()))];
        encoded(&query, &answer, TCP).0.len()
    };
    let question_only = HEADER + "Web.Cluster.local".len() + 2 + 4;
    assert_eq!(with("Web.Cluster.local"), question_only + 16);
    // The case of the client is not lost to compression.
    assert!(with("web.cluster.local") > question_only + 16);
}

fn many(count: u32) -> Answer {
    let mut answer = Answer::local(ResponseCode::NoError);
    let owner = name("hdls.testns.svc.cluster.local");
    answer.answers = (0..count)
        .map(|n| {
            Record::address(
                owner.clone(),
                5,
                IpAddr::from((0x0a00_0000 + n).to_be_bytes()),
            )
        })
        .collect();
    answer
}

#[test]
fn reliability_b28_datagrams_are_small() {
    let question = Question::new(name("hdls.testns.svc.cluster.local"), RecordType::A);
    for (name, edns, limit) in [
        ("without EDNS", None, 512),
        ("size 0", Some(0), 512),
        ("size 700", Some(700), 700),
        ("size 1232", Some(1232), 1232),
        ("size 4096", Some(4096), 1232),
        ("size 65535", Some(65535), 1232),
    ] {
        let query = query_for(question.clone(), edns);
        let (bytes, decoded) = encoded(&query, &many(2000), Transport::Udp);
        assert!(
            bytes.len() <= limit && bytes.len() > limit - 16,
            "{name}: {}",
            bytes.len()
        );
        assert!(decoded.metadata.truncation, "{name}");
        assert_eq!(decoded.edns.is_some(), edns.is_some(), "{name}");
        let (_, whole) = encoded(&query, &many(10), Transport::Udp);
        assert!(
            !whole.metadata.truncation && whole.answers.len() == 10,
            "{name}"
        );
    }
}

#[test]
fn tcp_takes_what_fits_and_drops_glue_first() {
    let query = query_for(
        Question::new(name("hdls.testns.svc.cluster.local"), RecordType::A),
        None,
    );
    let (bytes, decoded) = encoded(&query, &many(2000), TCP);
    assert_eq!(
        (decoded.answers.len(), decoded.metadata.truncation),
        (2000, false)
    );
    assert!(bytes.len() < 32_100, "{}", bytes.len());

    let srv = |count: u32| {
        let mut answer = Answer::local(ResponseCode::NoError);
        for n in 0..count {
            let target = name(&format!("ep-{n}.hdls.testns.svc.cluster.local"));
            answer
                .additional
                .push(record(&target.to_string(), RData::A(n.into())));
            let srv = Srv {
                priority: 0,
                weight: 1,
                port: 80,
                target,
            };
            let data = RData::Srv(srv);
            answer
                .answers
                .push(record("hdls.testns.svc.cluster.local", data));
        }
        answer
    };
    let (_, decoded) = encoded(&query, &srv(1000), TCP);
    assert_eq!(
        (decoded.answers.len(), decoded.metadata.truncation),
        (1000, false)
    );
    assert!(decoded.additionals.len() < 1000);
    let (bytes, decoded) = encoded(&query, &srv(3000), TCP);
    assert!(decoded.metadata.truncation && decoded.answers.len() > 1000);
    assert!(decoded.additionals.is_empty() && bytes.len() <= TCP_LIMIT);
}

#[test]
fn edns_is_answered_and_only_then() {
    let mut answer = Answer::code(ResponseCode::BADVERS, None);
    answer.error = Some(ExtendedError {
        code: 14,
        text: "not ready".into(),
    });
    let question = Question::new(name("a.b"), RecordType::A);
    let (bytes, decoded) = encoded(&query_for(question.clone(), Some(4096)), &answer, TCP);
    let edns = decoded.edns.unwrap();
    assert_eq!(
        (edns.max_payload(), edns.version(), edns.rcode_high()),
        (1232, 0, 1)
    );
    let options = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|at| at == part);
    assert!(options(&bytes, b"\x00\x0f\x00\x0b\x00\x0enot ready"));
    assert!(options(&bytes, b"\x00\x0b\x00\x02\x00\x64"), "idle 10 s");
    let (bytes, _) = encoded(
        &query_for(question.clone(), Some(512)),
        &answer,
        Transport::Udp,
    );
    assert!(
        !options(&bytes, b"\x00\x0b\x00\x02"),
        "keepalive is for TCP"
    );
    let (bytes, decoded) = encoded(&query_for(question, None), &answer, TCP);
    assert!(decoded.edns.is_none() && !options(&bytes, b"not ready"));
}

fn any_name() -> impl Strategy<Value = Name> {
    let label = "[a-cA-B]{1,3}";
    proptest::collection::vec(label, 0..6).prop_map(|labels| labels.join(".").parse().unwrap())
}

fn any_record() -> impl Strategy<Value = Record> {
    let srv = |(port, target)| {
        RData::Srv(Srv {
            priority: 1,
            weight: 2,
            port,
            target,
        })
    };
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|addr| RData::A(addr.into())),
        any::<[u8; 16]>().prop_map(|addr| RData::Aaaa(addr.into())),
        any_name().prop_map(RData::Cname),
        any_name().prop_map(RData::Ptr),
        (any::<u16>(), any_name()).prop_map(srv),
    ];
    let ttl = 0..1_000_000u32;
    (any_name(), ttl, data).prop_map(|(name, ttl, data)| Record { name, ttl, data })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        question in any_name(),
        answers in proptest::collection::vec(any_record(), 0..40),
        additional in proptest::collection::vec(any_record(), 0..40),
        edns in proptest::option::of(any::<u16>()),
        udp in any::<bool>(),
    ) {
        let query = query_for(Question::new(question, RecordType::A), edns);
        let mut answer = Answer::local(ResponseCode::NoError);
        answer.answers = answers;
        answer.additional = additional;
        let transport = if udp { Transport::Udp } else { TCP };
        let (bytes, decoded) = encoded(&query, &answer, transport);
        let limit = if udp { UDP_LIMIT } else { TCP_LIMIT };
        prop_assert!(bytes.len() <= limit);
        let written = decoded.answers.len();
        prop_assert_eq!(lines(&decoded.answers), lines(&answer.answers[..written]));
        prop_assert_eq!(decoded.metadata.truncation, written < answer.answers.len());
        let glue = decoded.additionals.len();
        prop_assert_eq!(lines(&decoded.additionals), lines(&answer.additional[..glue]));
    }
}
