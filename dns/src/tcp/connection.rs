//! One connection.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{IDLE_TIMEOUT, MAX_IN_FLIGHT, READ_TIMEOUT, WRITE_TIMEOUT};
use crate::answer::encode::Transport;
use crate::server::{Front, Step};

const TRANSPORT: Transport = Transport::Tcp {
    idle: (IDLE_TIMEOUT.as_millis() / 100) as u16,
};
/// Bytes in front of a message that say its length.
const PREFIX: usize = 2;

/// Serves a connection until the client closes it, breaks a limit or sends what is no query.
pub(super) async fn serve(
    server: &Front,
    stream: TcpStream,
    client: SocketAddr,
    shutdown: CancellationToken,
) {
    let (read, mut write) = stream.into_split();
    let mut messages = Messages::new(read);
    let mut in_flight = FuturesUnordered::new();
    let mut reading = true;
    while reading || !in_flight.is_empty() {
        let reply = tokio::select! {
            biased;
            Some(reply) = in_flight.next(), if !in_flight.is_empty() => reply,
            () = shutdown.cancelled(), if reading => {
                reading = false;
                continue;
            }
            message = messages.next(), if reading && in_flight.len() < MAX_IN_FLIGHT => {
                let message = match message {
                    Ok(Some(message)) => message,
                    Err(Stop::Idle) if !in_flight.is_empty() => {
                        messages.restart_clock();
                        continue;
                    }
                    Ok(None) | Err(_) => {
                        reading = false;
                        continue;
                    }
                };
                let mut reply = vec![0; PREFIX];
                match server.start(&message, client, TRANSPORT, &mut reply) {
                    Step::Silence => return,
                    Step::Replied(_) => reply,
                    Step::Later(later) => {
                        in_flight.push(async move {
                            server.finish(later, &mut reply).await;
                            reply
                        });
                        continue;
                    }
                }
            }
        };
        if send(&mut write, reply).await.is_err() {
            return;
        }
    }
}

/// Sends a reply that has room for its length in front.
async fn send(write: &mut OwnedWriteHalf, mut reply: Vec<u8>) -> io::Result<()> {
    let length = (reply.len() - PREFIX) as u16;
    reply[..PREFIX].copy_from_slice(&length.to_be_bytes());
    timeout(WRITE_TIMEOUT, write.write_all(&reply)).await?
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
    deadline: Instant,
}

impl<R: AsyncRead + Unpin> Messages<R> {
    fn new(read: R) -> Self {
        Self {
            read,
            buffer: BytesMut::new(),
            deadline: Instant::now() + IDLE_TIMEOUT,
        }
    }

    fn restart_clock(&mut self) {
        let time = match self.buffer.is_empty() {
            true => IDLE_TIMEOUT,
            false => READ_TIMEOUT,
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
