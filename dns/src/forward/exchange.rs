//! One query to one upstream, over whatever it speaks.
//!
//! Plain upstreams are asked over what the settings say; TCP is also used when the upstream cuts off
//! a reply and the client cannot ask again itself, and when somebody is guessing ([`super::udp`]).
//! Whether an upstream speaks EDNS is remembered.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use sealane_config::sockets::HostSockets;
use tokio::net::{TcpSocket, TcpStream};

use super::plan::Speaks;
use super::stream::{self, Open};
use super::udp::{self, Heard};
use super::upstream::Upstream;
use super::{ForwardError, Via, https};
use crate::answer::Answer;
use crate::answer::encode::{self, DnssecOk};
use crate::cache::Key;
use crate::config::{ForwardSettings, Protocol};
use crate::message::{Question, flag};
use crate::name::Name;
use crate::reply::{self, ReplyError};

/// What upstreams are reached with.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) sockets: HostSockets,
    pub(super) settings: Arc<ForwardSettings>,
}

/// What an upstream is asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) recursion_desired: bool,
}

impl Asked {
    /// The message, with the name spelled like this.
    pub(super) fn encode(&self, id: u16, name: Name, edns: bool) -> Vec<u8> {
        let question = Question::new(name, self.key.record_type);
        let edns = edns.then_some(DnssecOk(self.key.dnssec_ok));
        let mut flags = 0;
        if self.recursion_desired {
            flags |= flag::RD;
        }
        if self.key.checking_disabled {
            flags |= flag::CD;
        }
        encode::query(id, &question, edns, flags)
    }

    pub(super) fn parse(&self, message: &[u8], id: u16) -> Result<Answer, ReplyError> {
        let question = Question::new(self.key.name.clone(), self.key.record_type);
        reply::parse(message, id, &question, self.key.dnssec_ok)
    }
}

impl From<io::Error> for ForwardError {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "upstream");
        Self::Network
    }
}

impl Links {
    /// A connection to `upstream`, from the address that the settings say.
    pub(super) async fn connect(&self, upstream: &Upstream) -> io::Result<TcpStream> {
        let addr = upstream.target.addr;
        let socket = self.sockets.tcp(addr).await?;
        if let Some(source) = self.source(upstream) {
            socket.bind(&std::net::SocketAddr::from((source, 0)).into())?;
        }
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.connect(addr).await
    }

    /// Where queries come from, if the settings name an address of the upstream's family.
    pub(super) fn source(&self, upstream: &Upstream) -> Option<std::net::IpAddr> {
        let family = |source: &std::net::IpAddr| source.is_ipv4() == upstream.target.addr.is_ipv4();
        self.settings.source_address.filter(family)
    }
}

/// Asks. Has no time limit of its own.
pub(super) async fn exchange(
    links: &Rc<Links>,
    upstream: &Rc<Upstream>,
    asked: &Asked,
    via: Via,
) -> Result<Answer, ForwardError> {
    let traits = &upstream.traits;
    let mut edns = traits.speaks_edns.get();
    loop {
        let reply = match &upstream.target.speaks {
            Speaks::Plain => plain(links, upstream, asked, edns, via).await?,
            Speaks::Tls(..) => over_stream(links, upstream, asked, edns).await?,
            Speaks::Https(https) => https::ask(links, upstream, https, asked, edns).await?,
        };
        match reply {
            Ok(answer) => {
                // Learned only now: an upstream may also refuse the type, with or without EDNS.
                traits.speaks_edns.set(edns);
                return Ok(answer);
            }
            Err(ReplyError::NoEdns(_)) if edns => edns = false,
            Err(ReplyError::NoEdns(rcode)) => return Ok(Answer::code(rcode, None)),
            Err(ReplyError::NotOurs | ReplyError::Malformed(_)) => {
                return Err(ForwardError::BadReply);
            }
        }
    }
}

async fn plain(
    links: &Rc<Links>,
    upstream: &Rc<Upstream>,
    asked: &Asked,
    edns: bool,
    via: Via,
) -> Result<Result<Answer, ReplyError>, ForwardError> {
    let protocol = links.settings.protocol;
    let by_tcp = match protocol {
        Protocol::Tcp => true,
        Protocol::Client => via == Via::Stream,
        Protocol::PreferUdp => false,
    };
    if !by_tcp {
        upstream.metrics.connection("udp", false);
        match udp::ask(links, upstream, asked, edns).await? {
            // The client sees that it was cut off and asks again over TCP.
            Heard::Reply(reply) if protocol == Protocol::Client => return Ok(reply),
            Heard::Reply(Ok(answer)) if answer.truncated => {}
            Heard::Reply(reply) => return Ok(reply),
            Heard::Guesses => {}
        }
    }
    over_stream(links, upstream, asked, edns).await
}

async fn over_stream(
    links: &Rc<Links>,
    upstream: &Rc<Upstream>,
    asked: &Asked,
    edns: bool,
) -> Result<Result<Answer, ReplyError>, ForwardError> {
    let tls = match &upstream.target.speaks {
        Speaks::Tls(tls) => Some(tls.clone()),
        Speaks::Plain | Speaks::Https(_) => None,
    };
    let proto = match &tls {
        Some(_) => "tcp-tls",
        None => "tcp",
    };
    let open = || Open {
        links: Rc::clone(links),
        upstream: Rc::clone(upstream),
        tls: tls.clone(),
    };
    let count = |reused| upstream.metrics.connection(proto, reused);
    stream::ask(&upstream.streams, open, count, asked, edns).await
}
