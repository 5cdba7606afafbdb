//! Who starts first: our modes before the API server.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use crate::modes::{HOST, shop};
use crate::support::has;
use crate::support::mode::{Kubernetes, Mode, get};

#[tokio::test(flavor = "multi_thread")]
async fn reliability_f26_nobody_is_ready_before_the_api_server_was_heard() {
    if !has("dig") {
        return;
    }
    let Some(mut kubernetes) = Kubernetes::start().await else {
        return;
    };
    let accounts = [
        kubernetes.deploy("gateway").await,
        kubernetes.deploy("dns").await,
    ];
    // Without an endpoint a request that is routed gets 503, and no 404.
    let [service, _, ingress] = shop(Ipv4Addr::UNSPECIFIED);
    kubernetes.apply(&[service, ingress]);
    kubernetes.plane.kill_api_server();
    let gateway = Mode::start(
        None,
        &accounts[0],
        &["gateway", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"],
    );
    let dns = Mode::start(None, &accounts[1], &["dns", "--dns", "127.0.0.1:0"]);
    let name = "nobody.default.svc.cluster.local";
    let ask = || {
        let addr = dns.address("dns");
        let mut dig = Command::new("dig");
        dig.arg(format!("@{}", addr.ip()))
            .args(["-p", &addr.port().to_string(), name]);
        let output = dig.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // For as long as it takes, which here is a while.
    for _ in 0..5 {
        for mode in [&gateway, &dns] {
            let (status, pending) = mode.admin(None, "/readyz");
            assert_eq!(status, 503, "{pending}");
            assert_eq!(mode.admin(None, "/livez").0, 200);
        }
        let answer = ask();
        assert!(answer.contains("SERVFAIL"), "{answer}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    kubernetes.plane.start_api_server().await.unwrap();
    for mode in [&gateway, &dns] {
        mode.ready(None).await;
    }
    let answer = ask();
    assert!(answer.contains("NXDOMAIN"), "{answer}");
    // Ready means that the rule is there.
    let (status, answer) = get(gateway.address("http"), HOST, "/").unwrap();
    assert_eq!(status, 503, "{answer}");
}
