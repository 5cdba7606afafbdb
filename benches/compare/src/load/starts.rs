//! How long a program takes from its start to the first good answer.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Question, Served, answers_at};
use crate::case::{A, Variant};
use crate::cluster::{Cluster, who};
use crate::process::Program;

/// Between tries; also how exactly the time is known.
const LOOK: Duration = Duration::from_millis(2);

/// A connection to an address that nobody serves yet is tried anew after this.
const CONNECT: Duration = Duration::from_millis(10);

/// A start that takes longer has failed.
const START: Duration = Duration::from_secs(120);

/// What the first answer is.
pub(crate) enum First {
    /// To a question about a name.
    Name(SocketAddr, Question),
    /// A connection to the Service of the cluster that is served, in this thread's namespace.
    Connection,
    /// A request for a path of a host.
    Request(SocketAddr, &'static str, &'static str),
}

impl First {
    /// The address of a Service of the cluster.
    pub(crate) fn name(addr: SocketAddr, variant: &Variant) -> Self {
        Self::Name(addr, Question::new(&Cluster::last_name(variant), A, 0, 1))
    }
}

/// A program that was started a moment ago.
pub(crate) struct Start {
    pub(crate) program: Program,
    begun: Instant,
}

impl Start {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn of(start: impl FnOnce() -> anyhow::Result<Program>) -> anyhow::Result<Self> {
        let begun = Instant::now();
        Ok(Self {
            program: start()?,
            begun,
        })
    }

    /// Waits for the first answer.
    ///
    /// # Errors
    /// The program ended, or takes too long.
    pub(crate) fn until(&mut self, first: &First) -> anyhow::Result<Served> {
        let socket = match first {
            First::Name(addr, _) => Some(asking(*addr)?),
            First::Connection | First::Request(..) => None,
        };
        loop {
            let is_there = match (first, &socket) {
                (First::Name(_, question), Some(socket)) => question.is_answered_on(socket),
                (First::Name(..), None) => false,
                (First::Connection, _) => who(CONNECT).is_ok(),
                (First::Request(addr, host, path), _) => answers_at(*addr, host, path),
            };
            let taken = self.begun.elapsed();
            if is_there {
                return Ok(Served::of(vec![taken], taken));
            }
            if taken > START {
                bail!("no answer in {START:?}:\n{}", self.program.last_words());
            }
            self.program.is_running()?;
            std::thread::sleep(LOOK);
        }
    }
}

/// A socket for questions. Where nobody listens yet it has errors, which do not last.
fn asking(addr: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(addr).context("a socket for questions")?;
    socket.set_read_timeout(Some(CONNECT))?;
    Ok(socket)
}
