use tokio::time::advance;

use super::*;
use crate::record::Soa;

fn key(name: &str) -> Key {
    Key {
        name: name.parse().unwrap(),
        record_type: RecordType::A,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

fn positive(name: &str, ttls: &[u32]) -> Answer {
    let mut answer = Answer::code(ResponseCode::NoError, None);
    let record = |&ttl| Record::address(name.parse().unwrap(), ttl, [10, 0, 0, 1].into());
    answer.answers = ttls.iter().map(record).collect();
    answer
}

fn negative(rcode: ResponseCode, ttl: u32, minimum: u32) -> Answer {
    let name: Name = "example".parse().unwrap();
    let soa = Soa {
        mname: name.clone(),
        rname: name.clone(),
        serial: 1,
        refresh: 1,
        retry: 1,
        expire: 1,
        minimum,
    };
    let mut answer = Answer::code(rcode, None);
    answer.authority.push(Record {
        name,
        ttl,
        data: RData::Soa(Box::new(soa)),
    });
    answer
}

fn cname_only() -> Answer {
    let mut answer = positive("a.example", &[]);
    answer.answers.push(Record {
        name: "a.example".parse().unwrap(),
        ttl: 60,
        data: RData::Cname("b.example".parse().unwrap()),
    });
    answer
}

#[test]
fn how_long_an_answer_is_kept() {
    let life = |seconds, positive| Some(Life { seconds, positive });
    let mut chain_to_nothing = negative(ResponseCode::NXDomain, 600, 300);
    chain_to_nothing.answers = cname_only().answers;
    let without_soa = Answer::code(ResponseCode::NXDomain, None);
    for (name, answer, expected) in [
        (
            "lowest TTL",
            positive("a.example", &[300, 20, 60]),
            life(20, true),
        ),
        (
            "capped",
            positive("a.example", &[86_400]),
            life(MAX_POSITIVE, true),
        ),
        ("TTL 0", positive("a.example", &[0]), None),
        (
            "minimum",
            negative(ResponseCode::NXDomain, 600, 300),
            life(300, false),
        ),
        (
            "TTL of SOA",
            negative(ResponseCode::NoError, 30, 300),
            life(30, false),
        ),
        (
            "negative capped",
            negative(ResponseCode::NXDomain, 9000, 9000),
            life(1800, false),
        ),
        ("alias to nothing", chain_to_nothing, life(60, false)),
        ("no SOA", without_soa, None),
        ("alias without SOA", cname_only(), None),
        ("failure", Answer::code(ResponseCode::ServFail, None), None),
        ("refusal", negative(ResponseCode::Refused, 60, 60), None),
    ] {
        assert_eq!(Life::of(&key("a.example"), &answer), expected, "{name}");
    }
}

fn ttls(answer: Option<Answer>) -> Option<Vec<u32>> {
    let answer = answer?;
    let records = answer.answers.iter().chain(&answer.authority);
    Some(records.map(|record| record.ttl).collect())
}

#[tokio::test(start_paused = true)]
async fn ttls_go_down_and_never_up() {
    let mut cache = Cache::default();
    cache.insert(key("a.example"), &positive("a.example", &[60, 100]));
    cache.insert(key("n.example"), &negative(ResponseCode::NXDomain, 600, 50));
    assert_eq!(ttls(cache.get(&key("a.example"))), Some(vec![60, 100]));
    assert_eq!(ttls(cache.get(&key("n.example"))), Some(vec![50]));
    advance(Duration::from_millis(10_900)).await;
    assert_eq!(ttls(cache.get(&key("a.example"))), Some(vec![50, 90]));
    assert_eq!(ttls(cache.get(&key("n.example"))), Some(vec![40]));
    advance(Duration::from_secs(49)).await;
    assert_eq!(ttls(cache.get(&key("a.example"))), Some(vec![1, 41]));
    assert_eq!(ttls(cache.get(&key("n.example"))), None);
    advance(Duration::from_millis(101)).await;
    assert_eq!(ttls(cache.get(&key("a.example"))), None);
}

#[tokio::test(start_paused = true)]
async fn the_newer_answer_counts() {
    let mut cache = Cache::default();
    let name = || key("a.example");
    cache.insert(name(), &positive("a.example", &[60]));
    cache.insert(name(), &negative(ResponseCode::NXDomain, 60, 60));
    assert_eq!(cache.get(&name()).unwrap().rcode, ResponseCode::NXDomain);
    cache.insert(name(), &positive("a.example", &[60]));
    assert_eq!(cache.get(&name()).unwrap().rcode, ResponseCode::NoError);
    for (dnssec_ok, checking_disabled) in [(true, false), (false, true)] {
        let other = Key {
            dnssec_ok,
            checking_disabled,
            ..name()
        };
        assert_eq!(cache.get(&other), None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_bounded() {
    let mut cache = Cache::new(100, 1 << 20);
    cache.insert(key("hot.example"), &positive("hot.example", &[600]));
    for n in 0..1000 {
        let name = format!("n{n}.example");
        cache.insert(key(&name), &positive(&name, &[600]));
        cache.insert(key(&name), &negative(ResponseCode::NXDomain, 600, 600));
        cache.insert(key(&name), &positive(&name, &[600]));
        assert!(
            cache.get(&key("hot.example")).is_some(),
            "what is read stays"
        );
    }
    for store in [&cache.positive, &cache.negative] {
        assert_eq!((store.entries.len(), store.order.len()), (100, 100));
        let bytes: usize = store.entries.values().map(|entry| entry.bytes).sum();
        assert_eq!(store.bytes, bytes);
    }
    let mut small = Cache::new(100, 4096);
    for n in 0..100 {
        let name = format!("n{n}.example");
        small.insert(key(&name), &positive(&name, &[600, 600, 600]));
        assert!(small.positive.bytes <= 4096);
    }
    assert!(small.positive.entries.len() > 1);
    small.insert(key("huge.example"), &positive("huge.example", &[600; 100]));
    assert_eq!(small.get(&key("huge.example")), None);
}
