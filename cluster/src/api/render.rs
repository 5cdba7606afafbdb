//! Objects and lists in the form the client asked for: JSON, YAML, Table, metadata only (R1).

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderValue, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Value, json};

use super::body::ApiBody;
use super::kinds::Resource;
use super::negotiate::Format;
use super::query::Query;
use super::server::{bytes_response, json_response};
use super::status::ApiError;
use super::{table, views};

/// Longest text of one warning, and how many are sent.
const WARNING_LENGTH: usize = 256;
const WARNINGS: usize = 32;

/// How one request wants its objects.
#[derive(Clone, Debug)]
pub(super) struct Renderer {
    resource: &'static Resource,
    format: Format,
    include: Include,
}

/// `includeObject` of a Table request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// What a list says about itself.
#[derive(Clone, Debug, Default)]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    pub(super) continue_token: Option<String>,
    pub(super) remaining: Option<usize>,
}

impl ListMeta {
    fn value(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.resource_version});
        if let Some(token) = &self.continue_token {
            meta["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        meta
    }
}

impl Renderer {
    /// A renderer for one request.
    ///
    /// # Errors
    /// 400 for an unknown `includeObject`.
    pub(super) fn new(
        resource: &'static Resource,
        format: Format,
        query: &Query,
    ) -> Result<Self, ApiError> {
        let include = match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::None,
            "Object" => Include::Object,
            other => {
                return Err(ApiError::bad_request(format!(
                    "unrecognized includeObject value: \"{other}\""
                )));
            }
        };
        Ok(Self {
            resource,
            format,
            include,
        })
    }

    /// The answer with one object.
    pub(super) fn object(&self, code: u16, stored: &Value) -> Response<ApiBody> {
        match self.format {
            Format::Table => {
                let version = stored["metadata"]["resourceVersion"].as_str();
                let meta = ListMeta {
                    resource_version: version.unwrap_or_default().to_owned(),
                    ..ListMeta::default()
                };
                json_response(code, &self.table(&meta, [stored], true))
            }
            Format::Metadata => json_response(code, &self.metadata_only(stored)),
            Format::Yaml => yaml_response(code, &views::present(self.resource, stored)),
            Format::Json | Format::AggregatedDiscovery => {
                json_response(code, &*views::present(self.resource, stored))
            }
        }
    }

    /// The answer with a list.
    pub(super) fn list(&self, meta: &ListMeta, items: &[Arc<Value>]) -> Response<ApiBody> {
        match self.format {
            Format::Table => json_response(
                200,
                &self.table(meta, items.iter().map(|item| &**item), true),
            ),
            Format::Metadata => {
                let items: Vec<Value> = items.iter().map(|item| self.metadata_only(item)).collect();
                json_response(
                    200,
                    &json!({
                        "kind": "PartialObjectMetadataList",
                        "apiVersion": "meta.k8s.io/v1",
                        "metadata": meta.value(),
                        "items": items,
                    }),
                )
            }
            Format::Yaml => yaml_response(200, &self.plain_list(meta, items)),
            Format::Json | Format::AggregatedDiscovery => {
                json_response(200, &self.plain_list(meta, items))
            }
        }
    }

    /// The object of one watch event; `first` asks for column definitions in a Table (V4).
    pub(super) fn event_object<'a>(&self, stored: &'a Value, first: bool) -> Cow<'a, Value> {
        match self.format {
            Format::Table => {
                let version = stored["metadata"]["resourceVersion"].as_str();
                let meta = ListMeta {
                    resource_version: version.unwrap_or_default().to_owned(),
                    ..ListMeta::default()
                };
                Cow::Owned(self.table(&meta, [stored], first))
            }
            Format::Metadata => Cow::Owned(self.metadata_only(stored)),
            Format::Json | Format::Yaml | Format::AggregatedDiscovery => {
                views::present(self.resource, stored)
            }
        }
    }

    /// The object of a bookmark (V2, V3).
    pub(super) fn bookmark(&self, resource_version: u64, initial_events_end: bool) -> Value {
        let mut metadata = json!({"resourceVersion": resource_version.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.format {
            Format::Table => json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": resource_version.to_string()},
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                }}],
            }),
            Format::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            Format::Json | Format::Yaml | Format::AggregatedDiscovery => json!({
                "kind": self.resource.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": metadata,
            }),
        }
    }

    fn plain_list<'a>(&self, meta: &ListMeta, items: &'a [Arc<Value>]) -> List<'a> {
        List {
            kind: format!("{}List", self.resource.kind),
            api_version: self.resource.api_version(),
            metadata: meta.value(),
            items: items
                .iter()
                .map(|item| Item(views::present(self.resource, item)))
                .collect(),
        }
    }

    fn metadata_only(&self, stored: &Value) -> Value {
        json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": stored["metadata"],
        })
    }

    fn table<'a>(
        &self,
        meta: &ListMeta,
        items: impl IntoIterator<Item = &'a Value>,
        columns: bool,
    ) -> Value {
        let now = Timestamp::now();
        let rows: Vec<Value> = items.into_iter().map(|item| self.row(item, now)).collect();
        let columns = if columns {
            let stored = self.resource.stored();
            table::columns(stored.group, stored.plural)
                .iter()
                .map(|column| {
                    json!({
                        "name": column.name,
                        "type": column.type_,
                        "format": column.format,
                        "description": column.description,
                        "priority": column.priority,
                    })
                })
                .collect()
        } else {
            Value::Null
        };
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta.value(),
            "columnDefinitions": columns,
            "rows": rows,
        })
    }

    fn row(&self, stored: &Value, now: Timestamp) -> Value {
        let Resource { group, plural, .. } = self.resource.stored();
        let mut row = json!({"cells": table::cells(group, plural, stored, now)});
        let conditions = table::conditions(group, plural, stored);
        if !conditions.is_empty() {
            row["conditions"] = conditions.into();
        }
        match self.include {
            Include::None => {}
            Include::Metadata => row["object"] = self.metadata_only(stored),
            Include::Object => {
                row["object"] = views::present(self.resource, stored).into_owned();
            }
        }
        row
    }
}

/// A list of objects whose items carry no type.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    kind: String,
    api_version: String,
    metadata: Value,
    items: Vec<Item<'a>>,
}

struct Item<'a>(Cow<'a, Value>);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (field, value) in views::without_type(&self.0) {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

fn yaml_response(code: u16, value: &impl Serialize) -> Response<ApiBody> {
    match serde_saphyr::to_string(value) {
        Ok(text) => bytes_response(code, "application/yaml", text),
        Err(error) => super::server::error_response(&ApiError::internal(format!(
            "cannot write YAML: {error}"
        ))),
    }
}

/// Adds `Warning: 299 - "text"` headers, which kubectl prints (T9).
pub(super) fn with_warnings(
    mut response: Response<ApiBody>,
    warnings: &[String],
) -> Response<ApiBody> {
    for warning in warnings.iter().take(WARNINGS) {
        let text: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .take(WARNING_LENGTH)
            .flat_map(|c| {
                matches!(c, '"' | '\\')
                    .then_some('\\')
                    .into_iter()
                    .chain([c])
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    response
}
