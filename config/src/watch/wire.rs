//! Pages, events and objects as the API server sends them, decoded no further than following needs.
//!
//! Watches of large kinds are in protobuf where the server speaks it: frames with their length before
//! them, each a `WatchEvent`, whose object is the magic number and a `runtime.Unknown` around it. All
//! else, and all from servers that speak JSON only, is JSON: a line for each event.

#[cfg(test)]
mod tests;

use std::error::Error;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::core::Status;
use kube::core::response::StatusDetails;
use prost::Message as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::failure::FollowError;
use crate::compile::endpoint_slice::{EndpointSlice, Metadata};
use crate::compile::{Names, ObjectKey};

/// Annotation of the bookmark after a watch's initial objects.
pub(super) const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Media type of the API's protobuf form.
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How objects in that form begin.
const MAGIC: &[u8] = b"k8s\0";

/// A page of a list. Items are decoded one by one, from where they are.
#[derive(Deserialize)]
pub(super) struct Page<'a> {
    pub(super) metadata: ListMeta,
    #[serde(borrow)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// One message of a watch, as it came.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    Json(Bytes),
    Protobuf(Bytes),
}

/// An object that is not decoded yet.
#[derive(Clone, Debug)]
pub(super) enum Encoded<'a> {
    Json(&'a RawValue),
    Protobuf(Bytes),
}

/// Why an object or a message cannot be decoded.
pub(super) type Undecodable = Box<dyn Error + Send + Sync>;

/// An event of a watch.
pub(super) struct Event<'a> {
    pub(super) kind: EventKind,
    pub(super) object: Encoded<'a>,
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

impl Frame {
    /// The event in it; `None` if it is the beginning of one, behind which the connection broke.
    pub(super) fn event(&self) -> Result<Option<Event<'_>>, Undecodable> {
        match self {
            Self::Json(line) => json_event(line),
            Self::Protobuf(frame) => protobuf_event(frame).map(Some),
        }
    }
}

fn json_event(line: &[u8]) -> Result<Option<Event<'_>>, Undecodable> {
    #[derive(Deserialize)]
    struct WatchEvent<'a> {
        r#type: EventKind,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    match serde_json::from_slice(line) {
        Ok(WatchEvent { r#type, object }) => Ok(Some(Event {
            kind: r#type,
            object: Encoded::Json(object),
        })),
        Err(error) if error.is_eof() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn protobuf_event(frame: &Bytes) -> Result<Event<'static>, Undecodable> {
    let event = message::WatchEvent::decode(frame.clone())?;
    let kind = match &*event.r#type {
        "ADDED" => EventKind::Added,
        "MODIFIED" => EventKind::Modified,
        "DELETED" => EventKind::Deleted,
        "BOOKMARK" => EventKind::Bookmark,
        "ERROR" => EventKind::Error,
        other => return Err(format!("there is no event of type `{other}`").into()),
    };
    let object = event.object.unwrap_or_default().raw;
    let object = Encoded::Protobuf(unknown(object)?);
    Ok(Event { kind, object })
}

/// What is in a `runtime.Unknown`, behind the magic number.
fn unknown(object: Bytes) -> Result<Bytes, Undecodable> {
    if !object.starts_with(MAGIC) {
        return Err("an object does not begin as the protobuf form does".into());
    }
    let unknown = message::Unknown::decode(object.slice(MAGIC.len()..))?;
    if !unknown.content_encoding.is_empty() {
        let message = format!("an object is encoded as `{}`", unknown.content_encoding);
        return Err(message.into());
    }
    Ok(unknown.raw)
}

/// A type that objects of a watched kind are decoded to.
pub(super) trait Decode: Sized {
    /// Servers may send it in protobuf.
    const HAS_PROTOBUF: bool;

    fn decode(object: &Encoded<'_>) -> Result<Self, Undecodable>;

    /// Namespace, empty for objects that have none, and name.
    fn names(&self) -> (&str, Option<&str>);
}

impl<K> Decode for K
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned,
{
    const HAS_PROTOBUF: bool = false;

    fn decode(object: &Encoded<'_>) -> Result<Self, Undecodable> {
        match object {
            Encoded::Json(object) => Ok(serde_json::from_str(object.get())?),
            Encoded::Protobuf(_) => Err("it is in protobuf, which was not asked for".into()),
        }
    }

    fn names(&self) -> (&str, Option<&str>) {
        let meta = self.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        (namespace, meta.name.as_deref())
    }
}

impl Decode for EndpointSlice {
    const HAS_PROTOBUF: bool = true;

    fn decode(object: &Encoded<'_>) -> Result<Self, Undecodable> {
        match object {
            Encoded::Json(object) => Ok(serde_json::from_str(object.get())?),
            Encoded::Protobuf(object) => Ok(<Self as prost::Message>::decode(object.clone())?),
        }
    }

    fn names(&self) -> (&str, Option<&str>) {
        named(&self.metadata)
    }
}

fn named(metadata: &Metadata) -> (&str, Option<&str>) {
    let name = Some(&*metadata.name).filter(|name| !name.is_empty());
    (&metadata.namespace, name)
}

/// The metadata of an object of any kind, even of one that cannot be decoded further.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub(super) struct Head {
    #[prost(message, required, tag = 1)]
    pub(super) metadata: Metadata,
}

impl Head {
    pub(super) fn of(object: &Encoded<'_>) -> Self {
        match object {
            Encoded::Json(object) => serde_json::from_str(object.get()).unwrap_or_default(),
            Encoded::Protobuf(object) => {
                <Self as prost::Message>::decode(object.clone()).unwrap_or_default()
            }
        }
    }

    pub(super) fn key(&self, names: &mut Names) -> Option<ObjectKey> {
        let (namespace, name) = named(&self.metadata);
        Some(names.key(namespace, name?))
    }
}

/// The failure that an event tells of.
pub(super) fn error_event(object: &Encoded<'_>) -> FollowError {
    let status = match object {
        Encoded::Json(object) => serde_json::from_str(object.get()).map_err(Undecodable::from),
        Encoded::Protobuf(object) => protobuf_status(object.clone()),
    };
    match status {
        Ok(status) => FollowError::refused(status, None),
        Err(error) => FollowError::Undecodable(error),
    }
}

/// The body of a refusal, in either form.
pub(super) fn status(body: Bytes) -> Result<Status, Undecodable> {
    if body.starts_with(MAGIC) {
        protobuf_status(unknown(body)?)
    } else {
        Ok(serde_json::from_slice(&body)?)
    }
}

fn protobuf_status(object: Bytes) -> Result<Status, Undecodable> {
    let sent = message::Status::decode(object)?;
    let mut status = Status::failure(&sent.message, &sent.reason);
    status.code = u16::try_from(sent.code)?;
    if let Some(details) = sent.details {
        status.details = Some(StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: u32::try_from(details.retry_after_seconds).unwrap_or_default(),
        });
    }
    Ok(status)
}

/// Whether a server refuses `sendInitialEvents` because it does not know it or has it switched off.
pub(super) fn is_unknown(status: &Status) -> bool {
    matches!(status.code, 400 | 422)
}

/// Messages of `k8s.io/apimachinery`, with the fields that are used.
pub(super) mod message {
    use bytes::Bytes;

    /// `meta/v1` WatchEvent.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(in crate::watch) struct WatchEvent {
        #[prost(string, tag = 1)]
        pub(in crate::watch) r#type: String,
        #[prost(message, optional, tag = 2)]
        pub(in crate::watch) object: Option<RawExtension>,
    }

    /// `runtime` RawExtension.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(in crate::watch) struct RawExtension {
        #[prost(bytes = "bytes", tag = 1)]
        pub(in crate::watch) raw: Bytes,
    }

    /// `runtime` Unknown.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(in crate::watch) struct Unknown {
        #[prost(bytes = "bytes", tag = 2)]
        pub(in crate::watch) raw: Bytes,
        #[prost(string, tag = 3)]
        pub(in crate::watch) content_encoding: String,
    }

    /// `meta/v1` Status.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(in crate::watch) struct Status {
        #[prost(string, tag = 3)]
        pub(in crate::watch) message: String,
        #[prost(string, tag = 4)]
        pub(in crate::watch) reason: String,
        #[prost(message, optional, tag = 5)]
        pub(in crate::watch) details: Option<StatusDetails>,
        #[prost(int32, tag = 6)]
        pub(in crate::watch) code: i32,
    }

    /// `meta/v1` StatusDetails.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub(in crate::watch) struct StatusDetails {
        #[prost(int32, tag = 5)]
        pub(in crate::watch) retry_after_seconds: i32,
    }
}
