//! Copying bytes between two connections until both directions are done.
//!
//! What one side does, the other sees: an end of stream is passed on while the other direction goes
//! on (half-close), a reset resets the other side, and nothing that came before an end of stream is
//! lost, even if the side that ended its stream takes no more itself: what is still sent to it is
//! then read and forgotten, because closing with unread bytes would reset the sender's connection
//! and lose what it has not read yet. A server that goes on sending to nobody is slowed down
//! meanwhile. A relay that nothing moves through is ended after a while, also one that is half-closed.
//!
//! Buffers: bytes are read into one buffer of the worker and written from there at once. Only what
//! the receiver does not take is kept, at most one buffer a direction, and nothing is read until it
//! is gone. When much came at a time, more is coming, and it is [spliced](crate::splice) for as long as
//! much comes at a time. A relay that waits for its sender holds neither buffer nor pipe.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use metrics::Counter;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::metrics::FlowMetrics;
use crate::low_water::LowWater;
use crate::scratch;
use crate::splice::{self, Pipe};

/// How long a sender that nobody listens to any more may take to notice that its stream ended.
const LINGER: Duration = Duration::from_secs(5);

/// How long to wait after each read of what a server sends to a client that is gone. It would otherwise
/// send as fast as it can, at the cost of all others on the worker.
const FORGET_EVERY: Duration = Duration::from_millis(100);

/// Nothing moved for so long: the connection is given up (the kernel's connection tracking waits
/// for days, load balancers for minutes to an hour).
pub(crate) const IDLE: Duration = Duration::from_secs(3600);

/// Bytes that are spliced before other connections of the worker have their turn: about a millisecond.
const TURN: usize = 2 << 20;

/// Relays a connection to a Service, or to the outside, and counts it.
pub(crate) async fn relay_counted(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    first: Vec<u8>,
    metrics: &Rc<FlowMetrics>,
) {
    let _open = metrics.opened();
    let options = RelayOptions {
        idle: IDLE,
        to_upstream: &metrics.to_upstream,
        to_client: &metrics.to_client,
    };
    if let Err(error) = relay(client, upstream, first, options).await {
        tracing::debug!(%error, "connection broken");
    }
}

/// How to relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RelayOptions<'a> {
    /// Ends when nothing has moved for so long.
    pub(crate) idle: Duration,
    /// Counts the bytes of each direction as they go.
    pub(crate) to_upstream: &'a Counter,
    pub(crate) to_client: &'a Counter,
}

/// Relays until both sides have ended their streams. `prefix` was read from the client already.
///
/// # Errors
/// The first error of either side, or `TimedOut` if nothing moved for `idle`; both connections are
/// set to be reset when they are dropped.
pub(crate) async fn relay(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    prefix: Vec<u8>,
    options: RelayOptions<'_>,
) -> io::Result<()> {
    let moved = Cell::new(Instant::now());
    let (up_ended, down_ended) = (Cell::new(false), Cell::new(false));
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_upstream, to_upstream) = upstream.split();
        let mut up = Direction {
            from: from_client,
            to: to_upstream.as_ref(),
            count: options.to_upstream,
            moved: &moved,
            ended: &up_ended,
            // It may read its answer only when it has sent everything.
            forget_every: None,
        };
        let mut down = Direction {
            from: from_upstream,
            to: to_client.as_ref(),
            count: options.to_client,
            moved: &moved,
            ended: &down_ended,
            forget_every: Some(FORGET_EVERY),
        };
        let both = async {
            tokio::try_join!(up.run(prefix, &down_ended), down.run(Vec::new(), &up_ended))
        };
        tokio::select! {
            biased;
            ended = both => ended.map(|_| ()),
            () = stays_idle(&moved, options.idle) => Err(io::ErrorKind::TimedOut.into()),
        }
    };
    if ended.is_err() {
        for stream in [client, upstream] {
            // Fails only on a connection that is gone anyhow.
            let _ = stream.set_zero_linger();
        }
    }
    ended
}

/// Returns once nothing has moved for `idle`.
async fn stays_idle(moved: &Cell<Instant>, idle: Duration) {
    loop {
        let end = moved.get() + idle;
        if Instant::now() >= end {
            return;
        }
        sleep_until(end).await;
    }
}

/// One direction.
struct Direction<'a> {
    from: ReadHalf<'a>,
    to: &'a TcpStream,
    count: &'a Counter,
    moved: &'a Cell<Instant>,
    /// The stream ended, and its end was passed on.
    ended: &'a Cell<bool>,
    /// How long to wait after each read of what nobody gets any more.
    forget_every: Option<Duration>,
}

impl Direction<'_> {
    /// Sends `prefix` first.
    async fn run(&mut self, prefix: Vec<u8>, back: &Cell<bool>) -> io::Result<()> {
        match self.pump(prefix).await {
            // The receiver had ended its own stream before (otherwise this is a reset), so all that
            // it said is on its way back.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.forget(back).await,
            ended => ended,
        }
    }

    /// Copies up to and including the end of the stream.
    async fn pump(&mut self, prefix: Vec<u8>) -> io::Result<()> {
        self.write(&prefix).await?;
        drop(prefix);
        loop {
            match self.pass().await? {
                Passed::All(read) if read < splice::WORTH => {}
                Passed::All(_) => {
                    if self.splice().await? {
                        return self.end();
                    }
                }
                Passed::Some(rest) => self.write(&rest).await?,
                Passed::End => return self.end(),
            }
        }
    }

    /// Passes the end of the stream on.
    fn end(&self) -> io::Result<()> {
        // The receiver may have closed already, which is no reason to cut off what it still sends.
        let _ = SockRef::from(self.to).shutdown(Shutdown::Write);
        self.ended.set(true);
        Ok(())
    }

    /// Splices for as long as much comes at a time. Says whether the stream ended.
    async fn splice(&self) -> io::Result<bool> {
        loop {
            // A relay that is faster than its sender has to wait after every few packets. If it copied
            // those that come next it would copy most of all.
            self.from.as_ref().readable().await?;
            // Without descriptors for a pipe it goes on as before.
            let Ok(pipe) = Pipe::take() else {
                return Ok(false);
            };
            match self.splice_through(pipe).await? {
                Spliced::All(moved) if moved < splice::WORTH => return Ok(false),
                Spliced::All(_) => {}
                Spliced::End => return Ok(true),
            }
        }
    }

    /// Splices until nothing is there any more.
    async fn splice_through(&self, mut pipe: Pipe) -> io::Result<Spliced> {
        let mut moved = 0;
        let mut turn = 0;
        loop {
            let filled = match pipe.fill(self.from.as_ref(), usize::MAX) {
                Ok(0) => return Ok(Spliced::End),
                Ok(filled) => filled,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Spliced::All(moved));
                }
                Err(error) => return Err(error),
            };
            self.drain(&mut pipe).await?;
            moved += filled;
            // What comes in small pieces takes turns, too.
            turn += filled.max(splice::WORTH);
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Sends all that is in a pipe.
    async fn drain(&self, pipe: &mut Pipe) -> io::Result<()> {
        while !pipe.is_empty() {
            match pipe.drain(self.to) {
                Ok(moved) => self.count(moved),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _raised = LowWater::raise(self.from.as_ref());
                    self.to.ready(Interest::WRITABLE).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.to.try_write(bytes) {
                Ok(written) => {
                    self.count(written);
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A receiver that was reset counts as writable, and the next write fails.
                    self.to.ready(Interest::WRITABLE).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for bytes, reads once and writes once. Reading less than there is room for tells that no
    /// more is there, so that nobody has to ask the kernel again.
    async fn pass(&mut self) -> io::Result<Passed> {
        let Self { from, to, .. } = self;
        let (written, passed) = std::future::poll_fn(|cx| {
            let read = scratch::poll_read(from, cx, |_, bytes| {
                if bytes.is_empty() {
                    return Ok((0, Passed::End));
                }
                let written = match to.try_write(bytes) {
                    Ok(written) => written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => return Err(error),
                };
                let rest = &bytes[written..];
                let passed = if rest.is_empty() {
                    Passed::All(written)
                } else {
                    Passed::Some(rest.to_vec())
                };
                Ok((written, passed))
            });
            read.map(|read| read.flatten())
        })
        .await?;
        self.count(written);
        Ok(passed)
    }

    /// Reads and forgets until the sender ends its stream, or for a while after `back`: the other
    /// direction's end was passed on.
    async fn forget(&mut self, back: &Cell<bool>) -> io::Result<()> {
        let mut deadline = None;
        loop {
            if back.get() {
                deadline.get_or_insert(Instant::now() + LINGER);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(());
            }
            let read = scratch::with(|buffer| self.from.as_ref().try_read(buffer));
            match read {
                Ok(0) => return Ok(()),
                Ok(_) => match self.forget_every {
                    Some(pause) => sleep(pause).await,
                    None => tokio::task::consume_budget().await,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Looks after `back` now and then, too.
                    if let Ok(ready) = timeout(LINGER, self.from.as_ref().readable()).await {
                        ready?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn count(&self, bytes: usize) {
        if bytes > 0 {
            self.moved.set(Instant::now());
            self.count.increment(bytes as u64);
        }
    }
}

/// How splicing came to a stop.
enum Spliced {
    /// All that was there was moved: so many bytes.
    All(usize),
    /// The stream ended.
    End,
}

enum Passed {
    /// Everything that was read was written, too: so many bytes.
    All(usize),
    /// This is left.
    Some(Vec<u8>),
    /// The stream ended.
    End,
}

#[cfg(test)]
mod tests;
