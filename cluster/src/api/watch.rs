//! Watches: a stream of `{"type","object"}` lines (V1–V5).
//!
//! A watch starts with everything that exists (no version, or 0), or after a version. What enters
//! or leaves its selectors is shown as ADDED or DELETED. Bookmarks tell an idle client how far it
//! is. A client that reads too slowly gets 410 and lists again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use rand::Rng;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::ApiBody;
use super::negotiate::{self, Offer};
use super::query::Query;
use super::render::Renderer;
use super::selector::Selectors;
use super::server::{ApiServer, Call};
use super::status::{ApiError, Cause};
use super::store::{Event, EventType, Store, Subscription, WatchFrom};

/// Time between bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// A last bookmark is sent this long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// Life of a watch without `timeoutSeconds`: a random time in this range.
const LIFE_SECONDS: std::ops::Range<u64> = 1_800..3_600;

/// A chunk is sent when it has this many bytes.
const CHUNK: usize = 64 * 1024;

/// Set on requests of a server that can be shut down: open watches end with it.
#[derive(Clone, Debug)]
pub(super) struct Shutdown(pub(super) CancellationToken);

/// The token that ends long answers to a request.
pub(super) fn shutdown_of(parts: &Parts) -> CancellationToken {
    parts
        .extensions
        .get::<Shutdown>()
        .map_or_else(CancellationToken::new, |shutdown| shutdown.0.clone())
}

/// What a client asked of its watch.
#[derive(Debug)]
struct WatchOptions {
    from: WatchFrom,
    /// A bookmark after the initial objects.
    mark_initial: bool,
    bookmarks: bool,
    life: Duration,
}

struct Watch {
    store: Store,
    renderer: Renderer,
    selectors: Selectors,
    subscription: Subscription,
    /// Newest version seen, for bookmarks.
    seen: u64,
    initial: VecDeque<Arc<Value>>,
    backlog: VecDeque<Arc<Event>>,
    mark_initial: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    first: bool,
    done: bool,
    shutdown: CancellationToken,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    object: &'a Value,
}

impl ApiServer {
    pub(super) fn watch(&self, call: &Call) -> Result<Response<ApiBody>, ApiError> {
        let resource = call.path.resource;
        let format = negotiate::format(&call.parts.headers, Offer::Watch)?;
        let renderer = Renderer::new(resource, format, &call.query)?;
        let mut selectors = Selectors::parse(resource, &call.query)?;
        if let Some(name) = &call.path.name {
            selectors = selectors.with_name(name);
        }
        let options = WatchOptions::parse(&call.query)?;
        let namespace = call.path.namespace.as_deref();
        let shutdown = shutdown_of(&call.parts);
        let body = match self
            .store()
            .watch(resource.storage, namespace, options.from)
        {
            Some(subscription) => {
                let watch = Watch::new(
                    self.store().clone(),
                    renderer,
                    selectors,
                    subscription,
                    &options,
                    shutdown,
                );
                watch.into_body()
            }
            None => {
                let mut chunk = BytesMut::new();
                expired(&mut chunk, options.from, self.store());
                ApiBody::full(chunk.freeze())
            }
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        headers.insert(
            CACHE_CONTROL,
            http::HeaderValue::from_static("no-cache, private"),
        );
        Ok(response)
    }
}

impl WatchOptions {
    fn parse(query: &Query) -> Result<Self, ApiError> {
        let version = match query.non_empty("resourceVersion") {
            None => None,
            Some(text) => Some(text.parse::<u64>().map_err(|_error| {
                ApiError::new(
                    500,
                    "",
                    format!(
                        "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \
                         \"{text}\": invalid syntax"
                    ),
                )
            })?),
        };
        let initial_events = query
            .non_empty("sendInitialEvents")
            .map(|_| query.flag("sendInitialEvents"));
        let matching = query.get("resourceVersionMatch").unwrap_or_default();
        let refused = |why: &str| {
            Err(ApiError::invalid_options(
                "ListOptions",
                Cause::forbidden("resourceVersionMatch", why),
            ))
        };
        match (initial_events, matching) {
            (Some(_), "NotOlderThan") | (None, "") => {}
            (Some(_), _) => {
                return refused(
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            (None, _) => {
                return refused(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
        }
        let bookmarks = query.flag("allowWatchBookmarks");
        let existing = matches!(version, None | Some(0));
        let from = match (initial_events, version) {
            (Some(true), _) | (None, None | Some(0)) => WatchFrom::Existing,
            (_, Some(version)) if version > 0 => WatchFrom::After(version),
            (_, _) => WatchFrom::Now,
        };
        let life = match query.non_empty("timeoutSeconds").map(str::parse::<u64>) {
            Some(Ok(seconds)) if seconds > 0 => seconds,
            _ => rand::rng().random_range(LIFE_SECONDS),
        };
        Ok(Self {
            from,
            mark_initial: bookmarks
                && (initial_events == Some(true) || (initial_events.is_none() && existing)),
            bookmarks,
            life: Duration::from_secs(life),
        })
    }
}

impl Watch {
    fn new(
        store: Store,
        renderer: Renderer,
        selectors: Selectors,
        mut subscription: Subscription,
        options: &WatchOptions,
        shutdown: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let end = now + options.life;
        Self {
            seen: subscription.revision,
            initial: std::mem::take(&mut subscription.initial).into(),
            backlog: std::mem::take(&mut subscription.backlog).into(),
            store,
            renderer,
            selectors,
            subscription,
            mark_initial: options.mark_initial,
            bookmarks: options.bookmarks,
            next_bookmark: next_bookmark(now, end),
            end,
            first: true,
            done: false,
            shutdown,
        }
    }

    fn into_body(self) -> ApiBody {
        let lines = stream::unfold(self, |mut watch| async move {
            let chunk = watch.next_chunk().await?;
            Some((chunk, watch))
        });
        ApiBody::stream(lines.boxed())
    }

    /// The next lines; `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        self.ready_lines(&mut chunk);
        while chunk.is_empty() && !self.done {
            let wake = if self.bookmarks {
                self.next_bookmark
            } else {
                self.end
            };
            tokio::select! {
                () = self.shutdown.cancelled() => self.done = true,
                event = self.subscription.events.recv() => match event {
                    Some(event) => self.event(&mut chunk, &event),
                    None => self.fell_behind(&mut chunk),
                },
                () = tokio::time::sleep_until(wake) => self.timer(&mut chunk),
            }
            self.ready_lines(&mut chunk);
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }

    /// Appends what is there without waiting, up to the chunk size.
    fn ready_lines(&mut self, chunk: &mut BytesMut) {
        while chunk.len() < CHUNK {
            if let Some(object) = self.initial.pop_front() {
                if self.selectors.matches(&object) {
                    self.line(chunk, "ADDED", &object);
                }
            } else if self.mark_initial {
                self.mark_initial = false;
                let bookmark = self.renderer.bookmark(self.seen, true);
                write_line(chunk, "BOOKMARK", &bookmark);
            } else if let Some(event) = self.backlog.pop_front() {
                self.event(chunk, &event);
            } else if let Ok(event) = self.subscription.events.try_recv() {
                self.event(chunk, &event);
            } else {
                return;
            }
        }
    }

    fn event(&mut self, chunk: &mut BytesMut, event: &Event) {
        if event.revision <= self.seen {
            return;
        }
        self.seen = event.revision;
        let is = event.kind != EventType::Deleted && self.selectors.matches(&event.object);
        let was = match (event.kind, &event.previous) {
            (EventType::Added, _) | (_, None) => false,
            (EventType::Modified | EventType::Deleted, Some(previous)) => {
                self.selectors.matches(previous)
            }
        };
        match (was, is) {
            (false, false) => {}
            (false, true) => self.line(chunk, "ADDED", &event.object),
            (true, true) => self.line(chunk, "MODIFIED", &event.object),
            (true, false) if event.kind == EventType::Deleted => {
                self.line(chunk, "DELETED", &event.object);
            }
            (true, false) => {
                let mut last = event.previous.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = event.revision.to_string().into();
                self.line(chunk, "DELETED", &last);
            }
        }
    }

    fn line(&mut self, chunk: &mut BytesMut, kind: &str, object: &Value) {
        let shown = self.renderer.event_object(object, self.first);
        self.first = false;
        write_line(chunk, kind, &shown);
    }

    fn timer(&mut self, chunk: &mut BytesMut) {
        let now = Instant::now();
        if now >= self.end {
            self.done = true;
        } else {
            // Changes of other kinds move the version too.
            self.seen = self.seen.max(self.store.received(&self.subscription));
            let bookmark = self.renderer.bookmark(self.seen, false);
            write_line(chunk, "BOOKMARK", &bookmark);
            self.next_bookmark = next_bookmark(now, self.end);
        }
    }

    fn fell_behind(&mut self, chunk: &mut BytesMut) {
        self.done = true;
        expired(chunk, WatchFrom::After(self.seen), &self.store);
    }
}

/// Every interval, once shortly before the end, and then the end itself.
fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end - LAST_BOOKMARK;
    if now < last {
        (now + BOOKMARK_INTERVAL).min(last)
    } else {
        end
    }
}

fn expired(chunk: &mut BytesMut, from: WatchFrom, store: &Store) {
    let version = match from {
        WatchFrom::After(version) => version,
        WatchFrom::Existing | WatchFrom::Now => 0,
    };
    let error = ApiError::expired(format!(
        "too old resource version: {version} ({})",
        store.revision()
    ));
    write_line(chunk, "ERROR", &error.status());
}

fn write_line(chunk: &mut BytesMut, kind: &str, object: &Value) {
    let line = serde_json::to_writer((&mut *chunk).writer(), &Line { kind, object });
    line.expect("a JSON value is serialised into memory");
    chunk.put_u8(b'\n');
}
