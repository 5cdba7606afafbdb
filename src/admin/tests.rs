//! The admin listener over a socket.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use sealane_config::model::{ObjectRef, Problem, ProblemKind};
use sealane_config::{Publisher, Snapshot, snapshot};
use sealane_proxy::admission::{Connections, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use super::listener::{CONNECTIONS, HEAD};
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
            metrics: recorder.handle().into(),
            connections: Connections::new(Limits::public()),
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
        ("/debug/config", 200, 404),
        ("/debug/endpoints?service=a/b", 200, 404),
        ("/debug/connections", 200, 404),
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
async fn pages_are_for_get_only() {
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

async fn change(addr: SocketAddr, line: &str, field: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\nhost: x\r\n{field}content-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    timeout(HEAD, read).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn proxy_o5_the_log_level_is_changed_from_this_machine_only() {
    let admin = Admin::start();
    crate::log::start("warn");
    let level = async || get(admin.all, "/debug/log").await;
    assert_eq!(level().await, (200, "warn\n".to_owned()));
    let status = |answer: &str| answer.split(' ').nth(1).unwrap().to_owned();
    for (name, field, body, want) in [
        ("levels", "", "warn,sealane=debug", "200"),
        ("nonsense", "", "sealane=loud", "400"),
        ("too long", "", &*"a".repeat(5000), "400"),
        (
            "another page",
            "origin: http://a.example\r\n",
            "trace",
            "403",
        ),
        (
            "another site",
            "sec-fetch-site: cross-site\r\n",
            "trace",
            "403",
        ),
    ] {
        let answer = change(admin.all, "PUT /debug/log", field, body).await;
        assert_eq!(status(&answer), want, "{name}: {answer}");
        let (_, level) = level().await;
        assert!(level.contains("sealane=debug"), "{name}: {level}");
    }
    let answer = change(admin.probes, "PUT /debug/log", "", "trace").await;
    assert_eq!(status(&answer), "405");
    for (line, want, allowed) in [
        ("GET /shutdown", "405", "POST"),
        ("PUT /shutdown", "405", "POST"),
        ("DELETE /debug/log", "405", "GET, PUT"),
    ] {
        let answer = change(admin.all, line, "", "").await;
        assert_eq!(status(&answer), want, "{line}");
        assert!(answer.contains(&format!("allow: {allowed}\r\n")), "{line}");
    }
    let elsewhere = change::may_change("192.0.2.1:9".parse().unwrap());
    let here = change::may_change("[::ffff:127.0.0.1]:9".parse().unwrap());
    assert_eq!((elsewhere, here), (false, true));
}

#[tokio::test]
async fn proxy_o4_metrics_are_compressed_and_in_open_metrics_on_request() {
    use std::io::Read as _;
    let recorder = PrometheusBuilder::new().build_recorder();
    ::metrics::with_local_recorder(&recorder, || {
        ::metrics::describe_counter!("requests_total", "Requests");
        ::metrics::counter!("requests_total", "code" => "2xx").increment(3);
        ::metrics::gauge!("open").set(1.0);
    });
    let handle = recorder.handle();
    let answer = |accept: &'static str, encoding: &'static str| {
        let value = |text| Some(HeaderValue::from_static(text));
        let wanted = Exposition::wanted(value(accept).as_ref(), value(encoding).as_ref());
        metrics::answer(&handle.clone().into(), wanted)
    };
    const PROMETHEUS: &str =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1";
    for (name, accept, encoding, open, compressed) in [
        ("nothing asked", "", "", false, false),
        ("curl", "*/*", "identity", false, false),
        ("Prometheus", PROMETHEUS, "gzip", true, true),
        (
            "refused",
            "application/openmetrics-text;q=0",
            "gzip;q=0",
            false,
            false,
        ),
        (
            "text first",
            "text/plain, application/openmetrics-text;q=0.5",
            "br, GZIP",
            false,
            true,
        ),
    ] {
        let answer = answer(accept, encoding);
        let headers = answer.headers().clone();
        let body = http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(
            headers.contains_key("content-encoding"),
            compressed,
            "{name}"
        );
        let mut text = String::new();
        if compressed {
            flate2::read::GzDecoder::new(&*body)
                .read_to_string(&mut text)
                .unwrap();
        } else {
            text = String::from_utf8(body.to_vec()).unwrap();
        }
        let media_type = headers["content-type"].to_str().unwrap();
        assert_eq!(
            media_type.starts_with("application/openmetrics-text"),
            open,
            "{name}"
        );
        assert!(
            text.contains("requests_total{code=\"2xx\"} 3\n"),
            "{name}: {text}"
        );
        let family = if open {
            "# TYPE requests counter\n"
        } else {
            "# TYPE requests_total counter\n"
        };
        assert!(text.contains(family), "{name}: {text}");
        assert_eq!(text.ends_with("# EOF\n"), open, "{name}: {text}");
        assert_eq!(text.contains("\n\n"), !open, "{name}: {text}");
    }
}
