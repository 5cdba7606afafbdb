//! The least OpenAPI v3 that kubectl needs (K3): per group and version, which kinds can be patched
//! and that `fieldValidation` is understood. With it `apply`, `create`, `replace` and `edit` work;
//! without schemas kubectl merges with the types it has built in. `explain` needs schemas.

use http::header::{CACHE_CONTROL, ETAG};
use http::{HeaderValue, Response};
use serde_json::{Map, Value, json};

use super::body::ApiBody;
use super::discovery::checksum;
use super::kinds::{self, RESOURCES, Resource};
use super::server::json_response;
use super::status::ApiError;

/// `GET /openapi/v3`
pub(super) fn index() -> Result<Response<ApiBody>, ApiError> {
    let mut paths = Map::new();
    for (group, versions) in kinds::groups() {
        for version in versions {
            let path = prefix(group, version);
            let path = path.trim_start_matches('/');
            let hash = checksum(content(group, version).to_string().as_bytes());
            let url = format!("/openapi/v3/{path}?hash={hash:016X}");
            paths.insert(path.to_owned(), json!({"serverRelativeURL": url}));
        }
    }
    Ok(json_response(200, &json!({"paths": paths})))
}

/// `GET /openapi/v3/api/v1` and `GET /openapi/v3/apis/GROUP/VERSION`
pub(super) fn document(group: &str, version: &str) -> Result<Response<ApiBody>, ApiError> {
    let content = content(group, version);
    let etag = format!("\"{:016X}\"", checksum(content.to_string().as_bytes()));
    let mut response = json_response(200, &content);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    Ok(response)
}

fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

fn content(group: &str, version: &str) -> Value {
    let paths: Map<String, Value> = RESOURCES
        .iter()
        .filter(|row| row.group == group && row.version == version)
        .map(path_item)
        .collect();
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.34.4"},
        "paths": paths,
    })
}

fn path_item(row: &Resource) -> (String, Value) {
    let namespace = if row.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let path = format!(
        "{}{namespace}/{}/{{name}}",
        prefix(row.group, row.version),
        row.plural
    );
    let parameter = |name: &str| {
        json!({
            "name": name,
            "in": "query",
            "schema": {"type": "string", "uniqueItems": true},
        })
    };
    let item = json!({
        "patch": {
            "parameters": [
                parameter("dryRun"),
                parameter("fieldManager"),
                parameter("fieldValidation"),
            ],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": {
                "group": row.group,
                "version": row.version,
                "kind": row.kind,
            },
        },
    });
    (path, item)
}
