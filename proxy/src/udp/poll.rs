//! Waiting for any of a worker's sockets at once.
//!
//! A flow has a socket of its own, and a hundred thousand of them do not get a task each: their
//! sockets are in an epoll set of our own, and one task waits for the set.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sockets that are served before other tasks run.
pub(super) const EVENTS: usize = 64;

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// That of the flow with this number: an endpoint answers.
    Flow(u32),
    /// One on which clients' datagrams arrive.
    Front(u32),
}

impl Token {
    const FRONT: u64 = 1 << 32;

    fn pack(self) -> u64 {
        match self {
            Self::Flow(id) => u64::from(id),
            Self::Front(id) => Self::FRONT | u64::from(id),
        }
    }

    fn unpack(packed: u64) -> Self {
        let id = (packed & u64::from(u32::MAX)) as u32;
        if packed & Self::FRONT == 0 {
            Self::Flow(id)
        } else {
            Self::Front(id)
        }
    }
}

/// The set.
pub(super) struct Poller {
    epoll: AsyncFd<OwnedFd>,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// Needs a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what the unsafe one in its place asks of the caller, `OwnedFd` gives"
        )]
        let epoll = AsyncFd::with_interest(epoll, Interest::READABLE)?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Adds a socket, which leaves the set when it is closed.
    pub(super) fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.pack());
        epoll::add(self.epoll.get_ref(), socket, data, epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Waits until there is something to read, or an error to be told of, and fills in where. A
    /// token may be that of a socket that was closed in the meantime.
    pub(super) async fn ready(&mut self, tokens: &mut Vec<Token>) -> io::Result<()> {
        loop {
            let mut guard = self.epoll.readable().await?;
            let at_once = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            self.events.clear();
            let room = spare_capacity(&mut self.events);
            match epoll::wait(self.epoll.get_ref(), room, Some(&at_once)) {
                Ok(0) => guard.clear_ready(),
                Ok(_) => {
                    let packed = self.events.iter().map(|event| event.data.u64());
                    tokens.extend(packed.map(Token::unpack));
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says that every socket of the last [`Self::ready`], which named fewer than [`EVENTS`], was
    /// read until it was empty, which saves asking the set once more. What arrives from then on is
    /// told again.
    pub(super) fn drained(&self) {
        let nothing = |_: &OwnedFd| Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // It is the error that says so.
        let _ = self.epoll.try_io(Interest::READABLE, nothing);
    }
}
