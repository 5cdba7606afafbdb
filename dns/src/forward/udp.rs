//! One query over UDP.
//!
//! Against forged replies every query has a random id, a socket of its own on a random port,
//! connected, so that the kernel drops what comes from elsewhere, and a name in random case
//! (draft-vixie-dnsext-dns0x20). Replies that do not fit the query are ignored. After [`MAX_WRONG`] of
//! them somebody is guessing, and TCP is used, where guessing does not help; so it is when the name
//! comes back in another case, which is a guess or an upstream that does not keep case. The latter is
//! remembered.

use std::rc::Rc;

use rand::RngCore;
use tokio::net::UdpSocket;

use super::ForwardError;
use super::exchange::{Asked, Links};
use super::upstream::Upstream;
use crate::answer::Answer;
use crate::message::HEADER;
use crate::name::Name;
use crate::reply::ReplyError;

/// Largest datagram that is read; upstreams are told 1232.
const DATAGRAM: usize = 4096;
/// Wrong replies until TCP is used.
const MAX_WRONG: u32 = 32;

/// What came.
pub(super) enum Heard {
    /// A reply to the query.
    Reply(Result<Answer, ReplyError>),
    /// What may be guesses: TCP is to be used.
    Guesses,
}

pub(super) async fn ask(
    links: &Rc<Links>,
    upstream: &Rc<Upstream>,
    asked: &Asked,
    edns: bool,
) -> Result<Heard, ForwardError> {
    let addr = upstream.target.addr;
    let socket = match links.source(upstream) {
        Some(source) => links.sockets.udp_from(source).await?,
        None => links.sockets.udp(addr).await?,
    };
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(addr).await?;
    let id = rand::random();
    let keeps_case = &upstream.traits.keeps_case;
    let name = match keeps_case.get() {
        true => random_case(&asked.key.name),
        false => asked.key.name.clone(),
    };
    let query = asked.encode(id, name.clone(), edns);
    socket.send(&query).await?;
    let mut buffer = vec![0; DATAGRAM];
    for _ in 0..MAX_WRONG {
        let length = socket.recv(&mut buffer).await?;
        let message = &mut buffer[..length];
        let kept_case = with_our_case(message, &name, &asked.key.name);
        match asked.parse(message, id) {
            Err(ReplyError::NotOurs) => {}
            Ok(_) if !kept_case && keeps_case.replace(false) => return Ok(Heard::Guesses),
            reply => return Ok(Heard::Reply(reply)),
        }
    }
    Ok(Heard::Guesses)
}

fn random_case(name: &Name) -> Name {
    let mut rng = rand::rng();
    name.with_case(std::iter::repeat_with(|| rng.next_u32() & 1 == 1))
}

/// Whether the question is repeated exactly. If so it is put into lower case, and with it every
/// name that is compressed against it.
fn with_our_case(message: &mut [u8], sent: &Name, lower: &Name) -> bool {
    let end = HEADER + sent.wire().len();
    let Some(theirs) = message.get_mut(HEADER..end) else {
        return false;
    };
    let same = *theirs == *sent.wire();
    if same {
        theirs.copy_from_slice(lower.wire());
    }
    same
}
