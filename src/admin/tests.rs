//! The admin listener over a socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use sealane_config::model::{ObjectRef, Problem, ProblemKind};
use sealane_config::{Publisher, Snapshot, snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::DropGuard;

use super::*;
use crate::explain::Explainer;

struct Admin {
    all: SocketAddr,
    probes: SocketAddr,
    readiness: Readiness,
    publisher: Publisher,
    _stop: DropGuard,
}

impl Admin {
    fn start() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (publisher, reader) = snapshot::channel();
        let readiness = Readiness::default();
        let pages = Pages {
            mode: "gateway",
            readiness: readiness.clone(),
            explainer: Explainer {
                reader,
                dns: None,
                https_port: Some(443),
            },
            metrics: recorder.handle(),
        };
        let listen = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            (listener.local_addr().unwrap(), listener)
        };
        let ((all, for_all), (probes, for_probes)) = (listen(), listen());
        let stop = CancellationToken::new();
        let listeners = vec![(for_all, Scope::All), (for_probes, Scope::Probes)];
        tokio::spawn(serve(listeners, pages, stop.clone()));
        Self {
            all,
            probes,
            readiness,
            publisher,
            _stop: stop.drop_guard(),
        }
    }
}

/// Sends a request line and reads the whole answer: the connection is closed after one.
async fn ask(addr: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    timeout(HEAD, read).await.expect("an answer").unwrap();
    answer
}

async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let answer = ask(addr, &format!("GET {path}")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn proxy_o5_ready_when_nothing_is_pending_and_no_more_when_draining() {
    let admin = Admin::start();
    let ready = async || get(admin.all, "/readyz").await;
    let synced = admin.readiness.wait_for("state synced");
    let bound = [
        admin.readiness.wait_for("listeners bound"),
        admin.readiness.wait_for("listeners bound"),
    ];
    let both = "[-] listeners bound\n[-] state synced\n".to_owned();
    assert_eq!(ready().await, (503, both.clone()));
    let [first, second] = bound;
    drop(first);
    assert_eq!(ready().await, (503, both));
    drop(second);
    assert_eq!(ready().await, (503, "[-] state synced\n".to_owned()));
    assert_eq!(get(admin.all, "/livez").await, (200, "ok\n".to_owned()));
    drop(synced);
    for path in ["/readyz", "/ready"] {
        assert_eq!(get(admin.all, path).await, (200, "ok\n".to_owned()));
    }
    admin.readiness.drain();
    assert_eq!(ready().await, (503, "[-] draining\n".to_owned()));
    assert_eq!(get(admin.all, "/livez").await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn probes_see_no_more_than_they_need() {
    let admin = Admin::start();
    for (path, all, probes) in [
        ("/livez", 200, 200),
        ("/readyz", 200, 200),
        ("/metrics", 200, 200),
        ("/version", 200, 200),
        ("/debug/snapshot", 200, 404),
        ("/debug/explain?q=http://a/", 200, 404),
        ("/debug/explain", 400, 404),
        ("/debug/explain?q=a%20b", 400, 404),
        ("/debug/explain?q=a.example", 400, 404),
        ("/debug/explain?q=http://a/&x=y", 400, 404),
        ("/debug/", 404, 404),
        ("/", 404, 404),
        ("/livez/", 404, 404),
        ("//readyz", 404, 404),
    ] {
        assert_eq!(get(admin.all, path).await.0, all, "{path}");
        assert_eq!(get(admin.probes, path).await.0, probes, "{path}");
    }
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let admin = Admin::start();
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        let answer = ask(admin.all, &format!("{method} /readyz")).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
        assert!(answer.contains("allow: GET\r\n"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn connections_that_say_nothing_leave_room_for_probes() {
    let admin = Admin::start();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS - 1 {
        silent.push(TcpStream::connect(admin.all).await.unwrap());
    }
    assert_eq!(get(admin.all, "/livez").await.0, 200);
    silent.push(TcpStream::connect(admin.all).await.unwrap());
    let refused = timeout(Duration::from_millis(200), get(admin.all, "/livez")).await;
    assert!(refused.is_err(), "all places are taken: {refused:?}");
    drop(silent);
    assert_eq!(get(admin.all, "/livez").await.0, 200);
}

#[tokio::test]
async fn pages_hold_counts_and_no_contents() {
    const CANARY: &str = "s3cr3t-canary";
    let mut admin = Admin::start();
    let mut state = Snapshot {
        synced: true,
        problems: Arc::new([Problem {
            object: ObjectRef {
                kind: "Secret",
                namespace: "shop".into(),
                name: CANARY.into(),
            },
            field: CANARY.to_owned(),
            kind: ProblemKind::BadCertificate,
            message: CANARY.to_owned(),
        }]),
        ..Snapshot::default()
    };
    state.namespaces.insert_mut(CANARY.into(), ());
    admin.publisher.publish(state);
    let (_, text) = get(admin.all, "/debug/snapshot").await;
    let counts: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (field, expected) in [("generation", 1), ("namespaces", 1), ("services", 0)] {
        assert_eq!(counts[field], expected, "{field} of {text}");
    }
    assert_eq!(counts["problems"]["bad_certificate"], 1, "{text}");
    assert_eq!(counts["synced"], true, "{text}");
    for path in [
        "/debug/snapshot",
        "/metrics",
        "/readyz",
        "/version",
        "/debug/env",
    ] {
        let (_, page) = get(admin.all, path).await;
        assert!(!page.contains(CANARY), "{path}: {page}");
        assert!(!page.contains("CARGO"), "{path} shows the environment");
    }
}
