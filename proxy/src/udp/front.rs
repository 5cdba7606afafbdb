//! The sockets that clients see: those on which their datagrams arrive and from which replies leave.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use sealane_config::model::VipAddr;

use super::batch::Kind;
use super::poll::{Poller, Token};
use super::socket;

/// What a socket is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Takes whatever is intercepted, whose senders are answered by a [`Role::Replying`] one.
    Intercepting,
    /// Listens on one address of a Service and answers from there.
    Listening,
    /// Answers from one address of a Service, for as long as flows need it. What arrives there, from
    /// this machine's own processes, is served like anything else.
    Replying,
}

/// One socket that clients see.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) socket: UdpSocket,
    pub(super) kind: Kind,
    pub(super) addr: SocketAddr,
    role: Role,
}

impl Front {
    /// Whether its clients are in the namespace of the worker.
    pub(super) fn is_here(&self) -> bool {
        self.role != Role::Listening
    }
}

/// All of them of one worker.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    slots: Vec<Option<Rc<Front>>>,
    /// Those with an address of their own.
    by_addr: HashMap<SocketAddr, u32>,
}

impl Fronts {
    pub(super) fn get(&self, id: u32) -> Option<Rc<Front>> {
        self.slots.get(id as usize)?.clone()
    }

    /// Takes datagrams from a socket of [`socket::intercepting`].
    pub(super) fn intercept(&mut self, socket: UdpSocket, poller: &Poller) -> io::Result<()> {
        let addr = socket.local_addr()?;
        let kind = if addr.is_ipv4() {
            Kind::InterceptedV4
        } else {
            Kind::InterceptedV6
        };
        let front = Front {
            socket,
            kind,
            addr,
            role: Role::Intercepting,
        };
        self.add(front, poller).map(drop)
    }

    /// Takes datagrams from a socket that is bound to a Service's address.
    pub(super) fn listen(
        &mut self,
        addr: SocketAddr,
        socket: UdpSocket,
        poller: &Poller,
    ) -> io::Result<()> {
        let front = Front {
            socket,
            kind: Kind::bound(addr),
            addr,
            role: Role::Listening,
        };
        let id = self.add(front, poller)?;
        self.by_addr.insert(addr, id);
        Ok(())
    }

    /// Closes the listener on an address.
    pub(super) fn close(&mut self, addr: SocketAddr) {
        if let Some(id) = self.by_addr.remove(&addr) {
            self.slots[id as usize] = None;
        }
    }

    /// The socket that answers for datagrams to `vip` that arrived at `front`.
    pub(super) fn replying(
        &mut self,
        front: &Rc<Front>,
        vip: VipAddr,
        poller: &Poller,
    ) -> io::Result<Rc<Front>> {
        if front.role != Role::Intercepting {
            return Ok(Rc::clone(front));
        }
        let known = self.by_addr.get(&vip.0);
        if let Some(known) = known.and_then(|id| self.get(*id)) {
            return Ok(known);
        }
        let front = Front {
            socket: socket::replying(vip)?,
            kind: Kind::bound(vip.0),
            addr: vip.0,
            role: Role::Replying,
        };
        let id = self.add(front, poller)?;
        self.by_addr.insert(vip.0, id);
        self.get(id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Addresses of sockets that only answer.
    pub(super) fn answering(&self) -> impl Iterator<Item = SocketAddr> {
        let answering = self.slots.iter().flatten();
        answering
            .filter(|front| front.role == Role::Replying)
            .map(|front| front.addr)
    }

    /// Closes sockets that only answer and that no flow needs any more.
    pub(super) fn close_unused(&mut self) {
        let unused =
            |front: &Rc<Front>| front.role == Role::Replying && Rc::strong_count(front) == 1;
        for slot in &mut self.slots {
            if let Some(front) = slot.take_if(|front| unused(front)) {
                self.by_addr.remove(&front.addr);
            }
        }
    }

    fn add(&mut self, front: Front, poller: &Poller) -> io::Result<u32> {
        let free = self.slots.iter().position(Option::is_none);
        let place = free.unwrap_or(self.slots.len());
        // Fewer than descriptors.
        let id = u32::try_from(place).map_err(|_many| io::ErrorKind::OutOfMemory)?;
        poller.add(&front.socket, Token::Front(id))?;
        let front = Some(Rc::new(front));
        match self.slots.get_mut(place) {
            Some(slot) => *slot = front,
            None => self.slots.push(front),
        }
        Ok(id)
    }
}
