//! What one client may take of the server, so that something is left for the others.
//!
//! [`Connections`] bounds how many connections are open, [`ConnectionLimits`] what each of them may
//! take, [`ClientRates`] how many queries are asked. Connections and rates are counted for all
//! workers together, because the kernel spreads the sockets of a client over them.

use std::time::Duration;

use crate::config::Timeouts;

mod connections;
mod rate;

pub(crate) use connections::Place;
pub use connections::{ConnectionCaps, Connections};
pub use rate::{ClientLimit, ClientRates, OverLimit};

/// Queries in flight of one connection.
pub(crate) const MAX_IN_FLIGHT: usize = 32;
/// Time for the handshake of TLS or QUIC.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time without a message where room for connections runs short.
const IDLE_WHEN_SCARCE: Duration = Duration::from_secs(1);

/// What the connections of a listener may take.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// The open connections, of this listener and of those that share the count.
    pub connections: Connections,
    /// Time for one message, once it has begun.
    pub read: Duration,
    /// Time for a client to take replies.
    pub write: Duration,
    /// Time without a message.
    pub idle: Duration,
    /// Messages of one connection over TCP or TLS, if there is a limit.
    pub queries: Option<u32>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: Connections::default(),
            read: Duration::from_secs(5),
            write: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            queries: None,
        }
    }
}

impl ConnectionLimits {
    /// Limits that count in `connections`, with the times of `timeouts` where it has some.
    pub fn new(connections: Connections, timeouts: Option<&Timeouts>) -> Self {
        let usual = Self {
            connections,
            ..Self::default()
        };
        match timeouts {
            None => usual,
            Some(timeouts) => Self {
                read: timeouts.read.unwrap_or(usual.read),
                write: timeouts.write.unwrap_or(usual.write),
                idle: timeouts.idle.unwrap_or(usual.idle),
                queries: timeouts.tcp_queries,
                ..usual
            },
        }
    }

    /// How long a connection may be idle now: at most 1 s while room is scarce (RFC 7766 section
    /// 6.2.3 leaves it to the server's load).
    pub(crate) fn idle_now(&self) -> Duration {
        match self.connections.is_scarce() {
            true => self.idle.min(IDLE_WHEN_SCARCE),
            false => self.idle,
        }
    }
}
