//! Many datagrams in one system call, `recvmmsg` and `sendmmsg`: at full load entering the kernel
//! would otherwise cost as much as finding the answers. Buffers are made once a socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;

use nix::libc::in6_pktinfo;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use super::{Datagrams, Local, Peer};

/// Datagrams of one system call.
const BATCH: usize = 64;
/// Largest query that is read. What is longer is cut off, so that it is malformed.
const DATAGRAM: usize = 4096;
/// From one buffer to the next. Not a multiple of a page: the beginnings of all buffers would share
/// a few lines of the CPU's cache.
const STRIDE: usize = DATAGRAM + 64;

/// Room for control messages in one header; that of the larger kind does for both.
fn control_room(datagrams: &Datagrams) -> Option<Vec<u8>> {
    datagrams
        .is_wildcard()
        .then(|| nix::cmsg_space!(in6_pktinfo))
}

/// Datagrams that were received together.
#[derive(Debug)]
pub(in crate::udp) struct Received {
    headers: MultiHeaders<SockaddrStorage>,
    buffer: Vec<u8>,
    /// Length and sender of each; no sender if it cannot be answered.
    datagrams: Vec<(usize, Option<Peer>)>,
}

impl Received {
    pub(in crate::udp) fn new(datagrams: &Datagrams) -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, control_room(datagrams)),
            buffer: vec![0; BATCH * STRIDE],
            datagrams: Vec::with_capacity(BATCH),
        }
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.datagrams.clear();
    }

    pub(super) fn receive(&mut self, fd: RawFd) -> io::Result<()> {
        self.clear();
        let mut rooms = self.buffer.chunks_exact_mut(STRIDE);
        let mut parts: [_; BATCH] = std::array::from_fn(|_| {
            let room = rooms.next().unwrap_or_default();
            let end = room.len().min(DATAGRAM);
            [IoSliceMut::new(&mut room[..end])]
        });
        let parts = parts.iter_mut();
        let received = recvmmsg(fd, &mut self.headers, parts, MsgFlags::empty(), None)?;
        let datagrams = received.map(|message| (message.bytes, Peer::of(&message)));
        self.datagrams.extend(datagrams);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// There may be more.
    pub(in crate::udp) fn is_full(&self) -> bool {
        self.datagrams.len() == BATCH
    }

    /// The datagrams and who sent them.
    pub(in crate::udp) fn iter(&self) -> impl Iterator<Item = (&[u8], Peer)> {
        let rooms = self.buffer.chunks_exact(STRIDE);
        let datagrams = rooms.zip(&self.datagrams);
        datagrams.filter_map(|(room, (length, peer))| Some((&room[..*length], (*peer)?)))
    }
}

/// Replies that are sent together, at most [`BATCH`].
#[derive(Debug)]
pub(in crate::udp) struct Replies {
    headers: MultiHeaders<SockaddrStorage>,
    /// The replies, one behind the other.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    addrs: Vec<Option<SockaddrStorage>>,
    locals: Vec<Local>,
    /// How many were sent already.
    sent: usize,
}

impl Replies {
    pub(in crate::udp) fn new(datagrams: &Datagrams) -> Self {
        // The kernel wants exactly as much as there is to say.
        let control = match (datagrams.is_wildcard(), datagrams.local.is_ipv4()) {
            (false, _) => None,
            (true, true) => Some(nix::cmsg_space!(nix::libc::in_pktinfo)),
            (true, false) => Some(nix::cmsg_space!(in6_pktinfo)),
        };
        Self {
            headers: MultiHeaders::preallocate(BATCH, control),
            bytes: Vec::with_capacity(BATCH * 512),
            ends: Vec::with_capacity(BATCH),
            addrs: Vec::with_capacity(BATCH),
            locals: Vec::with_capacity(BATCH),
            sent: 0,
        }
    }

    /// Where the next reply is to be written: at the end.
    pub(in crate::udp) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What was written to [`Self::bytes`] since the last call is a reply to `peer`.
    pub(in crate::udp) fn end(&mut self, peer: &Peer) {
        self.ends.push(self.bytes.len());
        self.addrs.push(Some(peer.addr));
        self.locals.push(peer.local);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.ends.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.addrs.clear();
        self.locals.clear();
        self.sent = 0;
    }

    /// Gives up one reply; returns how many that are.
    pub(super) fn drop_first(&mut self) -> u64 {
        self.sent += 1;
        1
    }

    /// Gives up all that were not sent; returns how many.
    pub(super) fn drop_all(&mut self) -> u64 {
        let left = self.ends.len() - self.sent;
        self.sent = self.ends.len();
        left as u64
    }

    /// Sends as many as one system call can: those in a row that leave from the same address.
    pub(super) fn send(&mut self, fd: RawFd) -> io::Result<()> {
        let first = self.sent;
        let Some(from) = self.locals.get(first) else {
            return Ok(());
        };
        let alike = self.locals[first..].iter();
        let count = alike.take_while(|local| local.is_same(from)).count();
        let mut start = match first {
            0 => 0,
            _ => self.ends[first - 1],
        };
        let mut parts = [[IoSlice::new(&[])]; BATCH];
        for (part, &end) in parts.iter_mut().zip(&self.ends[first..first + count]) {
            *part = [IoSlice::new(&self.bytes[start..end])];
            start = end;
        }
        let control = from.control_message();
        let sent = sendmmsg(
            fd,
            &mut self.headers,
            &parts,
            &self.addrs[first..first + count],
            control.as_slice(),
            MsgFlags::empty(),
        )?;
        self.sent += sent.count();
        Ok(())
    }
}
