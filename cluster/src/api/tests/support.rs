//! A server with its bootstrap objects and plain requests to it.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::api::{ApiBody, ApiOptions, ApiServer, Store};

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
    pub(super) json: Value,
}

impl Answer {
    pub(super) fn reason(&self) -> &str {
        self.json["reason"].as_str().unwrap_or_default()
    }

    pub(super) fn message(&self) -> &str {
        self.json["message"].as_str().unwrap_or_default()
    }

    pub(super) fn version(&self) -> &str {
        self.json["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
    }
}

pub(super) async fn server() -> ApiServer {
    server_with(ApiOptions::default()).await
}

pub(super) async fn server_with(options: ApiOptions) -> ApiServer {
    let server = ApiServer::new(Store::ephemeral(), options);
    server.bootstrap().await.expect("bootstrap succeeds");
    server
}

pub(super) async fn send(
    server: &ApiServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> http::Response<ApiBody> {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).expect("a method"))
        .uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    server.clone().respond(request).await
}

pub(super) async fn raw(
    server: &ApiServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let response = send(server, method, path, headers, body).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Answer {
        code: parts.status.as_u16(),
        headers: parts.headers,
        json: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    }
}

pub(super) async fn get(server: &ApiServer, path: &str) -> Answer {
    raw(server, "GET", path, &[], "").await
}

pub(super) async fn post(server: &ApiServer, path: &str, object: Value) -> Answer {
    raw(server, "POST", path, &[], object.to_string()).await
}

pub(super) async fn put(server: &ApiServer, path: &str, object: &Value) -> Answer {
    raw(server, "PUT", path, &[], object.to_string()).await
}

pub(super) async fn merge(server: &ApiServer, path: &str, patch: Value) -> Answer {
    patch_with(server, path, "application/merge-patch+json", patch).await
}

pub(super) async fn patch_with(
    server: &ApiServer,
    path: &str,
    media_type: &str,
    patch: Value,
) -> Answer {
    let headers = [("content-type", media_type)];
    raw(server, "PATCH", path, &headers, patch.to_string()).await
}

pub(super) async fn delete(server: &ApiServer, path: &str, options: Value) -> Answer {
    let body = if options.is_null() {
        String::new()
    } else {
        options.to_string()
    };
    raw(server, "DELETE", path, &[], body).await
}

pub(super) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(super) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(super) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

pub(super) fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

pub(super) fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
    })
}

pub(super) fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]},
            },
        },
    })
}

pub(super) fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}
