//! A UDP socket whose replies come from the address that was asked.
//!
//! A socket on a wildcard address would otherwise reply from whatever address the route prefers, and
//! the client would drop the reply. There the address comes and goes with each datagram (IP_PKTINFO,
//! IPV6_PKTINFO); a socket on one address needs none of that.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Whom to reply to, and from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
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

#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    wildcard: bool,
}

impl Datagrams {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let addr = socket.local_addr()?;
        let wildcard = addr.ip().is_unspecified();
        if wildcard && addr.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        if wildcard && addr.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            wildcard,
        })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    pub(super) fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        if !self.wildcard {
            let (length, addr) = self.socket.try_recv_from(buffer)?;
            let local = Local::Bound;
            return Ok((length, Peer { addr, local }));
        }
        let receive = || self.receive_with_local(buffer);
        self.socket.try_io(Interest::READABLE, receive)
    }

    fn receive_with_local(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        let mut control = nix::cmsg_space!(in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let mut local = Local::Bound;
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => local = Local::V4(info),
                ControlMessageOwned::Ipv6PacketInfo(info) => local = Local::V6(info),
                _ => {}
            }
        }
        let addr = received.address.as_ref().and_then(socket_addr);
        let addr = addr.ok_or(io::ErrorKind::InvalidData)?;
        Ok((received.bytes, Peer { addr, local }))
    }

    /// Sends a reply. One that cannot be sent is lost, as if on the way.
    pub(super) fn try_send(&self, reply: &[u8], peer: &Peer) {
        let sent = match peer.local {
            Local::Bound => self.socket.try_send_to(reply, peer.addr).map(drop),
            Local::V4(received) => {
                let from = in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: received.ipi_addr,
                    ipi_addr: received.ipi_addr,
                };
                self.send_from(reply, peer, ControlMessage::Ipv4PacketInfo(&from))
            }
            Local::V6(received) => {
                self.send_from(reply, peer, ControlMessage::Ipv6PacketInfo(&received))
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, client = %peer.addr, "cannot send a DNS reply");
        }
    }

    fn send_from(&self, reply: &[u8], peer: &Peer, from: ControlMessage<'_>) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        let parts = [IoSlice::new(reply)];
        let to = SockaddrStorage::from(peer.addr);
        let send = || Ok(sendmsg(fd, &parts, &[from], MsgFlags::empty(), Some(&to))?);
        self.socket.try_io(Interest::WRITABLE, send).map(drop)
    }
}

fn socket_addr(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = |addr: &SockaddrIn| SocketAddr::from(SocketAddrV4::from(*addr));
    let v6 = |addr: &SockaddrIn6| SocketAddr::from(SocketAddrV6::from(*addr));
    let addr = storage.as_sockaddr_in().map(v4);
    addr.or_else(|| storage.as_sockaddr_in6().map(v6))
}
