//! Discovery (T5): the aggregated form with an ETag, and the lists of old clients.

use std::sync::LazyLock;

use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::body::ApiBody;
use super::kinds::{self, RESOURCES, Resource};
use super::negotiate::{self, Format, Offer};
use super::server::{bytes_response, json_response};
use super::status::ApiError;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A document that does not change while the process runs.
struct Document {
    bytes: Vec<u8>,
    etag: HeaderValue,
}

impl Document {
    fn new(value: &Value) -> Self {
        let bytes = value.to_string().into_bytes();
        let etag = format!("\"{:016X}\"", checksum(&bytes));
        Self {
            bytes,
            etag: HeaderValue::from_str(&etag).expect("hexadecimal digits are valid"),
        }
    }
}

static CORE: LazyLock<Document> = LazyLock::new(|| Document::new(&aggregated(|g| g.is_empty())));
static GROUPS: LazyLock<Document> = LazyLock::new(|| Document::new(&aggregated(|g| !g.is_empty())));

/// FNV-1a: a stable name for a content, not a protection.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// `GET /api`
pub(super) fn core(parts: &Parts) -> Result<Response<ApiBody>, ApiError> {
    answer(parts, &CORE, || {
        json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })
    })
}

/// `GET /apis`
pub(super) fn groups(parts: &Parts) -> Result<Response<ApiBody>, ApiError> {
    answer(parts, &GROUPS, || {
        let groups: Vec<Value> = kinds::groups()
            .into_iter()
            .filter(|(group, _)| !group.is_empty())
            .map(|(group, versions)| api_group(group, &versions))
            .collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    })
}

fn answer(
    parts: &Parts,
    document: &Document,
    legacy: impl FnOnce() -> Value,
) -> Result<Response<ApiBody>, ApiError> {
    if negotiate::format(&parts.headers, Offer::Discovery)? != Format::AggregatedDiscovery {
        return Ok(json_response(200, &legacy()));
    }
    let known = parts.headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',')
                .any(|etag| etag.trim().as_bytes() == document.etag.as_bytes())
        })
    });
    let mut response = if known {
        let mut response = Response::new(ApiBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        bytes_response(200, AGGREGATED, document.bytes.clone())
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, document.etag.clone());
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
}

/// `GET /apis/GROUP`
pub(super) fn group(group: &str) -> Result<Response<ApiBody>, ApiError> {
    let (name, versions) = kinds::groups()
        .into_iter()
        .find(|(name, _)| *name == group)
        .ok_or_else(ApiError::unknown_path)?;
    let mut value = api_group(name, &versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(json_response(200, &value))
}

/// `GET /api/v1` and `GET /apis/GROUP/VERSION`
pub(super) fn resources(group: &str, version: &str) -> Result<Response<ApiBody>, ApiError> {
    let rows = RESOURCES
        .iter()
        .filter(|row| row.group == group && row.version == version);
    let mut listed = Vec::new();
    for row in rows {
        let mut entry = json!({
            "name": row.plural,
            "singularName": row.singular,
            "namespaced": row.namespaced,
            "kind": row.kind,
            "verbs": row.verbs(),
        });
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        listed.push(entry);
        for subresource in row.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", row.plural, subresource.name()),
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": row.kind,
                "verbs": subresource.verbs(),
            });
            if let Some((group, version, kind)) = subresource.kind() {
                entry["kind"] = kind.into();
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            listed.push(entry);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(json_response(
        200,
        &json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": listed,
        }),
    ))
}

fn api_group(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({
        "name": group,
        "versions": versions,
        "preferredVersion": versions.first(),
    })
}

fn aggregated(selected: impl Fn(&str) -> bool) -> Value {
    let items: Vec<Value> = kinds::groups()
        .into_iter()
        .filter(|(group, _)| selected(group))
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = RESOURCES
                        .iter()
                        .filter(|row| row.group == group && row.version == version)
                        .map(aggregated_resource)
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(row: &Resource) -> Value {
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": {"group": "", "version": "", "kind": row.kind},
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs(),
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version, kind) = subresource.kind().unwrap_or(("", "", row.kind));
            json!({
                "subresource": subresource.name(),
                "responseKind": {"group": group, "version": version, "kind": kind},
                "verbs": subresource.verbs(),
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
