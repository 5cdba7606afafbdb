//! The server: from a message to a reply, over whatever transport.
//!
//! A query goes to the server block with the longest zone that its name is in, among the blocks of
//! the listener that it came in on. What can be answered from the snapshot or the cache is answered
//! at once, without a task. The rest waits for an upstream.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_config::Reader;
use sealane_config::sockets::HostSockets;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::answer::encode::{self, Transport};
use crate::autopath::Search;
use crate::cache::Served;
use crate::chain::{Asked, Before, Chain, Local, Remote, Reply, unpack};
use crate::config::{DnsConfig, Listener};
use crate::forward::ForwardError;
use crate::limit::{ConnectionLimits, OverLimit};
use crate::lookup::MAX_ALIASES;
use crate::message::{self, Query, Question, Rejected, class};
use crate::metrics::labels::NO_ZONE;
use crate::metrics::{Observed, QueryMetrics, StatusMetrics, Writer};
use crate::name::Name;
use crate::observe::{Observe, server_of};
use crate::rcode::{LocalFailure, forward_failure, local_failure, over_rate};
use crate::record::Record;
use crate::resolver::{Fetch, Line, Resolver};
use crate::tls::TlsIdentity;
use crate::udp::Reuse;
use crate::{https, quic, tcp, tls, udp};

mod search;

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

/// The server on one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    reader: Reader,
    routes: Rc<RefCell<Routes>>,
    dropped: Rc<udp::Dropped>,
    statuses: Rc<StatusMetrics>,
}

impl Front {
    /// Counts of what became of requests, for transports that have a status.
    pub(crate) fn statuses(&self) -> &StatusMetrics {
        &self.statuses
    }

    pub(crate) fn udp_dropped(&self) -> &udp::Dropped {
        &self.dropped
    }

    /// What replies from now on are made from.
    pub(crate) fn basis(&self) -> Basis {
        Basis {
            generation: self.reader.load().generation,
            routes: Rc::clone(&self.routes.borrow()),
        }
    }

    /// Appends the reply to `out` if it can be given at once.
    pub(crate) fn start(
        &self,
        message: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Step {
        let started = Instant::now();
        let query = match message::parse(message) {
            Ok(query) => query,
            // The one other class that something may be known of.
            Err(Rejected::Code(query, ResponseCode::Refused))
                if query.question.class == class::CH =>
            {
                query
            }
            Err(rejected) => {
                let before = out.len();
                encode::rejection(&rejected, transport, out);
                return match out.len() == before {
                    true => Step::Silence,
                    false => Step::Replied(Reuse::No, None),
                };
            }
        };
        let Some(way) = self.way_of(&query.question) else {
            let refused = Answer::code(ResponseCode::Refused, None);
            let start = out.len();
            encode::reply(&query, &refused, transport, out);
            let counted = Counted::elsewhere(&query, refused.rcode);
            let sizes = (message.len(), out.len() - start);
            self.count(counted, (client, transport), sizes, started);
            return Step::Replied(Reuse::No, None);
        };
        let Way {
            chain,
            counts,
            index,
        } = way;
        if let Some(rates) = &chain.block().plugins.client_limit
            && !rates.take(client.ip())
        {
            let start = out.len();
            let Some(rcode) = self.over_limit(rates.limit().over, &query, transport, out) else {
                return Step::Silence;
            };
            let counted = Counted {
                index,
                ..Counted::elsewhere(&query, rcode)
            };
            let sizes = (message.len(), out.len() - start);
            self.count(counted, (client, transport), sizes, started);
            return Step::Replied(Reuse::No, None);
        }
        let mut asked = Asked {
            query,
            client,
            transport,
            request_size: message.len(),
            started,
            rewritten: None,
            writer: Cell::new(Writer::Server),
            counts,
        };
        let reply = match chain.before(&mut asked) {
            Before::Done(answer) => Ok(Reply::Plain(answer)),
            Before::Silence => return Step::Silence,
            Before::Pass => self.look_up(&chain, &asked),
        };
        match reply {
            Ok(reply) => {
                let reuse = chain.reuse(&reply);
                let counted = reply.rcode().map(|rcode| Counted {
                    index,
                    writer: chain.last_writer(&asked),
                    ..Counted::elsewhere(&asked.query, rcode)
                });
                chain.conclude(&asked, reply, out);
                Step::Replied(reuse, counted)
            }
            Err(wait) => Step::Later(Box::new(Later { asked, chain, wait })),
        }
    }

    /// A query above its client's limit. Over a connection, where the address is no forgery and TC means
    /// nothing, it is refused. The code of the reply, if there is one.
    fn over_limit(
        &self,
        over: OverLimit,
        query: &Query,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Option<ResponseCode> {
        let answer = match (transport, over) {
            (Transport::Udp, OverLimit::Drop) => {
                self.dropped.add(&self.dropped.client_rate, 1);
                return None;
            }
            (Transport::Udp, OverLimit::Truncate) => Answer {
                truncated: true,
                ..Answer::code(ResponseCode::NoError, None)
            },
            (Transport::Tcp { .. } | Transport::Https | Transport::Quic, _) => over_rate(),
        };
        encode::reply(query, &answer, transport, out);
        Some(answer.rcode)
    }

    /// Appends the reply to `out`, also if that takes a while. `false` for silence.
    pub(crate) async fn answer(
        &self,
        message: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> bool {
        match self.start(message, client, transport, out) {
            Step::Silence => return false,
            Step::Replied(..) => {}
            Step::Later(later) => self.finish(later, out).await,
        }
        true
    }

    /// Counts a reply, by the sizes of query and reply and the time when the query came.
    pub(crate) fn count(
        &self,
        counted: Counted,
        (client, transport): (SocketAddr, Transport),
        (request_size, response_size): (usize, usize),
        started: Instant,
    ) {
        let routes = self.routes.borrow();
        let route = routes.zones.get(counted.index);
        let counts = route.map_or(&routes.elsewhere, |route| &*route.way.counts);
        counts.record(&Observed {
            is_udp: transport.is_udp(),
            client: client.ip(),
            record_type: counted.record_type,
            dnssec_ok: counted.dnssec_ok,
            rcode: counted.rcode,
            writer: counted.writer,
            request_size,
            response_size,
            duration: started.elapsed(),
        });
    }

    /// Appends the reply to `out` once an upstream has answered or failed.
    pub(crate) async fn finish(&self, later: Box<Later>, out: &mut Vec<u8>) {
        let Later {
            asked,
            chain,
            mut wait,
        } = *later;
        let reply = loop {
            let Wait {
                resolver,
                fetch,
                stale,
                name,
                aliases,
                search,
            } = *wait;
            let reply = match resolver.resolve(fetch, stale).await {
                Ok(served) => {
                    asked.writer.set(Writer::Forward);
                    join(served, &name, aliases, chain.is_compatible())
                }
                Err(error) => Reply::Plain(failed(error, aliases, chain.is_compatible())),
            };
            let Some(search) = search else { break reply };
            match self.go_on(search, reply, &chain, &asked) {
                Ok(reply) => break reply,
                Err(next) => wait = next,
            }
        };
        chain.conclude(&asked, reply, out);
    }

    /// The way of the longest zone that the name is in. DS records are above the zone that they
    /// are for (RFC 4035 section 2.4): they are asked for at the shortest one but the root.
    fn way_of(&self, question: &Question) -> Option<Way> {
        let routes = self.routes.borrow();
        let mut having = routes
            .zones
            .iter()
            .filter(|route| question.name.is_within(&route.zone));
        let longest = having.next()?;
        let above = match question.record_type {
            RecordType::DS => having.filter(|route| route.zone != Name::root()).last(),
            _ => None,
        };
        Some(above.unwrap_or(longest).way.clone())
    }

    /// The answer to the query, or to `target` instead, or what has to be waited for. An alias that
    /// leads out of a chain is looked up from the start, as a question of its own.
    fn walk(
        &self,
        first: &Rc<Chain>,
        asked: &Asked,
        mut target: Option<Question>,
    ) -> Result<Reply, Box<Wait>> {
        let compatible = first.is_compatible();
        let mut chain = Rc::clone(first);
        let mut aliases: Option<Answer> = None;
        loop {
            let question = target.as_ref().unwrap_or(&asked.rewritten().question);
            match chain.local(&self.reader.load(), asked, question) {
                Local::Done(answer) => {
                    let answer = complete(answer, &question.name, aliases, compatible);
                    return Ok(Reply::Plain(answer));
                }
                Local::Pass => {}
                Local::Alias(mut answer, name) => {
                    if let Some(mut before) = aliases.take() {
                        before.answers.append(&mut answer.answers);
                        answer = before;
                    }
                    if answer.answers.len() > MAX_ALIASES {
                        let failure = local_failure(LocalFailure::LongChain, None);
                        return Ok(Reply::Plain(failure));
                    }
                    let next = Question {
                        name,
                        ..question.clone()
                    };
                    let Some(way) = self.way_of(&next) else {
                        let failure = failed(ForwardError::NoUpstream, Some(answer), compatible);
                        return Ok(Reply::Plain(failure));
                    };
                    chain = way.chain;
                    aliases = Some(answer);
                    target = Some(next);
                    continue;
                }
            }
            let name = question.name.clone();
            let client = asked.client.ip();
            return match chain.forward(asked.rewritten(), question, client, asked.transport) {
                Remote::Done(served) => {
                    asked.writer.set(Writer::Cache);
                    Ok(join(served, &name, aliases, compatible))
                }
                Remote::Failed(error) => {
                    asked.writer.set(Writer::Server);
                    let last = chain
                        .last(asked)
                        .filter(|_| error == ForwardError::NoUpstream);
                    Ok(Reply::Plain(
                        last.unwrap_or_else(|| failed(error, aliases, compatible)),
                    ))
                }
                Remote::Ask(resolver, fetch, stale) => {
                    asked.writer.set(Writer::Server);
                    Err(Box::new(Wait {
                        resolver,
                        fetch,
                        stale,
                        name,
                        aliases,
                        search: None,
                    }))
                }
            };
        }
    }
}

/// What was found for the name that was asked for, or for the one that our aliases lead to.
fn join(served: Served, name: &Name, aliases: Option<Answer>, compatible: bool) -> Reply {
    if aliases.is_none() {
        return Reply::Packed(served);
    }
    let answer = unpack(&served.packed, name, served.serving);
    Reply::Plain(complete(answer, name, aliases, compatible))
}

/// The answer when nothing could be found out about the name that our aliases lead to.
fn failed(error: ForwardError, aliases: Option<Answer>, compatible: bool) -> Answer {
    match aliases {
        Some(aliases) if compatible => aliases,
        _ => forward_failure(error),
    }
}

/// Joins our aliases with what was found for the name that they lead to. The code is the one of the
/// last name (RFC 6604); to be compatible with CoreDNS, the one of the alias.
fn complete(mut answer: Answer, name: &Name, aliases: Option<Answer>, compatible: bool) -> Answer {
    for record in &mut answer.answers {
        give_case(record, name);
    }
    if let Some(mut aliases) = aliases {
        aliases.answers.append(&mut answer.answers);
        if compatible {
            return aliases;
        }
        // AA is about the first name of the answer (RFC 1035 section 4.1.1).
        answer.authoritative = true;
        answer.recursion_available = false;
        answer.authentic = false;
        answer.answers = aliases.answers;
    }
    answer
}

/// Owners that are the name asked for are spelled as it was, whatever spelling is in the cache.
fn give_case(record: &mut Record, name: &Name) {
    if record.name != *name && record.name.eq_ignore_case(name) {
        record.name = name.clone();
    }
}

#[cfg(test)]
mod tests;
