//! Connections to endpoints, kept for the next request.
//!
//! Each worker has a pool of its own, so nothing here is locked. HTTP/1.1 connections are kept in a
//! stack per endpoint (the youngest is the least likely to have been closed by its peer); for
//! HTTP/2 there is one connection per endpoint, shared by all requests, and another one when it
//! carries as many as the endpoint allows. A connection is dropped when it was idle for a minute, or
//! for nearly as long as the endpoint says that it keeps it, and as soon as its endpoint left the
//! Service: what is in flight then is finished first.
//!
//! A connection may be closed by its peer at the very moment that a request is written to it. A
//! request that can be repeated is; one that cannot gets a connection that was used just now, or a
//! new one. One that was idle for a while is looked at once more before it is used.
//!
//! So many connections are made to an endpoint at a time, and no more: who waits takes one that has
//! become free meanwhile.
//!
//! A connection that was made from a client's address ([`Connector::source`]) is for that client
//! only. There can be many of those, so they are kept for a shorter time, for so many pairs of client
//! and endpoint at most.

mod connection;
mod tls;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::client::conn::http1;
use sealane_config::model::{Endpoint, EndpointStats, UpstreamTls};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use connection::SharedSender;
pub(crate) use connection::{ConnectError, Sender};
use tls::PolicyId;

use crate::connect::Connector;
use crate::http::{Body, Upstream};

/// How long an idle connection is kept. Servers commonly close after 60 s and more.
const IDLE: Duration = Duration::from_secs(60);

/// A connection that was idle for less than this has hardly been closed: even the impatient servers
/// wait for two seconds and more.
const YOUNG: Duration = Duration::from_secs(1);

/// HTTP/1.1 connections that are being made to one endpoint by one worker at a time.
pub(crate) const CONNECTING: usize = 64;

/// HTTP/2 connections to one endpoint from one worker.
const MAX_SHARED: usize = 16;

/// Idle HTTP/1.1 connections that are kept for one endpoint by one worker.
pub(crate) const MAX_IDLE: usize = 256;

/// How long an idle connection from a client's address is kept.
const IDLE_OF_CLIENT: Duration = Duration::from_secs(15);

/// Pairs of a client's address and an endpoint for which one worker keeps connections.
pub(crate) const MAX_SOURCES: usize = 4096;

/// The pool of one worker.
pub(crate) struct Pool {
    connector: Connector,
    tls: tls::Connectors,
    slots: RefCell<HashMap<Key, Slot>>,
}

/// An endpoint of a Service port, by the identity of its counters, and what is spoken with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    endpoint: usize,
    upstream: Upstream,
    /// The client whose address the endpoint sees: its connections are nobody else's.
    source: Option<IpAddr>,
    /// Under which policy TLS is spoken, where it is.
    tls: PolicyId,
}

impl Key {
    fn new(
        stats: &Arc<EndpointStats>,
        upstream: Upstream,
        source: Option<IpAddr>,
        tls: PolicyId,
    ) -> Self {
        Self {
            endpoint: Arc::as_ptr(stats).addr(),
            upstream,
            source,
            tls,
        }
    }

    fn patience(self) -> Duration {
        patience(self.source)
    }
}

/// How long an idle connection is kept.
pub(crate) fn patience(source: Option<IpAddr>) -> Duration {
    if source.is_some() {
        IDLE_OF_CLIENT
    } else {
        IDLE
    }
}

struct Slot {
    /// Keeps the address that is the key from being used for another endpoint.
    stats: Arc<EndpointStats>,
    idle: Vec<Idle>,
    connecting: Rc<Semaphore>,
    shared: Rc<Shared>,
    /// When a request last asked for the shared connection.
    asked: Instant,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
    until: Instant,
}

/// Which connections will do for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any.
    Any,
    /// One that was used just now, or a new one.
    Young,
    /// A new one.
    No,
}

/// What a request wants of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// What is spoken.
    pub(crate) upstream: Upstream,
    /// How TLS is, if it is.
    pub(crate) tls: Option<&'a Arc<UpstreamTls>>,
    /// The client whose address the endpoint should see.
    pub(crate) client: Option<IpAddr>,
    /// Which connections will do.
    pub(crate) reuse: Reuse,
    /// How long a new one may take.
    pub(crate) limit: Duration,
}

/// The HTTP/2 connections of an endpoint. Whoever finds none makes it while the others wait.
#[derive(Default)]
struct Shared {
    senders: Mutex<Vec<InUse>>,
    /// When the last attempt to make it failed: those who waited for it fail with it instead of
    /// trying one after the other.
    failed: RefCell<Option<(Instant, ConnectError)>>,
}

struct InUse {
    sender: SharedSender,
    /// Requests on it.
    streams: Rc<Cell<usize>>,
}

impl InUse {
    fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.streams.get() < self.sender.max_streams()
    }

    fn join(&self) -> (Sender, Stream) {
        self.streams.set(self.streams.get() + 1);
        let stream = Stream(Rc::clone(&self.streams));
        (Sender::Http2(self.sender.clone()), stream)
    }
}

/// A request on a shared connection.
struct Stream(Rc<Cell<usize>>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// A connection for one request.
pub(crate) struct Lease {
    sender: Sender,
    /// Counts it, where the connection is shared.
    _stream: Option<Stream>,
    /// For how long the endpoint keeps it.
    keep: Duration,
    reused: bool,
    pool: Rc<Pool>,
    stats: Arc<EndpointStats>,
    key: Key,
}

impl Pool {
    pub(crate) fn new(connector: Connector) -> Self {
        Self {
            connector,
            tls: tls::Connectors::new(),
            slots: RefCell::new(HashMap::new()),
        }
    }

    /// What makes new connections.
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// A connection to the endpoint: an idle one if `wish` has that, else a new one. The endpoint sees
    /// the client's address if it can be kept.
    pub(crate) async fn lease(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        wish: Wish<'_>,
    ) -> Result<Lease, ConnectError> {
        let Wish {
            upstream,
            tls,
            client,
            reuse,
            limit,
        } = wish;
        let source = self.connector.source(client, endpoint.addr);
        let tls = self.tls.policy(tls.filter(|_| upstream.is_tls()));
        let key = Key::new(&endpoint.stats, upstream, source, tls);
        let (sender, stream, reused) = if upstream.is_http2() && self.has_room(&key) {
            let (sender, stream, reused) = self.shared(endpoint, key, limit).await?;
            (sender, Some(stream), reused)
        } else {
            match self.idle(&key, reuse).await {
                Some(sender) => (Sender::Http1(sender), None, true),
                None => {
                    let made = self.make_or_wait(endpoint, key, reuse, limit);
                    let (sender, reused) = Box::pin(made).await?;
                    (sender, None, reused)
                }
            }
        };
        Ok(Lease {
            sender,
            _stream: stream,
            keep: IDLE,
            reused,
            pool: Rc::clone(self),
            stats: Arc::clone(&endpoint.stats),
            key,
        })
    }

    /// Drops connections that were idle for too long, and all of those whose endpoint is gone.
    pub(crate) fn sweep(&self) {
        self.tls.sweep();
        let now = Instant::now();
        self.slots.borrow_mut().retain(|key, slot| {
            if slot.stats.removed.load(Relaxed) {
                return false;
            }
            slot.idle.retain(|i| now < i.until && !i.sender.is_closed());
            let forgotten =
                key.source.is_some() && now.duration_since(slot.asked) >= key.patience();
            let shared = slot.shared.senders.try_lock().map_or(true, |mut senders| {
                senders.retain(|shared| !forgotten && !shared.sender.is_closed());
                !senders.is_empty()
            });
            shared || !slot.idle.is_empty()
        });
    }

    /// Connections for this may be kept.
    fn has_room(&self, key: &Key) -> bool {
        let slots = self.slots.borrow();
        key.source.is_none() || slots.len() < MAX_SOURCES || slots.contains_key(key)
    }

    /// The youngest idle HTTP/1.1 connection that is still good.
    async fn idle(&self, key: &Key, reuse: Reuse) -> Option<http1::SendRequest<Body>> {
        loop {
            let found = self.youngest(key, reuse)?;
            if found.since.elapsed() >= YOUNG {
                // Lets the connection hear of an end that has come meanwhile.
                tokio::task::yield_now().await;
            }
            if !found.sender.is_closed() {
                return Some(found.sender);
            }
        }
    }

    fn youngest(&self, key: &Key, reuse: Reuse) -> Option<Idle> {
        if reuse == Reuse::No {
            return None;
        }
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key)?;
        let now = Instant::now();
        slot.idle.retain(|i| !i.sender.is_closed() && now < i.until);
        // One whose last request is still being sent (its answer came early) is not ready yet.
        let youngest = slot.idle.iter().rposition(|i| i.sender.is_ready())?;
        let is_young = now.duration_since(slot.idle[youngest].since) < YOUNG;
        (reuse == Reuse::Any || is_young).then(|| slot.idle.remove(youngest))
    }

    /// Makes an HTTP/1.1 connection. Where many are being made it waits, and takes one that has
    /// become free.
    async fn make_or_wait(
        &self,
        endpoint: &Endpoint,
        key: Key,
        reuse: Reuse,
        limit: Duration,
    ) -> Result<(Sender, bool), ConnectError> {
        if !self.has_room(&key) {
            return Ok((self.connect(endpoint, key, limit).await?, false));
        }
        let connecting = {
            let mut slots = self.slots.borrow_mut();
            let slot = slots
                .entry(key)
                .or_insert_with(|| Slot::new(&endpoint.stats));
            Rc::clone(&slot.connecting)
        };
        let _making = match connecting.try_acquire() {
            Ok(making) => making,
            Err(_many) => {
                let making = timeout(limit, connecting.acquire()).await;
                let making = making.map_err(|_elapsed| too_late())?;
                let making = making.expect("it is never closed");
                if let Some(sender) = self.idle(&key, reuse).await {
                    return Ok((Sender::Http1(sender), true));
                }
                making
            }
        };
        let sender = self.connect(endpoint, key, limit).await?;
        Ok((sender, false))
    }

    async fn shared(
        &self,
        endpoint: &Endpoint,
        key: Key,
        limit: Duration,
    ) -> Result<(Sender, Stream, bool), ConnectError> {
        let asked = Instant::now();
        let shared = {
            let mut slots = self.slots.borrow_mut();
            let slot = slots
                .entry(key)
                .or_insert_with(|| Slot::new(&endpoint.stats));
            slot.asked = asked;
            Rc::clone(&slot.shared)
        };
        let mut senders = shared.senders.lock().await;
        senders.retain(|shared| !shared.sender.is_closed());
        if let Some(found) = senders.iter().find(|shared| shared.has_room()) {
            let (sender, stream) = found.join();
            return Ok((sender, stream, true));
        }
        if senders.len() >= MAX_SHARED {
            // It waits in the line of the emptiest.
            let emptiest = senders.iter().min_by_key(|shared| shared.streams.get());
            let (sender, stream) = emptiest.expect("there are many").join();
            return Ok((sender, stream, true));
        }
        if let Some((when, error)) = shared.failed.borrow().as_ref()
            && *when > asked
        {
            return Err(error.clone());
        }
        let sender = Box::pin(self.connect(endpoint, key, limit))
            .await
            .inspect_err(|error| {
                *shared.failed.borrow_mut() = Some((Instant::now(), error.clone()));
            })?;
        let Sender::Http2(sender) = sender else {
            unreachable!("HTTP/2 was asked for");
        };
        let made = InUse {
            sender,
            streams: Rc::default(),
        };
        let (sender, stream) = made.join();
        senders.push(made);
        Ok((sender, stream, false))
    }

    /// Boxed, because connecting is rare and its future is many times the size of a request's.
    async fn connect(
        &self,
        endpoint: &Endpoint,
        key: Key,
        limit: Duration,
    ) -> Result<Sender, ConnectError> {
        let addr = endpoint.addr;
        let stream = self.connector.connect_from(key.source, addr, limit).await?;
        match key.upstream {
            Upstream::Http1 => connection::http1(stream).await,
            Upstream::Http2 => connection::http2(stream).await,
            Upstream::Http1Tls => {
                connection::http1(self.tls.http1(stream, endpoint.addr, key.tls).await?).await
            }
            Upstream::Http2Tls => {
                connection::http2(self.tls.http2(stream, endpoint.addr, key.tls).await?).await
            }
        }
    }

    fn put_back(
        &self,
        sender: http1::SendRequest<Body>,
        stats: &Arc<EndpointStats>,
        key: Key,
        keep: Duration,
    ) {
        if !self.has_room(&key) {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(key).or_insert_with(|| Slot::new(stats));
        if slot.idle.len() >= MAX_IDLE {
            slot.idle.remove(0);
        }
        let since = Instant::now();
        slot.idle.push(Idle {
            sender,
            since,
            until: since + keep,
        });
    }
}

impl Slot {
    fn new(stats: &Arc<EndpointStats>) -> Self {
        Self {
            stats: Arc::clone(stats),
            idle: Vec::new(),
            connecting: Rc::new(Semaphore::new(CONNECTING)),
            shared: Rc::default(),
            asked: Instant::now(),
        }
    }
}

impl Lease {
    /// The connection was idle before, so that its peer may have closed it.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// The connection.
    pub(crate) fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// The endpoint says for how long it keeps the connection while it is idle; a second less is
    /// safe.
    pub(crate) fn keep_for(&mut self, timeout: Duration) {
        self.keep = timeout.saturating_sub(Duration::from_secs(1)).min(IDLE);
    }

    /// The request's answer was read completely.
    pub(crate) fn give_back(self) {
        if let Sender::Http1(sender) = self.sender
            && !sender.is_closed()
            && !self.keep.is_zero()
            && !self.stats.removed.load(Relaxed)
        {
            let keep = self.keep.min(self.key.patience());
            self.pool.put_back(sender, &self.stats, self.key, keep);
        }
    }
}

fn too_late() -> ConnectError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time").into()
}

#[cfg(test)]
mod tests;
