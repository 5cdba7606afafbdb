//! The API server that the nodes get their state from, and what a test writes to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use http::Request;
use http::header::CONTENT_TYPE;
use kube::Client;
use sealane_cluster::api::credentials::Credentials;
use sealane_cluster::api::{self, ApiOptions, ApiServer, Store};
use sealane_test_kubernetes::{ControlPlane, Options, Unavailable};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::net::SERVICE_CIDRS;
use crate::support::cluster::ControlPlane as Kind;
use crate::support::skip;

/// Where the nodes find the API server: on loopback addresses of their own, from where a relay leads
/// to it.
pub(super) const WITHIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);

/// An API server without controllers: only what a test writes is there.
pub(super) struct Api {
    client: Client,
    server: Server,
    /// For the nodes.
    pub(super) kubeconfig: PathBuf,
}

enum Server {
    Kubernetes(Box<ControlPlane>),
    Embedded {
        addr: SocketAddr,
        _directory: TempDir,
        _serving: DropGuard,
    },
}

impl Api {
    /// Starts the kind that `SEALANE_TEST_API` asks for, if this machine can.
    pub(super) async fn start() -> Option<Self> {
        match Kind::asked() {
            Kind::Kubernetes => Self::kubernetes().await,
            Kind::Embedded => Some(Self::embedded().await),
        }
    }

    async fn kubernetes() -> Option<Self> {
        let options = Options {
            controllers: false,
            service_cidr: SERVICE_CIDRS.join(","),
            ..Options::default()
        };
        let plane = match ControlPlane::start(options).await {
            Ok(Ok(plane)) => plane,
            Ok(Err(Unavailable(reason))) => {
                skip(&reason);
                return None;
            }
            Err(error) => panic!("{error:#}"),
        };
        let user = plane.user("node-proxy", Some("system:masters")).unwrap();
        let server = format!("https://{WITHIN}");
        let kubeconfig = plane.write_kubeconfig_for(&server, "within", &user);
        Some(Self {
            client: plane.client(),
            kubeconfig: kubeconfig.unwrap(),
            server: Server::Kubernetes(Box::new(plane)),
        })
    }

    async fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::load_or_create(directory.path(), &[]).unwrap();
        let options = ApiOptions {
            service_cidr: SERVICE_CIDRS[0].parse().unwrap(),
            token: Some(credentials.token().to_owned()),
            ..ApiOptions::default()
        };
        let server = ApiServer::new(Store::ephemeral(), options);
        server.bootstrap().await.unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let url = format!("https://{WITHIN}");
        credentials.write_kubeconfig(&kubeconfig, &url).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let client = server.client();
        tokio::spawn(api::serve(
            listener,
            credentials.tls(),
            server,
            stop.clone(),
        ));
        Self {
            client,
            kubeconfig,
            server: Server::Embedded {
                addr,
                _directory: directory,
                _serving: stop.drop_guard(),
            },
        }
    }

    /// Its address, as the test sees it.
    pub(super) fn addr(&self) -> SocketAddr {
        match &self.server {
            Server::Kubernetes(plane) => plane.api_addr(),
            Server::Embedded { addr, .. } => *addr,
        }
    }

    /// Whether Services can have IPv6 addresses; the embedded cluster's are IPv4 only.
    pub(super) fn has_ipv6(&self) -> bool {
        matches!(self.server, Server::Kubernetes(_))
    }

    /// Creates an object, and returns it as it is now.
    pub(super) async fn create(&self, object: &Value) -> Value {
        let kind = object["kind"].as_str().unwrap();
        self.send("POST", &collection(kind), Some(object)).await
    }

    /// Changes an object by a merge patch (RFC 7386).
    pub(super) async fn patch(&self, kind: &str, name: &str, patch: &Value) -> Value {
        let path = format!("{}/{name}", collection(kind));
        self.send("PATCH", &path, Some(patch)).await
    }

    /// Deletes an object.
    pub(super) async fn delete(&self, kind: &str, name: &str) {
        let path = format!("{}/{name}", collection(kind));
        self.send("DELETE", &path, None).await;
    }

    /// Writes the addresses that a cloud's load balancer would have.
    pub(super) async fn balance(&self, service: &str, ips: &[String], mode: &str) {
        let ingress = ips.iter().map(|ip| json!({"ip": ip, "ipMode": mode}));
        let ingress: Vec<Value> = ingress.collect();
        let path = format!("{}/{service}/status", collection("Service"));
        let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        self.send("PATCH", &path, Some(&patch)).await;
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let content_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, content_type)
            .body(body.map_or_else(Vec::new, |body| body.to_string().into_bytes()));
        let answer = self.client.request(request.unwrap()).await;
        answer.unwrap_or_else(|error| panic!("{method} {path} {body:?}: {error}"))
    }
}

fn collection(kind: &str) -> String {
    let path = match kind {
        "Node" => "/api/v1/nodes",
        "Service" => "/api/v1/namespaces/default/services",
        "EndpointSlice" => "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        other => panic!("no test writes a {other}"),
    };
    path.to_owned()
}
