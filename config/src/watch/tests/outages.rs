//! API servers that are away, forget, say nothing, refuse, or lose events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::core::Status;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::super::failure::FollowError;
use super::super::follow::Follower;
use super::super::source::Source;
use super::server::*;
use super::*;

#[tokio::test(start_paused = true)]
async fn reliability_f27_long_lists_come_in_pages_and_count_as_one() {
    let server = Server::default();
    let count = LIST_PAGE as usize * 2 + 1;
    for index in 0..count {
        server.put(SERVICES, service(&format!("s{index}")));
    }
    server.fault(SERVICES, Some(Fault::PageStatus(410)));
    let mut running = Running::start(&server);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(running.reader.load().generation, 0, "half a list is none");
    server.fault(SERVICES, None);
    running.until("synced", |snapshot| snapshot.synced).await;
    assert_eq!(running.services(), count);
    let pages = server.seen(SERVICES);
    let last = pages.iter().rev().filter(|seen| !seen.is_watch()).take(3);
    let tokens: Vec<bool> = last
        .map(|seen| seen.query.contains_key("continue"))
        .collect();
    assert_eq!(tokens, [true, true, false]);
    assert!(
        pages
            .iter()
            .all(|seen| seen.is_watch() || seen.query["limit"] == LIST_PAGE.to_string())
    );
}

#[tokio::test(start_paused = true)]
async fn reliability_f27_gone_means_list_again_and_forget_what_vanished() {
    for on_open_watch in [true, false] {
        let server = Server::default();
        server.put(SERVICES, service("stays"));
        server.put(SERVICES, service("vanishes"));
        let mut running = Running::synced(&server).await;
        server.fault(SERVICES, Some(Fault::Status(503)));
        server.end_watches();
        sleep(Duration::from_secs(1)).await;
        server.delete(SERVICES, "shop", "vanishes");
        server.put(SERVICES, service("new"));
        server.compact();
        assert_eq!(running.services(), 2, "the last good state stays");
        if on_open_watch {
            server.fault(SERVICES, None);
        } else {
            // Some servers refuse the watch instead of sending the error on it.
            server.fault(SERVICES, Some(Fault::WatchStatus(410)));
        }
        let took = running
            .until("relisted", |snapshot| has(snapshot, "new"))
            .await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        let snapshot = running.reader.load();
        assert!(has(&snapshot, "stays") && !has(&snapshot, "vanishes"));
    }
}

#[tokio::test(start_paused = true)]
async fn reliability_f27_gone_on_an_open_watch() {
    let server = Server::default();
    server.put(SERVICES, service("web"));
    let mut running = Running::synced(&server).await;
    sleep(Duration::from_secs(2)).await;
    let (lists, generation) = (running.lists(SERVICES), running.reader.load().generation);
    server.send_gone(SERVICES);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.lists(SERVICES), lists + 1);
    server.put(SERVICES, service("later"));
    running
        .until("later", |snapshot| has(snapshot, "later"))
        .await;
    assert!(running.reader.load().generation > generation);
}

#[tokio::test(start_paused = true)]
async fn reliability_f29_a_silent_watch_is_replaced() {
    let server = Server::default();
    server.fault(SERVICES, Some(Fault::SilentWatch));
    let mut running = Running::synced(&server).await;
    server.put(SERVICES, service("unheard"));
    server.fault(SERVICES, None);
    let took = running
        .until("heard", |snapshot| has(snapshot, "unheard"))
        .await;
    assert!(took <= Duration::from_secs(61), "{took:?}");
    assert_eq!(running.lists(SERVICES), 1, "resumed, not listed again");
}

#[tokio::test(start_paused = true)]
async fn reliability_f25_outage_keeps_the_last_good_state() {
    let server = Server::default();
    server.put(SERVICES, service("web"));
    let mut running = Running::synced(&server).await;
    let before = server.seen(SERVICES).len();
    let paths = [SERVICES, SLICES, NAMESPACES, INGRESSES, CLASSES];
    for path in paths {
        server.fault(path, Some(Fault::Status(500)));
    }
    server.end_watches();
    sleep(Duration::from_secs(600)).await;
    assert!(running.reader.load().synced && has(&running.reader.load(), "web"));
    let attempts = server.seen(SERVICES).len() - before;
    assert!(
        (20..=60).contains(&attempts),
        "{attempts} attempts in ten minutes"
    );
    server.put(SERVICES, service("meanwhile"));
    for path in paths {
        server.fault(path, None);
    }
    let took = running
        .until("back", |snapshot| has(snapshot, "meanwhile"))
        .await;
    assert!(took <= Duration::from_secs(31), "{took:?}");
    assert_eq!(running.lists(SERVICES), 1, "at most one list");
}

#[tokio::test(start_paused = true)]
async fn reliability_f25_current_within_two_seconds_of_the_return() {
    let server = Server::default();
    server.put(SERVICES, service("web"));
    let mut running = Running::synced(&server).await;
    let paths = [SERVICES, SLICES, NAMESPACES, INGRESSES, CLASSES];
    for (fault, quickest) in [(Fault::Unreachable, 2), (Fault::Status(500), 31)] {
        for path in paths {
            server.fault(path, Some(fault));
        }
        server.end_watches();
        sleep(Duration::from_secs(600)).await;
        let staleness = running.reader.staleness();
        assert!(staleness.oldest() >= Duration::from_secs(600), "{fault:?}");
        let name = format!("after-{quickest}");
        server.put(SERVICES, service(&name));
        server.put(NAMESPACES, json!({"metadata": {"name": name}}));
        for path in paths {
            server.fault(path, None);
        }
        let back =
            |snapshot: &Snapshot| has(snapshot, &name) || snapshot.namespaces.contains_key(&*name);
        let took = running.until("back", back).await;
        assert!(took <= Duration::from_secs(quickest), "{fault:?}: {took:?}");
        let all =
            |snapshot: &Snapshot| has(snapshot, &name) && snapshot.namespaces.contains_key(&*name);
        let took = running.until("all kinds", all).await;
        assert!(took <= Duration::from_millis(200), "{fault:?}: {took:?}");
        sleep(Duration::from_millis(200)).await;
        let age = running.reader.staleness().oldest();
        assert!(age <= Duration::from_secs(1), "{fault:?}: {age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reliability_f31_retry_after_is_honoured() {
    let server = Server::default();
    let mut running = Running::synced(&server).await;
    server.fault(SERVICES, Some(Fault::Throttle(20)));
    server.end_watches();
    sleep(Duration::from_millis(500)).await;
    let before = server.seen(SERVICES).len();
    server.put(SERVICES, service("web"));
    sleep(Duration::from_secs(15)).await;
    assert_eq!(server.seen(SERVICES).len(), before, "asked before its time");
    server.fault(SERVICES, None);
    let took = running.until("web", |snapshot| has(snapshot, "web")).await;
    assert!(took <= Duration::from_secs(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn proxy_o9_lost_events_are_found_by_counting() {
    let server = Server::default();
    for name in ["web", "lost", "third"] {
        server.put(SERVICES, service(name));
    }
    let mut running = Running::synced(&server).await;
    sleep(COUNT_PERIOD + Duration::from_secs(60)).await;
    for path in [SERVICES, NAMESPACES] {
        let asked = (running.lists(path), running.counts(path));
        assert_eq!(asked, (1, 1), "{path}");
    }
    server.lose(SERVICES, "shop", "lost");
    let lost = |snapshot: &Snapshot| !has(snapshot, "lost");
    let end = Instant::now() + COUNT_PERIOD + Duration::from_secs(60);
    while !lost(&running.reader.load()) {
        assert!(Instant::now() < end, "still there");
        sleep(Duration::from_secs(1)).await;
    }
    server.put(SERVICES, service("later"));
    running
        .until("later", |snapshot| has(snapshot, "later"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn reliability_f28_lists_are_streamed_where_the_server_can() {
    let server = Server::default();
    server.stream_lists(None);
    let count = LIST_PAGE as usize + 20;
    for index in 0..count {
        server.put(SERVICES, service(&format!("s{index}")));
    }
    let mut running = Running::synced(&server).await;
    assert_eq!(running.services(), count);
    sleep(COUNT_PERIOD + Duration::from_secs(60)).await;
    assert_eq!(running.lists(SERVICES), 0, "streamed, and counted right");
    server.fault(SERVICES, Some(Fault::Unreachable));
    server.end_watches();
    sleep(Duration::from_secs(1)).await;
    server.delete(SERVICES, "shop", "s7");
    server.compact();
    server.fault(SERVICES, None);
    running
        .until("relisted", |snapshot| !has(snapshot, "s7"))
        .await;
    assert_eq!(running.services(), count - 1);
    let streams = server.seen(SERVICES);
    let streams = streams.iter().filter(|seen| seen.is_stream()).count();
    assert_eq!((streams, running.lists(SERVICES)), (2, 0));
    server.put(SERVICES, service("later"));
    running
        .until("later", |snapshot| has(snapshot, "later"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn reliability_f28_half_a_stream_is_no_list() {
    let server = Server::default();
    server.stream_lists(Some(3));
    for name in ["a", "b", "c", "d", "e"] {
        server.put(SERVICES, service(name));
    }
    let mut running = Running::start(&server);
    running.until("synced", |snapshot| snapshot.synced).await;
    assert_eq!(running.services(), 5, "all at once, from a list");
    assert_eq!(running.reader.load().generation, 1);
    assert_eq!(running.lists(SERVICES), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_panics_starts_over() {
    let server = Server::default();
    server.put(SERVICES, service("web"));
    let (sender, mut changes) = mpsc::channel(16);
    let staleness = Staleness::default();
    let is_first = AtomicBool::new(true);
    let follower = Follower {
        client: server.client(),
        source: Source::all::<Service>("Service"),
        contact: staleness.add("Service"),
        read: move |_: &ObjectKey, _: Service, _: &mut Names| {
            assert!(!is_first.swap(false, Ordering::Relaxed), "panic on purpose");
            Some(())
        },
        wrap: Change::Namespaces,
        sender,
        names: Names::default(),
    };
    let task = tokio::spawn(follower.run());
    loop {
        match timeout(LONG, changes.recv()).await.unwrap().unwrap() {
            Change::Namespaces(Delta::ListBegin) => {}
            Change::Namespaces(Delta::Page(listed)) => break assert_eq!(listed.len(), 1),
            other => panic!("{other:?}"),
        }
    }
    task.abort();
}

#[test]
fn refusals_say_what_to_do() {
    let source = Source::all::<EndpointSlice>("EndpointSlice");
    let initializing = "storage is (re)initializing";
    for (code, message, advice, is_ordinary) in [
        (
            403,
            "no",
            "the account needs the verbs `list` and `watch` on `endpointslices.discovery.k8s.io`: add them to its ClusterRole or Role",
            false,
        ),
        (
            401,
            "no",
            "the credentials are not accepted: they may have expired or been revoked",
            false,
        ),
        (
            404,
            "no",
            "the API server does not serve `endpointslices.discovery.k8s.io`",
            true,
        ),
        (
            429,
            initializing,
            "the API server does not serve `endpointslices.discovery.k8s.io` yet",
            true,
        ),
        (429, &format!("{initializing}: etcd is down"), "", false),
        (429, "too many requests", "", false),
        (500, "no", "", false),
    ] {
        let status = Status::failure(message, "Test").with_code(code);
        let error = FollowError::refused(status, None);
        assert_eq!(error.advice(&source), advice, "{code} {message}");
        assert_eq!(error.is_ordinary(), is_ordinary, "{code} {message}");
    }
}
