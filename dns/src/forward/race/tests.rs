//! Time stands still but for what the cases wait for, so that the figures are exact.

use std::cell::RefCell;
use std::net::SocketAddr;

use super::*;
use crate::forward::plan::{Speaks, Target};
use crate::forward::upstream::{MAX_HEDGE, MIN_HEDGE};
use crate::metrics::Metrics;

/// What an upstream does with each query, after so many milliseconds.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answer(u64, ResponseCode),
    Fail(u64, ForwardError),
    Nothing,
}

use Does::{Answer as Says, Fail, Nothing};

const OK: ResponseCode = ResponseCode::NoError;
const SERVFAIL: ResponseCode = ResponseCode::ServFail;

fn upstreams(count: u16) -> Vec<Rc<Upstream>> {
    let target = |port| Target {
        addr: SocketAddr::from(([127, 0, 0, 1], port)),
        speaks: Speaks::Plain,
    };
    let upstream = |port| Rc::new(Upstream::new(target(port), &Metrics::default()));
    (1..=count).map(upstream).collect()
}

#[derive(Debug, PartialEq)]
struct Outcome {
    rcode: Result<ResponseCode, ForwardError>,
    millis: u64,
    /// Numbers of the upstreams, from 1, with the milliseconds at which they were asked.
    asked: Vec<(u16, u64)>,
    suspects: Vec<u16>,
}

async fn run(order: &[Rc<Upstream>], does: &[Does], settings: &ForwardSettings) -> Outcome {
    let start = Instant::now();
    let millis = || start.elapsed().as_millis() as u64;
    let asked = RefCell::new(Vec::new());
    let suspects = RefCell::new(Vec::new());
    let ask = |upstream: Rc<Upstream>| {
        let number = upstream.target.addr.port();
        asked.borrow_mut().push((number, millis()));
        let does = does[usize::from(number) - 1];
        let after = |millis| tokio::time::sleep(Duration::from_millis(millis));
        async move {
            match does {
                Says(millis, rcode) => {
                    after(millis).await;
                    Ok(Answer::code(rcode, None))
                }
                Fail(millis, error) => {
                    after(millis).await;
                    Err(error)
                }
                Nothing => {
                    after(2000).await;
                    Err(ForwardError::TimedOut)
                }
            }
        }
    };
    let suspect = |upstream: &Rc<Upstream>| {
        suspects.borrow_mut().push(upstream.target.addr.port());
    };
    let result = race(order.to_vec(), settings, suspect, ask).await;
    Outcome {
        rcode: result.map(|answer| answer.rcode),
        millis: millis(),
        asked: asked.take(),
        suspects: suspects.take(),
    }
}

#[tokio::test(start_paused = true)]
async fn reliability_f36_the_next_upstream_is_asked_in_time() {
    use ForwardError::{Network, TimedOut};
    let failover = ForwardSettings {
        failover: vec![SERVFAIL],
        ..ForwardSettings::to(Vec::new())
    };
    let attempts = ForwardSettings {
        max_connect_attempts: 2,
        ..ForwardSettings::to(Vec::new())
    };
    let plain = ForwardSettings::to(Vec::new());
    for (name, settings, does, rcode, millis, asked) in [
        (
            "a good one",
            &plain,
            &[Says(5, OK), Nothing][..],
            Ok(OK),
            5,
            &[(1, 0)][..],
        ),
        (
            "a dead first",
            &plain,
            &[Nothing, Says(5, OK)],
            Ok(OK),
            305,
            &[(1, 0), (2, 300)],
        ),
        (
            "two dead ones",
            &plain,
            &[Nothing, Nothing, Says(5, OK)],
            Ok(OK),
            605,
            &[(1, 0), (2, 300), (3, 600)],
        ),
        (
            "slow, but first",
            &plain,
            &[Says(400, OK), Nothing],
            Ok(OK),
            400,
            &[(1, 0), (2, 300)],
        ),
        (
            "one that refuses",
            &plain,
            &[Fail(1, Network), Says(5, OK)],
            Ok(OK),
            6,
            &[(1, 0), (2, 1)],
        ),
        (
            "dead alone",
            &plain,
            &[Nothing],
            Err(TimedOut),
            3000,
            &[(1, 0), (1, 1000)],
        ),
        (
            "all refuse",
            &plain,
            &[Fail(1, Network), Fail(1, Network)],
            Err(Network),
            4,
            &[(1, 0), (2, 1), (1, 2), (2, 3)],
        ),
        (
            "max_connect_attempts",
            &attempts,
            &[Fail(1, Network), Fail(1, Network)],
            Err(Network),
            2,
            &[(1, 0), (2, 1)],
        ),
        (
            "SERVFAIL is an answer",
            &plain,
            &[Says(5, SERVFAIL), Says(5, OK)],
            Ok(SERVFAIL),
            5,
            &[(1, 0)],
        ),
        (
            "but others who are asked may do better",
            &plain,
            &[Says(400, OK), Says(5, SERVFAIL)],
            Ok(OK),
            400,
            &[(1, 0), (2, 300)],
        ),
        (
            "failover",
            &failover,
            &[Says(5, SERVFAIL), Says(5, OK)],
            Ok(OK),
            10,
            &[(1, 0), (2, 5)],
        ),
        (
            "failover, nobody better",
            &failover,
            &[Says(5, SERVFAIL), Says(6, SERVFAIL)],
            Ok(SERVFAIL),
            11,
            &[(1, 0), (2, 5)],
        ),
    ] {
        let order = upstreams(does.len() as u16);
        let outcome = run(&order, does, settings).await;
        assert_eq!(outcome.rcode, rcode, "{name}");
        assert_eq!(outcome.asked, asked, "{name}");
        assert_eq!(outcome.millis, millis, "{name}");
    }
    let nobody = race(Vec::new(), &plain, |_| (), |_| async { Err(TimedOut) }).await;
    assert_eq!(nobody, Err(ForwardError::NoUpstream));
}

#[tokio::test(start_paused = true)]
async fn dns_f6_the_hedge_is_twice_the_usual_time_within_bounds() {
    let settings = ForwardSettings::to(Vec::new());
    for (usual, expected) in [
        (None, MAX_HEDGE),
        (Some(1), MIN_HEDGE),
        (Some(40), Duration::from_millis(80)),
        (Some(1000), MAX_HEDGE),
    ] {
        let order = upstreams(2);
        if let Some(usual) = usual {
            run(&order[..1], &[Says(usual, OK)], &settings).await;
        }
        let outcome = run(&order, &[Nothing, Says(1, OK)], &settings).await;
        let hedge = expected.as_millis() as u64;
        assert_eq!(outcome.asked, [(1, 0), (2, hedge)], "{usual:?}");
        assert_eq!(outcome.suspects, [1], "{usual:?}");
        assert!(order[0].is_suspect(Instant::now()));
    }
}

/// What an upstream lets others wait is counted although it never answers.
#[tokio::test(start_paused = true)]
async fn dns_f6_waiting_in_vain_raises_the_usual_time() {
    let settings = ForwardSettings::to(Vec::new());
    let order = upstreams(2);
    run(&order[..1], &[Says(1, OK)], &settings).await;
    let before = order[0].srtt().unwrap();
    run(&order, &[Nothing, Says(1, OK)], &settings).await;
    assert!(order[0].srtt().unwrap() > before * 2);
}
