//! Copying bytes between two connections until both directions are done.
//!
//! What one side does, the other sees: an end of stream is passed on while the other direction goes
//! on (half-close), a reset resets the other side, and nothing that came before an end of stream is
//! lost. A relay that nothing moves through is ended after a while, also one that is half-closed.
//!
//! Buffers: bytes are read into one buffer of the worker and written from there at once. Only what
//! the receiver does not take is kept, at most one buffer a direction, and nothing is read until it
//! is gone. A relay that waits holds no buffer.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use metrics::Counter;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// The worker's buffer, and the most that is kept for a slow receiver.
const BUFFER: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
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
    client: &TcpStream,
    upstream: &TcpStream,
    prefix: Vec<u8>,
    options: RelayOptions<'_>,
) -> io::Result<()> {
    let moved = Cell::new(Instant::now());
    let both = async {
        tokio::try_join!(
            pump(client, upstream, prefix, &moved, options.to_upstream),
            pump(upstream, client, Vec::new(), &moved, options.to_client),
        )
    };
    let ended = tokio::select! {
        ended = both => ended.map(|_| ()),
        () = stays_idle(&moved, options.idle) => Err(io::ErrorKind::TimedOut.into()),
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

/// One direction, up to and including the end of the stream.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    mut kept: Vec<u8>,
    moved: &Cell<Instant>,
    count: &Counter,
) -> io::Result<()> {
    let mut written = 0;
    loop {
        while written < kept.len() {
            match to.try_write(&kept[written..]) {
                Ok(n) => {
                    written += n;
                    advance(n, moved, count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(to).await?,
                Err(error) => return Err(error),
            }
        }
        if written > 0 {
            (kept, written) = (Vec::new(), 0);
        }
        match pass(from, to, moved, count) {
            Ok(Passed::All) => {}
            Ok(Passed::Some(rest)) => kept = rest,
            Ok(Passed::End) => {
                // The receiver may have closed already, which is no reason to cut off what it
                // still sends.
                let _ = SockRef::from(to).shutdown(Shutdown::Write);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => from.readable().await?,
            Err(error) => return Err(error),
        }
        // Other connections of this worker get their turn.
        tokio::task::consume_budget().await;
    }
}

/// Waits until `to` takes bytes. A receiver that was reset counts as writable, and the write then
/// fails.
async fn writable(to: &TcpStream) -> io::Result<()> {
    to.ready(Interest::WRITABLE).await.map(|_ready| ())
}

enum Passed {
    /// Everything that was read was written, too.
    All,
    /// This is left.
    Some(Vec<u8>),
    /// The stream ended.
    End,
}

/// Reads once and writes once.
fn pass(
    from: &TcpStream,
    to: &TcpStream,
    moved: &Cell<Instant>,
    count: &Counter,
) -> io::Result<Passed> {
    SCRATCH.with_borrow_mut(|buffer| {
        let read = from.try_read(buffer)?;
        if read == 0 {
            return Ok(Passed::End);
        }
        let written = match to.try_write(&buffer[..read]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        advance(written, moved, count);
        Ok(if written == read {
            Passed::All
        } else {
            Passed::Some(buffer[written..read].to_vec())
        })
    })
}

fn advance(bytes: usize, moved: &Cell<Instant>, count: &Counter) {
    if bytes > 0 {
        moved.set(Instant::now());
        count.increment(bytes as u64);
    }
}

#[cfg(test)]
mod tests;
