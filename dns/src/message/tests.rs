use proptest::prelude::*;

use super::*;
use crate::answer::encode::{self, Transport};
use crate::name::MAX_NAME;

/// A name, the words of the header, and what follows it.
type Case<'a> = (&'a str, [u16; 6], &'a [&'a [u8]]);

/// A query from words and pieces: header words, then bytes.
fn message(words: [u16; 6], rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    rest.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

const WEB: &[u8] = b"\x03web\x04test\x00";
const A_IN: &[u8] = &[0, 1, 0, 1];
const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

#[test]
fn a_query_is_read() {
    let opt: &[u8] = &[0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 6, 0, 11, 0, 2, 0, 1];
    let query = parse(&message([7, 0x0110, 1, 0, 0, 1], &[WEB, A_IN, opt])).unwrap();
    assert_eq!(query.id, 7);
    assert_eq!(query.question.name.to_string(), "web.test.");
    assert_eq!(query.question.record_type, RecordType::A);
    assert!(query.checking_disabled() && query.dnssec_ok());
    let edns = Edns {
        udp_size: 4096,
        dnssec_ok: true,
        keepalive: true,
        ..Edns::default()
    };
    assert_eq!(query.edns, Some(edns));
}

#[test]
fn reliability_b26_header_and_name_faults() {
    let form_err = |id, flags| Rejected::Header {
        id,
        flags,
        rcode: ResponseCode::FormErr,
    };
    let long_label: Vec<u8> = [&[64u8][..], &[b'a'; 64], &[0]].concat();
    let label: Vec<u8> = [&[63u8][..], &[b'a'; 63]].concat();
    let long_name: Vec<u8> = [label.repeat(4), vec![0]].concat();
    let key: &[u8] = &[0, 249, 0, 1];
    let cases: [Case<'_>; 15] = [
        ("no question", [1, 0, 0, 0, 0, 0], &[]),
        ("question missing", [1, 0, 1, 0, 0, 0], &[]),
        ("two questions", [1, 0, 2, 0, 0, 0], &[WEB, A_IN, WEB, A_IN]),
        ("65535 questions", [1, 0, 65535, 0, 0, 0], &[WEB, A_IN]),
        ("label of 64", [1, 0, 1, 0, 0, 0], &[&long_label, A_IN]),
        ("name of 257", [1, 0, 1, 0, 0, 0], &[&long_name, A_IN]),
        (
            "pointer to itself",
            [1, 0, 1, 0, 0, 0],
            &[&[0xc0, 12], A_IN],
        ),
        (
            "pointer into the header",
            [1, 0, 1, 0, 0, 0],
            &[&[0xc0, 0], A_IN],
        ),
        ("label type 01", [1, 0, 1, 0, 0, 0], &[&[0x41, 0], A_IN]),
        ("type cut off", [1, 0, 1, 0, 0, 0], &[WEB, &[0, 1, 0]]),
        ("class 0", [1, 0, 1, 0, 0, 0], &[WEB, &[0, 1, 0, 0]]),
        ("an answer", [1, 0, 1, 1, 0, 0], &[WEB, A_IN, OPT]),
        ("an authority", [1, 0, 1, 0, 1, 0], &[WEB, A_IN, OPT]),
        ("additional missing", [1, 0, 1, 0, 0, 1], &[WEB, A_IN]),
        ("TKEY as type", [1, 0, 1, 0, 0, 0], &[WEB, key]),
    ];
    for (name, words, rest) in cases {
        assert_eq!(parse(&message(words, rest)), Err(form_err(1, 0)), "{name}");
    }
    let opts: [(&str, u16, &[&[u8]]); 4] = [
        ("two OPTs", 2, &[WEB, A_IN, OPT, OPT]),
        ("OPT not at the root", 1, &[WEB, A_IN, b"\x01a", OPT]),
        (
            "option longer than the record",
            1,
            &[WEB, A_IN, &OPT[..9], &[0, 4, 0, 10, 0, 1]],
        ),
        ("four additional records", 4, &[WEB, A_IN, OPT]),
    ];
    for (name, additional, rest) in opts {
        let message = message([1, 0, 1, 0, 0, additional], rest);
        assert_eq!(parse(&message), Err(form_err(1, 0)), "{name}");
    }
    assert_eq!(parse(&[0; 11]), Err(Rejected::Silence), "eleven bytes");
    let response = message([1, 0x8180, 1, 0, 0, 0], &[WEB, A_IN]);
    assert_eq!(parse(&response), Err(Rejected::Silence), "a response");
}

#[test]
fn codes_without_a_lookup() {
    let code = |words, rest: &[&[u8]]| match parse(&message(words, rest)) {
        Ok(_) => None,
        Err(Rejected::Silence) => panic!("silence"),
        Err(Rejected::Header { rcode, .. } | Rejected::Code(_, rcode)) => Some(rcode),
    };
    for opcode in 1..16 {
        let words = [1, opcode << 11, 1, 0, 0, 0];
        let found = code(words, &[WEB, A_IN]);
        assert_eq!(found, Some(ResponseCode::NotImp), "opcode {opcode}");
    }
    let version_1: &[u8] = &[0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0];
    let cases: [(Case<'_>, Option<ResponseCode>); 6] = [
        (
            ("chaos", [1, 0, 1, 0, 0, 0], &[WEB, &[0, 16, 0, 3]]),
            Some(ResponseCode::Refused),
        ),
        (
            ("class ANY", [1, 0, 1, 0, 0, 0], &[WEB, &[0, 1, 0, 255]]),
            None,
        ),
        (
            ("AXFR", [1, 0, 1, 0, 0, 0], &[WEB, &[0, 252, 0, 1]]),
            Some(ResponseCode::Refused),
        ),
        (
            ("IXFR", [1, 0, 1, 0, 1, 0], &[WEB, &[0, 251, 0, 1]]),
            Some(ResponseCode::Refused),
        ),
        (
            ("EDNS 1", [1, 0, 1, 0, 0, 1], &[WEB, A_IN, version_1]),
            Some(ResponseCode::BADVERS),
        ),
        (
            ("trailing bytes", [1, 0, 1, 0, 0, 0], &[WEB, A_IN, &[9; 5]]),
            None,
        ),
    ];
    for ((name, words, rest), expected) in cases {
        assert_eq!(code(words, rest), expected, "{name}");
    }
}

/// Bytes that get past the header check often enough to be interesting.
fn nearly_a_query() -> impl Strategy<Value = Vec<u8>> {
    let header = (
        any::<u16>(),
        any::<u16>(),
        0..3u16,
        0..3u16,
        0..3u16,
        0..4u16,
    );
    let rest = proptest::collection::vec(
        prop_oneof![
            Just(0u8),
            Just(1),
            Just(3),
            Just(41),
            Just(0xc0),
            any::<u8>()
        ],
        0..80,
    );
    let name = proptest::option::of(Just(WEB.to_vec()));
    (header, name, rest).prop_map(|((id, flags, qd, an, ns, ar), name, rest)| {
        let name = name.unwrap_or_default();
        message([id, flags & 0x07ff, qd, an, ns, ar], &[&name, &rest])
    })
}

proptest! {
    #[test]
    fn any_bytes_are_parsed(bytes in prop_oneof![
        nearly_a_query(),
        proptest::collection::vec(any::<u8>(), 0..600),
    ]) {
        let transport = Transport::Udp;
        let mut out = Vec::new();
        match parse(&bytes) {
            Ok(query) => {
                prop_assert!(query.question.name.wire().len() <= MAX_NAME);
                let answer = crate::answer::Answer::code(ResponseCode::NoError, None);
                encode::reply(&query, &answer, transport, &mut out);
                let question = HEADER + query.question.name.wire().len() + 4;
                prop_assert_eq!(&out[HEADER..question], &bytes[HEADER..question]);
                let decoded = hickory_proto::op::Message::from_vec(&out);
                prop_assert!(decoded.is_ok(), "{:?} of {:?}", decoded, query);
            }
            Err(rejected) => {
                encode::rejection(&rejected, transport, &mut out);
                prop_assert!(out.is_empty() || out.len() >= HEADER);
            }
        }
    }
}
