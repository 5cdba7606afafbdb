//! Datagrams that an endpoint's machine sent back.
//!
//! The kernel keeps the ICMP errors about a socket's datagrams (`IP_RECVERR`), each with the part of
//! the datagram that it quotes. A datagram that was refused did not reach any program, so that it may
//! go to another endpoint, if the quote has all of it. Quotes do not say whether they do (Linux
//! quotes 548 bytes of an IPv4 packet, others may quote eight), so only one that is as long as the
//! last datagram of the flow counts as whole.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

/// More is not quoted: an ICMPv6 error has 1280 bytes.
const QUOTE: usize = 1280;

/// Errors that the kernel may keep for one socket are a few; a loop over them ends.
const MOST: usize = 64;

/// Has the kernel keep errors about this socket's datagrams.
pub(super) fn keep(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    }
    Ok(())
}

/// What the errors mean for the flow.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Undelivered {
    /// Nobody listens at the endpoint, or there is no way to it.
    pub(super) is_failure: bool,
    /// The last datagram, if that is what was refused.
    pub(super) last: Option<Vec<u8>>,
}

/// Takes all errors from a socket whose last datagram had this length.
pub(super) fn take(socket: &UdpSocket, last_length: usize) -> Undelivered {
    let mut all = Undelivered::default();
    let mut quote = [0; QUOTE];
    let mut control = nix::cmsg_space!([u8; 64]);
    for _ in 0..MOST {
        let mut parts = [IoSliceMut::new(&mut quote)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let Ok(error) = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags)
        else {
            break;
        };
        let length = error.bytes;
        let errno = error.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::Ipv4RecvErr(error, _)
                | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error.ee_errno),
                _ => None,
            })
        });
        let errno = errno.map(|errno| Errno::from_raw(errno.cast_signed()));
        // Others, such as a path that takes smaller datagrams only, the kernel deals with itself.
        if let Some(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) = errno {
            all.is_failure = true;
            if length == last_length {
                all.last = Some(quote[..length].to_vec());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_refused_datagram_is_had_back_if_it_is_whole() {
        for ip in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            for (length, is_whole) in [(0, true), (1, true), (500, true), (4000, false)] {
                let socket = UdpSocket::bind((ip, 0)).unwrap();
                keep(&socket).unwrap();
                let closed = UdpSocket::bind((ip, 0)).unwrap();
                socket.connect(closed.local_addr().unwrap()).unwrap();
                drop(closed);
                let content: Vec<u8> = (0..length).map(|i| i as u8).collect();
                socket.send(&content).unwrap();
                let undelivered = take(&socket, length);
                assert!(undelivered.is_failure, "{ip}, {length}");
                let expected = is_whole.then_some(content);
                assert_eq!(undelivered.last, expected, "{ip}, {length}");
                assert_eq!(take(&socket, length), Undelivered::default());
            }
        }
    }

    #[test]
    fn a_quote_of_another_length_is_not_the_last_datagram() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        keep(&socket).unwrap();
        let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(closed.local_addr().unwrap()).unwrap();
        drop(closed);
        socket.send(b"first").unwrap();
        let undelivered = take(&socket, 3);
        assert!(undelivered.is_failure);
        assert_eq!(undelivered.last, None);
    }
}
