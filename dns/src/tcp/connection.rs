//! One connection that carries messages with their lengths in front (RFC 1035 section 4.2.2).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::answer::encode::Transport;
use crate::limit::{ConnectionLimits, MAX_IN_FLIGHT};
use crate::server::{Front, Step};

/// Bytes in front of a message that say its length.
const PREFIX: usize = 2;
/// Replies are written once there is nothing more to answer at once, or this many bytes of them.
const BATCH: usize = 16 * 1024;

/// Serves a connection until the client closes it, breaks a limit or sends what is no query.
pub(crate) async fn serve<R, W>(
    server: &Front,
    read: R,
    mut write: W,
    client: SocketAddr,
    limits: &ConnectionLimits,
    shutdown: CancellationToken,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut messages = Messages::new(read, limits.read, limits.idle_now());
    let mut in_flight = FuturesUnordered::new();
    let mut left = limits.queries.unwrap_or(u32::MAX);
    let mut reading = true;
    let mut replies = Vec::new();
    while reading || !in_flight.is_empty() {
        let mut query = tokio::select! {
            biased;
            Some(reply) = in_flight.next(), if !in_flight.is_empty() => {
                push(&mut replies, reply);
                None
            }
            () = shutdown.cancelled(), if reading => {
                reading = false;
                continue;
            }
            message = messages.next(), if reading && in_flight.len() < MAX_IN_FLIGHT => {
                match message {
                    Ok(Some(message)) => Some(message),
                    Err(Stop::Idle) if !in_flight.is_empty() => {
                        messages.restart_clock();
                        continue;
                    }
                    Ok(None) | Err(_) => {
                        reading = false;
                        continue;
                    }
                }
            }
        };
        messages.idle = limits.idle_now();
        let transport = Transport::Tcp {
            idle: tenths(messages.idle),
        };
        while let Some(message) = query.take() {
            let start = replies.len();
            replies.extend([0; PREFIX]);
            match server.start(&message, client, transport, &mut replies) {
                Step::Silence => {
                    replies.truncate(start);
                    reading = false;
                }
                Step::Replied(..) => set_length(&mut replies[start..]),
                Step::Later(later) => {
                    replies.truncate(start);
                    in_flight.push(async move {
                        let mut reply = Vec::new();
                        server.finish(later, &mut reply).await;
                        reply
                    });
                }
            }
            left = left.saturating_sub(1);
            reading &= left > 0;
            if reading && in_flight.len() < MAX_IN_FLIGHT && replies.len() < BATCH {
                // What is wrong with what follows is found again when it is read.
                query = messages.take().unwrap_or_default();
            }
            messages.restart_clock();
        }
        let sent = timeout(limits.write, send(&mut write, &replies)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        replies.clear();
    }
    // Says goodbye where the transport has a way to; whether it is heard is the client's business.
    let _ = timeout(limits.write, write.shutdown()).await;
}

/// A time in the unit of edns-tcp-keepalive, 100 ms (RFC 7828).
fn tenths(time: Duration) -> u16 {
    u16::try_from(time.as_millis() / 100).unwrap_or(u16::MAX)
}

fn push(replies: &mut Vec<u8>, reply: Vec<u8>) {
    replies.extend((reply.len() as u16).to_be_bytes());
    replies.extend(reply);
}

/// Fills in the length in front of a reply.
fn set_length(framed: &mut [u8]) {
    let length = (framed.len() - PREFIX) as u16;
    framed[..PREFIX].copy_from_slice(&length.to_be_bytes());
}

/// A flush, because TLS may keep back what the socket had no room for.
async fn send(write: &mut (impl AsyncWrite + Unpin), replies: &[u8]) -> io::Result<()> {
    if replies.is_empty() {
        return Ok(());
    }
    write.write_all(replies).await?;
    write.flush().await
}

/// Why nothing more is read.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// No message began in time.
    Idle,
    /// A message took too long, was empty, or the connection broke.
    Broken,
}

/// The messages of a connection. Grows with what arrives, not with the length that is claimed.
struct Messages<R> {
    read: R,
    buffer: BytesMut,
    /// Time for a message that has begun.
    time: Duration,
    /// Time for a message to begin.
    idle: Duration,
    deadline: Instant,
}

impl<R: AsyncRead + Unpin> Messages<R> {
    fn new(read: R, time: Duration, idle: Duration) -> Self {
        Self {
            read,
            buffer: BytesMut::new(),
            time,
            idle,
            deadline: Instant::now() + idle,
        }
    }

    fn restart_clock(&mut self) {
        let time = match self.buffer.is_empty() {
            true => self.idle,
            false => self.time,
        };
        self.deadline = Instant::now() + time;
    }

    /// The next message, `None` at the end. May be dropped and called again.
    async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        loop {
            if let Some(message) = self.take()? {
                self.restart_clock();
                return Ok(Some(message));
            }
            let fresh = self.buffer.is_empty();
            match timeout_at(self.deadline, self.read.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) if fresh => return Ok(None),
                Ok(Ok(0) | Err(_)) => return Err(Stop::Broken),
                Ok(Ok(_)) if fresh => self.restart_clock(),
                Ok(Ok(_)) => {}
                Err(_late) if fresh => return Err(Stop::Idle),
                Err(_late) => return Err(Stop::Broken),
            }
        }
    }

    /// A message that has arrived whole.
    fn take(&mut self) -> Result<Option<Bytes>, Stop> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*prefix));
        if length == 0 {
            return Err(Stop::Broken);
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests;
