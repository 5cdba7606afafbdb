//! DELETE (G1–G3, C15).
//!
//! An object with finalizers, a Pod that runs on a node and a Namespace are only marked; whoever
//! holds them finishes. Foreground and orphan deletion are finalizers for the garbage collector.

mod options;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub(super) use options::{DeleteOptions, Propagation};

use super::body::ApiBody;
use super::kinds::Resource;
use super::metadata;
use super::render::ListMeta;
use super::selector::Selectors;
use super::server::{ApiServer, Call, json_response};
use super::status::{self, ApiError};
use super::store::{Key, Transaction};
use super::write::is_finished;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Namespaces that the cluster cannot do without (E8).
const PERMANENT_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What a deletion left.
#[derive(Debug)]
pub(super) enum Deleted {
    /// Nothing; this was the last state.
    Gone(Arc<Value>),
    /// The marked object.
    Pending(Arc<Value>),
}

impl ApiServer {
    pub(super) async fn delete(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let resource = call.path.resource;
        let renderer = self.renderer(call)?;
        let options = DeleteOptions::parse(&call.parts.headers, &call.query, body)?;
        let deleted = self
            .store()
            .transact(options.dry_run, |transaction| {
                delete_in(transaction, resource, &call.path.key(), &options)
            })
            .await?;
        Ok(match deleted {
            Deleted::Pending(object) => renderer.object(200, &object),
            Deleted::Gone(object) if resource.returns_deleted => renderer.object(200, &object),
            Deleted::Gone(object) => {
                let uid = metadata::text(&object, "uid");
                json_response(200, &status::deleted(resource, call.path.name(), uid))
            }
        })
    }

    pub(super) async fn delete_collection(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let resource = call.path.resource;
        let renderer = self.renderer(call)?;
        let options = DeleteOptions::parse(&call.parts.headers, &call.query, body)?;
        let selectors = Selectors::parse(resource, &call.query)?;
        let deleted = self
            .store()
            .transact(options.dry_run, |transaction| {
                let selected: Vec<Key> = transaction
                    .list(resource.storage, call.path.namespace.as_deref())
                    .filter(|(_, object)| selectors.matches(object))
                    .map(|(key, _)| key.clone())
                    .collect();
                selected
                    .iter()
                    .map(|key| delete_in(transaction, resource, key, &options))
                    .map(|deleted| {
                        deleted.map(|(Deleted::Gone(object) | Deleted::Pending(object))| object)
                    })
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let meta = ListMeta {
            resource_version: self.store().revision().to_string(),
            ..ListMeta::default()
        };
        Ok(renderer.list(&meta, &deleted))
    }
}

/// Deletes one object or marks it.
pub(super) fn delete_in(
    transaction: &mut Transaction<'_>,
    resource: &'static Resource,
    key: &Key,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    let stored = transaction
        .get(key)
        .ok_or_else(|| ApiError::not_found(resource, &key.name))?;
    options.check_preconditions(resource, &stored)?;
    if resource.kind == "Namespace" && PERMANENT_NAMESPACES.contains(&key.name.as_str()) {
        return Err(ApiError::forbidden(
            resource,
            &key.name,
            "this namespace may not be deleted",
        ));
    }
    let mut object = (*stored).clone();
    set_propagation(&mut object, options.propagation);
    mark(resource, &mut object, options.grace_period_seconds);
    if is_finished(resource, &object) {
        return Ok(Deleted::Gone(transaction.remove(key.clone(), object)));
    }
    if object == *stored {
        return Ok(Deleted::Pending(stored));
    }
    Ok(Deleted::Pending(transaction.put(key.clone(), object)))
}

/// Without a policy the finalizers that are there decide, as on a cluster.
fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let wanted = match propagation {
        None => return,
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Orphan) => Some(ORPHAN),
    };
    let mut finalizers: Vec<&str> = metadata::finalizers(object)
        .into_iter()
        .filter(|finalizer| {
            Some(*finalizer) == wanted || (*finalizer != FOREGROUND && *finalizer != ORPHAN)
        })
        .collect();
    finalizers.extend(wanted.filter(|wanted| !finalizers.contains(wanted)));
    let finalizers = json!(finalizers);
    let fields = metadata::map(object);
    if finalizers == json!([]) {
        fields.remove("finalizers");
    } else {
        fields.insert("finalizers".to_owned(), finalizers);
    }
}

/// Sets the deletion time. A repeated deletion may only shorten the grace period (G2).
fn mark(resource: &Resource, object: &mut Value, asked: Option<i64>) {
    let is_namespace = resource.kind == "Namespace";
    let grace = if resource.kind == "Pod" {
        pod_grace(object, asked)
    } else {
        0
    };
    if metadata::is_terminating(object) {
        let current = object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        if grace >= current {
            return;
        }
        let sooner = SignedDuration::from_secs(grace - current);
        let at = metadata::text(object, "deletionTimestamp").parse::<Timestamp>();
        let at = at.ok().and_then(|at| at.checked_add(sooner).ok());
        set_deletion(object, at.unwrap_or_else(Timestamp::now), grace);
        return;
    }
    let at = Timestamp::now()
        .checked_add(SignedDuration::from_secs(grace))
        .unwrap_or(Timestamp::MAX);
    set_deletion(object, at, grace);
    let fields = metadata::map(object);
    if let Some(generation) = fields.get("generation").and_then(Value::as_i64) {
        fields.insert("generation".to_owned(), (generation + 1).into());
    }
    if is_namespace {
        fields.remove("deletionGracePeriodSeconds");
        object["status"]["phase"] = "Terminating".into();
    }
}

fn set_deletion(object: &mut Value, at: Timestamp, grace: i64) {
    let fields = metadata::map(object);
    fields.insert(
        "deletionTimestamp".to_owned(),
        metadata::timestamp(at).into(),
    );
    fields.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
}

/// Seconds of grace: as asked, else the Pod's own; none for a Pod that no node runs.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let bound = pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    let ended = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if !bound || ended {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    match asked.or(own).unwrap_or(30) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}
