//! Health checks and what they change.

use super::*;

/// An upstream that is silent until it is told otherwise.
async fn switched() -> (Rc<Cell<bool>>, Upstream) {
    let on = Rc::new(Cell::new(false));
    let switch = Rc::clone(&on);
    let upstream = Upstream::start(move |query, tcp| match switch.get() {
        true => web(query, tcp),
        false => Vec::new(),
    });
    (on, upstream.await)
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn checks(upstream: &Upstream) -> usize {
    let seen = upstream.seen();
    seen.iter().filter(|seen| seen.name == ".").count()
}

fn quick_checks(upstreams: &[SocketAddr]) -> ForwardSettings {
    let mut settings = in_order(upstreams);
    settings.health_check.interval = Duration::from_millis(20);
    settings
}

#[tokio::test]
async fn dns_forward_health_checks_run_on_error_until_one_is_answered() {
    local(async {
        let (on, first) = switched().await;
        let second = Upstream::start(web).await;
        let tested = Tested::new(quick_checks(&[first.addr, second.addr]));
        tested.ask("web.test").await.unwrap();
        assert_eq!(checks(&second), 0, "nothing is wrong with it");
        let failures = format!(
            "coredns_proxy_healthcheck_failures_total{{proxy_name=\"forward\",to=\"{}\"}}",
            first.addr
        );
        eventually("a check fails", || tested.metric(&failures) > 0.0).await;
        let before = second.seen().len();
        tested.ask("other.test").await.unwrap();
        assert_eq!(second.seen().len(), before + 1, "the first one is suspect");
        on.set(true);
        let is_suspect = || {
            let upstreams = tested.forward.upstreams();
            upstreams[0].is_suspect(Instant::now())
        };
        eventually("it is trusted again", || !is_suspect()).await;
        let done = checks(&first);
        tested.ask("third.test").await.unwrap();
        assert_eq!(
            first.seen().last().unwrap().name.to_lowercase(),
            "third.test."
        );
        assert_eq!(checks(&first), done, "no more checks");
    })
    .await;
}

#[tokio::test]
async fn dns_forward_with_all_down_one_is_taken_unless_failfast() {
    local(async {
        let (on, first) = switched().await;
        let (_on, second) = switched().await;
        let upstreams = [first.addr, second.addr];
        for failfast in [false, true] {
            on.set(false);
            let mut settings = quick_checks(&upstreams);
            settings.failfast_all_unhealthy_upstreams = failfast;
            settings.max_fails = 1;
            settings.read_timeout = Duration::from_millis(100);
            // Checks that come rarely, so that the state stays as it is.
            let tested = Tested::new(settings);
            assert_eq!(tested.ask("a.test").await, Err(ForwardError::TimedOut));
            let all_down = || {
                let upstreams = tested.forward.upstreams();
                upstreams.iter().all(|upstream| upstream.is_down(1))
            };
            eventually("both are down", all_down).await;
            let broken = "coredns_forward_healthcheck_broken_total";
            assert_eq!(tested.metric(broken), 0.0);
            if failfast {
                assert_eq!(tested.ask("b.test").await, Err(ForwardError::AllDown));
                assert_eq!(tested.metric(broken), 0.0);
            } else {
                on.set(true);
                tested.ask("web.test").await.unwrap();
                assert_eq!(tested.metric(broken), 1.0);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn dns_forward_max_fails_0_means_no_checks_and_never_down() {
    local(async {
        let (_on, first) = switched().await;
        let second = Upstream::start(web).await;
        let tested = Tested::new(ForwardSettings {
            max_fails: 0,
            ..quick_checks(&[first.addr, second.addr])
        });
        tested.ask("a.test").await.unwrap();
        let start = Instant::now();
        for n in 0..20 {
            tested.ask(&format!("n{n}.test")).await.unwrap();
        }
        assert!(start.elapsed() < MAX_HEDGE * 5, "suspect all the same");
        assert_eq!(checks(&first), 0);
    })
    .await;
}

/// It answers health checks and nothing else, as a resolver does that has lost the Internet.
#[tokio::test]
async fn reliability_f36_an_upstream_that_only_answers_checks_costs_little() {
    local(async {
        let half_dead = Upstream::start(|query, tcp| match query.queries[0].query_type {
            RecordType::NS => web(query, tcp),
            _ => Vec::new(),
        })
        .await;
        let good = Upstream::start(web).await;
        let tested = Tested::new(quick_checks(&[half_dead.addr, good.addr]));
        let start = Instant::now();
        let mut slow = 0;
        while start.elapsed() < Duration::from_secs(4) {
            let began = Instant::now();
            tested.ask("web.test").await.unwrap();
            slow += u32::from(began.elapsed() >= MAX_HEDGE / 2);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!((1..=5).contains(&slow), "{slow} queries had to wait");
    })
    .await;
}

#[tokio::test]
async fn dns_metrics_upstreams_are_counted() {
    local(async {
        let upstream = Upstream::start(web).await;
        let tested = forward(&[upstream.addr]);
        tested.ask("web.test").await.unwrap();
        tested.ask("other.test").await.unwrap();
        let to = upstream.addr;
        for (metric, expected) in [
            (format!("coredns_proxy_request_duration_seconds_count{{proxy_name=\"forward\",to=\"{to}\",rcode=\"NXDOMAIN\"}}"), 1.0),
            (format!("coredns_proxy_conn_cache_misses_total{{proxy_name=\"forward\",to=\"{to}\",proto=\"udp\"}}"), 2.0),
            (format!("coredns_forward_requests_total{{to=\"{to}\"}}"), 2.0),
            (format!("coredns_forward_responses_total{{to=\"{to}\",rcode=\"NOERROR\"}}"), 1.0),
        ] {
            assert_eq!(tested.metric(&metric), expected, "{metric}\n{}", tested.metrics.render());
        }
    })
    .await;
}
