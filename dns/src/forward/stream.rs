//! Queries over TCP and TLS: connections that are kept and shared (RFC 7766, RFC 7858).
//!
//! - Queries share a connection, told apart by id, up to [`IN_FLIGHT`] at a time; then another one is
//!   opened, up to [`CONNECTIONS`].
//! - A connection ends when it was idle for `expire`; one older than `max_age` gets no new queries;
//!   of idle ones at most `max_idle_conns` are kept.
//! - When a connection breaks, its queries are sent again over a new one at once. An upstream that
//!   hangs up after a single answer is asked one query a connection for [`SERIAL`].
//! - A connection that is silent while a query waits gets no new ones ([`super::liveness`]).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::ForwardError;
use super::exchange::{Asked, Links};
use super::upstream::Upstream;
use crate::answer::Answer;
use crate::reply::ReplyError;

mod connection;

use connection::{Connection, Submitted};

/// Queries that share a connection.
const IN_FLIGHT: usize = 128;
/// Connections to an upstream.
const CONNECTIONS: usize = 32;
/// Times that a query is sent when connections break.
const ATTEMPTS: usize = 4;
/// How long an upstream that hangs up after one answer is asked one query a connection.
const SERIAL: Duration = Duration::from_secs(60);

/// How a connection is opened.
pub(super) struct Open {
    pub(super) links: Rc<Links>,
    pub(super) upstream: Rc<Upstream>,
    pub(super) tls: Option<TlsClient>,
}

/// TLS settings and the name that the certificate must have.
#[derive(Clone, Debug)]
pub(super) struct TlsClient {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl TlsClient {
    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }
}

/// The connections to an upstream.
#[derive(Debug, Default)]
pub(super) struct Pool {
    connections: RefCell<Vec<Rc<Connection>>>,
    serial_until: Cell<Option<Instant>>,
}

/// Asks over a connection of the pool, or over a new one; `count` is told whether it was there.
pub(super) async fn ask(
    pool: &Rc<Pool>,
    open: impl Fn() -> Open,
    count: impl Fn(bool),
    asked: &Asked,
    edns: bool,
) -> Result<Result<Answer, ReplyError>, ForwardError> {
    let mut lost = None;
    for _ in 0..ATTEMPTS {
        let (connection, reused) = pool.take(&open, lost);
        count(reused);
        let (sender, reply) = oneshot::channel();
        let waiting = connection.liveness.wait();
        let query = Submitted {
            asked: asked.clone(),
            edns,
            reply: sender,
        };
        let reply = match connection.submit(query).await {
            true => reply.await.ok(),
            false => None,
        };
        drop(waiting);
        if let Some(reply) = reply {
            pool.trim(connection.max_idle);
            return Ok(reply);
        }
        if !connection.was_open() {
            break;
        }
        lost = Some(Instant::now());
    }
    Err(ForwardError::Network)
}

impl Pool {
    /// A connection with room, and whether it is open already. If `lost` tells when another one broke,
    /// only one that is newer: those that are older may be about to break as well.
    fn take(
        self: &Rc<Self>,
        open: impl Fn() -> Open,
        lost: Option<Instant>,
    ) -> (Rc<Connection>, bool) {
        let now = Instant::now();
        let serial = self.serial_until.get().is_some_and(|until| now < until);
        let limit = if serial { 1 } else { IN_FLIGHT };
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.takes_queries(now));
        let full = connections.len() >= CONNECTIONS;
        let fitting = connections.iter().filter(|kept| Some(kept.since) >= lost);
        let emptiest = fitting.min_by_key(|kept| kept.liveness.waiting());
        if let Some(kept) = emptiest
            && (kept.liveness.waiting() < limit || full)
        {
            return (Rc::clone(kept), kept.was_open());
        }
        let connection = Connection::open(open(), self);
        connections.push(Rc::clone(&connection));
        (connection, false)
    }

    /// Lets go of idle connections above the limit, if there is one.
    fn trim(&self, max_idle: usize) {
        if max_idle == 0 {
            return;
        }
        let mut idle = 0;
        self.connections.borrow_mut().retain(|connection| {
            let is_idle = connection.liveness.waiting() == 0;
            idle += usize::from(is_idle);
            !is_idle || idle <= max_idle
        });
    }

    /// To be told that the upstream hung up after a single answer though more were owed.
    fn hung_up_after_one(&self) {
        self.serial_until.set(Some(Instant::now() + SERIAL));
    }
}

#[cfg(test)]
mod tests;
