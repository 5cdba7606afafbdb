//! The resolver behind the DNS servers that forward: has an address for every name, at once.

use std::net::{SocketAddr, UdpSocket};

use anyhow::Context as _;

use crate::stage::BACKENDS;

/// Its port.
const PORT: u16 = 9053;

/// Seconds for which its answers may be kept.
const TTL: u32 = 3600;

/// Length of a message's header.
const HEADER: usize = 12;

/// Type A.
const A: [u8; 2] = [0, 1];

/// OPT record without options that announces 1232 bytes.
const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

/// Starts it once, for the life of the process, and returns where it is.
///
/// # Errors
/// Its port is taken.
pub(crate) fn start() -> anyhow::Result<SocketAddr> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    let addr = SocketAddr::from((BACKENDS[0], PORT));
    let mut result = Ok(());
    ONCE.call_once(|| {
        result = UdpSocket::bind(addr).map(|socket| {
            std::thread::spawn(move || serve(&socket));
        });
    });
    result.context("the resolver did not start")?;
    Ok(addr)
}

fn serve(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut query) {
        if let Some(reply) = reply(&query[..length]) {
            // A client that is gone asks again or does not care.
            let _ = socket.send_to(&reply, client);
        }
    }
}

/// The reply to a query with one question.
fn reply(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = HEADER;
    while *query.get(end)? != 0 {
        end += usize::from(query[end]) + 1;
    }
    let record_type = query.get(end + 1..end + 3)?;
    let question = query.get(HEADER..end + 5)?;
    let has_address = record_type == A;
    let has_opt = query[11] > 0;
    let mut reply = Vec::with_capacity(query.len() + 32);
    reply.extend_from_slice(&query[..2]);
    // QR, RD, RA.
    reply.extend_from_slice(&[0x81, 0x80]);
    reply.extend_from_slice(&[0, 1, 0, has_address.into(), 0, 0, 0, has_opt.into()]);
    reply.extend_from_slice(question);
    if has_address {
        reply.extend_from_slice(&[0xc0, HEADER as u8, 0, 1, 0, 1]);
        reply.extend_from_slice(&TTL.to_be_bytes());
        reply.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
    }
    if has_opt {
        reply.extend_from_slice(&OPT);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Question;

    #[test]
    fn addresses_have_a_record_and_other_types_none() {
        let mut query = Question::new("a.test", 1, 0, 1).message;
        query[..2].copy_from_slice(&[7, 8]);
        let found = reply(&query).expect("a query");
        assert_eq!(found[..12], [7, 8, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert!(found.ends_with(&[0, 4, 192, 0, 2, 1]));
        let none = reply(&Question::new("a.test", 28, 0, 0).message).expect("a query");
        assert_eq!(none[7], 0);
        assert_eq!(reply(&query[..14]), None);
    }
}
