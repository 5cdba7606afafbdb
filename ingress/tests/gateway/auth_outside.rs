//! Asking a service outside of the cluster whether a request may pass.
//!
//! The names are numbers that the system's resolver reads as 127.0.0.1 without asking anybody.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sealane_config::model::{Authorities, ObjectRef};
use sealane_ingress::Outside;
use sealane_proxy::testing::{Origin, RawClient, RawResponse, status};

use crate::annotations::HOST;
use crate::certificates::Authority;
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};
use crate::upstream_tls::{Backend, named};

/// A name for 127.0.0.1 that a certificate can be for.
const NAME: &str = "127.0x1";

fn loopback(roots: Option<Arc<Authorities>>) -> Outside {
    Outside::new(&["127.0.0.0/8".parse().unwrap()], roots)
}

/// A gateway in front of `web`, that may ask these services.
async fn edge(outside: Outside, web: SocketAddr, url: &str) -> Edge {
    let mut edge = Edge::asking(outside).await;
    let mut manifests = Manifests::new();
    manifests.service("web", web);
    let paths = [("Prefix", "/", "web")];
    manifests.ingress("site", &[("auth-url", url)], HOST, &paths);
    manifests.publish(&mut edge);
    edge
}

async fn get(edge: &Edge, target: &str) -> RawResponse {
    RawClient::connect(edge.http).await.get(HOST, target).await
}

/// A service that says what it is asked for.
async fn judge() -> Origin {
    Origin::start(|seen| {
        let original = seen.header("x-original-uri").trim_start_matches('/');
        status(original.parse().unwrap_or(204))
    })
    .await
}

#[tokio::test]
async fn ingress_a8_a_host_outside_of_the_cluster_is_asked() {
    on_worker(Box::pin(async {
        let (web, judge) = (Origin::named("web").await, judge().await);
        let port = judge.addr.port();
        let url = format!("http://127.1:{port}/ask?from=$host");
        let edge = edge(loopback(None), web.addr, &url).await;
        for (target, expected) in [("/a", 200), ("/403", 403), ("/500", 500), ("/b", 200)] {
            assert_eq!(get(&edge, target).await.status, expected, "{target}");
        }
        assert_eq!(web.hits(), 2);
        let seen = judge.seen();
        assert_eq!(seen[0].target, "/ask?from=shop.test");
        assert_eq!(seen[0].header("host"), format!("127.1:{port}"));
        assert_eq!(seen[0].header("x-original-url"), "http://shop.test/a");
        let used: Vec<usize> = seen.iter().map(|seen| seen.connection).collect();
        assert_eq!(used, [0; 4], "the connection is kept");
        judge.kill().await;
        assert_eq!(get(&edge, "/a").await.status, 500);
    }))
    .await;
}

#[tokio::test]
async fn reliability_b19_services_outside_are_not_where_nobody_may_be_asked() {
    on_worker(Box::pin(async {
        let (web, judge) = (Origin::named("web").await, judge().await);
        let port = judge.addr.port();
        for name in ["127.1", "127.0.1", "0x7f.1", "0177.1"] {
            let url = format!("http://{name}:{port}/");
            let edge = edge(Outside::new(&[], None), web.addr, &url).await;
            let response = get(&edge, "/").await;
            let found = (response.status, response.header("sealane-error"));
            assert_eq!(found, (500, "auth_failed"), "{name}");
        }
        assert_eq!((web.hits(), judge.hits()), (0, 0));
    }))
    .await;
}

#[tokio::test]
async fn ingress_a8_a_host_outside_of_the_cluster_is_verified_or_not_asked() {
    on_worker(Box::pin(async {
        let (ours, other) = (Authority::new("Ours"), Authority::new("Other"));
        let der = CertificateDer::from_pem_slice(ours.pem.as_bytes()).unwrap();
        let source = ObjectRef {
            kind: "",
            namespace: "".into(),
            name: "roots".into(),
        };
        let provider = aws_lc_rs::default_provider();
        let roots = Authorities::new(source, &[der], &[], &provider).unwrap();
        let roots = Arc::new(roots);
        for (identity, expected) in [
            (ours.vouch_as("judge", named(NAME)), 200),
            (ours.vouch_as("judge", named("127.0x2")), 500),
            (other.vouch_as("judge", named(NAME)), 500),
        ] {
            let (web, judge) = (Origin::named("web").await, judge().await);
            let tls = Backend::new(judge.addr, &identity, &ours).await;
            let url = format!("https://{NAME}:{}/", tls.addr.port());
            let edge = edge(loopback(Some(Arc::clone(&roots))), web.addr, &url).await;
            assert_eq!(get(&edge, "/").await.status, expected);
            assert_eq!(get(&edge, "/").await.status, expected);
            let asked = if expected == 200 { 2 } else { 0 };
            assert_eq!((judge.hits(), web.hits()), (asked, asked));
            let sessions = tls.sessions.lock().unwrap();
            let names: Vec<_> = sessions.iter().map(|(name, ..)| name.as_deref()).collect();
            let expected = if expected == 200 {
                &[Some(NAME)][..]
            } else {
                &[]
            };
            assert_eq!(names, expected, "one session, for the name");
        }
        // With the platform's roots a certificate of our own is nobody's.
        let (web, judge) = (Origin::named("web").await, judge().await);
        let tls = Backend::new(judge.addr, &ours.vouch_as("judge", named(NAME)), &ours).await;
        let url = format!("https://{NAME}:{}/", tls.addr.port());
        let edge = edge(loopback(None), web.addr, &url).await;
        assert_eq!(get(&edge, "/").await.status, 500);
        assert_eq!(judge.hits(), 0);
    }))
    .await;
}
