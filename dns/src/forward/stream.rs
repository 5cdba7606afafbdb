//! Queries over TCP and TLS: connections that are kept and shared (RFC 7766, RFC 7858).
//!
//! - Queries share a connection, told apart by id, up to [`IN_FLIGHT`] at a time; then another one is
//!   opened, up to [`CONNECTIONS`].
//! - A connection ends when it was idle for `expire`; one older than `max_age` gets no new queries;
//!   of idle ones at most `max_idle_conns` are kept.
//! - When a connection breaks, its queries are sent again over a new one at once. An upstream that
//!   hangs up after a single answer is asked one query a connection for [`SERIAL`].
//! - A connection on which nothing was heard for [`SILENT`] while a query waited gets no new ones.

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
use super::counters::{Proto, UpstreamCounters};
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
const ATTEMPTS: usize = 3;
/// How long an upstream that hangs up after one answer is asked one query a connection.
const SERIAL: Duration = Duration::from_secs(60);
/// See the module.
const SILENT: Duration = Duration::from_secs(1);

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

/// Asks over a connection of the pool, or over a new one.
pub(super) async fn ask(
    pool: &Rc<Pool>,
    open: impl Fn() -> Open,
    counters: &UpstreamCounters,
    proto: Proto,
    asked: &Asked,
    edns: bool,
) -> Result<Result<Answer, ReplyError>, ForwardError> {
    for _ in 0..ATTEMPTS {
        let (connection, reused) = pool.take(&open);
        counters.connection(proto, reused);
        let (sender, reply) = oneshot::channel();
        let mut place = Place::new(pool, Rc::clone(&connection));
        let query = Submitted {
            asked: asked.clone(),
            edns,
            reply: sender,
        };
        if connection.submit(query).await
            && let Ok(reply) = reply.await
        {
            place.answered = true;
            return Ok(reply);
        }
        place.answered = true;
        if !connection.was_open() {
            break;
        }
    }
    Err(ForwardError::Network)
}

impl Pool {
    /// A connection with room, and whether it is open already.
    fn take(self: &Rc<Self>, open: impl Fn() -> Open) -> (Rc<Connection>, bool) {
        let now = Instant::now();
        let serial = self.serial_until.get().is_some_and(|until| now < until);
        let limit = if serial { 1 } else { IN_FLIGHT };
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.takes_queries(now));
        let emptiest = connections.iter().min_by_key(|kept| kept.in_flight.get());
        let full = connections.len() >= CONNECTIONS;
        if let Some(kept) = emptiest
            && (kept.in_flight.get() < limit || full)
        {
            return (Rc::clone(kept), kept.was_open());
        }
        let connection = Connection::open(open(), self);
        connections.push(Rc::clone(&connection));
        (connection, false)
    }

    /// Lets go of idle connections above the limit.
    fn trim(&self, max_idle: usize) {
        let mut idle = 0;
        self.connections.borrow_mut().retain(|connection| {
            idle += usize::from(connection.in_flight.get() == 0);
            connection.in_flight.get() > 0 || idle <= max_idle
        });
    }

    /// To be told that the upstream hung up after a single answer though more were owed.
    fn hung_up_after_one(&self) {
        self.serial_until.set(Some(Instant::now() + SERIAL));
    }
}

/// A place among the queries of a connection.
struct Place<'a> {
    pool: &'a Pool,
    connection: Rc<Connection>,
    since: Instant,
    answered: bool,
}

impl<'a> Place<'a> {
    fn new(pool: &'a Pool, connection: Rc<Connection>) -> Self {
        connection.in_flight.set(connection.in_flight.get() + 1);
        Self {
            pool,
            connection,
            since: Instant::now(),
            answered: false,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.in_flight.set(connection.in_flight.get() - 1);
        let silent = connection.heard.get() <= self.since && self.since.elapsed() >= SILENT;
        if !self.answered && silent {
            connection.retire();
        }
        if connection.max_idle > 0 {
            self.pool.trim(connection.max_idle);
        }
    }
}

#[cfg(test)]
mod tests;
