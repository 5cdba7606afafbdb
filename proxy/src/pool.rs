//! Connections to endpoints, kept for the next request.
//!
//! Each worker has a pool of its own, so nothing here is locked. HTTP/1.1 connections are kept in a
//! stack per endpoint (the youngest is the least likely to have been closed by its peer); for
//! HTTP/2 there is one connection per endpoint, shared by all requests. A connection is dropped
//! when it was idle for a minute, and as soon as its endpoint left the Service: what is in flight
//! then is finished first.

mod connection;
mod tls;

use std::cell::RefCell;
use std::collections::HashMap;
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
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// Idle HTTP/1.1 connections that are kept for one endpoint by one worker.
pub(crate) const MAX_IDLE: usize = 256;

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
}

impl Key {
    fn new(stats: &Arc<EndpointStats>, upstream: Upstream) -> Self {
        Self {
            endpoint: Arc::as_ptr(stats).addr(),
            upstream,
        }
    }
}

struct Slot {
    /// Keeps the address that is the key from being used for another endpoint.
    stats: Arc<EndpointStats>,
    idle: Vec<Idle>,
    shared: Rc<Shared>,
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
    upstream: Upstream,
}

impl Pool {
    pub(crate) fn new(connector: Connector) -> Self {
        Self {
            connector,
            tls: tls::Connectors::new(),
            slots: RefCell::new(HashMap::new()),
        }
    }

    /// A connection to the endpoint: an idle one unless `fresh` asks for a new one.
    pub(crate) async fn lease(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        upstream: Upstream,
        fresh: bool,
    ) -> Result<Lease, ConnectError> {
        let (sender, reused) = if upstream.is_http2() {
            self.shared(endpoint, upstream).await?
        } else {
            let idle = (!fresh).then(|| self.idle(endpoint, upstream)).flatten();
            match idle {
                Some(sender) => (Sender::Http1(sender), true),
                None => (Box::pin(self.connect(endpoint, upstream)).await?, false),
            }
        };
        Ok(Lease {
            sender,
            reused,
            pool: Rc::clone(self),
            stats: Arc::clone(&endpoint.stats),
            upstream,
        })
    }

    /// Drops connections that were idle for too long, and all of those whose endpoint is gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.slots.borrow_mut().retain(|_, slot| {
            if slot.stats.removed.load(Relaxed) {
                return false;
            }
            slot.idle
                .retain(|i| now.duration_since(i.since) < IDLE && !i.sender.is_closed());
            let shared = slot.shared.sender.try_lock().map_or(true, |mut sender| {
                if sender.as_ref().is_some_and(http2::SendRequest::is_closed) {
                    *sender = None;
                }
                sender.is_some()
            });
            shared || !slot.idle.is_empty()
        });
    }

    /// The youngest idle HTTP/1.1 connection that is still good.
    fn idle(&self, endpoint: &Endpoint, upstream: Upstream) -> Option<http1::SendRequest<Body>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&Key::new(&endpoint.stats, upstream))?;
        let now = Instant::now();
        slot.idle
            .retain(|i| !i.sender.is_closed() && now.duration_since(i.since) < IDLE);
        // One whose last request is still being sent (its answer came early) is not ready yet.
        let youngest = slot.idle.iter().rposition(|i| i.sender.is_ready())?;
        Some(slot.idle.remove(youngest).sender)
    }

    async fn shared(
        &self,
        endpoint: &Endpoint,
        upstream: Upstream,
    ) -> Result<(Sender, bool), ConnectError> {
        let asked = Instant::now();
        let shared = {
            let mut slots = self.slots.borrow_mut();
            let slot = slots
                .entry(Key::new(&endpoint.stats, upstream))
                .or_insert_with(|| Slot::new(&endpoint.stats));
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
        let sender = Box::pin(self.connect(endpoint, upstream))
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
    async fn connect(
        &self,
        endpoint: &Endpoint,
        upstream: Upstream,
    ) -> Result<Sender, ConnectError> {
        let stream = self.connector.connect(endpoint.addr).await?;
        match upstream {
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

    fn put_back(
        &self,
        sender: http1::SendRequest<Body>,
        stats: &Arc<EndpointStats>,
        upstream: Upstream,
    ) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots
            .entry(Key::new(stats, upstream))
            .or_insert_with(|| Slot::new(stats));
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
            self.pool.put_back(sender, &self.stats, self.upstream);
        }
    }
}

#[cfg(test)]
mod tests;
