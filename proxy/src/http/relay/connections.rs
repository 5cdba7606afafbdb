//! Connections to endpoints that the relay keeps, by the rules of [`crate::pool`]: the youngest
//! first, at most so many for so long, none to an endpoint that left its Service.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sealane_config::model::{Endpoint, EndpointStats};
use tokio::net::TcpStream;

use crate::clock;
use crate::connect::Connector;
use crate::pool::{IDLE, MAX_IDLE};

/// The connections of one worker.
pub(crate) struct Connections {
    connector: Connector,
    /// By the address of the endpoint's counters, which the slot keeps alive.
    slots: RefCell<HashMap<usize, Slot>>,
}

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
    fn is_good(&self, now: u64) -> bool {
        let young = now.saturating_sub(self.since) < clock::nanos(IDLE);
        young
            && self
                .stream
                .try_read(&mut [0])
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

    /// The youngest idle connection that is still good.
    pub(super) fn idle(&self, endpoint: &Endpoint) -> Option<TcpStream> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&key(&endpoint.stats))?;
        let now = clock::now();
        while let Some(idle) = slot.idle.pop() {
            if idle.is_good(now) {
                return Some(idle.stream);
            }
        }
        None
    }

    /// A new connection.
    pub(super) async fn connect(&self, endpoint: &Endpoint) -> io::Result<TcpStream> {
        self.connector.connect(endpoint.addr).await
    }

    /// Keeps a connection for the next request.
    pub(super) fn give_back(&self, stream: TcpStream, stats: &Arc<EndpointStats>) {
        if stats.removed.load(Relaxed) {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(key(stats)).or_insert_with(|| Slot {
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
        self.slots.borrow_mut().retain(|_, slot| {
            if slot.stats.removed.load(Relaxed) {
                return false;
            }
            slot.idle.retain(|idle| idle.is_good(now));
            !slot.idle.is_empty()
        });
    }
}

fn key(stats: &Arc<EndpointStats>) -> usize {
    Arc::as_ptr(stats).addr()
}
