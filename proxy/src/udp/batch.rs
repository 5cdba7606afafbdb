//! Many datagrams with one system call.
//!
//! Each worker has one room of [`BATCH`] slots of the largest datagram. Pages of a slot are touched
//! only by datagrams that fill them, so usual traffic uses a few dozen of them.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::libc::{sockaddr_in, sockaddr_in6};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmmsg, sendmmsg,
};

/// Datagrams that are taken at once.
pub(super) const BATCH: usize = 32;

/// No datagram is larger.
const LARGEST: usize = 64 * 1024;

/// What the datagrams of a socket come with. The kernel writes lengths into the headers that it is
/// handed, and nix does not write them back, so that headers serve sockets of one kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4, for the socket's own address.
    V4,
    /// IPv6, for the socket's own address.
    V6,
    /// IPv4, with the address that was dialled.
    InterceptedV4,
    /// IPv6, with the address that was dialled.
    InterceptedV6,
}

impl Kind {
    /// That of a socket bound to this address.
    pub(super) fn bound(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn headers(self) -> MultiHeaders<SockaddrStorage> {
        let control = match self {
            Self::V4 | Self::V6 => None,
            Self::InterceptedV4 => Some(nix::cmsg_space!(sockaddr_in)),
            Self::InterceptedV6 => Some(nix::cmsg_space!(sockaddr_in6)),
        };
        MultiHeaders::preallocate(BATCH, control)
    }
}

/// A datagram without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    /// What the sender dialled; `None` for the socket's own address.
    pub(super) dialled: Option<SocketAddr>,
    pub(super) length: usize,
}

/// The room of one worker and what was received last.
pub(super) struct Batch {
    room: Box<[u8]>,
    datagrams: Vec<Datagram>,
    /// By [`Kind`].
    receiving: [MultiHeaders<SockaddrStorage>; 4],
    sending: MultiHeaders<SockaddrStorage>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let kinds = [Kind::V4, Kind::V6, Kind::InterceptedV4, Kind::InterceptedV6];
        Self {
            room: vec![0; BATCH * LARGEST].into(),
            datagrams: Vec::with_capacity(BATCH),
            receiving: kinds.map(Kind::headers),
            sending: Kind::V4.headers(),
        }
    }

    /// Takes what has arrived in place of what was there before, and returns how many datagrams
    /// that is: fewer than [`BATCH`] means that the socket is empty.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing, `ConnectionRefused` if the peer of a connected socket has
    /// told us that nobody listens, or the system call's.
    pub(super) fn receive(&mut self, socket: &UdpSocket, kind: Kind) -> io::Result<usize> {
        self.datagrams.clear();
        let mut slots = self.room.chunks_exact_mut(LARGEST);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
        let headers = &mut self.receiving[kind as usize];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), flags, None)?;
        let mut complete = true;
        for message in received {
            let (from, dialled) = addresses(&message);
            complete &= dialled.is_some();
            self.datagrams.push(Datagram {
                // A sender without an address cannot be answered, and is refused as port 0 is.
                from: from.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
                dialled,
                length: message.bytes,
            });
        }
        if !complete && matches!(kind, Kind::InterceptedV4 | Kind::InterceptedV6) {
            self.receiving[kind as usize] = kind.headers();
        }
        Ok(self.datagrams.len())
    }

    pub(super) fn datagrams(&self) -> &[Datagram] {
        &self.datagrams
    }

    /// Bytes of these datagrams together.
    pub(super) fn bytes(&self, range: Range<usize>) -> usize {
        self.datagrams[range].iter().map(|d| d.length).sum()
    }

    /// The bytes of one datagram.
    pub(super) fn content(&self, index: usize) -> &[u8] {
        &self.room[index * LARGEST..][..self.datagrams[index].length]
    }

    /// Sends datagrams that were received, to `to` or, on a connected socket, to its peer. Returns
    /// how many went, and the error at the first one that did not.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        range: Range<usize>,
        to: Option<SocketAddr>,
    ) -> (usize, Option<io::Error>) {
        let mut sent = 0;
        while sent < range.len() {
            let rest = range.start + sent..range.end;
            let some = match (rest.len(), to) {
                (1, Some(to)) => socket.send_to(self.content(rest.start), to).map(|_| 1),
                (1, None) => socket.send(self.content(rest.start)).map(|_| 1),
                _ => self.send_many(socket, rest, to),
            };
            match some {
                Ok(some) => sent += some,
                Err(error) => return (sent, Some(error)),
            }
        }
        (sent, None)
    }

    fn send_many(
        &mut self,
        socket: &UdpSocket,
        range: Range<usize>,
        to: Option<SocketAddr>,
    ) -> io::Result<usize> {
        let count = range.len();
        let mut contents = self.room[range.start * LARGEST..]
            .chunks_exact(LARGEST)
            .zip(&self.datagrams[range]);
        let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            let content = contents.next().map(|(slot, d)| &slot[..d.length]);
            [IoSlice::new(content.unwrap_or_default())]
        });
        let to = [to.map(SockaddrStorage::from); BATCH];
        let fd = socket.as_raw_fd();
        let (slices, to) = (slices[..count].iter(), &to[..count]);
        let sent = sendmmsg(
            fd,
            &mut self.sending,
            slices,
            to,
            [],
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(sent.count())
    }
}

fn addresses(
    message: &RecvMsg<'_, '_, SockaddrStorage>,
) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let v4 = |addr: SockaddrIn| SocketAddr::from(SocketAddrV4::from(addr));
    let v6 = |addr: SockaddrIn6| SocketAddr::from(SocketAddrV6::from(addr));
    let from = message.address.as_ref().and_then(|addr| {
        let in4 = addr.as_sockaddr_in().copied().map(v4);
        in4.or_else(|| addr.as_sockaddr_in6().copied().map(v6))
    });
    let mut control = message.cmsgs().ok();
    let dialled = control.as_mut().and_then(|all| {
        all.find_map(|one| match one {
            ControlMessageOwned::Ipv4OrigDstAddr(addr) => Some(v4(addr.into())),
            ControlMessageOwned::Ipv6OrigDstAddr(addr) => Some(v6(addr.into())),
            _ => None,
        })
    });
    (from, dialled)
}

#[cfg(test)]
mod tests;
