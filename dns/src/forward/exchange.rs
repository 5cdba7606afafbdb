//! One query to one upstream: UDP, and TCP if the reply was truncated.
//!
//! Every query has a random id and a socket of its own on a random port, connected, so that the
//! kernel drops what comes from elsewhere. Replies that do not fit the query are ignored; after
//! [`MAX_WRONG`] of them somebody is guessing, and TCP is used, where guessing does not help.

use std::io;
use std::net::SocketAddr;

use sealane_config::sockets::HostSockets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

use super::ForwardError;
use crate::answer::{Answer, encode};
use crate::message::Question;
use crate::reply::{self, ReplyError};

/// Largest datagram that is read; upstreams are told 1232.
const DATAGRAM: usize = 4096;
/// Wrong replies over UDP until TCP is used.
const MAX_WRONG: u32 = 32;

/// What an upstream is asked.
pub(super) struct Asked<'a> {
    pub(super) question: &'a Question,
    pub(super) dnssec_ok: bool,
    pub(super) checking_disabled: bool,
}

impl Asked<'_> {
    fn encode(&self, id: u16) -> Vec<u8> {
        encode::query(id, self.question, self.dnssec_ok, self.checking_disabled)
    }

    fn parse(&self, message: &[u8], id: u16) -> Result<Answer, ReplyError> {
        reply::parse(message, id, self.question, self.dnssec_ok)
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
    asked: &Asked<'_>,
) -> Result<Answer, ForwardError> {
    match over_udp(sockets, upstream, asked).await? {
        Some(answer) => Ok(answer),
        None => over_tcp(sockets, upstream, asked).await,
    }
}

/// `None`: TCP is to be used.
async fn over_udp(
    sockets: &HostSockets,
    upstream: SocketAddr,
    asked: &Asked<'_>,
) -> Result<Option<Answer>, ForwardError> {
    let socket = UdpSocket::from_std(sockets.udp(upstream).await?)?;
    socket.connect(upstream).await?;
    let id = rand::random();
    socket.send(&asked.encode(id)).await?;
    let mut buffer = vec![0; DATAGRAM];
    for _ in 0..MAX_WRONG {
        let length = socket.recv(&mut buffer).await?;
        match asked.parse(&buffer[..length], id) {
            Ok(answer) => return Ok(Some(answer)),
            Err(ReplyError::Truncated) => return Ok(None),
            Err(ReplyError::NotOurs) => {}
            Err(ReplyError::Malformed(_)) => return Err(ForwardError::BadReply),
        }
    }
    Ok(None)
}

async fn over_tcp(
    sockets: &HostSockets,
    upstream: SocketAddr,
    asked: &Asked<'_>,
) -> Result<Answer, ForwardError> {
    let socket = TcpSocket::from_std_stream(sockets.tcp(upstream).await?.into());
    let mut stream = socket.connect(upstream).await?;
    let id = rand::random();
    let query = asked.encode(id);
    let mut frame = Vec::with_capacity(query.len() + 2);
    frame.extend_from_slice(&(query.len() as u16).to_be_bytes());
    frame.extend_from_slice(&query);
    stream.write_all(&frame).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    asked
        .parse(&message, id)
        .map_err(|_bad| ForwardError::BadReply)
}
