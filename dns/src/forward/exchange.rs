//! One query to one upstream: UDP, and TCP if the reply was truncated.
//!
//! Against forged replies every query has a random id, a socket of its own on a random port,
//! connected, so that the kernel drops what comes from elsewhere, and a name in random case. Replies
//! that do not fit the query are ignored. After [`MAX_WRONG`] of them somebody is guessing, and TCP
//! is used, where guessing does not help; so it is when the name comes back in another case, which
//! is a guess or an upstream that does not keep case. That, and whether it speaks EDNS, is remembered
//! of an upstream.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;

use rand::RngCore;
use sealane_config::sockets::HostSockets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

use super::ForwardError;
use crate::answer::Answer;
use crate::answer::encode::{self, DnssecOk};
use crate::message::{HEADER, Question, flag};
use crate::name::Name;
use crate::reply::{self, ReplyError};

/// Largest datagram that is read; upstreams are told 1232.
const DATAGRAM: usize = 4096;
/// Wrong replies over UDP until TCP is used.
const MAX_WRONG: u32 = 32;

/// What an upstream is asked. The name is in lower case.
pub(super) struct Asked<'a> {
    pub(super) question: &'a Question,
    pub(super) dnssec_ok: bool,
    pub(super) checking_disabled: bool,
}

/// What was learned about an upstream.
#[derive(Debug)]
pub(super) struct Traits {
    /// Repeats the question in the case in which it was asked.
    keeps_case: Cell<bool>,
    /// Understands OPT records.
    speaks_edns: Cell<bool>,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            keeps_case: Cell::new(true),
            speaks_edns: Cell::new(true),
        }
    }
}

impl Asked<'_> {
    fn encode(&self, id: u16, name: Name, edns: bool) -> Vec<u8> {
        let question = Question::new(name, self.question.record_type);
        let edns = edns.then_some(DnssecOk(self.dnssec_ok));
        let cd = if self.checking_disabled { flag::CD } else { 0 };
        encode::query(id, &question, edns, flag::RD | cd)
    }

    fn parse(&self, message: &[u8], id: u16) -> Result<Answer, ReplyError> {
        reply::parse(message, id, self.question, self.dnssec_ok)
    }

    fn random_case(&self) -> Name {
        let mut rng = rand::rng();
        self.question
            .name
            .with_case(std::iter::repeat_with(|| rng.next_u32() & 1 == 1))
    }
}

impl From<io::Error> for ForwardError {
    fn from(_error: io::Error) -> Self {
        Self::Network
    }
}

/// Asks. Has no time limit of its own.
pub(super) async fn exchange(
    sockets: &HostSockets,
    upstream: SocketAddr,
    traits: &Traits,
    asked: &Asked<'_>,
) -> Result<Answer, ForwardError> {
    let mut edns = traits.speaks_edns.get();
    loop {
        let reply = match over_udp(sockets, upstream, traits, asked, edns).await? {
            Some(reply) => reply,
            None => over_tcp(sockets, upstream, asked, edns).await?,
        };
        match reply {
            Ok(answer) => {
                // Learned only now: an upstream may also refuse the type, with or without EDNS.
                traits.speaks_edns.set(edns);
                return Ok(answer);
            }
            Err(ReplyError::NoEdns) if edns => edns = false,
            Err(_) => return Err(ForwardError::BadReply),
        }
    }
}

/// `None`: TCP is to be used.
async fn over_udp(
    sockets: &HostSockets,
    upstream: SocketAddr,
    traits: &Traits,
    asked: &Asked<'_>,
    edns: bool,
) -> Result<Option<Result<Answer, ReplyError>>, ForwardError> {
    let socket = UdpSocket::from_std(sockets.udp(upstream).await?)?;
    socket.connect(upstream).await?;
    let id = rand::random();
    let name = match traits.keeps_case.get() {
        true => asked.random_case(),
        false => asked.question.name.clone(),
    };
    let query = asked.encode(id, name.clone(), edns);
    socket.send(&query).await?;
    let mut buffer = vec![0; DATAGRAM];
    for _ in 0..MAX_WRONG {
        let length = socket.recv(&mut buffer).await?;
        let message = &mut buffer[..length];
        let kept_case = with_our_case(message, &name, asked);
        match asked.parse(message, id) {
            Err(ReplyError::NotOurs) => {}
            Err(ReplyError::Truncated) => return Ok(None),
            Ok(_) if !kept_case && traits.keeps_case.replace(false) => return Ok(None),
            reply => return Ok(Some(reply)),
        }
    }
    Ok(None)
}

/// Whether the question is repeated exactly. If so it is put into lower case, and with it every
/// name that is compressed against it.
fn with_our_case(message: &mut [u8], sent: &Name, asked: &Asked<'_>) -> bool {
    let end = HEADER + sent.wire().len();
    let Some(theirs) = message.get_mut(HEADER..end) else {
        return false;
    };
    let same = *theirs == *sent.wire();
    if same {
        theirs.copy_from_slice(asked.question.name.wire());
    }
    same
}

async fn over_tcp(
    sockets: &HostSockets,
    upstream: SocketAddr,
    asked: &Asked<'_>,
    edns: bool,
) -> Result<Result<Answer, ReplyError>, ForwardError> {
    let socket = TcpSocket::from_std_stream(sockets.tcp(upstream).await?.into());
    let mut stream = socket.connect(upstream).await?;
    let id = rand::random();
    let query = asked.encode(id, asked.question.name.clone(), edns);
    let mut frame = Vec::with_capacity(query.len() + 2);
    frame.extend_from_slice(&(query.len() as u16).to_be_bytes());
    frame.extend_from_slice(&query);
    stream.write_all(&frame).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(asked.parse(&message, id))
}
