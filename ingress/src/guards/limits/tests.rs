use std::num::NonZeroU32;
use std::sync::Barrier;
use std::thread;

use tokio::time::advance;

use super::*;

const CLIENT: &str = "192.0.2.1";

fn rate(limit: u32, period: u64, multiplier: u32) -> Option<Rate> {
    Some(Rate {
        interval: Duration::from_secs(period) / limit,
        burst: limit * multiplier,
    })
}

fn limits() -> RateLimits {
    RateLimits {
        zone: "default/site".into(),
        per_second: None,
        per_minute: None,
        in_flight: None,
        exempt: Box::new([]),
    }
}

/// How many of so many requests at once are let in.
fn admitted(limiter: &Limiter, limits: &RateLimits, client: &str, requests: u32) -> u32 {
    let client = client.parse().unwrap();
    let admitted = (0..requests).filter(|_| limiter.count(limits, client).is_ok());
    u32::try_from(admitted.count()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ingress_a12_a_bucket_leaks_at_the_rate_and_holds_the_burst() {
    // As nginx `limit_req … burst=N nodelay`: the rate lets one in, and the bucket holds N more.
    for (name, limits, rounds) in [
        (
            "2 a second",
            RateLimits {
                per_second: rate(2, 1, 5),
                ..limits()
            },
            // Milliseconds after the round before, requests, of these let in.
            &[
                (0, 20, 11),
                (499, 5, 0),
                (1, 5, 1),
                (1000, 5, 2),
                (60_000, 20, 11),
            ][..],
        ),
        (
            "6 a minute, no multiple",
            RateLimits {
                per_minute: rate(6, 60, 1),
                ..limits()
            },
            &[(0, 20, 7), (9_999, 5, 0), (1, 5, 1), (600_000, 20, 7)],
        ),
        (
            "both: what one refuses is not counted by the other",
            RateLimits {
                per_second: rate(1, 1, 1),
                per_minute: rate(6, 60, 1),
                ..limits()
            },
            &[
                (0, 20, 2),
                (1_000, 20, 1),
                (10_000, 20, 2),
                (1_000, 20, 1),
                (1_000, 20, 1),
                (1_000, 20, 1),
                (1_000, 20, 0),
            ],
        ),
    ] {
        let limiter = Limiter::default();
        for (round, (pause, requests, expected)) in rounds.iter().enumerate() {
            advance(Duration::from_millis(*pause)).await;
            let got = admitted(&limiter, &limits, CLIENT, *requests);
            assert_eq!(got, *expected, "{name}, round {round}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ingress_a12_a_refusal_says_when_to_come_again() {
    let limits = RateLimits {
        per_minute: rate(6, 60, 1),
        ..limits()
    };
    let limiter = Limiter::default();
    assert_eq!(admitted(&limiter, &limits, CLIENT, 7), 7);
    for (pause, wait) in [(0, 10_000), (2_500, 7_500), (7_499, 1)] {
        advance(Duration::from_millis(pause)).await;
        let refused = limiter.count(&limits, CLIENT.parse().unwrap());
        let wait = Duration::from_millis(wait);
        let refused = refused.unwrap_err();
        assert_eq!(refused, Refused::TooOften(wait));
        let asked = respond::Asked {
            grpc: false,
            http2: false,
        };
        let seconds = wait.as_millis().div_ceil(1000).to_string();
        for status in [503, 429] {
            let settings = GatewaySettings {
                rate_limit_status: status,
                ..GatewaySettings::default()
            };
            let answer = refused.answer(asked, &settings);
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()[RETRY_AFTER], *seconds);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ingress_a12_each_address_and_each_object_has_its_own_bucket() {
    let one = RateLimits {
        per_second: rate(1, 1, 1),
        exempt: ["198.51.100.0/24", "2001:db8::/32"]
            .map(|net| net.parse().unwrap())
            .into(),
        ..limits()
    };
    let other = RateLimits {
        zone: "default/other".into(),
        ..one.clone()
    };
    let limiter = Limiter::default();
    for (name, limits, client, expected) in [
        ("the first", &one, CLIENT, 2),
        ("the same again", &one, CLIENT, 0),
        ("the same over IPv6", &one, "::ffff:192.0.2.1", 0),
        ("the same elsewhere", &other, CLIENT, 2),
        ("another", &one, "192.0.2.2", 2),
        ("IPv6", &one, "2001:db9::1", 2),
        ("another of the same network", &one, "2001:db9::2", 2),
        ("exempt", &one, "198.51.100.9", 9),
        ("exempt over IPv6", &one, "2001:db8::9", 9),
    ] {
        let got = admitted(&limiter, limits, client, 9);
        assert_eq!(got, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn ingress_a12_requests_in_flight_are_counted_until_they_end() {
    let limits = RateLimits {
        in_flight: NonZeroU32::new(2),
        ..limits()
    };
    let limiter = Limiter::default();
    let client = CLIENT.parse().unwrap();
    let first = limiter.count(&limits, client).unwrap().unwrap();
    let second = limiter.count(&limits, client).unwrap().unwrap();
    assert!(limiter.count(&limits, client).is_err());
    let other = limiter.count(&limits, "192.0.2.2".parse().unwrap());
    let other = other.unwrap();
    let clone = first.clone();
    drop(first);
    assert!(limiter.count(&limits, client).is_err(), "one is still held");
    drop(clone);
    let third = limiter.count(&limits, client).unwrap().unwrap();
    drop((second, third, other));
    let counts = |shard: &Mutex<HashMap<Key, u32>>| shard.lock().unwrap().len();
    assert_eq!(limiter.0.in_flight.iter().map(counts).sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn ingress_a12_a_flood_of_addresses_costs_bounded_memory() {
    let limits = RateLimits {
        per_second: rate(1, 1, 1),
        ..limits()
    };
    let limiter = Limiter::default();
    for number in 0..u32::try_from(3 * CAPACITY).unwrap() {
        let client = IpAddr::V4(number.into());
        assert!(limiter.count(&limits, client).is_ok(), "{client}");
    }
    let kept = limiter.0.buckets.len();
    assert!(kept <= CAPACITY && kept > CAPACITY / 2, "{kept}");

    advance(SWEEP).await;
    assert_eq!(admitted(&limiter, &limits, CLIENT, 3), 2);
    limiter.sweep();
    assert_eq!(limiter.0.buckets.len(), 1, "only one is not empty");
    advance(Duration::from_secs(2)).await;
    limiter.sweep();
    assert_eq!(limiter.0.buckets.len(), 1, "swept a moment ago");
    advance(SWEEP).await;
    limiter.sweep();
    assert_eq!(limiter.0.buckets.len(), 0);
}

#[test]
fn ingress_a12_workers_share_what_is_counted() {
    const WORKERS: usize = 4;
    let limits = RateLimits {
        per_minute: rate(100, 60, 1),
        in_flight: NonZeroU32::new(1000),
        ..limits()
    };
    let (limiter, start) = (Limiter::default(), Barrier::new(WORKERS));
    let admitted: u32 = thread::scope(|scope| {
        let workers = [(); WORKERS].map(|()| {
            scope.spawn(|| {
                start.wait();
                admitted(&limiter.clone(), &limits, CLIENT, 1000)
            })
        });
        workers.map(|worker| worker.join().unwrap()).iter().sum()
    });
    // A bucket that leaks one each 0.6 s may have lost some while a slow machine ran this.
    assert!((101..400).contains(&admitted), "{admitted}");
}
