//! Connections to endpoints, kept for the next request.
//!
//! Each worker has a pool of its own, so nothing here is locked. HTTP/1.1 connections are kept in a
//! stack per endpoint (the youngest is the least likely to have been closed by its peer); for
//! HTTP/2 there is one connection per endpoint, shared by all requests. A connection is dropped
//! when it was idle for a minute, and as soon as its endpoint left the Service: what is in flight
//! then is finished first.
//!
//! A connection that was made from a client's address ([`Connector::source`]) is for that client
//! only. There can be many of those, so they are kept for a shorter time, for so many pairs of client
//! and endpoint at most.

mod connection;
mod tls;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use sealane_config::model::{Endpoint, EndpointStats};
use tokio::sync::Mutex;
use tokio::time::Instant;

pub(crate) use connection::{ConnectError, Sender};

use crate::connect::Connector;
use crate::http::{Body, Upstream};

/// How long an idle connection is kept. Servers commonly close after 60 s and more.
const IDLE: Duration = Duration::from_secs(60);

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
}

impl Key {
    fn new(stats: &Arc<EndpointStats>, upstream: Upstream, source: Option<IpAddr>) -> Self {
        Self {
            endpoint: Arc::as_ptr(stats).addr(),
            upstream,
            source,
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
    shared: Rc<Shared>,
    /// When a request last asked for the shared connection.
    asked: Instant,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// The HTTP/2 connection of an endpoint. Whoever finds none makes it while the others wait.
#[derive(Default)]
struct Shared {
    sender: Mutex<Option<http2::SendRequest<Body>>>,
    /// When the last attempt to make it failed: those who waited for it fail with it instead of
    /// trying one after the other.
    failed: RefCell<Option<(Instant, ConnectError)>>,
}

/// A connection for one request.
pub(crate) struct Lease {
    sender: Sender,
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

    /// A connection to the endpoint: an idle one unless `fresh` asks for a new one. The endpoint sees
    /// the address of `client` if it can be kept.
    pub(crate) async fn lease(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        upstream: Upstream,
        client: Option<IpAddr>,
        fresh: bool,
    ) -> Result<Lease, ConnectError> {
        let source = self.connector.source(client, endpoint.addr);
        let key = Key::new(&endpoint.stats, upstream, source);
        let (sender, reused) = if upstream.is_http2() && self.has_room(&key) {
            self.shared(endpoint, key).await?
        } else {
            let idle = (!fresh).then(|| self.idle(&key)).flatten();
            match idle {
                Some(sender) => (Sender::Http1(sender), true),
                None => (Box::pin(self.connect(endpoint, key)).await?, false),
            }
        };
        Ok(Lease {
            sender,
            reused,
            pool: Rc::clone(self),
            stats: Arc::clone(&endpoint.stats),
            key,
        })
    }

    /// Drops connections that were idle for too long, and all of those whose endpoint is gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.slots.borrow_mut().retain(|key, slot| {
            if slot.stats.removed.load(Relaxed) {
                return false;
            }
            let patience = key.patience();
            slot.idle
                .retain(|i| now.duration_since(i.since) < patience && !i.sender.is_closed());
            let forgotten = key.source.is_some() && now.duration_since(slot.asked) >= patience;
            let shared = slot.shared.sender.try_lock().map_or(true, |mut sender| {
                if forgotten || sender.as_ref().is_some_and(http2::SendRequest::is_closed) {
                    *sender = None;
                }
                sender.is_some()
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
    fn idle(&self, key: &Key) -> Option<http1::SendRequest<Body>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key)?;
        let (now, patience) = (Instant::now(), key.patience());
        slot.idle
            .retain(|i| !i.sender.is_closed() && now.duration_since(i.since) < patience);
        // One whose last request is still being sent (its answer came early) is not ready yet.
        let youngest = slot.idle.iter().rposition(|i| i.sender.is_ready())?;
        Some(slot.idle.remove(youngest).sender)
    }

    async fn shared(&self, endpoint: &Endpoint, key: Key) -> Result<(Sender, bool), ConnectError> {
        let asked = Instant::now();
        let shared = {
            let mut slots = self.slots.borrow_mut();
            let slot = slots
                .entry(key)
                .or_insert_with(|| Slot::new(&endpoint.stats));
            slot.asked = asked;
            Rc::clone(&slot.shared)
        };
        let mut current = shared.sender.lock().await;
        if let Some(sender) = current.as_ref().filter(|s| !s.is_closed()) {
            return Ok((Sender::Http2(sender.clone()), true));
        }
        if let Some((when, error)) = shared.failed.borrow().as_ref()
            && *when > asked
        {
            return Err(error.clone());
        }
        let sender = Box::pin(self.connect(endpoint, key))
            .await
            .inspect_err(|error| {
                *shared.failed.borrow_mut() = Some((Instant::now(), error.clone()));
            })?;
        if let Sender::Http2(sender) = &sender {
            *current = Some(sender.clone());
        }
        Ok((sender, false))
    }

    /// Boxed, because connecting is rare and its future is many times the size of a request's.
    async fn connect(&self, endpoint: &Endpoint, key: Key) -> Result<Sender, ConnectError> {
        let connecting = self.connector.connect_from(key.source, endpoint.addr);
        let stream = connecting.await?;
        match key.upstream {
            Upstream::Http1 => connection::http1(stream).await,
            Upstream::Http2 => connection::http2(stream).await,
            Upstream::Http1Tls => {
                connection::http1(self.tls.http1(stream, endpoint.addr).await?).await
            }
            Upstream::Http2Tls => {
                connection::http2(self.tls.http2(stream, endpoint.addr).await?).await
            }
        }
    }

    fn put_back(&self, sender: http1::SendRequest<Body>, stats: &Arc<EndpointStats>, key: Key) {
        if !self.has_room(&key) {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(key).or_insert_with(|| Slot::new(stats));
        if slot.idle.len() >= MAX_IDLE {
            slot.idle.remove(0);
        }
        slot.idle.push(Idle {
            sender,
            since: Instant::now(),
        });
    }
}

impl Slot {
    fn new(stats: &Arc<EndpointStats>) -> Self {
        Self {
            stats: Arc::clone(stats),
            idle: Vec::new(),
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

    /// The request's answer was read completely.
    pub(crate) fn give_back(self) {
        if let Sender::Http1(sender) = self.sender
            && !sender.is_closed()
            && !self.stats.removed.load(Relaxed)
        {
            self.pool.put_back(sender, &self.stats, self.key);
        }
    }
}

#[cfg(test)]
mod tests;
