//! The server: from a message to a reply, over whatever transport.
//!
//! What can be answered from the snapshot or the cache is answered at once, without a task. The rest
//! waits for an upstream.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use sealane_config::Reader;
use sealane_config::sockets::HostSockets;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::answer::encode::{self, Transport};
use crate::cache::Key;
use crate::forward::{ForwardError, Forwarder};
use crate::lookup::{self, Outcome};
use crate::message::{self, Query};
use crate::name::Name;
use crate::rcode::forward_failure;
use crate::record::Record;
use crate::settings::DnsSettings;
use crate::{tcp, udp};

/// Cluster DNS on one worker. Cheap to clone; not to be sent to another thread: each worker makes
/// its own. Serving needs a current-thread runtime that runs local tasks.
#[derive(Clone, Debug)]
pub struct DnsServer {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reader: Reader,
    settings: Arc<DnsSettings>,
    forwarder: Forwarder,
    dropped: udp::Dropped,
}

/// What became of a message.
pub(crate) enum Step {
    /// There is to be no reply.
    Silence,
    /// The reply was written.
    Replied,
    /// The reply needs an upstream.
    Later(Box<Later>),
}

/// A query that waits for an upstream.
pub(crate) struct Later {
    query: Query,
    /// What has to be asked.
    key: Key,
    /// The name whose case the records of the reply get.
    name: Name,
    /// Aliases of ours that lead to that name.
    aliases: Option<Answer>,
}

impl DnsServer {
    /// A server that reads the cluster's state from `reader` and reaches upstreams over sockets made
    /// by `sockets`.
    pub fn new(reader: Reader, sockets: HostSockets, settings: Arc<DnsSettings>) -> Self {
        let forwarder = Forwarder::new(sockets, &settings.upstreams);
        Self {
            inner: Rc::new(Inner {
                reader,
                settings,
                forwarder,
                dropped: udp::Dropped::default(),
            }),
        }
    }

    /// Answers datagrams until `shutdown`, then those that have arrived and those that wait for an
    /// upstream. Replies come from the address that was asked, also on a wildcard address.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub async fn serve_udp(
        &self,
        socket: std::net::UdpSocket,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        udp::serve(self, socket, shutdown).await
    }

    /// Answers queries over connections until `shutdown`, then those that were read.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn serve_tcp(
        &self,
        listener: std::net::TcpListener,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        tcp::serve(self, listener, shutdown).await
    }

    /// Datagrams that got no answer so far.
    pub fn udp_dropped(&self) -> &udp::Dropped {
        &self.inner.dropped
    }

    /// Appends the reply to `out` if it can be given at once.
    pub(crate) fn start(
        &self,
        message: &[u8],
        client: IpAddr,
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
                    false => Step::Replied,
                };
            }
        };
        match self.answer(query, client) {
            Ok((query, mut answer)) => {
                answer.shuffle();
                encode::reply(&query, &answer, transport, out);
                Step::Replied
            }
            Err(later) => Step::Later(later),
        }
    }

    /// Appends the reply to `out` once an upstream has answered or failed.
    pub(crate) async fn finish(&self, later: Box<Later>, transport: Transport, out: &mut Vec<u8>) {
        let result = self.inner.forwarder.resolve(later.key).await;
        let mut answer = complete(result, &later.name, later.aliases);
        answer.shuffle();
        encode::reply(&later.query, &answer, transport, out);
    }

    /// The answer, or what has to be asked for it.
    fn answer(&self, query: Query, client: IpAddr) -> Result<(Query, Answer), Box<Later>> {
        let settings = &self.inner.settings;
        let outcome = lookup::answer(&self.inner.reader.load(), settings, &query.question);
        let (name, aliases) = match outcome {
            Outcome::Done(answer) | Outcome::Stop(answer) => return Ok((query, answer)),
            Outcome::Alias { answer, target } => (target, Some(answer)),
            Outcome::NotMine => (query.question.name.clone(), None),
        };
        if !settings.recursion.allows(client) {
            return Ok((query, forward_failure(ForwardError::NotAllowed)));
        }
        let key = Key {
            name: name.to_lowercase(),
            record_type: query.question.record_type,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.checking_disabled(),
        };
        match self.inner.forwarder.cached(&key) {
            Some(cached) => Ok((query, complete(Ok(cached), &name, aliases))),
            None => Err(Box::new(Later {
                query,
                key,
                name,
                aliases,
            })),
        }
    }
}

/// Joins our aliases with what an upstream said about the name that they lead to. The code is the
/// one of the last name (RFC 6604).
fn complete(result: Result<Answer, ForwardError>, name: &Name, aliases: Option<Answer>) -> Answer {
    let mut answer = match result {
        Ok(answer) => answer,
        Err(error) => return forward_failure(error),
    };
    for record in &mut answer.answers {
        give_case(record, name);
    }
    if let Some(mut aliases) = aliases {
        // AA is about the first name of the answer (RFC 1035 section 4.1.1).
        answer.authoritative = true;
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
