//! The whole state path against an API server in memory, in paused time: what is waited for here
//! takes none.

mod custom;
mod server;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::Status;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::server::{
    CLASSES, Fault, INGRESSES, NAMESPACES, SECRETS, SERVICES, SLICES, Seen, Server,
};
use super::failure::FollowError;
use super::follow::{Follower, Source};
use super::{IngressWatch, WatchOptions, run};
use crate::compile::{Change, Delta, Names, ObjectKey};
use crate::defaults::{BATCH_WINDOW, COUNT_PERIOD, LIST_PAGE, SLICE_MOVE_GRACE};
use crate::model::{ProblemKind, ServiceKey};
use crate::snapshot::channel;
use crate::staleness::Staleness;
use crate::{Reader, Snapshot};

/// Longer than any pause between attempts.
const LONG: Duration = Duration::from_secs(90);

struct Running {
    server: Server,
    reader: Reader,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(server: &Server) -> Self {
        Self::with(server, WatchOptions::default())
    }

    fn with(server: &Server, options: WatchOptions) -> Self {
        let (publisher, reader) = channel();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(server.client(), publisher, options, shutdown.clone()));
        Self {
            server: server.clone(),
            reader,
            shutdown,
            task,
        }
    }

    /// Starts and waits for the first snapshot.
    async fn synced(server: &Server) -> Self {
        let mut running = Self::start(server);
        running.until("synced", |snapshot| snapshot.synced).await;
        running
    }

    /// Waits until a snapshot is as it should be; returns how long that took.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Duration {
        let start = Instant::now();
        while !wanted(&self.reader.load()) {
            let change = timeout(LONG, self.reader.changed()).await;
            assert!(
                matches!(change, Ok(Some(_))),
                "{what}: {:?}",
                self.reader.load()
            );
        }
        start.elapsed()
    }

    fn services(&self) -> usize {
        self.reader.load().services.size()
    }

    fn lists(&self, path: &str) -> usize {
        let seen = self.server.seen(path);
        let is_list = |seen: &&Seen| !seen.is_watch() && !seen.is_count();
        seen.iter().filter(is_list).count()
    }

    fn counts(&self, path: &str) -> usize {
        let seen = self.server.seen(path);
        seen.iter().filter(|seen| seen.is_count()).count()
    }

    fn watches(&self, path: &str) -> Vec<Seen> {
        let seen = self.server.seen(path).into_iter();
        seen.filter(|seen| seen.is_watch() && !seen.is_stream())
            .collect()
    }
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}})
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({"metadata": {"name": name, "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
}

fn class() -> Value {
    json!({"metadata": {"name": "ours"}, "spec": {"controller": "sealane.dev/ingress"}})
}

fn ingress(secret: &str) -> Value {
    json!({"metadata": {"name": "it", "namespace": "shop"}, "spec": {
        "ingressClassName": "ours",
        "rules": [{"host": "shop.test", "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}],
        "tls": [{"hosts": ["shop.test"], "secretName": secret}]}})
}

fn secret(name: &str) -> Value {
    use base64::Engine as _;
    let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let made = rcgen::generate_simple_self_signed(vec!["shop.test".to_owned()]).unwrap();
    json!({"metadata": {"name": name, "namespace": "shop"}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": encode(made.cert.pem()), "tls.key": encode(made.signing_key.serialize_pem())}})
}

fn has(snapshot: &Snapshot, name: &str) -> bool {
    let key = ServiceKey {
        namespace: "shop".into(),
        name: name.into(),
    };
    snapshot.services.contains_key(&key)
}

fn certificate(snapshot: &Snapshot) -> Option<Vec<u8>> {
    let certificate = snapshot.certificates.find("shop.test")?;
    Some(certificate.key.cert[0].to_vec())
}

#[tokio::test(start_paused = true)]
async fn proxy_s25_nothing_before_everything_is_listed() {
    for path in [SERVICES, SLICES, NAMESPACES, INGRESSES, CLASSES] {
        let server = Server::default();
        server.put(SERVICES, service("web"));
        server.fault(path, Some(Fault::Status(503)));
        let mut running = Running::start(&server);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(running.reader.load().generation, 0, "{path}");
        server.fault(path, None);
        running.until(path, |snapshot| snapshot.synced).await;
        assert!(
            has(&running.reader.load(), "web"),
            "{path}: complete from the start"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_mode_asks_only_for_the_kinds_that_it_uses() {
    let all = [SERVICES, SLICES, NAMESPACES, INGRESSES, CLASSES];
    let dns = WatchOptions {
        namespaces: true,
        ..WatchOptions::services_only()
    };
    let gateway = WatchOptions {
        ingress: Some(IngressWatch::default()),
        ..WatchOptions::services_only()
    };
    for (mode, options, used) in [
        ("node", WatchOptions::services_only(), &all[..2]),
        ("dns", dns, &[SERVICES, SLICES, NAMESPACES]),
        ("gateway", gateway, &[SERVICES, SLICES, INGRESSES, CLASSES]),
        ("up", WatchOptions::default(), &all),
    ] {
        let server = Server::default();
        let mut running = Running::with(&server, options);
        running.until(mode, |snapshot| snapshot.synced).await;
        for path in all {
            let asked = !server.seen(path).is_empty();
            assert_eq!(asked, used.contains(&path), "{mode}: {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changes_are_published_within_the_batch_window() {
    let server = Server::default();
    let mut running = Running::synced(&server).await;
    server.put(SERVICES, service("web"));
    server.put(SLICES, slice("web-1", "web", &["10.1.0.1"]));
    let ready = |snapshot: &Snapshot| {
        let web = snapshot.services.values().next();
        web.is_some_and(|web| web.endpoints.len() == 1)
    };
    let took = running.until("added", ready).await;
    assert!(took <= BATCH_WINDOW * 2, "{took:?}");
    server.delete(SLICES, "shop", "web-1");
    let took = running
        .until("slice deleted", |snapshot| !ready(snapshot))
        .await;
    assert!(took <= SLICE_MOVE_GRACE + BATCH_WINDOW * 2, "{took:?}");
    server.delete(SERVICES, "shop", "web");
    running
        .until("deleted", |snapshot| !has(snapshot, "web"))
        .await;
    server.put(NAMESPACES, json!({"metadata": {"name": "shop"}}));
    running
        .until("namespace", |snapshot| {
            snapshot.namespaces.contains_key("shop")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_published_once() {
    let server = Server::default();
    let mut running = Running::synced(&server).await;
    let before = running.reader.load().generation;
    for index in 0..500 {
        server.put(SERVICES, service(&format!("s{index}")));
    }
    running
        .until("all", |snapshot| snapshot.services.size() == 500)
        .await;
    let published = running.reader.load().generation - before;
    assert!(published <= 2, "{published} publications");
}

#[tokio::test(start_paused = true)]
async fn events_that_change_nothing_are_not_published() {
    let server = Server::default();
    server.put(SERVICES, service("web"));
    let mut running = Running::synced(&server).await;
    let before = running.reader.load().generation;
    let mut annotated = service("web");
    annotated["metadata"]["annotations"] = json!({"touched": "yes"});
    server.put(SERVICES, annotated);
    server.send_gone(SERVICES);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(running.lists(SERVICES), 2);
    assert_eq!(running.reader.load().generation, before);
    server.put(SERVICES, service("other"));
    running
        .until("other", |snapshot| has(snapshot, "other"))
        .await;
    assert_eq!(running.reader.load().generation, before + 1);
}

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
    for (code, advice) in [
        (
            403,
            "the account needs the verbs `list` and `watch` on `endpointslices.discovery.k8s.io`: add them to its ClusterRole or Role",
        ),
        (
            401,
            "the credentials are not accepted: they may have expired or been revoked",
        ),
        (
            404,
            "the API server does not serve `endpointslices.discovery.k8s.io`",
        ),
        (500, ""),
    ] {
        let status = Status::failure("no", "Test").with_code(code);
        let error = FollowError::refused(status, None);
        assert_eq!(error.advice(&source), advice, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn watches_resume_where_they_were_and_bookmarks_count() {
    let server = Server::default();
    server.put(SERVICES, service("web"));
    let running = Running::synced(&server).await;
    sleep(Duration::from_secs(1)).await;
    server.bookmark(SERVICES);
    server.put(NAMESPACES, json!({"metadata": {"name": "shop"}}));
    server.bookmark(SERVICES);
    sleep(Duration::from_secs(120)).await;
    let watches = running.watches(SERVICES);
    assert!(
        (3..=4).contains(&watches.len()),
        "{} watches in two minutes",
        watches.len()
    );
    let first = &watches[0];
    assert_eq!(first.query["allowWatchBookmarks"], "true");
    assert_eq!(
        (
            &*first.query["resourceVersion"],
            &*watches[1].query["resourceVersion"]
        ),
        ("1", "4")
    );
    assert_eq!(running.lists(SERVICES), 1);
}

#[tokio::test(start_paused = true)]
async fn one_bad_object_does_not_spoil_the_list() {
    let server = Server::default();
    let bad = json!({"metadata": {"name": "bad", "namespace": "shop"}, "spec": {"ports": "none"}});
    server.put(SERVICES, bad);
    server.put(SERVICES, service("good"));
    let mut running = Running::synced(&server).await;
    let snapshot = std::sync::Arc::clone(&running.reader.load());
    assert!(has(&snapshot, "good") && !has(&snapshot, "bad"));
    assert_eq!(snapshot.problems.len(), 1);
    assert_eq!(
        snapshot.problems[0].to_owned().object.to_string(),
        "Service shop/bad"
    );
    server.put(SERVICES, service("bad"));
    running
        .until("mended", |snapshot| {
            has(snapshot, "bad") && snapshot.problems.is_empty()
        })
        .await;
    server.put(
        SERVICES,
        json!({"metadata": {"name": "bad", "namespace": "shop"}, "spec": 5}),
    );
    running
        .until("broken", |snapshot| !snapshot.problems.is_empty())
        .await;
    assert!(
        has(&running.reader.load(), "bad"),
        "its last good version stays"
    );
}

#[tokio::test(start_paused = true)]
async fn ingress_i20_secrets_are_watched_one_by_one_while_referred_to() {
    let server = Server::default();
    server.put(CLASSES, class());
    server.put(SERVICES, service("web"));
    server.put(INGRESSES, ingress("tls"));
    server.put(SECRETS, secret("tls"));
    server.put(SECRETS, secret("unrelated"));
    let mut running = Running::synced(&server).await;
    let first = certificate(&running.reader.load());
    assert!(first.is_some(), "the first snapshot has the certificate");
    server.put(SECRETS, secret("tls"));
    let took = running
        .until("rotated", |s| {
            certificate(s).is_some_and(|c| Some(c) != first)
        })
        .await;
    assert!(took <= BATCH_WINDOW * 2, "{took:?}");
    let secrets = server.seen("/api/v1/namespaces/shop/secrets");
    let by_name = |seen: &Seen| {
        seen.query
            .get("fieldSelector")
            .is_some_and(|s| s == "metadata.name=tls")
    };
    assert!(
        !secrets.is_empty() && secrets.iter().all(by_name),
        "{secrets:?}"
    );
    assert!(server.seen("/api/v1/secrets").is_empty());
    assert_eq!(server.open_watches(SECRETS), 1);
    server.delete(INGRESSES, "shop", "it");
    running
        .until("unreferenced", |snapshot| certificate(snapshot).is_none())
        .await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(server.open_watches(SECRETS), 0);
    server.put(INGRESSES, ingress("tls"));
    running
        .until("referenced again", |snapshot| {
            certificate(snapshot).is_some()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn ingress_i18_a_secret_that_cannot_be_read_does_not_hold_up_the_start() {
    let server = Server::default();
    server.put(CLASSES, class());
    server.put(SERVICES, service("web"));
    server.put(INGRESSES, ingress("tls"));
    server.fault(SECRETS, Some(Fault::Status(403)));
    let mut running = Running::start(&server);
    let took = running.until("synced", |snapshot| snapshot.synced).await;
    assert!(took <= Duration::from_secs(3), "{took:?}");
    server.fault(SECRETS, None);
    let missing = |snapshot: &Snapshot| {
        let kind = snapshot.problems.first().map(|problem| problem.kind);
        kind == Some(ProblemKind::MissingSecret)
    };
    running.until("known to be missing", missing).await;
    server.put(SECRETS, secret("tls"));
    running
        .until("there", |snapshot| certificate(snapshot).is_some())
        .await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_everything() {
    let server = Server::default();
    let mut running = Running::synced(&server).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(server.open_watches(SERVICES), 1);
    running.shutdown.cancel();
    timeout(LONG, &mut running.task).await.unwrap().unwrap();
    assert_eq!(running.reader.changed().await, None);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(server.open_watches(SERVICES), 0);
}

#[tokio::test(start_paused = true)]
async fn proxy_s13_the_own_node_is_watched_and_no_other() {
    const NODES: &str = "/api/v1/nodes";
    let node = |name: &str, zone: &str| json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}});
    let server = Server::default();
    server.put(NODES, node("here", "a"));
    server.put(NODES, node("there", "b"));
    server.put(SERVICES, service("web"));
    let mut hinted = slice("web-1", "web", &["10.1.0.1", "10.1.0.2"]);
    for (index, zone) in ["a", "b"].into_iter().enumerate() {
        hinted["endpoints"][index]["hints"] = json!({"forZones": [{"name": zone}]});
    }
    server.put(SLICES, hinted);
    let options = WatchOptions {
        node: Some("here".into()),
        ..WatchOptions::services_only()
    };
    let mut running = Running::with(&server, options);
    let chosen = |snapshot: &Snapshot| -> Vec<String> {
        let web = snapshot.services.values().next();
        let port = web.and_then(|web| web.ports.first());
        let endpoints = port.iter().flat_map(|port| port.endpoints.iter());
        endpoints.map(|e| e.addr.0.ip().to_string()).collect()
    };
    let first = running.until("first", |snapshot| snapshot.synced).await;
    assert_eq!(chosen(&running.reader.load()), ["10.1.0.1"], "{first:?}");
    server.put(NODES, node("there", "a"));
    server.put(NODES, node("here", "b"));
    running
        .until("moved", |snapshot| chosen(snapshot) == ["10.1.0.2"])
        .await;
    let seen = server.seen(NODES);
    let is_own = |seen: &Seen| {
        seen.query.get("fieldSelector").map(String::as_str) == Some("metadata.name=here")
    };
    assert!(!seen.is_empty() && seen.iter().all(is_own));
}
