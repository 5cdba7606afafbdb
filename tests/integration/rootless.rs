//! The same without any privilege, and without namespaces.

use http::StatusCode;

use crate::support::cluster::Options;
use crate::support::has;
use crate::support::http::{get, get_tls};

const HOST: &str = "api.mycompany.com";

/// A user that owns nothing.
const NOBODY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_gets_the_whole_shop() {
    if !rustix::process::geteuid().is_root() {
        // Every other test runs as an ordinary user then.
        return;
    }
    if !has("setpriv") || !has("kubectl") || !has("curl") {
        return;
    }
    let mut cluster = Options::default()
        .user(NOBODY)
        .args(&["-f", "examples/shop"])
        .start()
        .await;
    cluster.assert_ready();
    let answer = get(cluster.http(), HOST, "/api").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let (answer, _) = get_tls(cluster.https(), HOST, HOST, "/docs", true)
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let pod = cluster.pods("app=docs").remove(0);
    let body = cluster.kubectl_output(&["exec", &pod, "--", "curl", "-sS", "http://api/"]);
    assert!(body.contains("\"pod\": \"api-"), "{body}");
    cluster.signal("TERM");
    let (took, status) = cluster.wait(std::time::Duration::from_secs(5));
    assert!(
        status.success(),
        "{status} after {took:?}\n{}",
        cluster.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_mode_needs_no_namespaces() {
    let cluster = Options::default()
        .args(&["-f", "examples/shop", "--pod-network", "loopback"])
        .start()
        .await;
    cluster.assert_ready();
    for path in ["/api", "/docs"] {
        let answer = get(cluster.http(), HOST, path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    // A Service on port 80 needs a listener there.
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first: u16 = first
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024);
    let may_bind = first <= 80 || rustix::process::geteuid().is_root();
    if may_bind && has("kubectl") {
        let service = cluster.get(&["service", "api"]);
        let vip = format!("{}:80", service["spec"]["clusterIP"].as_str().unwrap());
        let answer = get(vip.parse().unwrap(), "api", "/").await.unwrap();
        assert!(answer.pod().starts_with("api-"), "{answer:?}");
    }
}
