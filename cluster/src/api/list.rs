//! GET of an object and of a collection (L1, L2).
//!
//! A limited list carries an opaque `continue` token: the version of the first page and the last
//! key of this one. Later pages are taken as of that version, so a client sees one consistent list.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::ApiBody;
use super::negotiate::{self, Offer};
use super::query::Query;
use super::render::{ListMeta, Renderer};
use super::selector::Selectors;
use super::server::{ApiServer, Call};
use super::status::{ApiError, Cause};
use super::store::{Key, Listing};

/// How long a read waits for a version that is not reached yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// Content of a `continue` token.
#[derive(Debug, Serialize, Deserialize)]
struct ContinueToken {
    #[serde(rename = "rv")]
    revision: u64,
    namespace: String,
    name: String,
}

/// Which version a list is of.
#[derive(Debug, PartialEq, Eq)]
enum ListVersion {
    Newest,
    NotOlderThan(u64),
    Exact(u64),
}

impl ApiServer {
    pub(super) async fn get(&self, call: &Call) -> Result<Response<ApiBody>, ApiError> {
        let format = negotiate::format(&call.parts.headers, Offer::Objects)?;
        let renderer = Renderer::new(call.path.resource, format, &call.query)?;
        if let Some(version) = resource_version(&call.query)? {
            self.wait_for(version).await?;
        }
        let object = self
            .store()
            .get(&call.path.key())
            .ok_or_else(|| ApiError::not_found(call.path.resource, call.path.name()))?;
        Ok(renderer.object(200, &object))
    }

    pub(super) async fn list(&self, call: &Call) -> Result<Response<ApiBody>, ApiError> {
        let resource = call.path.resource;
        let format = negotiate::format(&call.parts.headers, Offer::Objects)?;
        let renderer = Renderer::new(resource, format, &call.query)?;
        let selectors = Selectors::parse(resource, &call.query)?;
        let version = list_version(&call.query)?;
        let token = continue_token(&call.query)?;
        let listing = self.listing(call, &version, token.as_ref()).await?;

        let any_version = version == ListVersion::NotOlderThan(0);
        let limit = page_limit(&call.query)?.filter(|_| !any_version);
        let start = token.map(|token| Key::new(resource.storage, token.namespace, token.name));
        let page = paginate(&listing, &selectors, start.as_ref(), limit);
        let mut meta = ListMeta {
            resource_version: listing.revision.to_string(),
            ..ListMeta::default()
        };
        if let Some((last, remaining)) = page.rest {
            meta.continue_token = Some(encode_token(listing.revision, last)?);
            meta.remaining = selectors.is_empty().then_some(remaining);
        }
        Ok(renderer.list(&meta, &page.items))
    }

    async fn listing(
        &self,
        call: &Call,
        version: &ListVersion,
        token: Option<&ContinueToken>,
    ) -> Result<Listing, ApiError> {
        let storage = call.path.resource.storage;
        let namespace = call.path.namespace.as_deref();
        if let Some(token) = token {
            return self
                .store()
                .list_at(storage, namespace, token.revision)
                .ok_or_else(|| {
                    ApiError::expired(
                        "The provided continue parameter is too old to display a consistent list \
                         result. You can start a new list without the continue parameter.",
                    )
                });
        }
        match version {
            ListVersion::Newest => Ok(self.store().list(storage, namespace)),
            ListVersion::NotOlderThan(revision) => {
                self.wait_for(*revision).await?;
                Ok(self.store().list(storage, namespace))
            }
            ListVersion::Exact(revision) => {
                self.wait_for(*revision).await?;
                self.store()
                    .list_at(storage, namespace, *revision)
                    .ok_or_else(|| {
                        ApiError::expired("The resourceVersion for the provided list is too old.")
                    })
            }
        }
    }

    /// Waits a little for a version of the future (E7).
    async fn wait_for(&self, revision: u64) -> Result<(), ApiError> {
        if self.store().reaches(revision, FUTURE_WAIT).await {
            Ok(())
        } else {
            Err(ApiError::future_version(revision, self.store().revision()))
        }
    }
}

struct Page<'a> {
    items: Vec<Arc<Value>>,
    /// Last key of the page and how many objects follow, if any do.
    rest: Option<(&'a Key, usize)>,
}

fn paginate<'a>(
    listing: &'a Listing,
    selectors: &Selectors,
    after: Option<&Key>,
    limit: Option<usize>,
) -> Page<'a> {
    let mut selected = listing
        .items
        .iter()
        .filter(|(key, _)| after.is_none_or(|after| key > after))
        .filter(|(_, object)| selectors.matches(object));
    let Some(limit) = limit else {
        return Page {
            items: selected.map(|(_, object)| Arc::clone(object)).collect(),
            rest: None,
        };
    };
    let mut items = Vec::new();
    let mut last = None;
    for (key, object) in selected.by_ref().take(limit) {
        items.push(Arc::clone(object));
        last = Some(key);
    }
    let remaining = selected.count();
    Page {
        items,
        rest: last.filter(|_| remaining > 0).map(|key| (key, remaining)),
    }
}

fn page_limit(query: &Query) -> Result<Option<usize>, ApiError> {
    let Some(text) = query.non_empty("limit") else {
        return Ok(None);
    };
    let limit: i64 = text
        .parse()
        .map_err(|error| ApiError::bad_request(format!("invalid limit \"{text}\": {error}")))?;
    Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0))
}

fn encode_token(revision: u64, last: &Key) -> Result<String, ApiError> {
    let token = ContinueToken {
        revision,
        namespace: last.namespace.clone(),
        name: last.name.clone(),
    };
    serde_json::to_vec(&token)
        .map(|json| URL_SAFE_NO_PAD.encode(json))
        .map_err(|error| ApiError::internal(error.to_string()))
}

fn continue_token(query: &Query) -> Result<Option<ContinueToken>, ApiError> {
    let Some(text) = query.non_empty("continue") else {
        return Ok(None);
    };
    if query.non_empty("resourceVersion").is_some_and(|v| v != "0") {
        return Err(ApiError::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let invalid = |why: String| {
        ApiError::bad_request(format!(
            "invalid continue token: continue key is not valid: {why}"
        ))
    };
    let json = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| invalid(error.to_string()))?;
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|error| invalid(error.to_string()))
}

/// The `resourceVersion` parameter; `None` if it is empty.
pub(super) fn resource_version(query: &Query) -> Result<Option<u64>, ApiError> {
    query
        .non_empty("resourceVersion")
        .map(|text| {
            text.parse().map_err(|_error| {
                ApiError::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: \"{text}\": \
                     strconv.ParseUint: parsing \"{text}\": invalid syntax"
                ))
            })
        })
        .transpose()
}

fn list_version(query: &Query) -> Result<ListVersion, ApiError> {
    if query.non_empty("sendInitialEvents").is_some() {
        return Err(ApiError::invalid_options(
            "ListOptions",
            Cause::forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ),
        ));
    }
    let version = resource_version(query)?;
    let refused = |why: &str| {
        Err(ApiError::invalid_options(
            "ListOptions",
            Cause::forbidden("resourceVersionMatch", why),
        ))
    };
    match (
        query.get("resourceVersionMatch").unwrap_or_default(),
        version,
    ) {
        ("", None) => Ok(ListVersion::Newest),
        (_, None) => {
            refused("resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        (_, Some(_)) if query.non_empty("continue").is_some() => Ok(ListVersion::Newest),
        ("" | "NotOlderThan", Some(version)) => Ok(ListVersion::NotOlderThan(version)),
        ("Exact", Some(0)) => {
            refused("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        ("Exact", Some(version)) => Ok(ListVersion::Exact(version)),
        (other, Some(_)) => Err(ApiError::invalid_options(
            "ListOptions",
            Cause::unsupported(
                "resourceVersionMatch",
                &format!("\"{other}\""),
                "\"\", \"Exact\", \"NotOlderThan\"",
            ),
        )),
    }
}
