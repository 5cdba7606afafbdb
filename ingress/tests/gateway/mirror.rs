//! Copies of requests.

use std::future::pending;
use std::net::SocketAddr;

use sealane_proxy::testing::{Origin, Seen, eventually};

use crate::annotations::HOST;
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

/// A gateway in front of `web`, with an Ingress that has these annotations, and `copy` beside it.
async fn edge(annotations: &[(&str, &str)], web: &Origin, copy: SocketAddr) -> Edge {
    let mut edge = Edge::new().await;
    let mut manifests = Manifests::new();
    manifests.service("web", web.addr);
    manifests.service("copy", copy);
    manifests.ingress("site", annotations, HOST, &[("Prefix", "/", "web")]);
    manifests.publish(&mut edge);
    edge
}

const TARGET: (&str, &str) = ("mirror-target", "http://copy.default.svc$request_uri");

#[tokio::test]
async fn ingress_a17_a_copy_of_each_request_goes_to_another_service() {
    on_worker(Box::pin(async {
        let body = |seen: &Seen| seen.body.clone().unwrap_or_default();
        for (annotations, target, host, with_body) in [
            (&[TARGET][..], "/a?b=c", "copy.default.svc", true),
            (
                &[TARGET, ("mirror-host", "test.test")],
                "/a?b=c",
                "test.test",
                true,
            ),
            (
                &[("mirror-target", "http://copy.default:80/all?of=$uri")],
                "/all?of=/a",
                "copy.default:80",
                true,
            ),
            (
                &[TARGET, ("mirror-request-body", "off")],
                "/a?b=c",
                "copy.default.svc",
                false,
            ),
        ] {
            let (web, copy) = (Origin::named("web").await, Origin::named("copy").await);
            let edge = edge(annotations, &web, copy.addr).await;
            let mut client = edge.client().await;
            let head = format!("POST /a?b=c HTTP/1.1\r\nHost: {HOST}\r\nX-Own: 1\r\n");
            for framed in [
                "Content-Length: 4\r\n\r\nbody",
                "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            ] {
                client.send(format!("{head}{framed}")).await;
                let response = client.response().await;
                assert_eq!((response.status, response.text()), (200, "web"));
            }
            eventually("the copies are there", || copy.hits() == 2).await;
            for (seen, copied) in web.seen().iter().zip(copy.seen()) {
                assert_eq!(
                    (seen.target.as_str(), seen.header("host")),
                    ("/a?b=c", HOST)
                );
                assert_eq!(body(seen), "body");
                let got = (
                    copied.method.as_str(),
                    &*copied.target,
                    copied.header("host"),
                );
                assert_eq!(got, ("POST", target, host), "{annotations:?}");
                let expected = if with_body { "body" } else { "" };
                assert_eq!(body(&copied), expected, "{annotations:?}");
                for field in ["x-own", "x-request-id", "x-forwarded-for"] {
                    assert_eq!(copied.header(field), seen.header(field), "{field}");
                }
            }
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_a17_a_copy_neither_slows_nor_fails_its_request() {
    on_worker(Box::pin(async {
        const REQUESTS: usize = 100;
        let silent = || Origin::slow(|_| Box::pin(pending()));
        let web = Origin::named("web").await;
        let copy = silent().await;
        let edge_of_silent = edge(&[TARGET], &web, copy.addr).await;
        let mut client = edge_of_silent.client().await;
        for _ in 0..REQUESTS {
            assert_eq!(client.get(HOST, "/").await.status, 200);
        }
        eventually("copies are there", || copy.hits() > 0).await;
        assert!(copy.hits() < REQUESTS, "those that wait are bounded");

        // What is too long to be copied comes whole to where it is meant for.
        let long = "x".repeat(100_000);
        let length = long.len();
        let copy = Origin::named("copy").await;
        let edge_of_long = edge(&[TARGET], &web, copy.addr).await;
        let mut client = edge_of_long.client().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n{long}"
            ))
            .await;
        assert_eq!(client.response().await.status, 200);
        let seen = web.seen();
        let body = seen.last().and_then(|seen| seen.body.as_ref());
        assert_eq!(body.map(|body| body.len()), Some(length));
        assert_eq!(client.get(HOST, "/next").await.status, 200);
        eventually("the next one's copy is there", || copy.hits() == 1).await;
        assert_eq!(copy.seen()[0].target, "/next");

        // Nobody takes copies.
        let dead = copy.addr;
        copy.kill().await;
        for target in [TARGET.1, "http://gone.default", "http://evil.test"] {
            let edge = edge(&[("mirror-target", target)], &web, dead).await;
            let response = edge.client().await.get(HOST, "/").await;
            assert_eq!((response.status, response.text()), (200, "web"), "{target}");
        }
    }))
    .await;
}
