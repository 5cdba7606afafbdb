//! How many connections are open: all together, and of each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// The most connections that may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCaps {
    /// Of all clients.
    pub total: usize,
    /// Of one client address.
    pub per_client: usize,
}

impl Default for ConnectionCaps {
    /// Every node of a large cluster can keep some connections open; a pod needs one or two.
    fn default() -> Self {
        Self {
            total: 8192,
            per_client: 64,
        }
    }
}

/// The open connections of a process, whatever they carry. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    caps: ConnectionCaps,
    total: AtomicUsize,
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// An open connection. Dropping it makes room for another one.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    client: IpAddr,
}

impl Connections {
    /// Room for this many.
    pub fn new(caps: ConnectionCaps) -> Self {
        let shared = Shared {
            caps,
            ..Shared::default()
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.shared.total.load(Relaxed)
    }

    /// Makes a place for a connection of this client. `None` if there are as many as may be.
    pub(crate) fn admit(&self, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        let Shared {
            caps,
            total,
            by_client,
        } = &*self.shared;
        let mut by_client = by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_client.get(&client).copied().unwrap_or_default();
        if open >= caps.per_client || total.load(Relaxed) >= caps.total {
            return None;
        }
        by_client.insert(client, open + 1);
        total.fetch_add(1, Relaxed);
        Some(Place {
            shared: Arc::clone(&self.shared),
            client,
        })
    }

    /// More than three quarters of the room are taken.
    pub(crate) fn is_scarce(&self) -> bool {
        self.open() > self.shared.caps.total / 4 * 3
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_client = self
            .shared
            .by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.shared.total.fetch_sub(1, Relaxed);
        match by_client.get_mut(&self.client) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reliability_b31_connections_are_counted_in_all_and_by_client() {
        let connections = Connections::new(ConnectionCaps {
            total: 4,
            per_client: 2,
        });
        let admit = |client: &str| connections.admit(client.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let mapped = admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_none(), "a client's share");
        let other = admit("10.0.0.2").unwrap();
        assert!(!connections.is_scarce());
        let last = admit("fd00::1").unwrap();
        assert!(connections.is_scarce());
        assert!(admit("fd00::2").is_none(), "all");
        drop(first);
        assert!(admit("10.0.0.1").is_some());
        drop((mapped, other, last));
        assert_eq!(connections.open(), 0);
        let clients = connections.shared.by_client.lock().unwrap();
        assert!(clients.is_empty(), "nothing is kept of a client that left");
    }
}
