//! `DeleteOptions`: in the body, or in the query where the body is silent (G3).

use http::HeaderMap;
use serde_json::Value;

use crate::api::kinds::Resource;
use crate::api::query::Query;
use crate::api::status::{ApiError, Cause};
use crate::api::write::dry_run;
use crate::api::{decode, metadata};

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the options of a DELETE.
    ///
    /// # Errors
    /// 400 for a body that does not parse, 422 for values that are not supported.
    pub(crate) fn parse(headers: &HeaderMap, query: &Query, body: &[u8]) -> Result<Self, ApiError> {
        let body = if body.is_empty() {
            Value::Null
        } else {
            decode::object(headers, body, "DeleteOptions")?.value
        };
        Self::from_values(&body, query)
    }

    /// Reads the options from a decoded body and the query.
    pub(crate) fn from_values(body: &Value, query: &Query) -> Result<Self, ApiError> {
        let grace = body["gracePeriodSeconds"].as_i64();
        let grace = match (grace, query.non_empty("gracePeriodSeconds")) {
            (None, Some(text)) => Some(text.parse().map_err(|_error| {
                ApiError::bad_request(format!("invalid gracePeriodSeconds \"{text}\""))
            })?),
            (grace, _) => grace,
        };
        let policy = body["propagationPolicy"]
            .as_str()
            .or_else(|| query.non_empty("propagationPolicy"));
        let orphan = body["orphanDependents"].as_bool().or_else(|| {
            query
                .get("orphanDependents")
                .map(|_| query.flag("orphanDependents"))
        });
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let listed = metadata::strings(&body["dryRun"]);
        let asked = query.all("dryRun").filter(|value| !value.is_empty());
        Ok(Self {
            dry_run: dry_run(listed.into_iter().chain(asked), "DeleteOptions")?,
            grace_period_seconds: grace,
            propagation: propagation(policy, orphan)?,
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
        })
    }

    /// G1: the preconditions must hold for the stored object.
    pub(crate) fn check_preconditions(
        &self,
        resource: &Resource,
        stored: &Value,
    ) -> Result<(), ApiError> {
        let name = metadata::text(stored, "name");
        let refuse = |what: &str, sent: &str, actual: &str, hint: &str| {
            let why = format!(
                "the {what} in the precondition ({sent}) does not match the {what} in record \
                 ({actual}). The object might have been {hint}"
            );
            Err(ApiError::conflict(resource, name, &why))
        };
        let uid = metadata::text(stored, "uid");
        if let Some(sent) = self.uid.as_deref().filter(|sent| *sent != uid) {
            return refuse("UID", sent, uid, "deleted and then recreated");
        }
        let version = metadata::text(stored, "resourceVersion");
        if let Some(sent) = self
            .resource_version
            .as_deref()
            .filter(|sent| *sent != version)
        {
            return refuse("ResourceVersion", sent, version, "modified");
        }
        Ok(())
    }
}

fn propagation(
    policy: Option<&str>,
    orphan: Option<bool>,
) -> Result<Option<Propagation>, ApiError> {
    let refuse = |cause| Err(ApiError::invalid_options("DeleteOptions", cause));
    match (policy, orphan) {
        (Some(policy), Some(_)) => refuse(Cause::invalid(
            "propagationPolicy",
            &policy.into(),
            "orphanDependents and deletionPropagation cannot be both set",
        )),
        (None, None) => Ok(None),
        (None, Some(true)) | (Some("Orphan"), None) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) | (Some("Background"), None) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some(other), None) => refuse(Cause::unsupported(
            "propagationPolicy",
            &format!("\"{other}\""),
            "\"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        )),
    }
}
