//! Connections that begin with a PROXY header.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sealane_config::model::{GatewaySettings, ProxyProtocol};
use sealane_proxy::testing::RawClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxies::{STRANGER, Site, TRUSTED, request, trusting};
use crate::support::on_worker;
use crate::tls::Client;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 8080\r\n";

/// The same client in version 2, with an extension.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\
    \xc0\x00\x02\x07\xc6\x33\x64\x01\x30\x39\x1f\x90\x04\x00\x01\x00";

/// A health check of the proxy's own.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn announced() -> GatewaySettings {
    GatewaySettings {
        proxy_protocol: ProxyProtocol {
            http: true,
            https: true,
        },
        ..trusting()
    }
}

async fn site() -> Site {
    Site::new(&[("denylist-source-range", "198.51.100.0/24")], announced()).await
}

/// A connection that begins so.
async fn begun(site: &Site, source: IpAddr, begin: &[u8]) -> RawClient {
    let mut client = RawClient::connect_from(source, site.edge.http).await;
    client.send(begin).await;
    client
}

#[tokio::test]
async fn ingress_t7_the_client_is_the_one_that_a_trusted_proxy_announces() {
    on_worker(Box::pin(async {
        let site = site().await;
        let port = site.edge.http.port().to_string();
        let fields = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https"];
        for (begin, client, to) in [
            (V1, "192.0.2.7", "8080"),
            (V2, "192.0.2.7", "8080"),
            (b"PROXY UNKNOWN\r\n", "6.6.6.6", &port),
            (LOCAL, "6.6.6.6", &port),
        ] {
            let mut announced = begun(&site, TRUSTED, begin).await;
            for request_no in 0..2 {
                announced.send(request(&fields)).await;
                assert_eq!(announced.response().await.status, 200);
                let seen = site.last();
                let told = ["x-real-ip", "x-forwarded-port"].map(|name| seen.header(name));
                assert_eq!(told, [client, to], "{begin:?} {request_no}");
            }
        }
        // Behind the proxy is somebody who is not trusted, whatever fields are sent.
        let mut client = begun(&site, TRUSTED, V1).await;
        client.send(request(&fields)).await;
        client.response().await;
        let seen = site.last();
        assert_eq!(seen.header("x-forwarded-for"), "192.0.2.7");
        assert_eq!(seen.header("x-forwarded-proto"), "http");
    }))
    .await;
}

#[tokio::test]
async fn ingress_t7_each_listener_has_a_switch_of_its_own() {
    on_worker(Box::pin(async {
        for (http, https) in [(true, false), (false, true)] {
            let mut site = site().await;
            site.set(GatewaySettings {
                proxy_protocol: ProxyProtocol { http, https },
                ..trusting()
            });
            // Without a header, which one of them does not ask for.
            let mut client = begun(&site, TRUSTED, request(&[]).as_bytes()).await;
            let answer = client.try_response(false).await;
            assert_eq!(answer.is_some(), !http, "{answer:?}");
            let session = RawClient::connect_from(TRUSTED, site.edge.https).await;
            let session = Client::new(&[])
                .over(session.into_stream(), "shop.test")
                .await;
            assert_eq!(session.is_ok(), !https);
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_t7_access_lists_look_at_the_announced_client() {
    on_worker(Box::pin(async {
        let site = site().await;
        for (client, status) in [("192.0.2.7", 200), ("198.51.100.9", 403)] {
            let header = format!("PROXY TCP4 {client} 203.0.113.1 1 80\r\n");
            let mut client = begun(&site, TRUSTED, header.as_bytes()).await;
            client.send(request(&[])).await;
            assert_eq!(client.response().await.status, status, "{header}");
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_t7_a_trusted_proxy_that_announces_nobody_is_not_served() {
    on_worker(Box::pin(async {
        let site = site().await;
        let request = request(&[]);
        let bad = [
            request.as_bytes(),
            b"PROXY TCP4 nobody 198.51.100.1 12345 443\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 12345 443\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
        ];
        for begin in bad {
            let mut client = begun(&site, TRUSTED, begin).await;
            client.send(&request).await;
            assert_eq!(client.closed().await, b"", "{begin:?}");
        }
        assert_eq!(site.origin.hits(), 0);
    }))
    .await;
}

#[tokio::test]
async fn ingress_t7_nobody_else_is_asked_for_a_header_or_believed_one() {
    on_worker(Box::pin(async {
        let mut site = site().await;
        let mut client = begun(&site, STRANGER, b"").await;
        client.send(request(&[])).await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(site.last().header("x-real-ip"), "127.0.0.3");
        for begin in [V1, V2] {
            let mut client = begun(&site, STRANGER, begin).await;
            client.send(request(&[])).await;
            let answer = client.try_response(false).await;
            assert!(answer.is_none_or(|answer| answer.status == 400));
        }
        // Nor is it on a listener that has none.
        site.set(trusting());
        let mut client = begun(&site, TRUSTED, b"").await;
        client.send(request(&[])).await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(site.origin.hits(), 2);
    }))
    .await;
}

#[tokio::test]
async fn ingress_t7_a_header_has_five_seconds() {
    on_worker(Box::pin(async {
        let site = site().await;
        let start = Instant::now();
        let mut silent = begun(&site, TRUSTED, b"").await;
        let mut slow = begun(&site, TRUSTED, &V1[..20]).await;
        let mut slow2 = begun(&site, TRUSTED, &V2[..20]).await;
        for client in [&mut silent, &mut slow, &mut slow2] {
            assert_eq!(client.closed().await, b"");
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(4_900), "{took:?}");
        assert!(took < Duration::from_secs(15), "{took:?}");
    }))
    .await;
}

#[tokio::test]
async fn ingress_t7_the_header_comes_before_tls() {
    on_worker(Box::pin(async {
        let site = site().await;
        for begin in [V1, V2] {
            let client = RawClient::connect_from(TRUSTED, site.edge.https).await;
            let mut stream = client.into_stream();
            stream.write_all(begin).await.unwrap();
            let session = Client::new(&[]).over(stream, "shop.test").await;
            let mut session = session.unwrap();
            let request = request(&["Connection: close"]);
            session.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            session.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let seen = site.last();
            assert_eq!(seen.header("x-real-ip"), "192.0.2.7");
            assert_eq!(seen.header("x-forwarded-proto"), "https");
        }
        let client = RawClient::connect_from(TRUSTED, site.edge.https).await;
        let session = Client::new(&[])
            .over(client.into_stream(), "shop.test")
            .await;
        assert!(session.is_err(), "TLS without a header");
    }))
    .await;
}
