//! h2spec against each server side of HTTP/2 (proxy T4, reliability B12).

use std::net::SocketAddr;

use sealane_config::model::AppProtocol;
use sealane_proxy::testing::Origin;
use sealane_test_peers::{Front, h2spec};
use tokio::net::TcpStream;

/// A port that is open to both versions of HTTP takes whatever is not HTTP/2's preface for an attempt
/// at HTTP/1.1, and says so in that language; the suite would rather see the connection closed
/// without a word. Nginx, HAProxy and hyper have the same one.
const FALLS_BACK: &str = "http2/3.5: Sends invalid connection preface";

/// Runs the suite; all but `known` have to pass.
async fn run(known: &[&str], protocol: AppProtocol, server: impl Fn(&Front) -> (SocketAddr, bool)) {
    let program = tokio::task::spawn_blocking(h2spec::program).await.unwrap();
    let Some(program) = program.unwrap() else {
        let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
        let reason = "Go is not installed, which builds h2spec";
        assert!(!required, "required, but {reason}");
        eprintln!("skipped: {reason}");
        return;
    };
    let origin = Origin::named("hello from an endpoint").await;
    let mut front = Front::start();
    front.service(protocol, &[origin.addr]);
    let (server, tls) = server(&front);
    while TcpStream::connect(server).await.is_err() {}
    let run = tokio::task::spawn_blocking(move || h2spec::run(&program, server, tls));
    let report = run.await.unwrap().unwrap();
    assert_eq!(report.cases, h2spec::CASES, "{report:?}");
    let failed: Vec<&str> = report.failed.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(failed, known, "{:#?}", report.failed);
}

#[tokio::test]
async fn reliability_b12_proxy_t4_h2spec_on_the_gateways_tls_listener() {
    run(&[], AppProtocol::Detect, |front| (front.https, true)).await;
}

#[tokio::test]
async fn proxy_t4_h2spec_on_the_gateways_plain_listener() {
    run(&[FALLS_BACK], AppProtocol::Detect, |front| {
        (front.http, false)
    })
    .await;
}

#[tokio::test]
async fn proxy_t4_h2spec_through_the_node_proxy() {
    run(&[FALLS_BACK], AppProtocol::Detect, |front| {
        (front.vip, false)
    })
    .await;
}

#[tokio::test]
async fn proxy_t4_s26_h2spec_through_the_node_proxy_where_http2_is_declared() {
    run(&[FALLS_BACK], AppProtocol::Http2, |front| {
        (front.vip, false)
    })
    .await;
}
