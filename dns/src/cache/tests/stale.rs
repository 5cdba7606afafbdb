//! `serve_stale` (RFC 8767).

use super::*;

fn stale(refresh: StaleRefresh, prefer_positive: bool) -> Cache {
    cache_with(|settings| {
        settings.serve_stale = Some(ServeStale {
            max_age: Duration::from_secs(3600),
            refresh,
            ttl: 30,
            recheck: Duration::from_secs(10),
            prefer_positive,
        });
    })
}

const VERIFY: StaleRefresh = StaleRefresh::Verify {
    timeout: Duration::ZERO,
};

fn state(cache: &Cache) -> Option<(ResponseCode, State)> {
    let hit = get(cache, "a.example")?;
    Some((hit.served.packed.rcode(), hit.state))
}

#[tokio::test(start_paused = true)]
async fn dns_cache_serve_stale_for_a_while_with_a_ttl_of_its_own() {
    let (ok, missing) = (ResponseCode::NoError, ResponseCode::NXDomain);
    for (case, refresh, answer, expected) in [
        (
            "immediate",
            StaleRefresh::Immediate,
            positive("a.example", &[60]),
            (ok, State::StaleThenAsk),
        ),
        (
            "verify",
            VERIFY,
            positive("a.example", &[60]),
            (ok, State::AskThenStale),
        ),
        (
            "a denial is asked for",
            StaleRefresh::Immediate,
            negative(missing, 60, 60),
            (missing, State::AskThenStale),
        ),
    ] {
        let mut cache = stale(refresh, false);
        put(&mut cache, "a.example", answer);
        advance(Duration::from_secs(61)).await;
        assert_eq!(state(&cache), Some(expected), "{case}");
        assert_eq!(ttls(&cache, "a.example"), Some(vec![30]), "{case}");
        advance(Duration::from_secs(3600)).await;
        assert_eq!(state(&cache), None, "{case}");
    }
    let mut off = cache_with(|_| {});
    put(&mut off, "a.example", positive("a.example", &[60]));
    advance(Duration::from_secs(61)).await;
    assert_eq!(state(&off), None);
}

#[tokio::test(start_paused = true)]
async fn dns_cache_serve_stale_rechecks_after_a_pause() {
    let mut cache = stale(StaleRefresh::Immediate, false);
    put(&mut cache, "a.example", positive("a.example", &[60]));
    advance(Duration::from_secs(61)).await;
    let slot = Slot::from(&key("a.example"));
    assert!(cache.failed(&slot, Duration::from_secs(1), Instant::now()));
    assert_eq!(state(&cache), Some((ResponseCode::NoError, State::Stale)));
    advance(Duration::from_secs(10)).await;
    assert_eq!(
        state(&cache),
        Some((ResponseCode::NoError, State::StaleThenAsk))
    );
}

#[tokio::test(start_paused = true)]
async fn dns_f7_a_failure_does_not_hide_what_is_stale() {
    for answer in [
        positive("a.example", &[60]),
        negative(ResponseCode::NXDomain, 60, 60),
    ] {
        let expected = answer.rcode;
        let mut cache = stale(VERIFY, false);
        put(&mut cache, "a.example", answer);
        advance(Duration::from_secs(61)).await;
        put(&mut cache, "a.example", servfail());
        assert_eq!(state(&cache), Some((expected, State::Stale)));
        // REFUSED and the like are no better.
        advance(Duration::from_secs(11)).await;
        put(
            &mut cache,
            "a.example",
            Answer::code(ResponseCode::Refused, None),
        );
        assert_eq!(state(&cache), Some((expected, State::Stale)));
    }
}

#[tokio::test(start_paused = true)]
async fn dns_f7_a_new_denial_ends_what_is_stale() {
    let mut cache = stale(StaleRefresh::Immediate, false);
    put(&mut cache, "a.example", positive("a.example", &[60]));
    put(
        &mut cache,
        "a.example",
        negative(ResponseCode::NXDomain, 20, 20),
    );
    advance(Duration::from_secs(30)).await;
    let expected = (ResponseCode::NXDomain, State::AskThenStale);
    assert_eq!(state(&cache), Some(expected), "not the address");
    put(&mut cache, "a.example", positive("a.example", &[60]));
    assert_eq!(state(&cache), Some((ResponseCode::NoError, State::Fresh)));
}

#[tokio::test(start_paused = true)]
async fn dns_f7_prefer_positive_serves_the_last_good_answer() {
    let mut cache = stale(StaleRefresh::Immediate, true);
    put(&mut cache, "a.example", positive("a.example", &[60]));
    advance(Duration::from_secs(61)).await;
    put(
        &mut cache,
        "a.example",
        negative(ResponseCode::NXDomain, 60, 60),
    );
    assert_eq!(state(&cache), Some((ResponseCode::NoError, State::Stale)));
    advance(Duration::from_secs(61)).await;
    let expected = (ResponseCode::NoError, State::StaleThenAsk);
    assert_eq!(state(&cache), Some(expected), "the denial is over");
    put(&mut cache, "a.example", positive("a.example", &[60]));
    assert_eq!(state(&cache), Some((ResponseCode::NoError, State::Fresh)));
}
