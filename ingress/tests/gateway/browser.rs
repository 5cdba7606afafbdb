//! A browser: a page, a WebSocket and calls to other origins, over TLS.

use std::convert::Infallible;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustix::process::{Pid, Signal, kill_process_group};
use sealane_proxy::testing::Origin;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

/// Names that Chromium has in distributions.
const PROGRAMS: [&str; 2] = ["chromium-headless-shell", "chromium"];

/// How long the browser may take: it starts slowly where much else runs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tells its origin what became of all that it tried.
const PAGE: &str = r#"<!doctype html><title>a page</title><script type="module">
const socket = () => new Promise((resolve) => {
    const socket = new WebSocket(`wss://${location.host}/socket`);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => { resolve(event.data); socket.close(); };
    socket.onerror = () => resolve("no WebSocket");
});
const call = async (host) => {
    const options = {method: "PUT", headers: {"content-type": "application/json"}, body: "{}"};
    options.credentials = "include";
    const response = await fetch(`https://${host}:${location.port}/data`, options);
    return `${response.status} ${await response.text()}`;
};
const refused = (error) => error.name;
const report = {
    title: document.title,
    socket: await socket(),
    open: await call("open.test").catch(refused),
    closed: await call("closed.test").catch(refused),
    protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol,
};
await fetch("/report", {method: "POST", body: JSON.stringify(report)});
</script>"#;

/// What a browser did to its origin.
#[derive(Default)]
struct Seen {
    report: Option<Value>,
    /// Method and target of each request.
    requests: Vec<String>,
}

/// The page, the data that it asks for, and a WebSocket that repeats what it is told.
async fn origin() -> (Origin, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = Arc::clone(&seen);
    let origin = Origin::raw(move |stream, _| {
        let seen = Arc::clone(&shared);
        Box::pin(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
            // How a connection ends is seen by the other side.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        })
    })
    .await;
    (origin, seen)
}

async fn answer(
    mut request: Request<Incoming>,
    seen: Arc<Mutex<Seen>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri().path());
    seen.lock().unwrap().requests.push(line);
    if let Some(key) = request.headers_mut().remove(SEC_WEBSOCKET_KEY) {
        tokio::spawn(repeat(request));
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
        return Ok(response.body(Full::default()).unwrap());
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = match (&method, &*path) {
        (&Method::GET, "/") => Response::builder()
            .header("content-type", "text/html")
            .body(Full::from(PAGE)),
        (&Method::PUT, "/data") => Response::builder().body(Full::from("data")),
        (&Method::POST, "/report") => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.lock().unwrap().report = Some(serde_json::from_slice(&body).unwrap());
            Response::builder().body(Full::default())
        }
        _ => Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Full::default()),
    };
    Ok(answer.unwrap())
}

async fn repeat(request: Request<Incoming>) {
    let stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() {
            socket.send(message).await.unwrap();
        }
    }
}

/// The browser, if it is installed. If not, the test says why it is skipped, or fails where
/// everything is required.
fn browser() -> Option<Command> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| {
        let mut paths = std::env::split_paths(&paths);
        paths.any(|path| path.join(program).is_file())
    };
    let found = PROGRAMS.into_iter().find(is_there);
    let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
    assert!(found.is_some() || !required, "required, but no Chromium");
    if found.is_none() {
        eprintln!("skipped: no Chromium");
    }
    found.map(Command::new)
}

/// A running browser. What is started may be a script around it, and it starts processes of its own:
/// all are in one process group, which ends with this.
struct Browser(Child);

impl Browser {
    async fn end(&mut self) {
        self.kill();
        self.0.wait().await.unwrap();
    }

    fn kill(&self) {
        let leader = self
            .0
            .id()
            .and_then(|id| Pid::from_raw(id.try_into().ok()?));
        if let Some(leader) = leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test]
async fn ingress_t4_a7_a_browser_gets_its_page_its_websocket_and_its_calls() {
    let Some(mut browser) = browser() else {
        return;
    };
    on_worker(async {
        let (origin, seen) = origin().await;
        let mut edge = Edge::new().await;
        let port = edge.https.port();
        let page = format!("https://page.test:{port}");
        let mut manifests = Manifests::new();
        manifests.service("web", origin.addr);
        let paths = [("Prefix", "/", "web")];
        manifests.ingress("page", &[], "page.test", &paths);
        let open = [("enable-cors", "true"), ("cors-allow-origin", &*page)];
        manifests.ingress("open", &open, "open.test", &paths);
        let closed = [
            ("enable-cors", "true"),
            ("cors-allow-origin", "https://else.test"),
        ];
        manifests.ingress("closed", &closed, "closed.test", &paths);
        manifests.publish(&mut edge);

        let profile = std::env::temp_dir().join(format!("sealane-browser-{port}"));
        let child = browser
            // Of the names in the world it knows loopback only.
            .args(["--headless", "--host-resolver-rules=MAP * 127.0.0.1"])
            .args([
                "--ignore-certificate-errors",
                "--no-sandbox",
                "--no-proxy-server",
            ])
            .args(["--disable-gpu", "--disable-background-networking"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(&page)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut child = Browser(child.unwrap());
        let report = async {
            loop {
                if let Some(report) = seen.lock().unwrap().report.take() {
                    return report;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let report = tokio::time::timeout(PATIENCE, report).await;
        child.end().await;
        let _ = std::fs::remove_dir_all(&profile);
        let requests = seen.lock().unwrap().requests.clone();
        let expected = json!({
            "title": "a page",
            "socket": "hello",
            "open": "200 data",
            // The gateway let it pass without leave, so the browser kept it from the page.
            "closed": "TypeError",
            "protocol": "h2",
        });
        assert_eq!(report.ok(), Some(expected), "{requests:?}");
        // The gateway answered the preflight by itself.
        let asked = |line: &str| requests.iter().filter(|one| *one == line).count();
        assert_eq!(asked("PUT /data"), 1, "{requests:?}");
        assert_eq!(asked("OPTIONS /data"), 1, "the closed one's: {requests:?}");
        assert_eq!(asked("GET /socket"), 1, "{requests:?}");
    })
    .await;
}
