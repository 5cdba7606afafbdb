//! Connections to endpoints on which HTTP/1.1 is spoken without hyper, by the rules of [`crate::pool`]: the youngest
//! first, at most so many for so long, none to an endpoint that left its Service.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustc_hash::FxHashMap;
use sealane_config::model::{Endpoint, EndpointStats};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock;
use crate::connect::Connector;
use crate::http::headers;
use crate::pool::{CONNECTING, MAX_IDLE, MAX_SOURCES, patience};

/// The connections of one worker.
pub(crate) struct Connections {
    connector: Connector,
    /// By the address of the endpoint's counters, which the slot keeps alive, and the client whose
    /// address the endpoint sees.
    slots: RefCell<FxHashMap<Key, Slot>>,
}

type Key = (usize, Option<IpAddr>);

struct Slot {
    stats: Arc<EndpointStats>,
    idle: Vec<Idle>,
    connecting: Rc<Semaphore>,
}

impl Slot {
    fn new(stats: &Arc<EndpointStats>) -> Self {
        Self {
            stats: Arc::clone(stats),
            idle: Vec::new(),
            connecting: Rc::new(Semaphore::new(CONNECTING)),
        }
    }
}

struct Idle {
    stream: TcpStream,
    until: u64,
}

/// How long an endpoint keeps an idle connection, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep(u64);

impl Keep {
    /// It does not, or the connection is of no use.
    pub(crate) const NOT: Self = Self(0);

    /// As its `Keep-Alive` field says, where it has one; a second less is safe.
    pub(super) fn hinted(keep_alive: Option<&[u8]>) -> Self {
        let hint = keep_alive.and_then(headers::keep_alive_parameter);
        Self(hint.map_or(u64::MAX, |hint| {
            clock::nanos(hint.saturating_sub(Duration::from_secs(1)))
        }))
    }
}

impl Idle {
    /// Nothing came that nobody asked for, an end included. Asks the kernel only if the runtime has
    /// seen something come.
    fn is_good(&self, now: u64) -> bool {
        now < self.until
            && self
                .stream
                .try_read(&mut [0])
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same of what the kernel has and the runtime has not seen: on a busy worker that may be
    /// milliseconds apart.
    fn is_quiet(&self) -> bool {
        SockRef::from(&self.stream)
            .peek(&mut [MaybeUninit::uninit()])
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Connections {
    pub(crate) fn new(connector: Connector) -> Self {
        Self {
            connector,
            slots: RefCell::default(),
        }
    }

    /// The address to connect from to this endpoint, if `client`'s is to be seen and can be kept.
    pub(in super::super) fn source(
        &self,
        client: Option<IpAddr>,
        endpoint: &Endpoint,
    ) -> Option<IpAddr> {
        self.connector.source(client, endpoint.addr)
    }

    /// The youngest idle connection that is still good. A request that cannot be sent `again` is
    /// worth a system call to be surer of that.
    pub(super) fn idle(
        &self,
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        again: bool,
    ) -> Option<TcpStream> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&key(&endpoint.stats, source))?;
        let now = clock::now();
        while let Some(idle) = slot.idle.pop() {
            if idle.is_good(now) && (again || idle.is_quiet()) {
                return Some(idle.stream);
            }
        }
        None
    }

    /// A connection for a request that can be sent again, and whether it was idle before. Where many
    /// are being made to the endpoint it waits, and takes one that has become free.
    pub(in super::super) async fn lease(
        &self,
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        fresh: bool,
        limit: Duration,
    ) -> io::Result<(TcpStream, bool)> {
        let idle = || {
            (!fresh)
                .then(|| self.idle(endpoint, source, true))
                .flatten()
        };
        match idle() {
            Some(stream) => Ok((stream, true)),
            // Boxed, because connecting is rare and its future is many times the size of a request's.
            None => Box::pin(self.make_or_wait(endpoint, source, idle, limit)).await,
        }
    }

    async fn make_or_wait(
        &self,
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        idle: impl Fn() -> Option<TcpStream>,
        limit: Duration,
    ) -> io::Result<(TcpStream, bool)> {
        let Some(connecting) = self.connecting(endpoint, source) else {
            return Ok((self.connect(endpoint, source, limit).await?, false));
        };
        let _making = match connecting.try_acquire() {
            Ok(making) => Some(making),
            Err(_many) => {
                // It is never closed.
                let making = timeout(limit, connecting.acquire()).await?.ok();
                if let Some(stream) = idle() {
                    return Ok((stream, true));
                }
                making
            }
        };
        Ok((self.connect(endpoint, source, limit).await?, false))
    }

    /// How many connections to an endpoint are being made; `None` where none are kept.
    fn connecting(&self, endpoint: &Endpoint, source: Option<IpAddr>) -> Option<Rc<Semaphore>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slot(&mut slots, &endpoint.stats, source)?;
        Some(Rc::clone(&slot.connecting))
    }

    /// A new connection.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let addr = endpoint.addr;
        self.connector.connect_from(source, addr, limit).await
    }

    /// Keeps a connection for the next request, no longer than its endpoint does.
    pub(in super::super) fn give_back(
        &self,
        stream: TcpStream,
        source: Option<IpAddr>,
        stats: &Arc<EndpointStats>,
        keep: Keep,
    ) {
        if keep == Keep::NOT || stats.removed.load(Relaxed) {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slot(&mut slots, stats, source) else {
            return;
        };
        if slot.idle.len() >= MAX_IDLE {
            slot.idle.remove(0);
        }
        let keep = keep.0.min(clock::nanos(patience(source)));
        let until = clock::now().saturating_add(keep);
        slot.idle.push(Idle { stream, until });
    }

    /// Drops what is not to be kept any more.
    pub(crate) fn sweep(&self) {
        let now = clock::now();
        self.slots.borrow_mut().retain(|_, slot| {
            if slot.stats.removed.load(Relaxed) {
                return false;
            }
            slot.idle.retain(|idle| idle.is_good(now));
            !slot.idle.is_empty() || Rc::strong_count(&slot.connecting) > 1
        });
    }
}

/// What is kept for an endpoint; `None` if that would be too much.
fn slot<'a>(
    slots: &'a mut FxHashMap<Key, Slot>,
    stats: &Arc<EndpointStats>,
    source: Option<IpAddr>,
) -> Option<&'a mut Slot> {
    let key = key(stats, source);
    if source.is_some() && slots.len() >= MAX_SOURCES && !slots.contains_key(&key) {
        return None;
    }
    Some(slots.entry(key).or_insert_with(|| Slot::new(stats)))
}

fn key(stats: &Arc<EndpointStats>, source: Option<IpAddr>) -> Key {
    (Arc::as_ptr(stats).addr(), source)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::endpoint;

    #[tokio::test]
    async fn proxy_l17_what_cannot_be_sent_again_takes_no_connection_that_just_ended() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = endpoint(listener.local_addr().unwrap());
        let connections = Connections::new(Connector::Direct);
        let second = Duration::from_secs(1);
        let mut peers = Vec::new();
        for _ in 0..2 {
            let stream = connections.connect(&endpoint, None, second).await.unwrap();
            connections.give_back(stream, None, &endpoint.stats, Keep::hinted(None));
            peers.push(listener.accept().await.unwrap().0);
        }
        let first = peers.remove(0);
        assert!(
            connections.idle(&endpoint, None, false).is_some(),
            "still open"
        );
        // The runtime sees this with its next turn only, and there is none before the question.
        drop((first, peers));
        assert!(connections.idle(&endpoint, None, false).is_none());
    }
}
