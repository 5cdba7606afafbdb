//! The PROXY protocol, versions 1 and 2, as sent to us ("The PROXY protocol", HAProxy, 2020/03/05).
//!
//! A proxy that only copies bytes says ahead of them who its client is. The header is read only where
//! it is expected, from proxies that are trusted, and then it has to be there: a header that is
//! optional could be sent by the client behind the proxy.
//!
//! Read from the stream is exactly the header, since what follows is somebody else's to read (TLS, the
//! relay). A line of version 1 is therefore read byte by byte once its shortest form is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// How long a header may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The first bytes of version 1.
const WORD: &[u8; 6] = b"PROXY ";

/// The shortest header of either version: `PROXY UNKNOWN` with its end.
const SHORTEST: usize = 15;

/// The longest line of version 1, its end included.
const LONGEST_LINE: usize = 107;

/// Signature, command, family and length of version 2.
const FIXED: usize = 16;

/// Two IPv6 addresses and ports, the longest that is looked at.
const LONGEST_ADDRESSES: usize = 36;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself (a health check), or does not know who its client is.
    Local,
    /// It speaks for a client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// How far a header was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There are at least this many bytes more.
    Needs(usize),
    /// It is complete, but for this many bytes of extensions, which are skipped.
    Done(Header, usize),
}

/// What came is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PROXY header")]
pub struct Malformed;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// Something else came.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The connection ended, or failed.
    #[error("the connection ended before its PROXY header did")]
    Io(#[from] std::io::Error),
}

/// Reads a header from the beginning of a connection, and nothing behind it.
///
/// # Errors
/// There is none. The stream is of no use any more.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Header, HeaderError> {
    let mut buffer = [0; LONGEST_LINE];
    let mut filled = 0;
    loop {
        match parse(&buffer[..filled])? {
            Progress::Needs(more) => {
                let room = buffer.get_mut(filled..filled + more).ok_or(Malformed)?;
                stream.read_exact(room).await?;
                filled += more;
            }
            Progress::Done(header, mut rest) => {
                while rest > 0 {
                    let part = rest.min(buffer.len());
                    stream.read_exact(&mut buffer[..part]).await?;
                    rest -= part;
                }
                return Ok(header);
            }
        }
    }
}

/// Reads as much of a header as there is.
///
/// # Errors
/// No header begins so.
pub fn parse(bytes: &[u8]) -> Result<Progress, Malformed> {
    let begins = |word: &[u8]| {
        let common = word.len().min(bytes.len());
        bytes[..common] == word[..common]
    };
    if !begins(WORD) && !begins(SIGNATURE) {
        return Err(Malformed);
    }
    if bytes.len() < SHORTEST {
        return Ok(Progress::Needs(SHORTEST - bytes.len()));
    }
    if begins(WORD) {
        line(bytes)
    } else {
        binary(bytes)
    }
}

/// Version 1.
fn line(bytes: &[u8]) -> Result<Progress, Malformed> {
    if bytes.last() != Some(&b'\n') {
        return match bytes.len() < LONGEST_LINE && !bytes.contains(&b'\n') {
            true => Ok(Progress::Needs(1)),
            false => Err(Malformed),
        };
    }
    let text = bytes.strip_suffix(b"\r\n").ok_or(Malformed)?;
    let text = std::str::from_utf8(text).map_err(|_not_text| Malformed)?;
    if text.contains(['\r', '\n']) {
        return Err(Malformed);
    }
    let mut words = text.split(' ').skip(1);
    let family = words.next().ok_or(Malformed)?;
    if family == "UNKNOWN" {
        return Ok(Progress::Done(Header::Local, 0));
    }
    let words: Vec<&str> = words.take(5).collect();
    let [source, destination, from, to] = words[..] else {
        return Err(Malformed);
    };
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
            _ => return Err(Malformed),
        }
        .map_err(|_not_of_the_family| Malformed)
    };
    let header = Header::Proxied {
        source: SocketAddr::new(address(source)?, port(from)?),
        destination: SocketAddr::new(address(destination)?, port(to)?),
    };
    Ok(Progress::Done(header, 0))
}

/// Digits, without zeros ahead of them.
fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain).ok_or(Malformed)
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Progress, Malformed> {
    let Some((fixed, behind)) = bytes.split_at_checked(FIXED) else {
        return Ok(Progress::Needs(FIXED - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let (command, family) = (fixed[12], fixed[13]);
    let skipped = |header| {
        let rest = length.checked_sub(behind.len()).ok_or(Malformed)?;
        Ok(Progress::Done(header, rest))
    };
    let size = match (command, family) {
        (0x20, _) | (0x21, 0x00) => return skipped(Header::Local),
        (0x21, 0x11) => 12,
        (0x21, 0x21) => LONGEST_ADDRESSES,
        _ => return Err(Malformed),
    };
    if length < size {
        return Err(Malformed);
    }
    if behind.len() < size {
        return Ok(Progress::Needs(size - behind.len()));
    }
    let port = |at: usize| u16::from_be_bytes([behind[at], behind[at + 1]]);
    let (source, destination) = if size == LONGEST_ADDRESSES {
        (v6(behind), v6(&behind[16..]))
    } else {
        (v4(behind), v4(&behind[4..]))
    };
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err(Malformed);
    };
    skipped(Header::Proxied {
        source: SocketAddr::new(source, port(size - 4)),
        destination: SocketAddr::new(destination, port(size - 2)),
    })
}

fn v4(bytes: &[u8]) -> Option<IpAddr> {
    let octets = bytes.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*octets).into())
}

fn v6(bytes: &[u8]) -> Option<IpAddr> {
    let octets = bytes.first_chunk::<16>()?;
    Some(Ipv6Addr::from(*octets).into())
}

#[cfg(test)]
mod tests;
