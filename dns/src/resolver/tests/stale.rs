//! `serve_stale` (RFC 8767).

use super::*;

const VERIFY: StaleRefresh = StaleRefresh::Verify {
    timeout: Duration::from_millis(400),
};
const VERIFY_TO_THE_END: StaleRefresh = StaleRefresh::Verify {
    timeout: Duration::ZERO,
};

fn stale(refresh: StaleRefresh, prefer_positive: bool) -> impl FnOnce(&mut CacheSettings) {
    move |settings| {
        settings.serve_stale = Some(ServeStale {
            max_age: Duration::from_secs(3600),
            refresh,
            ttl: 30,
            recheck: Duration::from_secs(10),
            prefer_positive,
        });
    }
}

/// `web.test` was 10.0.0.1 and has expired.
async fn expired(script: &Script, resolver: &Resolver<Script>) {
    script.then([(MS, address(1))]);
    assert_eq!(last_of(resolver, "web.test").await, Some(1));
    pass(Duration::from_secs(61)).await;
    script.asked.borrow_mut().clear();
}

#[tokio::test(start_paused = true)]
async fn dns_cache_serve_stale_immediate() {
    local(async {
        let script = Script::default();
        let (resolver, metrics) =
            resolver_of(vec![script.clone()], stale(StaleRefresh::Immediate, false));
        expired(&script, &resolver).await;
        script.then([(100 * MS, address(2))]);
        let before = Instant::now();
        let lines = ask(&resolver, "web.test").await.unwrap();
        assert_eq!(lines, ["NOERROR", "web.test. 30 IN A 10.0.0.1"]);
        assert_eq!(before.elapsed(), Duration::ZERO, "at once");
        assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        pass(100 * MS).await;
        assert_eq!(last_of(&resolver, "web.test").await, Some(2));
        assert_eq!(script.asked(), 1, "one fetch");
        let count = r#"coredns_cache_served_stale_total{server="dns://:53",zones=".",view=""} 2"#;
        assert!(metrics.render().contains(count));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_f7_verify_asks_first_and_waits_only_so_long() {
    local(async {
        let script = Script::default();
        let resolver = resolver(&script, stale(VERIFY, false));
        for (case, reaction, expected, took) in [
            ("in time", (100 * MS, address(2)), Some(2), 100 * MS),
            ("late", (900 * MS, address(3)), Some(1), 400 * MS),
            (
                "failed",
                (5 * MS, code(ResponseCode::ServFail)),
                Some(1),
                5 * MS,
            ),
            (
                "refused",
                (5 * MS, code(ResponseCode::Refused)),
                Some(1),
                5 * MS,
            ),
            (
                "no upstream",
                (5 * MS, Err(ForwardError::Network)),
                Some(1),
                5 * MS,
            ),
            (
                "gone",
                (5 * MS, denial(ResponseCode::NXDomain)),
                None,
                5 * MS,
            ),
        ] {
            expired(&script, &resolver).await;
            script.then([reaction]);
            let before = Instant::now();
            assert_eq!(last_of(&resolver, "web.test").await, expected, "{case}");
            assert_eq!(before.elapsed(), took, "{case}");
            pass(SECOND).await;
            if case == "late" {
                assert_eq!(
                    last_of(&resolver, "web.test").await,
                    Some(3),
                    "came to good use"
                );
            }
            assert_eq!(script.asked(), 1, "{case}");
            pass(Duration::from_secs(3700)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_f7_verify_without_a_limit_waits_for_the_upstream() {
    local(async {
        let script = Script::default();
        let resolver = resolver(&script, stale(VERIFY_TO_THE_END, false));
        expired(&script, &resolver).await;
        script.then([(4 * SECOND, Err(ForwardError::TimedOut))]);
        let before = Instant::now();
        assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        assert_eq!(before.elapsed(), 4 * SECOND);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_f7_after_a_failure_the_upstream_is_left_alone_for_the_recheck_time() {
    local(async {
        let script = Script::default();
        let resolver = resolver(&script, stale(VERIFY, false));
        expired(&script, &resolver).await;
        script.then([(5 * MS, Err(ForwardError::TimedOut)), (5 * MS, address(2))]);
        for _ in 0..5 {
            assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        }
        pass(9 * SECOND).await;
        assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        assert_eq!(script.asked(), 1);
        pass(SECOND).await;
        assert_eq!(last_of(&resolver, "web.test").await, Some(2));
        assert_eq!(script.asked(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_f7_prefer_positive_masks_a_denial() {
    local(async {
        let script = Script::default();
        for (prefer_positive, expected) in [(false, None), (true, Some(1))] {
            let resolver = resolver(&script, stale(VERIFY, prefer_positive));
            expired(&script, &resolver).await;
            script.then([(5 * MS, denial(ResponseCode::NXDomain))]);
            for _ in 0..3 {
                assert_eq!(last_of(&resolver, "web.test").await, expected);
            }
            assert_eq!(script.asked(), 1, "the denial is kept");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_f7_nobody_is_turned_away_who_can_have_a_stale_answer() {
    local(async {
        let script = Script::default();
        let resolver = resolver(&script, stale(VERIFY_TO_THE_END, false));
        expired(&script, &resolver).await;
        resolver.inner.waiting.set(MAX_WAITING);
        assert_eq!(last_of(&resolver, "web.test").await, Some(1));
        assert_eq!(script.asked(), 0);
    })
    .await;
}
