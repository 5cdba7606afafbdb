//! One kind: list it, watch it from there, resume after interruptions, list again when the server
//! has forgotten where we were (410 Gone).
//!
//! This is the list-and-watch protocol of the Kubernetes API ("Efficient detection of changes").
//! It is not `kube::runtime::watcher`, because that keeps bookmarks to itself, which are the sign of
//! life of a quiet kind, retries the same version for ever when a watch is refused with 410, and
//! fails a whole list for one object that cannot be decoded. Items are decoded one by one here, and a
//! response's text is never logged, since it may be a Secret.
//!
//! A watch begins with everything there is where the server can do that (KEP-3157: Kubernetes 1.34
//! and newer, and ours); elsewhere a list is read page by page first.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use kube::Client;
use kube::api::{ListParams, VersionMatch, WatchParams};
use kube::core::Request;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::exchange;
use super::failure::{self, FollowError};
use super::source::Source;
use super::wire::{
    Decode, Encoded, EventKind, Frame, Head, INITIAL_EVENTS_END, Page, error_event, is_unknown,
};
use crate::compile::{Change, Decoded, Delta, Names, ObjectKey};
use crate::defaults::{
    CHANGE_QUEUE, COUNT_PERIOD, LIST_PAGE, LIST_TIMEOUT, WATCH_SECONDS, WATCH_SILENCE,
};
use crate::staleness::Contact;

/// A watch that ends sooner than this without a word did not work.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// How far we are.
#[derive(Debug)]
struct Position {
    /// All changes up to here were sent.
    version: String,
    /// How many objects there are then.
    count: u64,
    /// When that was last compared with the server.
    counted: Instant,
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
    /// Follows until the receiver of the changes is gone. A panic, such as that of a `read` which an
    /// unforeseen object upsets, starts it over.
    pub(super) async fn run<K, R>(mut self)
    where
        K: Decode,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        let mut backoff = Backoff::new();
        loop {
            // What a panic may have left half done is not used again: names are made anew, and
            // everything is listed again.
            let ended = AssertUnwindSafe(self.follow(&mut backoff)).catch_unwind();
            if ended.await.is_ok() {
                return;
            }
            let kind = self.source.kind;
            metrics::counter!("sealane_config_watch_panics_total", "kind" => kind).increment(1);
            tracing::error!(kind, "a watch panicked; it starts over: please report this");
            self.names = Names::default();
            backoff.wait(&FollowError::Short, &self.contact).await;
        }
    }

    async fn follow<K, R>(&mut self, backoff: &mut Backoff)
    where
        K: Decode,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        let mut position = None;
        let mut failing = None;
        loop {
            let begun = Instant::now();
            let done = if position.is_none() && !self.source.streams {
                self.list(&mut failing).await.map(|at| position = Some(at))
            } else {
                self.watch(&mut position, backoff, &mut failing).await
            };
            let Err(error) = done else {
                continue;
            };
            match error {
                FollowError::Closed => return,
                FollowError::Gone => position = None,
                ref error => {
                    // An outage is logged once, and again whenever it began anew or has another
                    // reason.
                    let worked = begun.elapsed() > SHORT_WATCH && failing.is_none();
                    let before = failing.replace(error.label());
                    let is_repeated = !worked && before == failing;
                    failure::log(&self.source, error, is_repeated);
                }
            }
            backoff.wait(&error, &self.contact).await;
        }
    }

    /// Lists everything and sends it page by page.
    async fn list<K, R>(
        &mut self,
        failing: &mut Option<&'static str>,
    ) -> Result<Position, FollowError>
    where
        K: Decode,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        metrics::counter!("sealane_config_relists_total", "kind" => self.source.kind).increment(1);
        let request = Request::new(&self.source.path);
        let mut params = ListParams::default().limit(LIST_PAGE);
        params
            .field_selector
            .clone_from(&self.source.field_selector);
        params
            .label_selector
            .clone_from(&self.source.label_selector);
        let mut count = 0;
        self.send(Delta::ListBegin).await?;
        loop {
            let page = request.list(&params).map_err(build_error)?;
            let text = exchange::whole(&self.client, page).await?;
            let page = page_of(&text)?;
            self.reached(failing);
            *failing = None;
            let mut objects = Vec::new();
            for item in page.items.unwrap_or_default() {
                objects.extend(self.object(&Encoded::Json(item)));
            }
            count += objects.len() as u64;
            self.send(Delta::Page(objects)).await?;
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let version = page.metadata.resource_version;
                    let version = version.filter(|v| !v.is_empty());
                    let position = Position {
                        version: version.ok_or(FollowError::NoVersion)?,
                        count,
                        counted: Instant::now(),
                    };
                    self.send(Delta::ListEnd).await?;
                    return Ok(position);
                }
            }
        }
    }

    /// Watches until the server ends it, and moves `position` along. Without a position the watch
    /// begins with everything there is.
    async fn watch<K, R>(
        &mut self,
        position: &mut Option<Position>,
        backoff: &mut Backoff,
        failing: &mut Option<&'static str>,
    ) -> Result<(), FollowError>
    where
        K: Decode,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        if let (Some(position), None) = (&mut *position, &failing) {
            self.count(position).await?;
        }
        let request = self.watch_request(position.as_ref())?;
        let events = match exchange::events(&self.client, request, K::HAS_PROTOBUF).await {
            Err(FollowError::Refused { status, .. })
                if position.is_none() && is_unknown(&status) =>
            {
                self.source.streams = false;
                return Ok(());
            }
            events => events?,
        };
        self.reached(failing);
        let started = Instant::now();
        let mut events = std::pin::pin!(events);
        if position.is_none() {
            let initial = self.initial(&mut events).await;
            // A server, or a proxy before it, that accepts such a watch and does not go through with
            // it may still be good for a list.
            if let Err(FollowError::Short | FollowError::Silence | FollowError::Endless) = initial {
                self.source.streams = false;
            }
            *position = Some(initial?);
            *failing = None;
        }
        let Some(position) = position else {
            return Ok(());
        };
        let mut has_spoken = false;
        let ended = loop {
            let frame = match next(&mut events, WATCH_SILENCE).await {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if let Err(error) = self.event(&frame, position).await {
                break Err(error);
            }
            has_spoken = true;
            backoff.reset();
        };
        let has_worked = has_spoken || started.elapsed() >= SHORT_WATCH;
        if has_worked {
            *failing = None;
        }
        ended?;
        if !has_worked {
            return Err(FollowError::Short);
        }
        self.contact.heard();
        backoff.reset();
        Ok(())
    }

    fn watch_request(
        &self,
        from: Option<&Position>,
    ) -> Result<http::Request<Vec<u8>>, FollowError> {
        let params = WatchParams {
            field_selector: self.source.field_selector.clone(),
            label_selector: self.source.label_selector.clone(),
            timeout: Some(rand::random_range(WATCH_SECONDS)),
            bookmarks: true,
            send_initial_events: from.is_none(),
        };
        let version = from.map_or("", |position| &position.version);
        let request = Request::new(&self.source.path).watch(&params, version);
        request.map_err(build_error)
    }

    /// Takes in the objects that a watch begins with, up to the bookmark that ends them (KEP-3157),
    /// and sends them page by page. Neither side ever holds more than a page, and the server makes
    /// the next objects while these are decoded.
    async fn initial<S, K, R>(&mut self, events: &mut S) -> Result<Position, FollowError>
    where
        S: Stream<Item = Result<Frame, FollowError>> + Unpin,
        K: Decode,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        metrics::counter!("sealane_config_relists_total", "kind" => self.source.kind).increment(1);
        self.send(Delta::ListBegin).await?;
        let mut page = Vec::new();
        let mut count = 0;
        let mut late = Vec::new();
        let version = loop {
            let frame = next(events, LIST_TIMEOUT).await?;
            let frame = frame.ok_or(FollowError::Short)?;
            let event = frame.event().map_err(FollowError::Undecodable)?;
            let event = event.ok_or(FollowError::Short)?;
            match event.kind {
                EventKind::Added if late.is_empty() => {
                    page.extend(self.object(&event.object));
                    if page.len() == LIST_PAGE as usize {
                        count += page.len() as u64;
                        self.contact.heard();
                        self.send(Delta::Page(std::mem::take(&mut page))).await?;
                    }
                }
                // A server whose cache was behind sends the changes up to the present as well.
                EventKind::Added | EventKind::Modified | EventKind::Deleted => {
                    if late.len() == CHANGE_QUEUE {
                        return Err(FollowError::Endless);
                    }
                    late.push(frame.clone());
                }
                EventKind::Bookmark => {
                    let head = Head::of(&event.object).metadata;
                    if head.annotations.contains_key(INITIAL_EVENTS_END) {
                        let version = Some(head.resource_version).filter(|v| !v.is_empty());
                        break version.ok_or(FollowError::NoVersion)?;
                    }
                }
                EventKind::Error => return Err(error_event(&event.object)),
            }
        };
        self.contact.heard();
        let mut position = Position {
            version: String::new(),
            count: count + page.len() as u64,
            counted: Instant::now(),
        };
        self.send(Delta::Page(page)).await?;
        self.send(Delta::ListEnd).await?;
        for frame in &late {
            self.event(frame, &mut position).await?;
        }
        position.version = version;
        Ok(position)
    }

    /// Takes in one event of a watch.
    async fn event<K, R>(
        &mut self,
        frame: &Frame,
        position: &mut Position,
    ) -> Result<(), FollowError>
    where
        K: Decode,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
        Wrap: Fn(Delta<R>) -> Change,
    {
        let event = frame.event().map_err(FollowError::Undecodable)?;
        let Some(event) = event else {
            return Ok(());
        };
        let object = &event.object;
        let head = Head::of(object);
        let delta = match event.kind {
            EventKind::Added | EventKind::Modified => {
                let object = self.object(object);
                object.map(|(key, decoded)| Delta::Set(key, decoded))
            }
            EventKind::Deleted => head.key(&mut self.names).map(Delta::Remove),
            EventKind::Bookmark => None,
            EventKind::Error => return Err(error_event(object)),
        };
        self.contact.heard();
        if let Some(delta) = delta {
            self.send(delta).await?;
            match event.kind {
                EventKind::Added => position.count += 1,
                EventKind::Deleted => position.count = position.count.saturating_sub(1),
                EventKind::Modified | EventKind::Bookmark | EventKind::Error => {}
            }
        }
        if !head.metadata.resource_version.is_empty() {
            position.version = head.metadata.resource_version;
        }
        Ok(())
    }

    /// Now and then, between two watches, asks the server how many objects there were at the version
    /// that was reached. If that is another number, events were lost (servers have had such bugs),
    /// and everything has to be listed again. It costs the server a list of one object.
    ///
    /// The answer says nothing when it is refused, is for another version, or was selected, when
    /// servers do not count the rest.
    async fn count(&self, position: &mut Position) -> Result<(), FollowError> {
        if self.source.is_selective() || position.counted.elapsed() < COUNT_PERIOD {
            return Ok(());
        }
        position.counted = Instant::now();
        let params = ListParams::default()
            .limit(1)
            .at(&position.version)
            .matching(VersionMatch::Exact);
        let request = Request::new(&self.source.path).list(&params);
        let text = match exchange::whole(&self.client, request.map_err(build_error)?).await {
            Ok(text) => text,
            Err(FollowError::Refused { .. } | FollowError::Gone) => return Ok(()),
            Err(error) => return Err(error),
        };
        let page = page_of(&text)?;
        let listed = page.items.map_or(0, |items| items.len() as u64);
        let is_more = page
            .metadata
            .continue_
            .is_some_and(|token| !token.is_empty());
        let rest = page.metadata.remaining_item_count;
        let total = match rest.map(u64::try_from) {
            Some(Ok(rest)) => listed + rest,
            None if !is_more => listed,
            Some(Err(_)) | None => return Ok(()),
        };
        if page.metadata.resource_version.as_ref() != Some(&position.version)
            || total == position.count
        {
            return Ok(());
        }
        let (kind, known) = (self.source.kind, position.count);
        metrics::counter!("sealane_config_events_lost_total", "kind" => kind).increment(1);
        tracing::warn!(
            kind,
            known,
            total,
            "the watch has lost events, listing again"
        );
        Err(FollowError::Gone)
    }

    /// The server has answered.
    fn reached(&self, failing: &Option<&'static str>) {
        self.contact.heard();
        if failing.is_some() {
            self.contact.tell_others();
        }
    }

    /// An object's key and record; `None` if it has no name, which no object of an API server does.
    fn object<K, R>(&mut self, object: &Encoded<'_>) -> Option<(ObjectKey, Decoded<R>)>
    where
        K: Decode,
        Read: Fn(&ObjectKey, K, &mut Names) -> Option<R>,
    {
        match K::decode(object) {
            Ok(object) => {
                let (namespace, name) = object.names();
                let key = self.names.key(namespace, name?);
                let record = (self.read)(&key, object, &mut self.names);
                Some((key, Ok(record)))
            }
            Err(error) => {
                let key = Head::of(object).key(&mut self.names)?;
                Some((key, Err(error.to_string())))
            }
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

async fn next<S>(events: &mut S, silence: Duration) -> Result<Option<Frame>, FollowError>
where
    S: Stream<Item = Result<Frame, FollowError>> + Unpin,
{
    let next = timeout(silence, events.next()).await;
    next.map_err(|_elapsed| FollowError::Silence)?.transpose()
}

fn page_of(text: &[u8]) -> Result<Page<'_>, FollowError> {
    serde_json::from_slice(text).map_err(|error| FollowError::Undecodable(error.into()))
}

fn build_error(error: kube::core::request::Error) -> FollowError {
    FollowError::Unreachable(kube::Error::BuildRequest(error))
}
