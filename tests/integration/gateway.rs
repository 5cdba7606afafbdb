//! The example shop through the gateway.

use std::collections::BTreeMap;
use std::process::Command;

use http::{Method, StatusCode};

use crate::support::cluster::{Cluster, Options};
use crate::support::http::{Connection, get, get_tls};
use crate::support::{eventually, has, output, root, skip};

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
    // On a busy machine one replica may really be slower for a while, and then it gets less; and the
    // gateway may hear of the last one a moment after its pod is ready.
    eventually("an even spread", async || {
        let mut pods: BTreeMap<String, u32> = BTreeMap::new();
        let mut connection = Connection::open(cluster.http()).await?;
        for _ in 0..300 {
            let answer = connection.send(Method::GET, HOST, "/api").await?;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            *pods.entry(answer.pod()).or_default() += 1;
        }
        if pods.len() == 3 && pods.values().all(|count| *count <= 130) {
            return Ok(());
        }
        Err(format!("all three, 1.3 × its share at most: {pods:?}"))
    })
    .await;

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
async fn a_node_port_answers_on_the_host() {
    let cluster = Cluster::shop().await;
    let node_port = get("127.0.0.1:30080".parse().unwrap(), "localhost", "/").await;
    assert!(
        node_port.unwrap().pod().starts_with("api-"),
        "{}",
        cluster.log()
    );
}

/// What runs beside the cluster: a Service without a selector and a slice with its address.
const OUTSIDE: &str = "apiVersion: v1
kind: Service
metadata: {name: outside}
spec:
  ports: [{name: http, port: 80, targetPort: 9000}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: outside-1
  labels: {kubernetes.io/service-name: outside}
addressType: IPv4
endpoints: [{addresses: [10.200.0.2]}]
ports: [{name: http, port: 9000, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: outside}
spec:
  ingressClassName: nginx
  rules:
  - host: outside.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: outside, port: {name: http}}}}
";

#[test]
fn endpoints_by_hand_lead_to_what_runs_outside_the_cluster() {
    if !has("ip") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("only root can make a network namespace without further ado");
        return;
    }
    // The API refuses loopback addresses in slices, so the test has a host of its own: a network
    // namespace with one more address.
    let test = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        output(Command::new("ip").args(["link", "set", "lo", "up"]));
        output(Command::new("ip").args(["address", "add", "10.200.0.2/32", "dev", "lo"]));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let outside = tokio::net::TcpListener::bind("10.200.0.2:9000")
                .await
                .unwrap();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                while let Ok((mut stream, _)) = outside.accept().await {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\noutside";
                    let _ = stream.write_all(answer).await;
                }
            });
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("outside.yaml");
            std::fs::write(&file, OUTSIDE).unwrap();
            let file = file.to_str().unwrap();
            let cluster = Options::default().args(&["-f", file]).start().await;
            let answer = get(cluster.http(), "outside.example", "/x").await.unwrap();
            assert_eq!(answer.body, "outside", "{answer:?}");
        });
    });
    test.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_i21_kubectl_shows_where_an_ingress_is_reached_and_what_is_wrong() {
    if !has("kubectl") {
        return;
    }
    let cluster = Cluster::shop().await;
    eventually("the address", async || {
        let shown = cluster.kubectl_output(&["get", "ingress", "shop"]);
        let is_there = shown.contains("127.0.0.1");
        is_there.then_some(()).ok_or(shown)
    })
    .await;
    let rule = "--rule=broken.test/*=missing:80";
    cluster.kubectl_output(&["create", "ingress", "broken", rule, "--class=sealane"]);
    eventually("the Event", async || {
        let shown = cluster.kubectl_output(&["describe", "ingress", "broken"]);
        let is_there = shown.contains("MissingService") && shown.contains("default/missing");
        is_there.then_some(()).ok_or(shown)
    })
    .await;
}
