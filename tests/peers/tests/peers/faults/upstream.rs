//! Between the proxy and its only endpoint.

use std::ops::Range;

use sealane_proxy::testing::faults::{Cut, Fault, FaultProxy, Faults};

use super::client::{End, Seen, get};
use super::*;

/// What is asked for. Many pieces, and more than a read takes.
const BYTES: usize = 20_000;

/// A byte in the middle of the body, whatever the protocol puts in front of it.
const MIDDLE: usize = 5_000;

/// What the client should see.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// All of it.
    Whole,
    /// An answer of the proxy's own.
    Refused(u16),
    /// Less than all, and visibly so.
    Short,
    /// So many bytes, and then an end.
    Ended(usize),
    /// Nothing, and then an end of some kind.
    Nothing,
}

impl Expected {
    fn is(self, seen: &Seen) -> bool {
        let good = matches!(seen.status, 0 | 200);
        match self {
            Self::Whole => good && seen.bytes == BYTES && seen.end == End::Clean,
            Self::Refused(status) => seen.status == status && seen.end == End::Clean,
            Self::Short => good && seen.bytes < BYTES && seen.end == End::Broken,
            Self::Ended(bytes) => good && seen.bytes == bytes && seen.end == End::Clean,
            Self::Nothing => good && seen.bytes == 0 && seen.end != End::Never,
        }
    }
}

/// Runs one row of the matrix; the time is for all three cells.
async fn row(name: &str, faults: Faults, expected: [Expected; 3], took: Range<Duration>) {
    for (spoken, expected) in ALL.into_iter().zip(expected) {
        let origin = origin(spoken).await;
        let proxy = FaultProxy::start(origin.addr, faults).await;
        let front = front(spoken, &[proxy.addr]).await;
        let seen = get(spoken, front.vip, BYTES, ms(4_000)).await;
        let what = format!("{name}, {spoken:?}: {seen:?}, not {expected:?} in {took:?}");
        assert!(expected.is(&seen) && took.contains(&seen.took), "{what}");
    }
}

const WHOLE: [Expected; 3] = [Expected::Whole; 3];

fn cut(after: usize, cut: Cut) -> Fault {
    Fault {
        cut: Some((after, cut)),
        ..Fault::default()
    }
}

#[tokio::test]
async fn proxy_t9_late_slow_and_chopped_answers_are_whole() {
    let quick = Duration::ZERO..ms(2_500);
    row("nothing", Faults::default(), WHOLE, quick.clone()).await;
    let late = Fault {
        latency: ms(40),
        jitter: ms(20),
        ..Fault::default()
    };
    row("late", Faults::both(late), WHOLE, ms(80)..ms(2_500)).await;
    let chopped = Fault {
        slice: Some(1),
        ..Fault::default()
    };
    row("byte by byte", Faults::both(chopped), WHOLE, quick.clone()).await;
    // The endpoint answers in time; how long the rest takes is the network's affair.
    let slow = Fault {
        rate: Some(20_000),
        slice: Some(1_000),
        ..Fault::default()
    };
    let slow = Faults::response(slow);
    row("20 kB a second", slow, WHOLE, ms(900)..ms(3_500)).await;
}

#[tokio::test]
async fn proxy_t9_an_end_that_comes_late_is_waited_for_only_where_it_matters() {
    let slow_close = Fault {
        slow_close: ms(600),
        ..Fault::default()
    };
    for spoken in ALL {
        let origin = origin(spoken).await;
        let proxy = FaultProxy::start(origin.addr, Faults::response(slow_close)).await;
        let front = front(spoken, &[proxy.addr]).await;
        let seen = get(spoken, front.vip, BYTES, PATIENCE).await;
        assert_eq!((seen.bytes, seen.end), (BYTES, End::Clean), "{spoken:?}");
        // The length says where an HTTP answer ends.
        let waited = seen.took >= ms(600);
        assert_eq!(waited, spoken == Spoken::Tcp, "{spoken:?}: {seen:?}");
    }
}

#[tokio::test]
async fn reliability_f9_proxy_l25_an_answer_that_is_cut_off_never_looks_complete() {
    let soon = Duration::ZERO..ms(1_500);
    let reset = Faults::response(cut(MIDDLE, Cut::Reset));
    row("reset", reset, [Expected::Short; 3], soon.clone()).await;
    // To TCP an end is an end, and what came before it is there.
    let closed = [Expected::Short, Expected::Short, Expected::Ended(MIDDLE)];
    for (name, how) in [("close", Cut::Close), ("half-close", Cut::HalfClose)] {
        let fault = Faults::response(cut(MIDDLE, how));
        row(name, fault, closed, soon.clone()).await;
    }
}

#[tokio::test]
async fn reliability_f9_proxy_l20_no_answer_at_all_is_a_502() {
    let bad = Expected::Refused(502);
    let soon = Duration::ZERO..ms(1_500);
    for (name, faults) in [
        ("reset", Faults::response(cut(0, Cut::Reset))),
        ("close", Faults::response(cut(0, Cut::Close))),
        ("reset in the request", Faults::request(cut(3, Cut::Reset))),
    ] {
        row(name, faults, [bad, bad, Expected::Nothing], soon.clone()).await;
    }
}

#[tokio::test]
async fn reliability_f5_proxy_l16_an_endpoint_that_says_nothing_is_a_504_in_time() {
    let silent = Faults::response(cut(0, Cut::BlackHole));
    for spoken in [Spoken::Http1, Spoken::Http2] {
        let origin = origin(spoken).await;
        let proxy = FaultProxy::start(origin.addr, silent).await;
        let front = front(spoken, &[proxy.addr]).await;
        let seen = get(spoken, front.vip, BYTES, PATIENCE).await;
        assert_eq!((seen.status, seen.end), (504, End::Clean), "{spoken:?}");
        let in_time = RESPONSE_TIMEOUT..RESPONSE_TIMEOUT + ms(400);
        assert!(in_time.contains(&seen.took), "{spoken:?}: {seen:?}");
    }
    // TCP may be silent for as long as both sides like.
    let origin = origin(Spoken::Tcp).await;
    let proxy = FaultProxy::start(origin.addr, silent).await;
    let front = front(Spoken::Tcp, &[proxy.addr]).await;
    let seen = get(Spoken::Tcp, front.vip, BYTES, ms(1_000)).await;
    assert_eq!((seen.bytes, seen.end), (0, End::Never), "{seen:?}");
}
