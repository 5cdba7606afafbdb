//! A resolver in front of a source that does as it is told. Time is paused: whoever waits for it sees
//! it jump to the next timer.

use std::collections::VecDeque;
use std::future::Future;

use futures_util::future::join_all;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::task::{LocalSet, yield_now};
use tokio::time::{advance, sleep};

use super::*;
use crate::config::{CacheSettings, Prefetch, ServeStale};
use crate::message::flag;
use crate::metrics::{CacheMetrics, Metrics};
use crate::record::{RData, Record, Soa};
use crate::testing::shown;

mod guarded;
mod stale;

type Reaction = (Duration, Result<Answer, ForwardError>);

/// Answers in turn as the test says, then always as the last time, and remembers what it was asked.
#[derive(Clone, Debug, Default)]
struct Script {
    zone: Option<Name>,
    next: Vec<ResponseCode>,
    reactions: Rc<RefCell<VecDeque<Reaction>>>,
    asked: Rc<RefCell<Vec<String>>>,
}

impl Script {
    fn new(reactions: impl IntoIterator<Item = Reaction>) -> Self {
        let script = Self::default();
        script.then(reactions);
        script
    }

    fn then(&self, reactions: impl IntoIterator<Item = Reaction>) {
        *self.reactions.borrow_mut() = reactions.into_iter().collect();
    }

    fn asked(&self) -> usize {
        self.asked.borrow().len()
    }
}

impl Source for Script {
    fn takes(&self, name: &Name) -> bool {
        self.zone.as_ref().is_none_or(|zone| name.is_within(zone))
    }

    async fn ask(&self, fetch: &Fetch) -> Result<Answer, ForwardError> {
        let (name, record_type) = (&fetch.key.name, fetch.key.record_type);
        self.asked
            .borrow_mut()
            .push(format!("{name} {record_type}"));
        let (time, result) = {
            let mut reactions = self.reactions.borrow_mut();
            match reactions.len() {
                0 => panic!("nobody said what to answer for {name}"),
                1 => reactions[0].clone(),
                _ => reactions.pop_front().unwrap(),
            }
        };
        sleep(time).await;
        result.map(|mut answer| {
            for record in &mut answer.answers {
                record.name = name.clone();
            }
            answer
        })
    }

    fn hands_on(&self, result: &Result<Answer, ForwardError>) -> bool {
        let rcode = result.as_ref().map(|answer| answer.rcode);
        rcode.is_ok_and(|rcode| self.next.contains(&rcode))
    }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn address(last: u8) -> Result<Answer, ForwardError> {
    let mut answer = Answer::code(ResponseCode::NoError, None);
    let addr = [10, 0, 0, last].into();
    answer.answers.push(Record::address(Name::root(), 60, addr));
    Ok(answer)
}

fn denial(rcode: ResponseCode) -> Result<Answer, ForwardError> {
    let name: Name = "test".parse().unwrap();
    let soa = Soa {
        mname: name.clone(),
        rname: name.clone(),
        serial: 1,
        refresh: 2,
        retry: 3,
        expire: 4,
        minimum: 60,
    };
    let mut answer = Answer::code(rcode, None);
    answer.authority.push(Record {
        name,
        ttl: 60,
        data: RData::Soa(Box::new(soa)),
    });
    Ok(answer)
}

fn code(rcode: ResponseCode) -> Result<Answer, ForwardError> {
    Ok(Answer::code(rcode, None))
}

fn resolver_of(
    sources: Vec<Script>,
    change: impl FnOnce(&mut CacheSettings),
) -> (Resolver<Script>, Metrics) {
    let mut settings = CacheSettings::default();
    change(&mut settings);
    let metrics = Metrics::default();
    let counts = CacheMetrics::new(&metrics, "dns://:53", &settings.zones);
    let cache = Cache::new(settings, false, counts);
    (Resolver::new(sources, Some(cache)), metrics)
}

fn resolver(script: &Script, change: impl FnOnce(&mut CacheSettings)) -> Resolver<Script> {
    resolver_of(vec![script.clone()], change).0
}

fn query(name: &str) -> Query {
    Query {
        id: 1,
        flags: flag::RD,
        question: Question::new(name.parse().unwrap(), RecordType::A),
        edns: None,
    }
}

/// What a client gets: its lines, or the error.
async fn ask(resolver: &Resolver<Script>, name: &str) -> Result<Vec<String>, ForwardError> {
    let query = query(name);
    let name = &query.question.name;
    let served = match resolver.cached(&query, &query.question) {
        Cached::Hit(served) => served,
        Cached::Miss(stale) => {
            let fetch = Fetch::new(&query, &query.question, false);
            resolver.resolve(fetch, stale).await?
        }
    };
    let answer = served.packed.unpack(name, served.serving).unwrap();
    Ok(shown(&answer))
}

/// The last number of the address that a client gets.
async fn last_of(resolver: &Resolver<Script>, name: &str) -> Option<u8> {
    let lines = ask(resolver, name).await.ok()?;
    lines.get(1)?.rsplit('.').next()?.parse().ok()
}

/// Lets tasks run that wait for nothing, and those that wait for this long.
async fn pass(time: Duration) {
    yield_now().await;
    advance(time).await;
    for _ in 0..10 {
        yield_now().await;
    }
}

async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

#[tokio::test(start_paused = true)]
async fn dns_singleflight_identical_questions_are_one_fetch() {
    local(async {
        let script = Script::new([(50 * MS, address(1))]);
        let resolver = resolver(&script, |_| {});
        let answers = join_all((0..50).map(|_| ask(&resolver, "web.test"))).await;
        for answer in answers {
            assert_eq!(answer.unwrap(), ["NOERROR", "web.test. 60 IN A 10.0.0.1"]);
        }
        assert_eq!(script.asked(), 1);
        assert!(resolver.inner.in_flight.borrow().is_empty());
        ask(&resolver, "WEB.test").await.unwrap();
        assert_eq!(script.asked(), 1, "from the cache now");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_singleflight_what_differs_is_fetched_apart() {
    local(async {
        let script = Script::new([(50 * MS, address(1))]);
        let resolver = resolver(&script, |_| {});
        let plain = Fetch::new(&query("web.test"), &query("web.test").question, false);
        let mut fetches = vec![plain.clone(); 5];
        fetches[1].stream = true;
        fetches[2].recursion_desired = false;
        fetches[3].key.dnssec_ok = true;
        fetches[4].key.checking_disabled = true;
        join_all(
            fetches
                .iter()
                .map(|fetch| resolver.resolve(fetch.clone(), None)),
        )
        .await;
        assert_eq!(script.asked(), 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_singleflight_a_client_that_leaves_does_not_end_the_fetch() {
    local(async {
        let script = Script::new([(50 * MS, address(1))]);
        let resolver = resolver(&script, |_| {});
        let impatient = timeout(5 * MS, ask(&resolver, "web.test"));
        let (first, second) = tokio::join!(impatient, ask(&resolver, "web.test"));
        assert!(first.is_err());
        assert_eq!(second.unwrap()[0], "NOERROR");
        let gone = timeout(5 * MS, ask(&resolver, "other.test")).await;
        assert!(gone.is_err());
        pass(50 * MS).await;
        assert_eq!(last_of(&resolver, "other.test").await, Some(1));
        assert_eq!(
            script.asked(),
            2,
            "the answer that nobody waited for was kept"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_singleflight_clients_that_wait_are_bounded() {
    local(async {
        let script = Script::new([(SECOND, address(1))]);
        let resolver = resolver(&script, |_| {});
        let mut waiting = Vec::new();
        for n in 0..MAX_WAITING {
            let name = format!("n{}.test", n % 10);
            let resolver = resolver.clone();
            let mut ask = Box::pin(async move { ask(&resolver, &name).await });
            assert!(futures_util::poll!(&mut ask).is_pending());
            waiting.push(ask);
        }
        assert_eq!(ask(&resolver, "x.test").await, Err(ForwardError::Busy));
        waiting.pop();
        assert!(ask(&resolver, "x.test").await.is_ok());
        assert!(script.asked() <= 11);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_forward_lines_are_asked_in_order() {
    local(async {
        let zone = |text: &str| Some(text.parse().unwrap());
        let stub = Script {
            zone: zone("corp.test"),
            ..Script::new([(MS, address(1))])
        };
        let first = Script {
            next: vec![ResponseCode::NXDomain],
            ..Script::new([(MS, denial(ResponseCode::NXDomain))])
        };
        let second = Script::new([(MS, address(3))]);
        let sources = vec![stub.clone(), first.clone(), second.clone()];
        let (resolver, _) = resolver_of(sources, |_| {});
        assert_eq!(last_of(&resolver, "a.corp.test").await, Some(1));
        assert_eq!(last_of(&resolver, "a.other.test").await, Some(3));
        assert_eq!([stub.asked(), first.asked(), second.asked()], [1, 1, 1]);
        let alone = vec![first.clone()];
        let (resolver, _) = resolver_of(alone, |_| {});
        let lines = ask(&resolver, "a.test").await.unwrap();
        assert_eq!(lines[0], "NXDOMAIN", "nobody does better");
        let (resolver, _) = resolver_of(vec![stub], |_| {});
        assert!(!resolver.takes(&"a.test".parse().unwrap()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_cache_failures_of_upstreams_are_remembered_for_a_second() {
    local(async {
        let script = Script::new([(MS, Err(ForwardError::TimedOut)), (MS, address(1))]);
        let resolver = resolver(&script, |_| {});
        let failed = ask(&resolver, "web.test").await;
        assert_eq!(failed, Err(ForwardError::TimedOut));
        for _ in 0..5 {
            let lines = ask(&resolver, "web.test").await.unwrap();
            assert_eq!(lines, ["SERVFAIL"]);
        }
        assert_eq!(script.asked(), 1);
        pass(SECOND).await;
        assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        script.then([(MS, Err(ForwardError::Busy))]);
        for _ in 0..3 {
            let refused = ask(&resolver, "other.test").await;
            assert_eq!(
                refused,
                Err(ForwardError::Busy),
                "says nothing about the name"
            );
        }
        assert_eq!(script.asked(), 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_cache_answers_without_recursion_are_not_kept() {
    local(async {
        let script = Script::new([(MS, address(1))]);
        let resolver = resolver(&script, |_| {});
        let mut query = query("web.test");
        query.flags = 0;
        let fetch = Fetch::new(&query, &query.question, false);
        resolver.resolve(fetch, None).await.unwrap();
        let found = resolver.cached(&query, &query.question);
        assert!(matches!(found, Cached::Miss(None)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_cache_prefetch_asks_once_before_the_end() {
    local(async {
        let script = Script::new([(MS, address(1)), (100 * MS, address(2))]);
        let (resolver, metrics) = resolver_of(vec![script.clone()], |settings| {
            settings.prefetch = Some(Prefetch {
                amount: 2,
                duration: Duration::from_secs(60),
                percentage: 10,
            });
        });
        assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        pass(Duration::from_secs(55)).await;
        for _ in 0..10 {
            assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        }
        pass(100 * MS).await;
        assert_eq!(script.asked(), 2);
        assert_eq!(
            last_of(&resolver, "web.test").await,
            Some(2),
            "without a miss"
        );
        assert_eq!(script.asked(), 2);
        let count = r#"coredns_cache_prefetch_total{server="dns://:53",zones=".",view=""} 1"#;
        assert!(metrics.render().contains(count));
        assert_eq!(resolver.inner.background.get(), 0);
    })
    .await;
}
