use tokio::time::advance;

use super::*;
use crate::config::{CacheShare, Prefetch, ServeStale};
use crate::metrics::Metrics;
use crate::record::{RData, Record, Soa};

mod bounds;
mod stale;

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

fn servfail() -> Answer {
    Answer::code(ResponseCode::ServFail, None)
}

fn cache_with(change: impl FnOnce(&mut CacheSettings)) -> Cache {
    let mut settings = CacheSettings::default();
    change(&mut settings);
    let metrics = CacheMetrics::new(&Metrics::default(), "dns://:53", &settings.zones);
    Cache::new(settings, false, metrics)
}

fn put(cache: &mut Cache, name: &str, answer: Answer) -> Served {
    cache.insert(&key(name), answer, Instant::now())
}

fn get(cache: &Cache, name: &str) -> Option<Hit> {
    cache.get(&Slot::from(&key(name)), Instant::now())
}

fn unpacked(served: &Served) -> Answer {
    let name = "a.example".parse().unwrap();
    served.packed.unpack(&name, served.serving).unwrap()
}

fn ttls_of(served: &Served) -> Vec<u32> {
    let answer = unpacked(served);
    let records = answer.answers.iter().chain(&answer.authority);
    records.map(|record| record.ttl).collect()
}

fn ttls(cache: &Cache, name: &str) -> Option<Vec<u32>> {
    get(cache, name).map(|hit| ttls_of(&hit.served))
}

fn rcode(cache: &Cache, name: &str) -> Option<ResponseCode> {
    get(cache, name).map(|hit| hit.served.packed.rcode())
}

#[test]
fn dns_cache_how_long_an_answer_is_kept() {
    let kept = |seconds, part| {
        Some(Life {
            part,
            duration: Duration::from_secs(seconds),
            answers: true,
        })
    };
    let failure = Some(Life {
        part: Part::Denial,
        duration: Duration::from_secs(5),
        answers: false,
    });
    let (success, denial) = (Part::Success, Part::Denial);
    let mut chain_to_nothing = negative(ResponseCode::NXDomain, 600, 300);
    chain_to_nothing.answers = cname_only().answers;
    let truncated = Answer {
        truncated: true,
        ..positive("a.example", &[300])
    };
    let nxdomain = |ttl, minimum| negative(ResponseCode::NXDomain, ttl, minimum);
    let without_soa = Answer::code(ResponseCode::NXDomain, None);
    let settings = CacheSettings::default();
    for (name, answer, expected) in [
        (
            "lowest TTL",
            positive("a.example", &[300, 20, 60]),
            kept(20, success),
        ),
        (
            "capped",
            positive("a.example", &[86_400]),
            kept(3600, success),
        ),
        ("at least", positive("a.example", &[1]), kept(5, success)),
        ("TTL 0", positive("a.example", &[0]), None),
        ("minimum", nxdomain(600, 300), kept(300, denial)),
        (
            "TTL of SOA",
            negative(ResponseCode::NoError, 30, 300),
            kept(30, denial),
        ),
        ("denial capped", nxdomain(9000, 9000), kept(1800, denial)),
        ("denial at least", nxdomain(600, 2), kept(5, denial)),
        ("denial with TTL 0", nxdomain(600, 0), None),
        ("alias to nothing", chain_to_nothing, kept(60, denial)),
        ("no SOA", without_soa, None),
        ("alias without SOA", cname_only(), None),
        ("failure", servfail(), failure),
        ("refusal", negative(ResponseCode::Refused, 60, 60), None),
        ("malformed", negative(ResponseCode::FormErr, 60, 60), None),
        ("truncated", truncated, None),
        ("another name", positive("b.example", &[300]), None),
    ] {
        assert_eq!(
            Life::of(&key("a.example"), &answer, &settings, false),
            expected,
            "{name}"
        );
    }
}

#[test]
fn dns_cache_zones_and_disabled_zones() {
    let name = |text: &str| text.parse::<Name>().unwrap();
    for (case, change, success, denial) in [
        (
            "all",
            Box::new(|_: &mut CacheSettings| {}) as Box<dyn Fn(&mut CacheSettings)>,
            true,
            true,
        ),
        (
            "other zone",
            Box::new(|s: &mut CacheSettings| s.zones = vec![name("test")]),
            false,
            false,
        ),
        (
            "success",
            Box::new(|s: &mut CacheSettings| s.disable_success = vec![name("example")]),
            false,
            true,
        ),
        (
            "denial",
            Box::new(|s: &mut CacheSettings| s.disable_denial = vec![name("example")]),
            true,
            false,
        ),
        (
            "elsewhere",
            Box::new(|s: &mut CacheSettings| s.disable_denial = vec![name("test")]),
            true,
            true,
        ),
    ] {
        let mut cache = cache_with(|settings| change(settings));
        let served = put(&mut cache, "a.example", positive("a.example", &[2]));
        assert_eq!(
            ttls_of(&served),
            [2],
            "{case}: what is not kept is served as it came"
        );
        assert_eq!(rcode(&cache, "a.example").is_some(), success, "{case}");
        put(
            &mut cache,
            "b.example",
            negative(ResponseCode::NXDomain, 60, 60),
        );
        assert_eq!(rcode(&cache, "b.example").is_some(), denial, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn dns_cache_ttls_go_down_and_never_up() {
    let mut cache = cache_with(|_| {});
    put(&mut cache, "a.example", positive("a.example", &[60, 100]));
    put(
        &mut cache,
        "n.example",
        negative(ResponseCode::NXDomain, 600, 50),
    );
    put(&mut cache, "short.example", positive("short.example", &[2]));
    assert_eq!(ttls(&cache, "a.example"), Some(vec![60, 100]));
    assert_eq!(ttls(&cache, "n.example"), Some(vec![50]));
    assert_eq!(ttls(&cache, "short.example"), Some(vec![2]));
    advance(Duration::from_millis(4900)).await;
    assert_eq!(
        ttls(&cache, "short.example"),
        Some(vec![0]),
        "kept, but no longer by others"
    );
    advance(Duration::from_millis(6000)).await;
    assert_eq!(ttls(&cache, "short.example"), None);
    assert_eq!(ttls(&cache, "a.example"), Some(vec![50, 90]));
    assert_eq!(ttls(&cache, "n.example"), Some(vec![40]));
    advance(Duration::from_secs(49)).await;
    assert_eq!(ttls(&cache, "a.example"), Some(vec![1, 41]));
    assert_eq!(ttls(&cache, "n.example"), None);
    advance(Duration::from_millis(101)).await;
    assert_eq!(ttls(&cache, "a.example"), None);
}

#[tokio::test(start_paused = true)]
async fn dns_cache_a_cap_lowers_every_ttl() {
    let mut cache = cache_with(|settings| {
        settings.success.max_ttl = Duration::from_secs(30);
        settings.denial.max_ttl = Duration::from_secs(30);
    });
    let served = put(&mut cache, "a.example", positive("a.example", &[20, 300]));
    assert_eq!(ttls_of(&served), [20, 30]);
    let served = put(
        &mut cache,
        "n.example",
        negative(ResponseCode::NXDomain, 600, 300),
    );
    assert_eq!(ttls_of(&served), [30]);
}

#[tokio::test(start_paused = true)]
async fn dns_cache_keepttl() {
    let mut cache = cache_with(|settings| settings.keep_ttl = true);
    put(&mut cache, "a.example", positive("a.example", &[60, 100]));
    advance(Duration::from_secs(59)).await;
    assert_eq!(ttls(&cache, "a.example"), Some(vec![60, 100]));
    advance(Duration::from_secs(2)).await;
    assert_eq!(ttls(&cache, "a.example"), None);
}

#[tokio::test(start_paused = true)]
async fn dns_cache_compat_coredns_has_one_ttl_and_aa() {
    let mut cache = cache_with(|_| {});
    cache.compat = true;
    for (case, answer, expected) in [
        ("lowest", positive("a.example", &[300, 20]), vec![20, 20]),
        ("raised", positive("a.example", &[0, 300]), vec![5, 5]),
        ("capped", positive("a.example", &[86_400]), vec![3600]),
        (
            "denial",
            negative(ResponseCode::NXDomain, 600, 40),
            vec![40],
        ),
        ("not kept", cname_only(), vec![60]),
    ] {
        let served = put(&mut cache, "a.example", answer);
        assert_eq!(ttls_of(&served), expected, "{case}");
        assert!(!served.serving.authoritative, "{case}: it was fetched");
    }
    put(&mut cache, "a.example", positive("a.example", &[300, 20]));
    let hit = get(&cache, "a.example").unwrap();
    assert!(hit.served.serving.authoritative);
}

#[tokio::test(start_paused = true)]
async fn dns_cache_the_newer_answer_counts() {
    let mut cache = cache_with(|_| {});
    put(&mut cache, "a.example", positive("a.example", &[60]));
    put(
        &mut cache,
        "a.example",
        negative(ResponseCode::NXDomain, 60, 60),
    );
    assert_eq!(rcode(&cache, "a.example"), Some(ResponseCode::NXDomain));
    put(&mut cache, "a.example", positive("a.example", &[60]));
    assert_eq!(rcode(&cache, "a.example"), Some(ResponseCode::NoError));
}

#[tokio::test(start_paused = true)]
async fn dns_cache_key_has_do_cd_and_type_but_no_case() {
    let mut cache = cache_with(|_| {});
    put(&mut cache, "a.example", positive("a.example", &[60]));
    let name: Name = "A.eXample".parse().unwrap();
    let mut found = Vec::new();
    for (record_type, dnssec_ok, checking_disabled) in [
        (RecordType::A, false, false),
        (RecordType::AAAA, false, false),
        (RecordType::A, true, false),
        (RecordType::A, false, true),
    ] {
        let slot = Slot::new(&name, record_type, dnssec_ok, checking_disabled);
        found.push(cache.get(&slot, Instant::now()).is_some());
    }
    assert_eq!(found, [true, false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn dns_cache_servfail_is_kept_for_seconds_and_never_instead_of_an_answer() {
    let mut cache = cache_with(|_| {});
    put(&mut cache, "a.example", servfail());
    assert_eq!(rcode(&cache, "a.example"), Some(ResponseCode::ServFail));
    advance(Duration::from_secs(6)).await;
    assert_eq!(rcode(&cache, "a.example"), None);
    for good in [
        positive("a.example", &[60]),
        negative(ResponseCode::NXDomain, 60, 60),
    ] {
        let expected = good.rcode;
        put(&mut cache, "a.example", good);
        put(&mut cache, "a.example", servfail());
        assert_eq!(rcode(&cache, "a.example"), Some(expected));
    }
    let mut off = cache_with(|settings| settings.servfail = Duration::ZERO);
    put(&mut off, "a.example", servfail());
    let second = Duration::from_secs(1);
    off.insert_failure(&key("a.example"), servfail(), second, Instant::now());
    assert_eq!(rcode(&off, "a.example"), None);
}

#[tokio::test(start_paused = true)]
async fn dns_cache_prefetch_of_popular_names() {
    let state = |cache: &Cache| get(cache, "a.example").map(|hit| hit.state);
    let prefetch = |settings: &mut CacheSettings| {
        settings.prefetch = Some(Prefetch {
            amount: 3,
            duration: Duration::from_secs(60),
            percentage: 10,
        });
    };
    let mut cache = cache_with(prefetch);
    put(&mut cache, "a.example", positive("a.example", &[100]));
    for _ in 0..5 {
        assert_eq!(state(&cache), Some(State::Fresh), "not yet");
    }
    advance(Duration::from_secs(59)).await;
    assert_eq!(state(&cache), Some(State::Fresh), "not yet");
    advance(Duration::from_secs(32)).await;
    assert_eq!(state(&cache), Some(State::Popular));
    put(&mut cache, "a.example", positive("a.example", &[100]));
    advance(Duration::from_secs(59)).await;
    assert_eq!(state(&cache), Some(State::Fresh));
    advance(Duration::from_secs(32)).await;
    assert_eq!(state(&cache), Some(State::Popular), "popularity is kept");
    put(&mut cache, "a.example", positive("a.example", &[100]));
    advance(Duration::from_secs(91)).await;
    assert_eq!(state(&cache), Some(State::Fresh), "there was a pause");
}

#[test]
fn dns_cache_counts() {
    let metrics = Metrics::default();
    let settings = CacheSettings::default();
    let counts = CacheMetrics::new(&metrics, "dns://:53", &settings.zones);
    let mut cache = Cache::new(settings, false, counts);
    put(&mut cache, "a.example", positive("a.example", &[60]));
    put(
        &mut cache,
        "n.example",
        negative(ResponseCode::NXDomain, 60, 60),
    );
    put(&mut cache, "x.example", positive("y.example", &[60]));
    for name in ["a.example", "a.example", "n.example", "x.example"] {
        get(&cache, name);
    }
    let text = metrics.render();
    for line in [
        r#"coredns_cache_requests_total{server="dns://:53",zones=".",view=""} 4"#,
        r#"coredns_cache_misses_total{server="dns://:53",zones=".",view=""} 1"#,
        r#"coredns_cache_hits_total{server="dns://:53",type="success",zones=".",view=""} 2"#,
        r#"coredns_cache_hits_total{server="dns://:53",type="denial",zones=".",view=""} 1"#,
        r#"coredns_cache_entries{server="dns://:53",type="success",zones=".",view=""} 1"#,
        r#"coredns_cache_entries{server="dns://:53",type="denial",zones=".",view=""} 1"#,
        r#"coredns_cache_drops_total{server="dns://:53",zones=".",view=""} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
