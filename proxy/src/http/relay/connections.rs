//! Connections to endpoints that the relay keeps, by the rules of [`crate::pool`]: the youngest
//! first, at most so many for so long, none to an endpoint that left its Service.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sealane_config::model::{Endpoint, EndpointStats};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::clock;
use crate::connect::Connector;
use crate::pool::{MAX_IDLE, MAX_SOURCES, patience};

/// The connections of one worker.
pub(crate) struct Connections {
    connector: Connector,
    /// By the address of the endpoint's counters, which the slot keeps alive, and the client whose
    /// address the endpoint sees.
    slots: RefCell<HashMap<Key, Slot>>,
}

type Key = (usize, Option<IpAddr>);

struct Slot {
    stats: Arc<EndpointStats>,
    idle: Vec<Idle>,
}

struct Idle {
    stream: TcpStream,
    since: u64,
}

impl Idle {
    /// Nothing came that nobody asked for, an end included. Asks the kernel only if the runtime has
    /// seen something come.
    fn is_good(&self, now: u64, source: Option<IpAddr>) -> bool {
        let young = now.saturating_sub(self.since) < clock::nanos(patience(source));
        young
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
    pub(super) fn source(&self, client: Option<IpAddr>, endpoint: &Endpoint) -> Option<IpAddr> {
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
            if idle.is_good(now, source) && (again || idle.is_quiet()) {
                return Some(idle.stream);
            }
        }
        None
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

    /// Keeps a connection for the next request.
    pub(super) fn give_back(
        &self,
        stream: TcpStream,
        source: Option<IpAddr>,
        stats: &Arc<EndpointStats>,
    ) {
        if stats.removed.load(Relaxed) {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let key = key(stats, source);
        if source.is_some() && slots.len() >= MAX_SOURCES && !slots.contains_key(&key) {
            return;
        }
        let slot = slots.entry(key).or_insert_with(|| Slot {
            stats: Arc::clone(stats),
            idle: Vec::new(),
        });
        if slot.idle.len() >= MAX_IDLE {
            slot.idle.remove(0);
        }
        let since = clock::now();
        slot.idle.push(Idle { stream, since });
    }

    /// Drops what is not to be kept any more.
    pub(crate) fn sweep(&self) {
        let now = clock::now();
        self.slots.borrow_mut().retain(|(_, source), slot| {
            if slot.stats.removed.load(Relaxed) {
                return false;
            }
            slot.idle.retain(|idle| idle.is_good(now, *source));
            !slot.idle.is_empty()
        });
    }
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
            connections.give_back(stream, None, &endpoint.stats);
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
