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
use crate::answer::encode::{self, Transport};
use crate::autopath::Search;
use crate::cache::Served;
use crate::chain::{Asked, Chain, Local, Remote, Reply, unpack};
use crate::config::{DnsConfig, Listener};
use crate::forward::ForwardError;
use crate::limit::{ConnectionLimits, OverLimit};
use crate::lookup::MAX_ALIASES;
use crate::message::{self, Query, Question};
use crate::name::Name;
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
    chains: RefCell<Vec<Rc<Chain>>>,
    /// What each listener in use serves; replaced when there is a new configuration.
    routes: RefCell<HashMap<Listener, Rc<RefCell<Routes>>>>,
    dropped: Rc<udp::Dropped>,
}

/// The zones of a listener, those with most labels first.
type Routes = Rc<[Route]>;

#[derive(Debug)]
struct Route {
    zone: Name,
    chain: Rc<Chain>,
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
    /// The reply was written.
    Replied(Reuse),
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
        let server = Self {
            inner: Rc::new(Inner {
                reader,
                sockets,
                chains: RefCell::default(),
                routes: RefCell::default(),
                dropped: Rc::default(),
            }),
        };
        server.reconfigure(config);
        server
    }

    /// Serves another configuration from the next query on. Queries that wait for an upstream are
    /// answered as they were asked; what was in caches is forgotten.
    pub fn reconfigure(&self, config: &DnsConfig) {
        let chain = |block| {
            let block = Arc::clone(block);
            Rc::new(Chain::new(block, &self.inner.sockets, &config.forwards))
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
        }
    }

    fn routes_of(&self, listener: Listener) -> Routes {
        let mut routes = Vec::new();
        for chain in self.inner.chains.borrow().iter() {
            routes.extend(chain.block().zones_on(listener).map(|zone| Route {
                zone: zone.clone(),
                chain: Rc::clone(chain),
            }));
        }
        routes.sort_by_key(|route| std::cmp::Reverse(route.zone.labels().count()));
        routes.into()
    }
}

/// The server on one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    reader: Reader,
    routes: Rc<RefCell<Routes>>,
    dropped: Rc<udp::Dropped>,
}

impl Front {
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
        let query = match message::parse(message) {
            Ok(query) => query,
            Err(rejected) => {
                let before = out.len();
                encode::rejection(&rejected, transport, out);
                return match out.len() == before {
                    true => Step::Silence,
                    false => Step::Replied(Reuse::No),
                };
            }
        };
        let Some(chain) = self.chain_of(&query.question) else {
            let refused = Answer::code(ResponseCode::Refused, None);
            encode::reply(&query, &refused, transport, out);
            return Step::Replied(Reuse::No);
        };
        if let Some(rates) = &chain.block().plugins.client_limit
            && !rates.take(client.ip())
        {
            return self.over_limit(rates.limit().over, &query, transport, out);
        }
        let asked = Asked {
            query,
            client,
            transport,
        };
        match self.look_up(&chain, &asked) {
            Ok(reply) => {
                let reuse = chain.reuse(&reply);
                chain.conclude(&asked, reply, out);
                Step::Replied(reuse)
            }
            Err(wait) => Step::Later(Box::new(Later { asked, chain, wait })),
        }
    }

    /// A query above its client's limit. Over a connection, where the address is no forgery and TC means
    /// nothing, it is refused.
    fn over_limit(
        &self,
        over: OverLimit,
        query: &Query,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Step {
        let answer = match (transport, over) {
            (Transport::Udp, OverLimit::Drop) => {
                self.dropped.add(&self.dropped.client_rate, 1);
                return Step::Silence;
            }
            (Transport::Udp, OverLimit::Truncate) => Answer {
                truncated: true,
                ..Answer::code(ResponseCode::NoError, None)
            },
            (Transport::Tcp { .. } | Transport::Https | Transport::Quic, _) => over_rate(),
        };
        encode::reply(query, &answer, transport, out);
        Step::Replied(Reuse::No)
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
            Step::Replied(_) => {}
            Step::Later(later) => self.finish(later, out).await,
        }
        true
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
                Ok(served) => join(served, &name, aliases),
                Err(error) => Reply::Plain(forward_failure(error)),
            };
            let Some(search) = search else { break reply };
            match self.go_on(search, reply, &chain, &asked) {
                Ok(reply) => break reply,
                Err(next) => wait = next,
            }
        };
        chain.conclude(&asked, reply, out);
    }

    /// The chain of the longest zone that the name is in. DS records are above the zone that they
    /// are for (RFC 4035 section 2.4): they are asked for at the shortest one but the root.
    fn chain_of(&self, question: &Question) -> Option<Rc<Chain>> {
        let routes = self.routes.borrow();
        let mut having = routes
            .iter()
            .filter(|route| question.name.is_within(&route.zone));
        let longest = having.next()?;
        let above = match question.record_type {
            RecordType::DS => having.filter(|route| route.zone != Name::root()).last(),
            _ => None,
        };
        Some(Rc::clone(&above.unwrap_or(longest).chain))
    }

    /// The answer to the query, or to `target` instead, or what has to be waited for. An alias that
    /// leads out of a chain is looked up from the start, as a question of its own.
    fn walk(
        &self,
        first: &Rc<Chain>,
        asked: &Asked,
        mut target: Option<Question>,
    ) -> Result<Reply, Box<Wait>> {
        let mut chain = Rc::clone(first);
        let mut aliases: Option<Answer> = None;
        loop {
            let question = target.as_ref().unwrap_or(&asked.query.question);
            match chain.local(&self.reader.load(), question) {
                Local::Done(answer) => {
                    return Ok(Reply::Plain(complete(answer, &question.name, aliases)));
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
                    let Some(next_chain) = self.chain_of(&next) else {
                        let failure = forward_failure(ForwardError::NoUpstream);
                        return Ok(Reply::Plain(failure));
                    };
                    chain = next_chain;
                    aliases = Some(answer);
                    target = Some(next);
                    continue;
                }
            }
            let name = question.name.clone();
            let client = asked.client.ip();
            return match chain.forward(&asked.query, question, client, asked.transport) {
                Remote::Done(served) => Ok(join(served, &name, aliases)),
                Remote::Failed(error) => Ok(Reply::Plain(forward_failure(error))),
                Remote::Ask(resolver, fetch, stale) => Err(Box::new(Wait {
                    resolver,
                    fetch,
                    stale,
                    name,
                    aliases,
                    search: None,
                })),
            };
        }
    }
}

/// What was found for the name that was asked for, or for the one that our aliases lead to.
fn join(served: Served, name: &Name, aliases: Option<Answer>) -> Reply {
    if aliases.is_none() {
        return Reply::Packed(served);
    }
    let answer = unpack(&served.packed, name, served.serving);
    Reply::Plain(complete(answer, name, aliases))
}

/// Joins our aliases with what was found for the name that they lead to. The code is the one of the
/// last name (RFC 6604).
fn complete(mut answer: Answer, name: &Name, aliases: Option<Answer>) -> Answer {
    for record in &mut answer.answers {
        give_case(record, name);
    }
    if let Some(mut aliases) = aliases {
        // AA is about the first name of the answer (RFC 1035 section 4.1.1).
        answer.authoritative = true;
        answer.recursion_available = false;
        answer.authentic = false;
        aliases.answers.append(&mut answer.answers);
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
