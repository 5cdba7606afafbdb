//! Pages, events and objects as the API server sends them, decoded no further than following needs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::core::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::FollowError;
use crate::compile::{Names, ObjectKey};

/// A page of a list. Items are decoded one by one, from where they are.
#[derive(Deserialize)]
pub(super) struct Page<'a> {
    pub(super) metadata: ListMeta,
    #[serde(borrow)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// An event of a watch.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    pub(super) kind: EventKind,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// Annotation of the bookmark after a watch's initial objects.
pub(super) const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What every object has, even one that cannot be decoded further.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Head {
    pub(super) metadata: HeadMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct HeadMeta {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Head {
    pub(super) fn of(object: &RawValue) -> Self {
        serde_json::from_str(object.get()).unwrap_or_default()
    }

    pub(super) fn key(&self, names: &mut Names) -> Option<ObjectKey> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        Some(names.key(namespace, self.metadata.name.as_deref()?))
    }
}

/// The failure that an event tells of.
pub(super) fn error_event(object: &RawValue) -> FollowError {
    match serde_json::from_str::<Status>(object.get()) {
        Ok(status) => FollowError::refused(status, None),
        Err(error) => FollowError::Undecodable(error),
    }
}

/// Whether a server refuses `sendInitialEvents` because it does not know it or has it switched off.
pub(super) fn is_unknown(status: &Status) -> bool {
    matches!(status.code, 400 | 422)
}
