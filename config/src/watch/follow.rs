//! One kind: list it, watch it from there, resume after interruptions, list again when the server
//! has forgotten where we were (410 Gone).
//!
//! This is the list-and-watch protocol of the Kubernetes API ("Efficient detection of changes").
//! It is not `kube::runtime::watcher`, because that keeps bookmarks to itself, which are the sign of
//! life of a quiet kind, retries the same version for ever when a watch is refused with 410, and
//! fails a whole list for one object that cannot be decoded. Items are decoded one by one here, and a
//! response's text is never logged, since it may be a Secret.

use std::sync::Arc;

use futures_util::{TryStream, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::contact::Contact;
use crate::compile::{Change, Decoded, Delta, Names, ObjectKey};
use crate::defaults::{LIST_PAGE, LIST_TIMEOUT, WATCH_SECONDS, WATCH_SILENCE};

/// Status code for a resource version that is too old.
const GONE: u16 = 410;

/// A watch that ends sooner than this without a word did not work.
const SHORT_WATCH: std::time::Duration = std::time::Duration::from_secs(1);

/// What to list and watch.
#[derive(Clone, Debug)]
pub(super) struct Source {
    kind: &'static str,
    path: String,
    field_selector: Option<String>,
}

impl Source {
    /// All objects of a kind, in all namespaces.
    pub(super) fn all<K: kube::Resource<DynamicType = ()>>(kind: &'static str) -> Self {
        Self {
            kind,
            path: K::url_path(&(), None),
            field_selector: None,
        }
    }

    /// One object.
    pub(super) fn one<K: kube::Resource<DynamicType = ()>>(
        kind: &'static str,
        key: &ObjectKey,
    ) -> Self {
        Self {
            kind,
            path: K::url_path(&(), Some(&key.namespace)),
            field_selector: Some(format!("metadata.name={}", key.name)),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }
}

/// Why following has to pause.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    /// The request was refused or broke.
    #[error("the API server cannot be reached or refuses")]
    Request(#[source] kube::Error),
    /// The list is none.
    #[error("the list cannot be decoded")]
    List(#[source] serde_json::Error),
    /// Without a version a watch cannot start.
    #[error("the list has no resourceVersion")]
    NoVersion,
    /// No answer, or nothing more on an open watch.
    #[error("the API server says nothing")]
    Silence,
    /// The watch ended right away.
    #[error("the watch ended at once")]
    Short,
    /// The version is too old: list again.
    #[error("the resourceVersion is too old")]
    Gone,
    /// The other end of the queue is gone: stop.
    #[error("shutting down")]
    Closed,
}

impl From<kube::Error> for FollowError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == GONE => Self::Gone,
            error => Self::Request(error),
        }
    }
}

#[derive(Deserialize)]
struct List<'text> {
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'text RawValue>>,
}

/// Follows one source and sends what changes.
pub(super) struct Follower<Read, Wrap> {
    pub(super) client: Client,
    pub(super) source: Source,
    pub(super) contact: Arc<Contact>,
    pub(super) read: Read,
    pub(super) wrap: Wrap,
    pub(super) sender: mpsc::Sender<Change>,
    pub(super) names: Names,
}

impl<Read, Wrap> Follower<Read, Wrap> {
    /// Follows until the receiver of the changes is gone.
    pub(super) async fn run<K, R>(mut self)
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        let mut backoff = Backoff::new();
        let mut version = None;
        let mut failures = 0_u64;
        loop {
            let heard = Instant::now();
            let error = match &mut version {
                None => match self.list().await {
                    Ok(listed) => {
                        version = Some(listed);
                        continue;
                    }
                    Err(error) => error,
                },
                Some(from) => match self.watch(from, &mut backoff).await {
                    Ok(()) => {
                        failures = 0;
                        continue;
                    }
                    Err(error) => error,
                },
            };
            match error {
                FollowError::Closed => return,
                FollowError::Gone => version = None,
                error => {
                    // An outage is logged once, and again whenever it began anew.
                    if heard.elapsed() > SHORT_WATCH {
                        failures = 0;
                    }
                    log_failure(self.source.kind, &error, failures);
                    failures += 1;
                }
            }
            backoff.wait().await;
        }
    }

    /// Lists everything and sends it page by page; returns the list's version.
    async fn list<K, R>(&mut self) -> Result<String, FollowError>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        metrics::counter!("sealane_config_relists_total", "kind" => self.source.kind).increment(1);
        let request = Request::new(&self.source.path);
        let mut params = ListParams::default().limit(LIST_PAGE);
        params
            .field_selector
            .clone_from(&self.source.field_selector);
        self.send(Delta::ListBegin).await?;
        loop {
            let page = request.list(&params).map_err(build_error)?;
            let text = timeout(LIST_TIMEOUT, self.client.request_text(page));
            let text = text.await.map_err(|_elapsed| FollowError::Silence)??;
            let page: List<'_> = serde_json::from_str(&text).map_err(FollowError::List)?;
            self.contact.heard();
            let mut objects = Vec::new();
            for item in page.items.unwrap_or_default() {
                let decoded = serde_json::from_str::<K>(item.get());
                let raw = || serde_json::from_str(item.get()).unwrap_or_default();
                objects.extend(self.object(decoded, raw));
            }
            self.send(Delta::Page(objects)).await?;
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let version = page.metadata.resource_version;
                    let version = version.filter(|v| !v.is_empty());
                    let version = version.ok_or(FollowError::NoVersion)?;
                    self.send(Delta::ListEnd).await?;
                    return Ok(version);
                }
            }
        }
    }

    /// Watches until the server ends it, and moves `version` along.
    async fn watch<K, R>(
        &mut self,
        version: &mut String,
        backoff: &mut Backoff,
    ) -> Result<(), FollowError>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        let params = WatchParams {
            field_selector: self.source.field_selector.clone(),
            timeout: Some(rand::random_range(WATCH_SECONDS)),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(&self.source.path);
        let request = request.watch(&params, version).map_err(build_error)?;
        let started = Instant::now();
        let events = timeout(LIST_TIMEOUT, self.client.request_events::<Value>(request));
        let events = events.await.map_err(|_elapsed| FollowError::Silence)??;
        let mut events = std::pin::pin!(events);
        let mut has_spoken = false;
        while let Some(event) = next(&mut events).await? {
            let (delta, seen) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let seen = version_of(&object);
                    let decoded = K::deserialize(&object);
                    let decoded = self.object(decoded, || object);
                    (decoded.map(|(key, it)| Delta::Set(key, it)), seen)
                }
                WatchEvent::Deleted(object) => {
                    (key_of(&object).map(Delta::Remove), version_of(&object))
                }
                WatchEvent::Bookmark(bookmark) => (None, Some(bookmark.metadata.resource_version)),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            };
            self.contact.heard();
            backoff.reset();
            has_spoken = true;
            if let Some(delta) = delta {
                self.send(delta).await?;
            }
            if let Some(seen) = seen {
                *version = seen;
            }
        }
        if !has_spoken && started.elapsed() < SHORT_WATCH {
            return Err(FollowError::Short);
        }
        self.contact.heard();
        backoff.reset();
        Ok(())
    }

    /// An object's key and record; `None` if it has no name, which no object of an API server does.
    fn object<K, R>(
        &mut self,
        decoded: Result<K, serde_json::Error>,
        raw: impl FnOnce() -> Value,
    ) -> Option<(ObjectKey, Decoded<R>)>
    where
        K: kube::Resource<DynamicType = ()>,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
    {
        match decoded {
            Ok(object) => {
                let meta = object.meta();
                let namespace = meta.namespace.as_deref().unwrap_or_default();
                let key = self.names.key(namespace, meta.name.as_deref()?);
                let record = (self.read)(&key, object, &mut self.names);
                Some((key, Ok(record)))
            }
            Err(error) => Some((key_of(&raw())?, Err(error.to_string()))),
        }
    }

    async fn send<R>(&self, delta: Delta<R>) -> Result<(), FollowError>
    where
        Wrap: Fn(Delta<R>) -> Change,
    {
        let change = (self.wrap)(delta);
        let sent = self.sender.send(change).await;
        sent.map_err(|_receiver_gone| FollowError::Closed)
    }
}

async fn next<S>(events: &mut S) -> Result<Option<WatchEvent<Value>>, FollowError>
where
    S: TryStream<Ok = WatchEvent<Value>, Error = kube::Error> + Unpin,
{
    let next = timeout(WATCH_SILENCE, events.try_next()).await;
    Ok(next.map_err(|_elapsed| FollowError::Silence)??)
}

fn build_error(error: kube::core::request::Error) -> FollowError {
    FollowError::Request(kube::Error::BuildRequest(error))
}

fn key_of(object: &Value) -> Option<ObjectKey> {
    let metadata = object.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(Value::as_str);
    let name = metadata.get("name")?.as_str()?;
    Some(ObjectKey::new(namespace.unwrap_or_default(), name))
}

fn version_of(object: &Value) -> Option<String> {
    let version = object.get("metadata")?.get("resourceVersion")?.as_str()?;
    (!version.is_empty()).then(|| version.to_owned())
}

fn log_failure(kind: &'static str, error: &FollowError, failures: u64) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    let source = source.unwrap_or_default();
    if failures == 0 {
        tracing::warn!(kind, source, "watch interrupted, trying again: {error}");
    } else {
        tracing::debug!(kind, source, failures, "watch still interrupted: {error}");
    }
}
