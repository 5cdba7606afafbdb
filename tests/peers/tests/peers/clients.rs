//! Programs that others have written, as clients of the gateway: curl in every version of HTTP, wrk
//! and h2load.

use std::net::SocketAddr;
use std::process::Stdio;

use sealane_config::model::AppProtocol;
use sealane_proxy::testing::Origin;
use sealane_test_peers::{Front, HOST};
use tokio::process::Command;

use crate::installed;

const BODY: &str = "hello from an endpoint";

/// A gateway in front of an endpoint that says [`BODY`].
async fn served() -> (Front, Origin) {
    let origin = Origin::named(BODY).await;
    let mut front = Front::start();
    front.service(AppProtocol::Detect, &[origin.addr]);
    (front, origin)
}

/// Runs a program to its end, and returns what it wrote.
async fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {text}{complaints}");
    text
}

/// A URL, and how curl is told where that is.
fn url(scheme: &str, addr: SocketAddr) -> (String, String) {
    let port = addr.port();
    let url = format!("{scheme}://{HOST}:{port}/path?query");
    (url, format!("{HOST}:{port}:{}", addr.ip()))
}

#[tokio::test]
async fn ingress_t1_t2_curl_gets_its_answer_in_every_version_of_http() {
    if !installed("curl") {
        return;
    }
    let (front, origin) = served().await;
    // How many connections each request makes: the second shows whether the first one's is kept. With
    // prior knowledge curl 7.88 cannot use a connection again, whatever the server is.
    for (scheme, version, shown, connections) in [
        // curl's name for HTTP/1.0 is 1.
        ("http", "--http1.0", "1", &[1, 1][..]),
        ("http", "--http1.1", "1.1", &[1, 0]),
        ("http", "--http2-prior-knowledge", "2", &[1]),
        ("https", "--http1.0", "1", &[1, 1]),
        ("https", "--http1.1", "1.1", &[1, 0]),
        ("https", "--http2", "2", &[1, 0]),
    ] {
        let addr = if scheme == "http" {
            front.http
        } else {
            front.https
        };
        let (url, resolve) = url(scheme, addr);
        let write = "\n%{http_version} %{http_code} %{num_connects}\n";
        let mut arguments = vec!["-sSk", version, "--max-time", "20"];
        arguments.extend(["--resolve", &resolve, "-w", write]);
        arguments.extend(connections.iter().map(|_| &*url));
        let text = output("curl", &arguments).await;
        let answers = connections.iter();
        let answers = answers.map(|made| format!("{BODY}\n{shown} 200 {made}\n"));
        assert_eq!(text, answers.collect::<String>(), "{scheme} {version}");
        let seen = origin.seen();
        let last = seen.last().unwrap();
        assert_eq!(last.target, "/path?query", "{scheme} {version}");
        assert_eq!(last.header("x-forwarded-proto"), scheme);
    }
    // A body in each direction, of a length that is known beforehand and of one that is not.
    let (url, resolve) = url("https", front.https);
    for length in ["-HContent-Length: 5", "-HTransfer-Encoding: chunked"] {
        let arguments = [
            "-sSk",
            "--http1.1",
            "--resolve",
            &resolve,
            length,
            "-d",
            "12345",
            &url,
        ];
        assert_eq!(output("curl", &arguments).await, BODY, "{length}");
        let seen = origin.seen();
        assert_eq!(seen.last().unwrap().body.as_deref(), Some(&b"12345"[..]));
    }
}

#[tokio::test]
async fn ingress_t1_wrk_gets_nothing_but_answers() {
    if !installed("wrk") {
        return;
    }
    let (front, origin) = served().await;
    for (scheme, addr) in [("http", front.http), ("https", front.https)] {
        let before = origin.hits();
        let host = format!("Host: {HOST}");
        let url = format!("{scheme}://{addr}/");
        let arguments = ["-t1", "-c16", "-d2s", "--timeout", "20s", "-H", &host, &url];
        let text = output("wrk", &arguments).await;
        assert!(!text.contains("Non-2xx"), "{text}");
        assert!(!text.contains("Socket errors"), "{text}");
        let requests = text
            .lines()
            .find_map(|line| line.split_once(" requests in "));
        let requests: usize = requests.unwrap().0.trim().parse().unwrap();
        assert!(requests > 16, "{text}");
        assert!(origin.hits() - before >= requests, "{text}");
    }
}

#[tokio::test]
async fn ingress_t2_h2load_gets_nothing_but_answers() {
    if !installed("h2load") {
        return;
    }
    let (front, origin) = served().await;
    for (scheme, addr) in [("http", front.http), ("https", front.https)] {
        let before = origin.hits();
        let url = format!("{scheme}://{addr}/");
        let arguments = ["-n600", "-c6", "-m20", "-T60", "-N60", &url];
        let text = output("h2load", &arguments).await;
        let outcome = "600 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(text.contains(outcome), "{text}");
        assert!(text.contains("status codes: 600 2xx"), "{text}");
        let protocol = if scheme == "http" { "h2c" } else { "h2" };
        let spoken = format!("Application protocol: {protocol}\n");
        assert!(text.contains(&spoken), "{text}");
        assert_eq!(origin.hits() - before, 600);
    }
}
