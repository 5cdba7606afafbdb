//! Label and field selectors (F1, F2), text to predicate.
//!
//! Label grammar (apimachinery `labels.Parse`): requirements joined by commas; `key`, `!key`,
//! `key=v`, `key==v`, `key!=v`, `key in (a,b)`, `key notin (a,b)`, `key>1`, `key<1`. A missing key
//! satisfies `!=` and `notin`.

mod fields;
mod labels;

use serde_json::Value;

pub(crate) use fields::FieldSelector;
pub(crate) use labels::LabelSelector;

use super::kinds::Resource;
use super::query::Query;
use super::status::ApiError;

/// The selectors of a list, watch or deletion of a collection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selectors {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for a selector that does not parse or names an unknown field.
    pub(crate) fn parse(resource: &Resource, query: &Query) -> Result<Self, ApiError> {
        Ok(Self {
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(resource, query.get("fieldSelector").unwrap_or_default())?,
        })
    }

    /// Also requires a name.
    pub(crate) fn with_name(mut self, name: &str) -> Self {
        self.fields.require_name(name);
        self
    }

    /// Whether everything is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether a stored object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(&object["metadata"]["labels"]) && self.fields.matches(object)
    }
}
