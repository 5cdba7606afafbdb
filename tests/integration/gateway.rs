//! The example shop through the gateway.

use std::collections::BTreeMap;

use http::{Method, StatusCode};

use crate::support::cluster::{Cluster, Options};
use crate::support::http::{Connection, get, get_tls};
use crate::support::{eventually, root};

const HOST: &str = "api.mycompany.com";

/// The certificate of the example's Secret, in DER.
fn example_certificate() -> Vec<u8> {
    use base64::Engine as _;
    let text = std::fs::read_to_string(root().join("examples/shop/ingress.yaml")).unwrap();
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----").unwrap();
    let (body, _) = rest.split_once("-----END CERTIFICATE-----").unwrap();
    let body: String = body.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn shop_answers_over_http_and_https() {
    let cluster = Cluster::shop().await;
    for (path, pod) in [("/api", "api-"), ("/api/x?y=1", "api-"), ("/docs", "docs-")] {
        let answer = get(cluster.http(), HOST, path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        assert!(answer.pod().starts_with(pod), "{path}: {}", answer.pod());
        assert_eq!(answer.json()["path"], "/", "rewrite-target");
        for http2 in [false, true] {
            let (answer, shown) = get_tls(cluster.https(), HOST, HOST, path, http2)
                .await
                .unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
            assert!(answer.pod().starts_with(pod), "{path}: {}", answer.pod());
            assert_eq!(
                shown,
                example_certificate(),
                "the certificate of the Secret"
            );
        }
    }
    let (answer, shown) = get_tls(cluster.https(), "other.example", HOST, "/api", false)
        .await
        .unwrap();
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "SNI picks the certificate, Host the route"
    );
    assert_ne!(
        shown,
        example_certificate(),
        "the default certificate for an unknown name"
    );

    let unknown = get(cluster.http(), "unknown.example", "/api")
        .await
        .unwrap();
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let unknown = get(cluster.http(), HOST, "/elsewhere").await.unwrap();
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_spread_over_the_replicas_and_a_service_without_pods_is_503_with_a_reason() {
    let cluster = Cluster::shop().await;
    let mut pods: BTreeMap<String, u32> = BTreeMap::new();
    let mut connection = Connection::open(cluster.http()).await.unwrap();
    for _ in 0..300 {
        let answer = connection.send(Method::GET, HOST, "/api").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        *pods.entry(answer.pod()).or_default() += 1;
    }
    assert_eq!(pods.len(), 3, "{pods:?}");
    assert!(
        pods.values().all(|count| *count <= 130),
        "1.3 × its share at most: {pods:?}"
    );

    cluster.kubectl_output(&["scale", "deployment/docs", "--replicas=0"]);
    eventually("503 with a reason", async || {
        let answer = get(cluster.http(), HOST, "/docs").await?;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE
            && answer.headers.contains_key("sealane-error")
        {
            return Ok(());
        }
        Err(format!("{answer:?}"))
    })
    .await;
    assert_eq!(
        get(cluster.http(), HOST, "/api").await.unwrap().status,
        StatusCode::OK
    );
    cluster.kubectl_output(&["scale", "deployment/docs", "--replicas=1"]);
    eventually("served again", async || {
        let answer = get(cluster.http(), HOST, "/docs").await?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_port_answers_on_the_host_and_outside_endpoints_join_by_hand() {
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = outside.local_addr().unwrap().port();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = outside.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let answer =
                b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\noutside";
            let _ = stream.write_all(answer).await;
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("outside.yaml");
    let address = host_address();
    std::fs::write(
        &file,
        format!(
            "apiVersion: v1
kind: Service
metadata: {{name: outside}}
spec:
  ports: [{{name: http, port: 80, targetPort: {port}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: outside-1
  labels: {{kubernetes.io/service-name: outside}}
addressType: IPv4
endpoints: [{{addresses: [\"{address}\"]}}]
ports: [{{name: http, port: {port}, protocol: TCP}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: outside}}
spec:
  rules:
  - host: outside.example
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: outside, port: {{name: http}}}}}}}}
"
        ),
    )
    .unwrap();
    let cluster = Options::default()
        .args(&[
            "-f",
            "examples/shop/config.yaml",
            "-f",
            "examples/shop/api.yaml",
            "-f",
        ])
        .args(&[file.to_str().unwrap()])
        .start()
        .await;
    cluster.assert_ready();
    let node_port = get("127.0.0.1:30080".parse().unwrap(), "localhost", "/")
        .await
        .unwrap();
    assert!(node_port.pod().starts_with("api-"));
    if address == "127.0.0.1" {
        crate::support::skip("this machine has no address but loopback");
        return;
    }
    let answer = get(cluster.http(), "outside.example", "/x").await.unwrap();
    assert_eq!(&answer.body[..], b"outside", "{answer:?}");
}

/// An address of this machine that is not loopback: where the machine has a default route, the one
/// that it would use; nothing is sent.
fn host_address() -> String {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    match socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr())
    {
        Ok(addr) => addr.ip().to_string(),
        Err(_) => "127.0.0.1".to_owned(),
    }
}
