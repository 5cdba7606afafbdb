//! The server: from a message to a reply, over whatever transport.
//!
//! A query goes to the server block with the longest zone that its name is in, among the blocks of
//! the listener that it came in on. What can be answered from the snapshot or the cache is answered
//! at once, without a task. The rest waits for an upstream.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_config::Reader;
use sealane_config::sockets::HostSockets;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::answer::encode::Transport;
use crate::autopath::Search;
use crate::cache::Served;
use crate::chain::{Asked, Chain};
use crate::config::{DnsConfig, Listener};
use crate::cookie::CookieSecret;
use crate::limit::ConnectionLimits;
use crate::message::Query;
use crate::metrics::labels::NO_ZONE;
use crate::metrics::{QueryMetrics, StatusMetrics, Writer};
use crate::name::Name;
use crate::observe::{Observe, server_of};
use crate::resolver::{Fetch, Line, Resolver};
use crate::tls::TlsIdentity;
use crate::udp::Reuse;
use crate::{https, quic, tcp, tls, udp};

mod aliases;
mod front;
mod search;

pub(crate) use front::Front;

/// Cluster DNS on one worker. Cheap to clone; not to be sent to another thread: each worker makes
/// its own. Serving needs a current-thread runtime that runs local tasks.
#[derive(Clone, Debug)]
pub struct DnsServer {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reader: Reader,
    sockets: HostSockets,
    observe: Observe,
    chains: RefCell<Vec<Rc<Chain>>>,
    /// What each listener in use serves; replaced when there is a new configuration.
    routes: RefCell<HashMap<Listener, Rc<RefCell<Routes>>>>,
    dropped: Rc<udp::Dropped>,
    cookies: Rc<CookieSecret>,
}

/// What a listener serves.
type Routes = Rc<RouteTable>;

#[derive(Debug)]
struct RouteTable {
    /// Its zones, those with most labels first.
    zones: Vec<Route>,
    /// Counts queries in none of them.
    elsewhere: QueryMetrics,
}

#[derive(Debug)]
struct Route {
    zone: Name,
    way: Way,
}

/// What answers a query and where it is counted.
#[derive(Clone, Debug)]
struct Way {
    chain: Rc<Chain>,
    counts: Rc<QueryMetrics>,
    /// Which of the listener's routes it is.
    index: usize,
}

/// What a reply that is given again is counted as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// The route; another number for none.
    index: usize,
    record_type: RecordType,
    dnssec_ok: bool,
    rcode: ResponseCode,
    writer: Writer,
}

impl Counted {
    /// A query that no route is for.
    pub(crate) fn elsewhere(query: &Query, rcode: ResponseCode) -> Self {
        Self {
            index: usize::MAX,
            record_type: query.question.record_type,
            dnssec_ok: query.dnssec_ok(),
            rcode,
            writer: Writer::Server,
        }
    }
}

/// What replies are made from: as long as it is the same one, so are replies that may be used again.
#[derive(Debug)]
pub(crate) struct Basis {
    /// Generation of the snapshot.
    generation: u64,
    /// The configuration.
    routes: Routes,
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        self.generation == other.generation && Rc::ptr_eq(&self.routes, &other.routes)
    }
}

/// What became of a message.
pub(crate) enum Step {
    /// There is to be no reply.
    Silence,
    /// The reply was written. If it is given again, it is counted as this.
    Replied(Reuse, Option<Counted>),
    /// The reply needs an upstream.
    Later(Box<Later>),
}

/// A query that waits for an upstream.
pub(crate) struct Later {
    asked: Asked,
    /// The chain of the name that was asked for.
    chain: Rc<Chain>,
    wait: Box<Wait>,
}

/// What is waited for.
struct Wait {
    resolver: Resolver<Line>,
    /// What has to be asked.
    fetch: Fetch,
    /// What there is if that fails.
    stale: Option<Served>,
    /// The name whose case the records of the reply get.
    name: Name,
    /// Aliases of ours that lead to that name.
    aliases: Option<Answer>,
    /// The search path that the name is part of.
    search: Option<Box<Search>>,
}

impl DnsServer {
    /// A server that reads the cluster's state from `reader` and reaches upstreams over sockets made
    /// by `sockets`.
    pub fn new(reader: Reader, sockets: HostSockets, config: &DnsConfig) -> Self {
        Self::observed(reader, sockets, config, Observe::default())
    }

    /// As [`Self::new`], with a place to report to.
    pub fn observed(
        reader: Reader,
        sockets: HostSockets,
        config: &DnsConfig,
        observe: Observe,
    ) -> Self {
        let dropped = Rc::new(udp::Dropped::new(&observe.metrics));
        let server = Self {
            inner: Rc::new(Inner {
                reader,
                sockets,
                observe,
                chains: RefCell::default(),
                routes: RefCell::default(),
                dropped,
                cookies: Rc::new(CookieSecret::random()),
            }),
        };
        server.reconfigure(config);
        server
    }

    /// Serves another configuration from the next query on. Queries that wait for an upstream are
    /// answered as they were asked; what was in caches is forgotten.
    pub fn reconfigure(&self, config: &DnsConfig) {
        let Inner {
            sockets, observe, ..
        } = &*self.inner;
        let chain = |block| {
            let block = Arc::clone(block);
            Rc::new(Chain::new(block, sockets, &config.forwards, observe))
        };
        *self.inner.chains.borrow_mut() = config.blocks.iter().map(chain).collect();
        for (listener, routes) in self.inner.routes.borrow().iter() {
            *routes.borrow_mut() = self.routes_of(*listener);
        }
    }

    /// Answers datagrams until `shutdown`, then those that have arrived and those that wait for an
    /// upstream. Replies come from the address that was asked, also on a wildcard address.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub async fn serve_udp(
        &self,
        listener: Listener,
        socket: std::net::UdpSocket,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        udp::serve(self.front(listener), socket, shutdown).await
    }

    /// Answers queries over connections until `shutdown`, then those that were read.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn serve_tcp(
        &self,
        listener: Listener,
        socket: std::net::TcpListener,
        limits: ConnectionLimits,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        tcp::serve(self.front(listener), socket, limits, shutdown).await
    }

    /// The same over TLS (RFC 7858).
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn serve_tls(
        &self,
        listener: Listener,
        socket: std::net::TcpListener,
        identity: TlsIdentity,
        limits: ConnectionLimits,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        tls::serve(self.front(listener), socket, identity, limits, shutdown).await
    }

    /// Answers queries at `/dns-query` over HTTPS (RFC 8484) until `shutdown`, then those that were
    /// read.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn serve_https(
        &self,
        listener: Listener,
        socket: std::net::TcpListener,
        identity: TlsIdentity,
        limits: ConnectionLimits,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        https::serve(self.front(listener), socket, identity, limits, shutdown).await
    }

    /// Answers queries over QUIC (RFC 9250) until `shutdown`, then those that were read.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub async fn serve_quic(
        &self,
        listener: Listener,
        socket: std::net::UdpSocket,
        identity: TlsIdentity,
        limits: ConnectionLimits,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        quic::serve(self.front(listener), socket, identity, limits, shutdown).await
    }

    /// Datagrams that got no answer so far.
    pub fn udp_dropped(&self) -> &udp::Dropped {
        &self.inner.dropped
    }

    /// The reply to one message that came in over a transport of the caller's, or `None` for
    /// silence.
    pub async fn answer(
        &self,
        listener: Listener,
        message: &[u8],
        client: SocketAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        let front = self.front(listener);
        let answered = front.answer(message, client, transport, &mut reply).await;
        answered.then_some(reply)
    }

    /// The server as it is seen from a listener.
    pub(crate) fn front(&self, listener: Listener) -> Front {
        let mut routes = self.inner.routes.borrow_mut();
        let routes = routes
            .entry(listener)
            .or_insert_with(|| Rc::new(RefCell::new(self.routes_of(listener))));
        Front {
            reader: self.inner.reader.clone(),
            routes: Rc::clone(routes),
            dropped: Rc::clone(&self.inner.dropped),
            cookies: Rc::clone(&self.inner.cookies),
            statuses: Rc::new(StatusMetrics::new(
                &self.inner.observe.metrics,
                server_of(&listener),
            )),
        }
    }

    fn routes_of(&self, listener: Listener) -> Routes {
        let server = server_of(&listener);
        let counts = |zone: &str| QueryMetrics::new(&self.inner.observe.metrics, &server, zone);
        let chains = self.inner.chains.borrow();
        let zones_of = |chain: &Rc<Chain>| {
            let zones = chain.block().zones_on(listener).cloned();
            zones.collect::<Vec<Name>>()
        };
        let routes = chains.iter().map(|chain| (chain, zones_of(chain)));
        let routes = routes.flat_map(|(chain, zones)| zones.into_iter().map(move |it| (it, chain)));
        let mut routes: Vec<(Name, &Rc<Chain>)> = routes.collect();
        routes.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.labels().count()));
        let route = |(index, (zone, chain)): (usize, (Name, &Rc<Chain>))| Route {
            way: Way {
                chain: Rc::clone(chain),
                counts: Rc::new(counts(&zone.to_string())),
                index,
            },
            zone,
        };
        Rc::new(RouteTable {
            zones: routes.into_iter().enumerate().map(route).collect(),
            elsewhere: counts(NO_ZONE),
        })
    }
}

#[cfg(test)]
mod tests;
