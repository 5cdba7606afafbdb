//! A UDP socket whose replies come from the address that was asked.
//!
//! A socket on a wildcard address would otherwise reply from whatever address the route prefers, and
//! the client would drop the reply. There the address comes and goes with each datagram (IP_PKTINFO,
//! IPV6_PKTINFO); a socket on one address needs none of that.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, SockaddrIn, SockaddrIn6,
    SockaddrStorage, sendmsg, setsockopt, sockopt,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

mod batch;
mod losses;

pub(super) use batch::{Received, Replies};

/// The port of a service that never sends (RFC 863).
const DISCARD: u16 = 9;

/// Whom to reply to, and from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    addr: SockaddrStorage,
    local: Local,
}

/// The address that a datagram was sent to.
#[derive(Clone, Copy, Debug)]
enum Local {
    /// The socket's own.
    Bound,
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Local {
    /// Replies from one and the other leave in the same way.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bound, Self::Bound) => true,
            (Self::V4(one), Self::V4(other)) => {
                one.ipi_spec_dst.s_addr == other.ipi_spec_dst.s_addr
            }
            (Self::V6(one), Self::V6(other)) => {
                one.ipi6_ifindex == other.ipi6_ifindex
                    && one.ipi6_addr.s6_addr == other.ipi6_addr.s6_addr
            }
            (Self::Bound | Self::V4(_) | Self::V6(_), _) => false,
        }
    }

    fn control_message(&self) -> Option<ControlMessage<'_>> {
        match self {
            Self::Bound => None,
            Self::V4(from) => Some(ControlMessage::Ipv4PacketInfo(from)),
            Self::V6(from) => Some(ControlMessage::Ipv6PacketInfo(from)),
        }
    }
}

impl Peer {
    /// Whoever sent a datagram. `None` if it came from no IP address.
    fn of(received: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Self> {
        let addr = received.address?;
        let mut local = Local::Bound;
        // Where no room was given for control messages there are none.
        for message in received.cmsgs().into_iter().flatten() {
            match message {
                // Any interface: the route decides, as for any packet.
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    local = Local::V4(in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: info.ipi_addr,
                        ipi_addr: info.ipi_addr,
                    });
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => local = Local::V6(info),
                _ => {}
            }
        }
        Some(Self { addr, local })
    }

    /// The client's address and port.
    pub(super) fn client(&self) -> Option<SocketAddr> {
        let v4 = |addr: &SockaddrIn| SocketAddr::from(SocketAddrV4::from(*addr));
        let v6 = |addr: &SockaddrIn6| SocketAddr::from(SocketAddrV6::from(*addr));
        let addr = self.addr.as_sockaddr_in().map(v4);
        addr.or_else(|| self.addr.as_sockaddr_in6().map(v6))
    }
}

#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    /// Bound to this address.
    local: SocketAddr,
}

impl Datagrams {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        match local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => {
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            }
            IpAddr::V6(ip) if ip.is_unspecified() => {
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            local,
        })
    }

    /// Sees to it that the kernel gives new datagrams to other sockets of this address, such as those
    /// of a process that takes over. What has arrived can still be read, and replies leave as before.
    ///
    /// A connected socket only receives from its peer, and the choice among sockets that share an
    /// address passes it over. The peer is one that sends nothing.
    pub(super) fn stop_receiving(&self) {
        let ip = match self.local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let silent = SocketAddr::new(ip, DISCARD);
        if let Err(error) = SockRef::from(&self.socket).connect(&silent.into()) {
            tracing::debug!(%error, "datagrams may be lost at the end");
        }
    }

    fn is_wildcard(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Receives a batch of datagrams. `WouldBlock` if there are none.
    pub(super) fn try_receive(&self, received: &mut Received) -> io::Result<()> {
        // The runtime may say that there is nothing without asking the kernel. What was received
        // before must not pass for new then.
        received.clear();
        let fd = self.socket.as_raw_fd();
        let receive = || {
            received.receive(fd)?;
            // Fewer than asked for: the socket is empty. Said so, it is not read once more to find
            // that out; what arrives from now on makes it readable again.
            match received.is_full() {
                true => Ok(()),
                false => Err(io::ErrorKind::WouldBlock.into()),
            }
        };
        match self.socket.try_io(Interest::READABLE, receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !received.is_empty() => {
                Ok(())
            }
            result => result,
        }
    }

    /// Sends the replies gathered and forgets them. Returns how many could not be sent: those are
    /// lost, as if on the way.
    pub(super) fn try_send_all(&self, replies: &mut Replies) -> u64 {
        let fd = self.socket.as_raw_fd();
        let mut lost = 0;
        while !replies.is_empty() {
            let send = || replies.send(fd);
            match self.socket.try_io(Interest::WRITABLE, send) {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot send DNS replies");
                    // Without room none of them gets away, after any other error the rest may.
                    lost += match error.kind() {
                        io::ErrorKind::WouldBlock => replies.drop_all(),
                        _ => replies.drop_first(),
                    };
                }
            }
        }
        replies.clear();
        lost
    }

    /// Sends a reply. Returns whether that worked; if not, it is lost.
    pub(super) fn try_send(&self, reply: &[u8], peer: &Peer) -> bool {
        let fd = self.socket.as_raw_fd();
        let parts = [IoSlice::new(reply)];
        let from = peer.local.control_message();
        let send = || {
            let to = Some(&peer.addr);
            Ok(sendmsg(fd, &parts, from.as_slice(), MsgFlags::empty(), to)?)
        };
        let sent = self.socket.try_io(Interest::WRITABLE, send);
        if let Err(error) = &sent {
            tracing::debug!(%error, client = ?peer.client(), "cannot send a DNS reply");
        }
        sent.is_ok()
    }
}
