//! From a message to a reply on one listener.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_config::Reader;

use super::aliases::{complete, failed, join};
use super::{Basis, Counted, Later, Routes, Step, Wait, Way};
use crate::answer::Answer;
use crate::answer::encode::{self, Transport};
use crate::chain::{Asked, Before, Chain, Local, Remote, Reply};
use crate::cookie::CookieSecret;
use crate::forward::ForwardError;
use crate::limit::OverLimit;
use crate::lookup::MAX_ALIASES;
use crate::message::{self, Query, Question, Rejected, class};
use crate::metrics::{Observed, StatusMetrics, Writer};
use crate::name::Name;
use crate::rcode::{LocalFailure, local_failure, over_rate};
use crate::udp::{self, Reuse};

/// The server on one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub(super) reader: Reader,
    pub(super) routes: Rc<RefCell<Routes>>,
    pub(super) dropped: Rc<udp::Dropped>,
    pub(super) cookies: Rc<CookieSecret>,
    pub(super) statuses: Rc<StatusMetrics>,
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
        let mut parsed = message::parse(message);
        if let Ok(query) | Err(Rejected::Code(query, _)) = &mut parsed
            && let Some(edns) = &mut query.edns
            && let Some(cookie) = &edns.cookie
        {
            edns.server_cookie = Some(self.cookies.cookie(cookie, client.ip()));
        }
        let mut query = match parsed {
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
        let way = self.way_of(&query.question);
        if let (Some(way), Some(edns)) = (&way, &mut query.edns) {
            way.chain.describe(edns);
        }
        let Some(way) = way else {
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
    pub(super) fn over_limit(
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
    pub(super) fn way_of(&self, question: &Question) -> Option<Way> {
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
    pub(super) fn walk(
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
