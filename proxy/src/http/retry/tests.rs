use std::net::SocketAddr;

use sealane_config::model::RetryOn;

use super::*;

#[tokio::test(start_paused = true)]
async fn proxy_l14_the_budget_is_a_fifth_of_the_requests_and_ten_a_second() {
    let policy = RetryPolicy::default();
    let budget = Budget::default();
    assert_eq!((0..50).filter(|_| budget.spend(&policy)).count(), 10);
    budget.earn(50, &policy);
    let granted = (0..50).filter(|_| budget.spend(&policy)).count();
    assert_eq!(granted, 10, "of 50 requests");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!((0..50).filter(|_| budget.spend(&policy)).count(), 10);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!((0..500).filter(|_| budget.spend(&policy)).count(), 100);
    let none = RetryPolicy {
        budget_percent: 0,
        budget_per_second: 0,
        ..policy
    };
    budget.earn(1_000_000, &none);
    assert!(!budget.spend(&none));
}

#[tokio::test(start_paused = true)]
async fn proxy_l14_one_budget_for_all_workers() {
    let (policy, budget) = (RetryPolicy::default(), Budget::default());
    budget.earn(200, &policy);
    let spend = || (0..100).filter(|_| budget.spend(&policy)).count();
    let granted: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(spend)).collect();
        workers.into_iter().map(|it| it.join().unwrap()).sum()
    });
    // 200 requests and the first second; a little more while the threads run on a real clock.
    assert!((50..60).contains(&granted), "{granted}");
}

fn endpoints(count: u8) -> Vec<Arc<Endpoint>> {
    let at = |last| SocketAddr::from(([10, 1, 0, last], 80));
    (1..=count)
        .map(|last| Arc::new(Endpoint::at(at(last))))
        .collect()
}

const AT_ONCE: Verdict = Verdict::Again(Duration::ZERO);

/// The verdicts about a series of attempts, each on another endpoint while there is one.
fn series(method: &Method, policy: &RetryPolicy, count: u8, reasons: &[Reason]) -> Vec<Verdict> {
    let endpoints = endpoints(count);
    let mut attempts = Attempts::new(is_idempotent(method), clock::now());
    let mut verdicts = Vec::new();
    for reason in reasons {
        let choice = Choice {
            endpoints: &endpoints,
            policy,
            untouched: false,
            random: 1 << 63,
        };
        let next = endpoints
            .iter()
            .find(|e| !attempts.tried().contains(&e.addr));
        let addr = next.map_or(endpoints[0].addr, |endpoint| endpoint.addr);
        verdicts.push(attempts.next(*reason, addr, &choice, || true));
    }
    verdicts
}

#[test]
fn proxy_l12_l13_what_is_sent_again() {
    use Reason::{Broken, Expired, Final, Grpc, NotConnected, Refused, Stale, Status};
    use Verdict::Stop;
    let default = RetryPolicy::default();
    let with = |on: RetryOn, count| RetryPolicy {
        on,
        count,
        ..RetryPolicy::default()
    };
    let statuses = with(
        RetryOn {
            statuses: Box::new([502..=504]),
            grpc: 1 << 14,
            ..RetryOn::default()
        },
        2,
    );
    let never = with(RetryOn::never(), 3);
    // Half of 25 ms, half of 50 ms: the middle of what may be drawn.
    let first = Verdict::Again(Duration::from_micros(12_500));
    let second = Verdict::Again(Duration::from_millis(25));
    let (get, post) = (Method::GET, Method::POST);
    let many = [NotConnected; 5];
    for (name, method, policy, count, reasons, want) in [
        (
            "connect failures, POST",
            &post,
            &default,
            9,
            &many[..],
            &[AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, Stop][..],
        ),
        (
            "nobody left",
            &get,
            &default,
            2,
            &[NotConnected, Refused],
            &[AT_ONCE, Stop],
        ),
        (
            "stale once",
            &get,
            &default,
            1,
            &[Stale, Stale],
            &[AT_ONCE, Stop],
        ),
        (
            "stale, POST that was sent",
            &post,
            &default,
            1,
            &[Stale],
            &[Stop],
        ),
        (
            "broken once",
            &get,
            &default,
            3,
            &[Broken, Broken],
            &[AT_ONCE, Stop],
        ),
        ("broken, POST", &post, &default, 3, &[Broken], &[Stop]),
        ("expired", &get, &default, 3, &[Expired], &[AT_ONCE]),
        (
            "statuses are not asked for",
            &get,
            &default,
            3,
            &[Status(503)],
            &[Stop],
        ),
        ("nor codes", &post, &default, 3, &[Grpc(14)], &[Stop]),
        (
            "a status",
            &get,
            &statuses,
            3,
            &[Status(503), Status(502), Status(504)],
            &[first, second, Stop],
        ),
        (
            "another status",
            &get,
            &statuses,
            3,
            &[Status(500)],
            &[Stop],
        ),
        (
            "a status, POST",
            &post,
            &statuses,
            3,
            &[Status(503)],
            &[Stop],
        ),
        (
            "a code, POST",
            &post,
            &statuses,
            3,
            &[Grpc(14), Grpc(13)],
            &[first, Stop],
        ),
        (
            "the only endpoint again",
            &get,
            &statuses,
            1,
            &[Status(503)],
            &[first],
        ),
        (
            "both kinds are counted",
            &get,
            &statuses,
            4,
            &[Broken, Status(503), Broken],
            &[AT_ONCE, second, Stop],
        ),
        (
            "free ones are not",
            &get,
            &default,
            4,
            &[NotConnected, Broken, Refused],
            &[AT_ONCE, AT_ONCE, AT_ONCE],
        ),
        ("no reasons", &get, &never, 3, &[Broken], &[Stop]),
        (
            "not even a connect failure",
            &get,
            &never,
            3,
            &[NotConnected],
            &[Stop],
        ),
        ("the end", &get, &statuses, 3, &[Final], &[Stop]),
    ] {
        assert_eq!(series(method, policy, count, reasons), want, "{name}");
    }
}

#[test]
fn proxy_l14_a_budget_that_is_used_up_ends_it() {
    let (endpoints, policy) = (endpoints(3), RetryPolicy::default());
    let mut attempts = Attempts::new(true, clock::now());
    let choice = Choice {
        endpoints: &endpoints,
        policy: &policy,
        untouched: true,
        random: 0,
    };
    let addr = endpoints[0].addr;
    let verdict = attempts.next(Reason::Broken, addr, &choice, || false);
    assert_eq!(verdict, Verdict::OverBudget);
    let verdict = attempts.next(Reason::NotConnected, addr, &choice, || false);
    assert_eq!(verdict, AT_ONCE, "what cannot have had an effect is free");
}

#[test]
fn ingress_a15_tries_are_counted_on_different_endpoints() {
    use Reason::{NotConnected, Refused, Stale, Status, TimedOut};
    use Verdict::Stop;
    let next = |tries, timeout, non_idempotent| RetryPolicy {
        on: RetryOn {
            statuses: Box::new([502..=502]),
            timeout,
            non_idempotent,
            ..RetryOn::default()
        },
        count: tries - 1,
        tries,
        elsewhere: true,
        ..RetryPolicy::default()
    };
    let (get, post) = (Method::GET, Method::POST);
    let first = Verdict::Again(Duration::from_micros(12_500));
    for (name, method, policy, count, reasons, want) in [
        (
            "connect failures count",
            &post,
            next(2, false, false),
            9,
            &[NotConnected, Refused][..],
            &[AT_ONCE, Stop][..],
        ),
        (
            "one try",
            &get,
            next(1, false, false),
            9,
            &[NotConnected],
            &[Stop],
        ),
        (
            "a connection that was old is no try",
            &get,
            next(2, false, false),
            9,
            &[Stale, NotConnected, NotConnected],
            &[AT_ONCE, AT_ONCE, Stop],
        ),
        (
            "nobody is asked twice",
            &get,
            next(9, false, false),
            2,
            &[Status(502), Status(502)],
            &[first, Stop],
        ),
        (
            "silence",
            &get,
            next(3, true, false),
            3,
            &[TimedOut],
            &[AT_ONCE],
        ),
        (
            "silence is no reason by itself",
            &get,
            next(3, false, false),
            3,
            &[TimedOut],
            &[Stop],
        ),
        (
            "silence, POST",
            &post,
            next(3, true, false),
            3,
            &[TimedOut],
            &[Stop],
        ),
    ] {
        assert_eq!(series(method, &policy, count, reasons), want, "{name}");
    }
    let default = series(&get, &RetryPolicy::default(), 3, &[TimedOut]);
    assert_eq!(default, [Stop]);
}
