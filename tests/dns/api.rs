//! What tests write to an API server.

use std::time::Duration;

use http::Request;
use http::header::CONTENT_TYPE;
use kube::Client;
use serde_json::{Value, json};

use crate::support::DEADLINE;

/// Writes objects.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates an object.
    pub(crate) async fn create(&self, object: &Value) -> Value {
        let path = collection(object);
        self.send("POST", &path, Some(object)).await
    }

    /// Replaces the status of a pod.
    pub(crate) async fn pod_status(&self, namespace: &str, name: &str, status: &Value) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
        let patch = json!({"status": status});
        self.send("PATCH", &path, Some(&patch)).await;
    }

    /// Replaces an object that was created before.
    pub(crate) async fn replace(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let path = format!("{}/{name}", collection(object));
        self.send("PUT", &path, Some(object)).await;
    }

    /// Reads anything.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.send("GET", path, None).await
    }

    /// Deletes anything.
    pub(crate) async fn delete(&self, path: &str) {
        self.send("DELETE", path, None).await;
    }

    /// Reads until it is as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            let seen = self.get(path).await;
            if wanted(&seen) {
                return seen;
            }
            assert!(tokio::time::Instant::now() < end, "{path}: {seen:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
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

fn collection(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("default").to_owned();
    let namespace = text(&object["metadata"]["namespace"]);
    match object["kind"].as_str() {
        Some("Node") => "/api/v1/nodes".to_owned(),
        Some("Namespace") => "/api/v1/namespaces".to_owned(),
        Some("Service") => format!("/api/v1/namespaces/{namespace}/services"),
        Some("Pod") => format!("/api/v1/namespaces/{namespace}/pods"),
        Some("EndpointSlice") => {
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
        }
        other => panic!("no test writes a {other:?}"),
    }
}
