//! Names that hosts have besides those of their rules, and the Service's own address, on the wire.

use sealane_proxy::testing::{Origin, RawClient, RawResponse};
use serde_json::{Value, json};

use crate::certificates::{Authority, Client};
use crate::manifests::{Manifests, NGINX};
use crate::support::{Edge, on_worker};

async fn get(edge: &Edge, host: &str, target: &str) -> RawResponse {
    let mut client = RawClient::connect(edge.http).await;
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    client.send(head).await;
    client.response().await
}

/// An Ingress for `shop.test` with one annotation, TLS by the Secret `tls`, and no redirect to HTTPS.
fn ingress(annotation: &str, value: &str) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    json!({
        "metadata": {"name": "it", "namespace": "default", "annotations": {
            format!("{NGINX}/{annotation}"): value,
            format!("{NGINX}/ssl-redirect"): "false",
        }},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": ["shop.test"], "secretName": "tls"}],
            "rules": [{"host": "shop.test", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": backend}
            ]}}],
        },
    })
}

/// Gives the Secret `tls` a certificate for these names.
fn certify(manifests: &mut Manifests, names: &[&str]) {
    let made = Authority::new("authority").vouch_as("shop", |params| {
        let names = names.iter().map(|name| (*name).try_into().unwrap());
        params.subject_alt_names = names.map(rcgen::SanType::DnsName).collect();
    });
    let data = [("tls.crt", &*made.pem), ("tls.key", &*made.key)];
    manifests.secret("tls", Some(&data));
}

/// The names in the certificate that a client for `name` is shown.
async fn shown(edge: &Edge, name: &str) -> bool {
    let stream = Client::new(None).connect(edge, name, b"http/1.1").await;
    let stream = stream.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let shown = rustls::server::ParsedCertificate::try_from(&chain[0]).unwrap();
    rustls::client::verify_server_name(&shown, &name).is_ok()
}

#[tokio::test]
async fn ingress_a13_www_is_sent_to_the_name_without_over_http_and_https() {
    on_worker(Box::pin(async {
        let (mut edge, mut manifests) = (Edge::new().await, Manifests::compat());
        let web = Origin::named("web").await;
        manifests.service("web", web.addr);
        manifests.object(ingress("from-to-www-redirect", "true"));
        certify(&mut manifests, &["shop.test", "www.shop.test"]);
        manifests.publish(&mut edge);
        for (host, target, location) in [
            ("www.shop.test", "/", "http://shop.test/"),
            (
                "WWW.shop.test:8080",
                "/a/?b=c",
                "http://shop.test:8080/a/?b=c",
            ),
        ] {
            let answer = get(&edge, host, target).await;
            assert_eq!(answer.status, 308, "{host}");
            assert_eq!(answer.header("location"), location);
        }
        assert!(shown(&edge, "www.shop.test").await);
        let client = Client::new(None);
        let answer = client.get(&edge, "www.shop.test", "www.shop.test").await;
        assert_eq!(answer.status, 308, "{}", answer.text);
        assert!(
            answer.text.contains("location: https://shop.test/\r\n"),
            "{}",
            answer.text
        );
        assert_eq!(get(&edge, "shop.test", "/").await.text(), "web");
        assert_eq!(get(&edge, "www.www.shop.test", "/").await.status, 404);
        // With rules of its own it is served by them.
        let paths = [("Prefix", "/", "web")];
        manifests.ingress(
            "other",
            &[("ssl-redirect", "false")],
            "www.shop.test",
            &paths,
        );
        manifests.publish(&mut edge);
        assert_eq!(get(&edge, "www.shop.test", "/").await.text(), "web");
    }))
    .await;
}

#[tokio::test]
async fn ingress_a14_an_alias_is_served_over_http_and_https() {
    on_worker(Box::pin(async {
        let (mut edge, mut manifests) = (Edge::new().await, Manifests::compat());
        let web = Origin::named("web").await;
        manifests.service("web", web.addr);
        manifests.object(ingress("server-alias", "other.test, bare.test"));
        certify(&mut manifests, &["shop.test", "other.test"]);
        manifests.publish(&mut edge);
        for name in ["shop.test", "other.test", "bare.test"] {
            let answer = get(&edge, name, "/").await;
            assert_eq!((answer.status, answer.text()), (200, "web"), "{name}");
            let answer = Client::new(None).get(&edge, name, name).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.text);
            let is_covered = name != "bare.test";
            assert_eq!(shown(&edge, name).await, is_covered, "{name}");
        }
        assert_eq!(get(&edge, "no.test", "/").await.status, 404);
    }))
    .await;
}

#[tokio::test]
async fn ingress_a14_a_service_upstream_gets_requests_at_its_own_address() {
    on_worker(Box::pin(async {
        let (mut edge, mut manifests) = (Edge::new().await, Manifests::new());
        let (own, pod) = (Origin::named("own").await, Origin::named("pod").await);
        manifests.service_at("web", own.addr, pod.addr);
        for (value, text) in [("true", "own"), ("false", "pod")] {
            let mut object = ingress("service-upstream", value);
            let port = &mut object["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
            port["port"]["number"] = json!(own.addr.port());
            manifests.object(object);
            manifests.publish(&mut edge);
            for _ in 0..5 {
                assert_eq!(get(&edge, "shop.test", "/").await.text(), text, "{value}");
            }
        }
        // If nothing is there, the endpoints do not take its place.
        let gone = own.addr;
        own.kill().await;
        let mut object = ingress("service-upstream", "true");
        let port = &mut object["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
        port["port"]["number"] = json!(gone.port());
        manifests.object(object);
        manifests.publish(&mut edge);
        let before = pod.hits();
        assert_eq!(get(&edge, "shop.test", "/").await.status, 502);
        assert_eq!(pod.hits(), before);
    }))
    .await;
}
