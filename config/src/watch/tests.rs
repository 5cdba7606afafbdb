//! The whole state path against an API server in memory, in paused time: what is waited for here
//! takes none.

mod custom;
mod forms;
mod outages;
mod server;

use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::server::{
    CLASSES, CONFIG_MAPS, Fault, INGRESSES, NAMESPACES, PODS, SECRETS, SERVICES, SLICES, Seen,
    Server,
};
use super::{IngressWatch, WatchOptions, run};
use crate::compile::{Change, Delta, Names, ObjectKey};
use crate::defaults::{BATCH_WINDOW, CERTIFICATE_WAIT, COUNT_PERIOD, LIST_PAGE, SLICE_MOVE_GRACE};
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
    let all = [SERVICES, SLICES, NAMESPACES, INGRESSES, CLASSES, PODS];
    let verified = WatchOptions {
        pods: true,
        ..WatchOptions::names_only()
    };
    let gateway = WatchOptions {
        ingress: Some(IngressWatch::default()),
        ..WatchOptions::services_only()
    };
    for (mode, options, used) in [
        ("node", WatchOptions::services_only(), &all[..2]),
        ("dns", WatchOptions::names_only(), &all[..3]),
        (
            "dns with pods",
            verified,
            &[SERVICES, SLICES, NAMESPACES, PODS],
        ),
        ("gateway", gateway, &[SERVICES, SLICES, INGRESSES, CLASSES]),
        ("up", WatchOptions::default(), &all[..5]),
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
async fn ingress_a21_the_settings_are_watched_by_name_and_in_force_from_the_start() {
    let map = |name: &str, status: &str| json!({"metadata": {"name": name, "namespace": "shop"}, "data": {"http-redirect-code": status}});
    let server = Server::default();
    server.put(CONFIG_MAPS, map("settings", "307"));
    server.put(CONFIG_MAPS, map("unrelated", "301"));
    let options = || WatchOptions {
        ingress: Some(IngressWatch {
            config_map: Some(ObjectKey::new("shop", "settings")),
            ..IngressWatch::default()
        }),
        ..WatchOptions::default()
    };
    let mut running = Running::with(&server, options());
    let status = |snapshot: &Snapshot| snapshot.gateway.redirect_status;
    let first = running.until("synced", |snapshot| snapshot.synced).await;
    assert!(first < CERTIFICATE_WAIT, "{first:?}");
    assert_eq!(status(&running.reader.load()), 307);
    server.put(CONFIG_MAPS, map("settings", "302"));
    let took = running.until("changed", |s| status(s) == 302).await;
    assert!(took <= BATCH_WINDOW * 2, "{took:?}");
    let asked = server.seen(CONFIG_MAPS);
    let by_name = |seen: &Seen| {
        let selector = seen.query.get("fieldSelector");
        selector.is_some_and(|s| s == "metadata.name=settings")
    };
    assert!(!asked.is_empty() && asked.iter().all(by_name), "{asked:?}");
    // One that cannot be read does not hold up the start for long.
    let server = Server::default();
    server.fault(CONFIG_MAPS, Some(Fault::Status(403)));
    let mut running = Running::with(&server, options());
    let waited = running.until("started", |snapshot| snapshot.synced).await;
    assert!(waited >= CERTIFICATE_WAIT, "{waited:?}");
    assert_eq!(status(&running.reader.load()), 308);
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
        endpoints.map(|e| e.addr.ip().to_string()).collect()
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
