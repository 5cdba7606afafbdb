//! Elections on the embedded API server, in paused time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use kube::api::{Patch, PatchParams};
use sealane_cluster::api::ApiServer;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::report::tests::link::{Link, Mode, server};

const SECOND: Duration = Duration::from_secs(1);

/// How often is looked at who leads.
const TICK: Duration = Duration::from_millis(50);

struct Candidacy {
    link: Link,
    leadership: Leadership,
    identity: String,
    is_stopped: Arc<AtomicBool>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// A future that can be stopped, as a process by SIGSTOP.
struct Stoppable<F> {
    future: Pin<Box<F>>,
    is_stopped: Arc<AtomicBool>,
}

impl<F: Future> Future for Stoppable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.is_stopped.load(Ordering::Relaxed) {
            let waker = context.waker().clone();
            tokio::spawn(async move {
                sleep(TICK).await;
                waker.wake();
            });
            return Poll::Pending;
        }
        self.future.as_mut().poll(context)
    }
}

impl Candidacy {
    fn start(server: &ApiServer, name: &str) -> Self {
        let link = Link::new(server);
        let options = LeaseOptions::new("default", "gateway", name);
        let identity = options.identity.clone();
        let shutdown = CancellationToken::new();
        let (leadership, election) = elect(link.client(), options, shutdown.clone());
        let is_stopped = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(Stoppable {
            future: Box::pin(election),
            is_stopped: Arc::clone(&is_stopped),
        });
        Self {
            link,
            leadership,
            identity,
            is_stopped,
            shutdown,
            task,
        }
    }

    fn leads(&self) -> bool {
        self.leadership.holds()
    }
}

/// Waits until `wanted`; nobody ever leads beside somebody else. Returns how long that took.
async fn until(
    what: &str,
    candidates: &[&Candidacy],
    limit: Duration,
    wanted: impl Fn() -> bool,
) -> Duration {
    let start = Instant::now();
    while !wanted() {
        let leaders = candidates.iter().filter(|c| c.leads()).count();
        assert!(leaders <= 1, "{what}: two leaders");
        assert!(start.elapsed() <= limit, "{what}: not within {limit:?}");
        sleep(TICK).await;
    }
    start.elapsed()
}

async fn lease(server: &ApiServer) -> LeaseSpec {
    let leases: Api<Lease> = Api::namespaced(server.client(), "default");
    leases.get("gateway").await.unwrap().spec.unwrap()
}

async fn change(server: &ApiServer, spec: serde_json::Value) {
    let leases: Api<Lease> = Api::namespaced(server.client(), "default");
    let patch = Patch::Merge(json!({"spec": spec}));
    leases
        .patch("gateway", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn put(server: &ApiServer, spec: serde_json::Value) {
    let leases: Api<Lease> = Api::namespaced(server.client(), "default");
    let lease = json!({"metadata": {"name": "gateway"}, "spec": spec});
    let lease: Lease = serde_json::from_value(lease).unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_a_lease_nobody_has_is_taken_at_once_and_renewed() {
    let server = server().await;
    let a = Candidacy::start(&server, "a");
    until("acquired", &[&a], SECOND, || a.leads()).await;
    let first = lease(&server).await;
    assert_eq!(first.holder_identity.as_ref(), Some(&a.identity));
    assert_eq!(first.lease_duration_seconds, Some(10));
    assert_eq!(first.lease_transitions, Some(0));
    sleep(60 * SECOND).await;
    assert!(a.leads());
    let puts = a.link.count(&http::Method::PUT, "/leases/gateway");
    assert!((29..=31).contains(&puts), "{puts} renewals in a minute");
    let gets = a.link.count(&http::Method::GET, "/leases/gateway");
    assert_eq!(gets, 1, "a holder knows what it wrote");
    let renewed = lease(&server).await;
    assert_eq!(renewed.acquire_time, first.acquire_time);
    assert_eq!(renewed.lease_transitions, Some(0));
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_of_two_one_leads_and_a_crash_hands_over_in_time() {
    let server = server().await;
    for round in 0..10 {
        let a = Candidacy::start(&server, "a");
        until("first", &[&a], 13 * SECOND, || a.leads()).await;
        let b = Candidacy::start(&server, "b");
        sleep(20 * SECOND + 170 * round * TICK / 50).await;
        assert!(a.leads() && !b.leads());
        a.task.abort();
        a.link.set(Mode::Down);
        let took = until("crash", &[&a, &b], 15 * SECOND, || b.leads()).await;
        assert!(took > 7 * SECOND, "{took:?}: before the lease was over");
        b.shutdown.cancel();
        b.task.await.unwrap();
    }
    assert_eq!(lease(&server).await.lease_transitions, Some(19));
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_an_orderly_end_hands_over_at_once() {
    let server = server().await;
    let a = Candidacy::start(&server, "a");
    until("first", &[&a], SECOND, || a.leads()).await;
    let b = Candidacy::start(&server, "b");
    sleep(5 * SECOND).await;
    a.shutdown.cancel();
    until("handed over", &[&a, &b], 3 * SECOND, || b.leads()).await;
    a.task.await.unwrap();
    let mut c = Candidacy::start(&server, "c");
    sleep(5 * SECOND).await;
    c.shutdown.cancel();
    assert!(!c.leadership.changed().await, "the election is over");
    sleep(5 * SECOND).await;
    assert!(b.leads(), "who does not lead gives nothing up");
}

#[tokio::test(start_paused = true)]
async fn reliability_f24_times_in_a_lease_are_not_compared_with_our_clock() {
    let now = jiff::Timestamp::now();
    let day = jiff::SignedDuration::from_hours(24);
    let cases = [
        ("just now", now),
        ("a year ago", now - day * 365),
        ("in a year", now + day * 365),
    ];
    for (name, renewed) in cases {
        let server = server().await;
        let time = format!("{renewed:.6}");
        put(
            &server,
            json!({"holderIdentity": "dead", "leaseDurationSeconds": 10, "renewTime": time}),
        )
        .await;
        let a = Candidacy::start(&server, "a");
        let took = until(name, &[&a], 13 * SECOND, || a.leads()).await;
        assert!(took >= 10 * SECOND, "{name}: {took:?}");
        assert_eq!(lease(&server).await.lease_transitions, Some(1), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_as_long_as_it_says_and_one_that_was_given_up_is_free() {
    let holder = |seconds: i32| json!({"holderIdentity": "other", "leaseDurationSeconds": seconds});
    let cases = [
        ("longer than ours", holder(30), 30..33),
        ("says nothing", json!({"holderIdentity": "other"}), 10..13),
        ("given up", json!({"leaseDurationSeconds": 1}), 0..1),
        ("no spec", json!(null), 0..1),
        (
            "nobody",
            json!({"holderIdentity": "", "leaseDurationSeconds": 10}),
            0..1,
        ),
    ];
    for (name, spec, expected) in cases {
        let server = server().await;
        put(&server, spec).await;
        let a = Candidacy::start(&server, "a");
        let took = until(name, &[&a], 40 * SECOND, || a.leads()).await;
        assert!(expected.contains(&took.as_secs()), "{name}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_changes_is_alive() {
    let server = server().await;
    put(
        &server,
        json!({"holderIdentity": "other", "leaseDurationSeconds": 10}),
    )
    .await;
    let a = Candidacy::start(&server, "a");
    for renewal in 0..10 {
        sleep(9 * SECOND).await;
        assert!(!a.leads(), "renewal {renewal}");
        change(&server, json!({"leaseTransitions": renewal})).await;
    }
    until("not renewed any more", &[&a], 13 * SECOND, || a.leads()).await;
}

#[tokio::test(start_paused = true)]
async fn reliability_f32_a_lease_taken_away_ends_leadership() {
    let server = server().await;
    let a = Candidacy::start(&server, "a");
    until("first", &[&a], SECOND, || a.leads()).await;
    change(&server, json!({"holderIdentity": "thief"})).await;
    until("noticed", &[&a], 3 * SECOND, || !a.leads()).await;
    assert_eq!(
        lease(&server).await.holder_identity.as_deref(),
        Some("thief")
    );
    until("taken back", &[&a], 13 * SECOND, || a.leads()).await;
}

#[tokio::test(start_paused = true)]
async fn someone_elses_edit_of_a_lease_does_not_end_leadership() {
    let server = server().await;
    let a = Candidacy::start(&server, "a");
    until("first", &[&a], SECOND, || a.leads()).await;
    for edit in 0..5 {
        change(&server, json!({"leaseTransitions": edit})).await;
        for _ in 0..60 {
            sleep(TICK).await;
            assert!(a.leads(), "edit {edit}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reliability_f32_a_holder_that_is_cut_off_ends_before_the_next_begins() {
    for mode in [Mode::Down, Mode::Silent, Mode::WritesRefused(503)] {
        let server = server().await;
        let a = Candidacy::start(&server, "a");
        until("first", &[&a], SECOND, || a.leads()).await;
        let b = Candidacy::start(&server, "b");
        sleep(11 * SECOND).await;
        a.link.set(mode);
        let took = until("ended", &[&a, &b], 8 * SECOND, || !a.leads()).await;
        assert!(
            took > 4 * SECOND,
            "{mode:?}: {took:?}: one failure is no reason"
        );
        until("next", &[&a, &b], 9 * SECOND, || b.leads()).await;
        a.link.set(Mode::Up);
        for _ in 0..200 {
            sleep(TICK).await;
            assert!(b.leads() && !a.leads(), "{mode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_does_not_end_leadership_and_a_long_one_does_not_for_ever() {
    let server = server().await;
    let a = Candidacy::start(&server, "a");
    until("first", &[&a], SECOND, || a.leads()).await;
    a.link.set(Mode::Down);
    sleep(4 * SECOND).await;
    assert!(a.leads());
    a.link.set(Mode::Up);
    sleep(20 * SECOND).await;
    assert!(a.leads());
    a.link.set(Mode::Down);
    sleep(600 * SECOND).await;
    assert!(!a.leads());
    a.link.set(Mode::Up);
    until("back", &[&a], 3 * SECOND, || a.leads()).await;
}

#[tokio::test(start_paused = true)]
async fn reliability_f34_a_claim_whose_answer_was_lost_is_found_again() {
    let server = server().await;
    let a = Candidacy::start(&server, "a");
    until("first", &[&a], SECOND, || a.leads()).await;
    a.link.set(Mode::Deaf);
    sleep(3 * SECOND).await;
    a.link.set(Mode::Up);
    sleep(3 * SECOND).await;
    assert!(a.leads(), "the lease was ours all the time");
    let server = self::server().await;
    let b = Candidacy::start(&server, "b");
    b.link.set(Mode::Deaf);
    sleep(SECOND).await;
    assert!(!b.leads());
    assert_eq!(
        lease(&server).await.holder_identity.as_ref(),
        Some(&b.identity)
    );
    b.link.set(Mode::Up);
    until("found", &[&b], 3 * SECOND, || b.leads()).await;
}

#[tokio::test(start_paused = true)]
async fn reliability_f4_a_stopped_holder_knows_when_it_wakes() {
    let server = server().await;
    let a = Candidacy::start(&server, "a");
    until("first", &[&a], SECOND, || a.leads()).await;
    let b = Candidacy::start(&server, "b");
    sleep(11 * SECOND).await;
    a.is_stopped.store(true, Ordering::Relaxed);
    sleep(30 * SECOND).await;
    assert!(b.leads());
    assert!(!a.leads(), "before its task has run at all");
    a.is_stopped.store(false, Ordering::Relaxed);
    for _ in 0..400 {
        sleep(TICK).await;
        assert!(b.leads() && !a.leads());
    }
}
