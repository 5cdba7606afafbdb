use std::net::SocketAddr;

use sealane_config::model;

use super::*;
use crate::testing::endpoint;

/// Failures in a row are the only reason to eject.
const IN_A_ROW: Balancing = Balancing {
    ejection: model::Ejection {
        success_rate: 0,
        ..model::Ejection::DEFAULT
    },
    ..Balancing::DEFAULT
};

const MILLI: Duration = Duration::from_millis(1);

fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
    (0..count)
        .map(|i| endpoint(SocketAddr::from(([10, 244, 0, 1], 8000 + i))))
        .collect()
}

/// Sends requests one after the other; `answer` gives the time that an endpoint takes.
fn run(
    endpoints: &[Arc<Endpoint>],
    requests: usize,
    seed: u64,
    mut answer: impl FnMut(usize) -> Duration,
) -> Vec<usize> {
    let balancer = Balancer::seeded(seed);
    let mut hits = vec![0; endpoints.len()];
    for _ in 0..requests {
        let picked = balancer.pick(endpoints, &[], &Balancing::DEFAULT).unwrap();
        let index = endpoints
            .iter()
            .position(|e| Arc::ptr_eq(e, picked))
            .unwrap();
        hits[index] += 1;
        Flight::start(picked).succeeded(answer(index));
    }
    hits
}

#[tokio::test(start_paused = true)]
async fn proxy_l7_equal_endpoints_get_equal_shares_in_spite_of_noise() {
    type Answer = fn(usize, &Balancer) -> Duration;
    let cases: [(&str, Answer); 4] = [
        ("the same time", |_, _| MILLI * 5),
        ("3 % apart", |i, _| {
            MILLI * 100 + MILLI * 3 * u32::try_from(i).unwrap()
        }),
        ("fast and noisy", |_, rng| {
            Duration::from_micros(100 + rng.random() % 900)
        }),
        ("one answer in a hundred takes 40 ms", |_, rng| {
            if rng.random().is_multiple_of(100) {
                MILLI * 40
            } else {
                MILLI
            }
        }),
    ];
    for (name, answer) in cases {
        for seed in 0..20 {
            let rng = Balancer::seeded(seed + 1000);
            let hits = run(&endpoints(3), 300, seed, |i| answer(i, &rng));
            let most = hits.iter().max().unwrap();
            assert!(*most <= 130, "{name}, seed {seed}: {hits:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_l7_p2c_prefers_fast_endpoint() {
    for seed in 0..20 {
        let hits = run(&endpoints(3), 3000, seed, |i| {
            if i == 0 { MILLI * 50 } else { MILLI * 2 }
        });
        assert!(hits[0] < 60, "seed {seed}: {hits:?}");
        assert!(hits[1] > 1300 && hits[2] > 1300, "seed {seed}: {hits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_l7_an_endpoint_that_recovered_gets_its_share_again() {
    let endpoints = endpoints(2);
    let hits = run(
        &endpoints,
        500,
        1,
        |i| if i == 0 { MILLI * 500 } else { MILLI },
    );
    assert!(hits[0] < 20, "{hits:?}");
    tokio::time::advance(Duration::from_secs(100)).await;
    let hits = run(&endpoints, 1000, 2, |_| MILLI);
    assert!(hits[0] > 400, "{hits:?}");
}

#[tokio::test(start_paused = true)]
async fn proxy_l7_requests_in_flight_count() {
    let endpoints = endpoints(2);
    let balancer = Balancer::seeded(7);
    let _busy: Vec<Flight> = (0..9).map(|_| Flight::start(&endpoints[0])).collect();
    let to_busy = (0..1000)
        .filter(|_| {
            Arc::ptr_eq(
                balancer.pick(&endpoints, &[], &Balancing::DEFAULT).unwrap(),
                &endpoints[0],
            )
        })
        .count();
    assert!(to_busy < 40, "{to_busy} of 1000 went to the busy endpoint");
}

#[tokio::test(start_paused = true)]
async fn a_flight_counts_until_it_is_dropped() {
    let endpoint = endpoints(1).remove(0);
    let flight = Flight::start(&endpoint);
    assert_eq!(endpoint.stats.in_flight.load(Relaxed), 1);
    drop(flight);
    assert_eq!(endpoint.stats.in_flight.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn proxy_l8_failing_fast_does_not_attract_traffic() {
    let endpoints = endpoints(3);
    let balancer = Balancer::seeded(3);
    let mut hits = 0;
    for _ in 0..1000 {
        let picked = balancer.pick(&endpoints, &[], &Balancing::DEFAULT).unwrap();
        let flight = Flight::start(picked);
        // Every second answer is good, so it is never ejected.
        if Arc::ptr_eq(picked, &endpoints[0]) {
            hits += 1;
            if hits % 2 == 0 {
                flight.failed(&endpoints, &IN_A_ROW);
            } else {
                flight.succeeded(Duration::from_micros(10));
            }
        } else {
            flight.succeeded(MILLI * 20);
        }
    }
    assert!(hits < 150, "{hits} of 1000 went to the failing endpoint");
}

#[tokio::test(start_paused = true)]
async fn proxy_l9_a_new_endpoint_gets_its_share_and_no_stampede() {
    let mut endpoints = endpoints(3);
    run(&endpoints, 300, 1, |_| MILLI * 50);
    endpoints.push(endpoint(SocketAddr::from(([10, 244, 0, 9], 80))));
    let balancer = Balancer::seeded(5);
    tokio::time::advance(Duration::from_secs(10)).await;
    let newest = |rules: &Balancing| {
        (0..1000)
            .filter(|_| {
                let picked = balancer.pick(&endpoints, &[], rules).unwrap();
                Arc::ptr_eq(picked, &endpoints[3])
            })
            .count()
    };
    let at_once = Balancing {
        slow_start: Duration::ZERO,
        ..Balancing::DEFAULT
    };
    let share = newest(&at_once);
    assert!((200..300).contains(&share), "without slow start: {share}");
    // It has half of the draws, and a share of x in what it draws is x / (1 + x) of them.
    for (seconds, most, least) in [(0, 70, 20), (2, 120, 50), (5, 210, 120), (10, 300, 200)] {
        let share = newest(&Balancing::DEFAULT);
        let range = least..most;
        assert!(range.contains(&share), "{share} of 1000 until {seconds} s");
        tokio::time::advance(Duration::from_secs(match seconds {
            0 => 2,
            2 => 3,
            _ => 5,
        }))
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_l9_where_all_are_new_all_get_the_same() {
    let endpoints = endpoints(2);
    let hits = share(&endpoints, 0);
    assert!((110..190).contains(&hits), "{hits} of 300");
}

#[tokio::test(start_paused = true)]
async fn reliability_f13_an_endpoint_that_is_back_is_warmed() {
    let endpoints = endpoints(4);
    for endpoint in &endpoints {
        Flight::start(endpoint).succeeded(MILLI);
    }
    share(&endpoints, 0);
    tokio::time::advance(Duration::from_secs(20)).await;
    let before = share(&endpoints, 0);
    fail(&endpoints, 0, 5);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(share(&endpoints, 0), 1, "the probe");
    Flight::start(&endpoints[0]).succeeded(MILLI);
    let after = share(&endpoints, 0);
    assert!(after * 3 < before, "{after}, {before} before");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(share(&endpoints, 0) * 3 > before * 2);
}

#[tokio::test(start_paused = true)]
async fn proxy_l10_a_share_of_good_answers_below_that_of_the_peers_ejects() {
    // Every so many-th answer of the first endpoint, and of the others, is a failure.
    for (name, first, others, is_ejected) in [
        ("every second fails", 2, 1000, true),
        ("every tenth fails", 10, 1000, false),
        ("every second fails everywhere", 2, 2, false),
    ] {
        let endpoints = endpoints(4);
        let mut ejected = false;
        for request in 1..=100 {
            for (index, endpoint) in endpoints.iter().enumerate() {
                let flight = Flight::start(endpoint);
                let every = if index == 0 { first } else { others };
                if request % every == 0 {
                    flight.failed(&endpoints, &Balancing::DEFAULT);
                    ejected |= endpoint.stats.ejected_until.load(Relaxed) != 0;
                } else {
                    flight.succeeded(MILLI);
                }
            }
            tokio::time::advance(MILLI * 10).await;
        }
        assert_eq!(ejected, is_ejected, "{name}");
    }
    let endpoints = endpoints(2);
    for _ in 0..4 {
        let flight = Flight::start(&endpoints[0]);
        flight.failed(&endpoints, &Balancing::DEFAULT);
        // Ten seconds later what was before is forgotten.
        tokio::time::advance(Duration::from_secs(11)).await;
    }
    Flight::start(&endpoints[0]).succeeded(MILLI);
    assert_eq!(endpoints[0].stats.ejected_until.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn proxy_l8_an_endpoint_that_asks_to_wait_gets_nothing_for_so_long() {
    let endpoints = endpoints(4);
    let flight = Flight::start(&endpoints[0]);
    flight.asked_to_wait(&endpoints, &Balancing::DEFAULT, Duration::from_secs(7));
    assert_eq!(share(&endpoints, 0), 0);
    tokio::time::advance(Duration::from_millis(6990)).await;
    assert_eq!(share(&endpoints, 0), 0);
    tokio::time::advance(MILLI * 20).await;
    assert_eq!(share(&endpoints, 0), 1, "one probe");
    let hour = Duration::from_secs(3600);
    Flight::start(&endpoints[1]).asked_to_wait(&endpoints, &Balancing::DEFAULT, hour);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(
        share(&endpoints, 1),
        1,
        "no longer than the longest ejection"
    );
    for endpoint in &endpoints {
        Flight::start(endpoint).asked_to_wait(&endpoints, &Balancing::DEFAULT, hour);
    }
    let taking = |e: &&Arc<Endpoint>| ejection(e) != Ejection::Ejected;
    assert!(endpoints.iter().filter(taking).count() >= 2, "half stay");
}

#[tokio::test(start_paused = true)]
async fn proxy_l7_a_service_may_ask_for_another_algorithm() {
    let with = |algorithm| Balancing {
        algorithm,
        ..Balancing::DEFAULT
    };
    let endpoints = endpoints(4);
    let balancer = Balancer::seeded(3);
    let _busy: Vec<Flight> = (0..9).map(|_| Flight::start(&endpoints[3])).collect();
    for _ in 0..50 {
        // Slow, which only estimates mind.
        Flight::start(&endpoints[0]).succeeded(Duration::from_secs(1));
        for endpoint in &endpoints[1..] {
            Flight::start(endpoint).succeeded(MILLI);
        }
    }
    let picks = |algorithm| {
        let mut hits = [0; 4];
        for _ in 0..400 {
            let picked = balancer.pick(&endpoints, &[], &with(algorithm)).unwrap();
            hits[usize::from(picked.addr.port() - 8000)] += 1;
        }
        hits
    };
    assert_eq!(picks(Algorithm::RoundRobin), [100; 4]);
    let random = picks(Algorithm::Random);
    assert!(
        random.iter().all(|hits| (60..140).contains(hits)),
        "{random:?}"
    );
    let least = picks(Algorithm::LeastRequest);
    assert!(least[0] > 80 && least[3] < 20, "{least:?}");
    let ewma = picks(Algorithm::PeakEwma);
    assert!(ewma[0] < 20 && ewma[3] < 100, "{ewma:?}");
    fail(&endpoints, 1, 5);
    let turns = picks(Algorithm::RoundRobin);
    assert_eq!(
        (turns[1], turns.iter().sum::<usize>()),
        (0, 400),
        "{turns:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_may_go_without_ejection() {
    let endpoints = endpoints(4);
    let never = Balancing {
        ejection: model::Ejection {
            enabled: false,
            ..model::Ejection::DEFAULT
        },
        ..Balancing::DEFAULT
    };
    for _ in 0..20 {
        let flight = Flight::start(&endpoints[0]);
        flight.failed(&endpoints, &never);
        flight.asked_to_wait(&endpoints, &never, Duration::from_secs(5));
    }
    assert_eq!(endpoints[0].stats.ejected_until.load(Relaxed), 0);
}

fn fail(endpoints: &[Arc<Endpoint>], index: usize, times: usize) {
    for _ in 0..times {
        Flight::start(&endpoints[index]).failed(endpoints, &IN_A_ROW);
    }
}

/// How many of 300 picks go to the endpoint.
fn share(endpoints: &[Arc<Endpoint>], index: usize) -> usize {
    let balancer = Balancer::seeded(11);
    (0..300)
        .filter(|_| {
            Arc::ptr_eq(
                balancer.pick(endpoints, &[], &Balancing::DEFAULT).unwrap(),
                &endpoints[index],
            )
        })
        .count()
}

#[tokio::test(start_paused = true)]
async fn proxy_l10_five_failures_in_a_row_eject_and_one_probe_reopens() {
    let endpoints = endpoints(4);
    fail(&endpoints, 0, 4);
    Flight::start(&endpoints[0]).succeeded(MILLI);
    fail(&endpoints, 0, 4);
    assert_eq!(
        endpoints[0].stats.ejected_until.load(Relaxed),
        0,
        "not five in a row"
    );
    fail(&endpoints, 0, 1);
    assert_eq!(share(&endpoints, 0), 0);
    tokio::time::advance(Duration::from_millis(990)).await;
    assert_eq!(share(&endpoints, 0), 0, "the first ejection lasts a second");
    tokio::time::advance(Duration::from_millis(520)).await;
    assert_eq!(share(&endpoints, 0), 1, "one probe");
    Flight::start(&endpoints[0]).succeeded(MILLI);
    assert!(share(&endpoints, 0) > 0);
    assert_eq!(endpoints[0].stats.ejections.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn proxy_l10_ejections_double_up_to_a_minute() {
    let endpoints = endpoints(4);
    fail(&endpoints, 0, 5);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let until = endpoints[0].stats.ejected_until.load(Relaxed);
        let left = Duration::from_nanos(until - clock::now());
        let shortest = Duration::from_secs(seconds);
        assert!(
            left <= shortest.mul_f64(1.5) && left >= shortest.mul_f64(0.99),
            "{left:?} where {shortest:?} was due"
        );
        // What was in flight when it was ejected does not count again.
        fail(&endpoints, 0, 3);
        assert_eq!(endpoints[0].stats.ejected_until.load(Relaxed), until);
        tokio::time::advance(left + MILLI).await;
        assert_eq!(share(&endpoints, 0), 1, "one probe after {seconds} s");
        fail(&endpoints, 0, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_l10_a_probe_that_never_ends_is_given_up() {
    let endpoints = endpoints(4);
    fail(&endpoints, 0, 5);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(share(&endpoints, 0), 1);
    assert_eq!(share(&endpoints, 0), 0, "the probe is still on its way");
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(share(&endpoints, 0), 1);
}

#[tokio::test(start_paused = true)]
async fn proxy_l11_at_least_half_of_the_endpoints_stay() {
    for (count, ejectable) in [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)] {
        let endpoints = endpoints(count);
        for index in 0..usize::from(count) {
            fail(&endpoints, index, 20);
        }
        let ejected = endpoints
            .iter()
            .filter(|e| e.stats.ejected_until.load(Relaxed) != 0)
            .count();
        assert_eq!(ejected, ejectable, "of {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_l11_ejection_is_ignored_when_too_few_remain() {
    let mut endpoints = endpoints(6);
    for index in 0..3 {
        fail(&endpoints, index, 5);
    }
    assert_eq!(share(&endpoints, 0), 0);
    endpoints.drain(3..5);
    assert!(share(&endpoints, 0) > 0, "three of four are ejected");
}

#[tokio::test(start_paused = true)]
async fn proxy_l13_a_retry_goes_elsewhere() {
    let endpoints = endpoints(3);
    let balancer = Balancer::seeded(1);
    let (first, second) = (endpoints[0].addr, endpoints[1].addr);
    for _ in 0..100 {
        let picked = balancer
            .pick(&endpoints, &[first, second], &Balancing::DEFAULT)
            .unwrap();
        assert!(Arc::ptr_eq(picked, &endpoints[2]));
    }
    let all: Vec<EndpointAddr> = endpoints.iter().map(|e| e.addr).collect();
    assert!(
        balancer
            .pick(&endpoints, &all, &Balancing::DEFAULT)
            .is_none()
    );
    assert!(
        balancer
            .pick(&endpoints[..1], &[first], &Balancing::DEFAULT)
            .is_none()
    );
    assert!(balancer.pick(&[], &[], &Balancing::DEFAULT).is_none());
}

#[tokio::test(start_paused = true)]
async fn proxy_l13_a_retry_prefers_endpoints_that_are_not_ejected() {
    let endpoints = endpoints(4);
    fail(&endpoints, 1, 5);
    let balancer = Balancer::seeded(1);
    for _ in 0..200 {
        let picked = balancer
            .pick(&endpoints, &[endpoints[0].addr], &Balancing::DEFAULT)
            .unwrap();
        assert!(!Arc::ptr_eq(picked, &endpoints[1]));
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_l23_a_zone_that_fails_spills_over_and_gets_its_traffic_back() {
    let all = endpoints(6);
    let near = &all[..2];
    let balancer = Balancer::seeded(1);
    let pick = || balancer.pick_near(near, &all, &[], &IN_A_ROW).unwrap();
    let far = || {
        let is_far = |picked: &Arc<Endpoint>| !near.iter().any(|it| Arc::ptr_eq(it, picked));
        (0..200).filter(|_| is_far(pick())).count()
    };
    let fail = |endpoint: &Arc<Endpoint>| {
        for _ in 0..5 {
            Flight::start(endpoint).failed(&all, &IN_A_ROW);
        }
    };
    assert_eq!(far(), 0, "hints are kept");
    fail(&near[0]);
    assert_eq!(far(), 0, "half of the zone is left");
    fail(&near[1]);
    assert_eq!(far(), 200, "nobody in the zone takes traffic");

    let tried: Vec<EndpointAddr> = near.iter().map(|e| e.addr).collect();
    let retried = balancer.pick_near(near, &all, &tried, &IN_A_ROW);
    assert!(!tried.contains(&retried.unwrap().addr));

    tokio::time::advance(Duration::from_secs(2)).await;
    for _ in 0..2 {
        let probe = pick();
        assert!(tried.contains(&probe.addr), "probes are for the zone");
        Flight::start(probe).succeeded(MILLI);
    }
    assert_eq!(far(), 0, "the zone is back");
}

#[tokio::test(start_paused = true)]
async fn proxy_l23_a_request_that_was_tried_on_the_whole_zone_goes_beyond() {
    let all = endpoints(3);
    let balancer = Balancer::seeded(1);
    for algorithm in [
        Algorithm::PeakEwma,
        Algorithm::RoundRobin,
        Algorithm::Random,
    ] {
        let rules = Balancing {
            algorithm,
            ..IN_A_ROW
        };
        let every: Vec<EndpointAddr> = all.iter().map(|e| e.addr).collect();
        let pick = |tried: usize| balancer.pick_near(&all[..1], &all, &every[..tried], &rules);
        assert_eq!(pick(0).unwrap().addr, every[0], "{algorithm:?}");
        assert_ne!(pick(1).unwrap().addr, every[0], "{algorithm:?}");
        assert!(pick(3).is_none(), "{algorithm:?}");
    }
}

#[test]
fn weights_are_shares() {
    let balancer = Balancer::seeded(1);
    let mut hits = [0; 3];
    for _ in 0..1000 {
        hits[balancer.pick_weighted([90, 0, 10].into_iter()).unwrap()] += 1;
    }
    assert!(hits[0] > 850 && hits[1] == 0 && hits[2] > 60, "{hits:?}");
    assert_eq!(balancer.pick_weighted([0, 0].into_iter()), None);
    assert_eq!(balancer.pick_weighted([].into_iter()), None);
}
