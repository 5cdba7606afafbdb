//! The client's side of a relayed connection: what was read and not used, what was written and not
//! sent, and how long either may take.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustix::io::ioctl_fionread;
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use tokio_rustls::server::TlsStream;

use crate::tcp::Prefixed;
use crate::{clock, scratch};

/// What a client's connection is made of.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// The socket, if what is written to the stream goes to it as it is.
    fn socket(&mut self) -> Option<&TcpStream>;

    /// Closing the socket says all that there is to say at the end of the stream.
    fn is_bare(&self) -> bool;

    /// Writes, as far as that goes without waiting, bytes behind which the socket is closed at once: the end
    /// of the stream goes along with them, in one packet less.
    ///
    /// # Errors
    /// The system call's; [`io::ErrorKind::WouldBlock`] also of a stream that cannot, or has something to
    /// be read: closing would reset it, and what is kept back would be lost.
    fn try_write_last(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// The runtime knows of the socket. Otherwise the first time that it is waited for costs system calls.
    fn is_registered(&self) -> bool {
        true
    }
}

impl ClientStream for TcpStream {
    fn socket(&mut self) -> Option<&TcpStream> {
        Some(self)
    }

    fn is_bare(&self) -> bool {
        true
    }

    fn try_write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not inside, where not wanting to write would look like not being able to.
        has_nothing_to_read(&*self)?;
        self.try_io(Interest::WRITABLE, || send_kept(&*self, bytes))
    }
}

impl ClientStream for Prefixed<TcpStream> {
    fn socket(&mut self) -> Option<&TcpStream> {
        Some(self.get_ref())
    }

    fn is_bare(&self) -> bool {
        true
    }
}

impl ClientStream for Box<TlsStream<TcpStream>> {
    fn socket(&mut self) -> Option<&TcpStream> {
        None
    }

    fn is_bare(&self) -> bool {
        false
    }
}

/// As [`ClientStream::try_write_last`], to a socket.
pub(crate) fn send_last(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    has_nothing_to_read(&socket)?;
    send_kept(socket, bytes)
}

fn has_nothing_to_read(socket: impl AsFd) -> io::Result<()> {
    match ioctl_fionread(socket)? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// The kernel keeps what is not a full packet until there is more, or the end.
fn send_kept(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
}

/// The client is gone, or too slow: there is nobody to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// One timer for all limits of a connection. It is set only when a limit is closer than the one that
/// it is set for, and set again when it goes off too early: never once a request.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<u64>,
}

impl Timer {
    /// Ready once it is `deadline`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: u64) -> Poll<()> {
        loop {
            if self.armed.is_none_or(|armed| deadline < armed) {
                let now = clock::now();
                if deadline <= now {
                    return Poll::Ready(());
                }
                let left = std::time::Duration::from_nanos(deadline - now);
                let at = Instant::now() + left;
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(at),
                    None => self.sleep = Some(Box::pin(sleep_until(at))),
                }
                self.armed = Some(deadline);
            }
            let Some(sleep) = &mut self.sleep else {
                return Poll::Pending;
            };
            ready!(sleep.as_mut().poll(cx));
            self.armed = None;
        }
    }
}

/// The client.
pub(super) struct Client<I> {
    pub(super) stream: I,
    /// Read and not used.
    pub(super) input: BytesMut,
    /// To be sent.
    pub(super) output: Vec<u8>,
    pub(super) timer: Timer,
}

impl<I: ClientStream> Client<I> {
    /// Ready when the client has closed its connection, or broken it off. What it sends meanwhile is
    /// kept, and then it is not listened to any more until that is used.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        while self.input.is_empty() {
            let input = &mut self.input;
            let read = scratch::poll_read(&mut self.stream, cx, |_, bytes| {
                input.extend_from_slice(bytes);
                bytes.len()
            });
            match ready!(read) {
                Ok(0) | Err(_) => return Poll::Ready(Gone),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Sends all of the output. A client that takes nothing for `stall` nanoseconds is gone.
    pub(super) async fn send(&mut self, stall: u64) -> Result<(), Gone> {
        let mut sent = 0;
        let mut deadline = None;
        let outcome = std::future::poll_fn(|cx| {
            while let Some(rest) = self.output.get(sent..).filter(|rest| !rest.is_empty()) {
                match Pin::new(&mut self.stream).poll_write(cx, rest) {
                    Poll::Ready(Ok(written)) if written > 0 => {
                        sent += written;
                        deadline = None;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(Gone)),
                    Poll::Pending => {
                        let at = *deadline.get_or_insert_with(|| clock::now() + stall);
                        ready!(self.timer.poll(cx, at));
                        return Poll::Ready(Err(Gone));
                    }
                }
            }
            let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
            Poll::Ready(flushed.map_err(|_broken| Gone))
        })
        .await;
        self.output.clear();
        outcome
    }

    /// As [`Self::send`], where the connection is closed at once afterwards, and the client has said
    /// that it sends nothing more.
    pub(super) async fn send_last(&mut self, stall: u64) -> Result<(), Gone> {
        if self.input.is_empty()
            && let Ok(sent) = self.stream.try_write_last(&self.output)
        {
            self.output.drain(..sent);
        }
        // What is wrong shows here, too.
        self.send(stall).await
    }

    /// Forgets what was used of the input.
    pub(super) fn used(&mut self, bytes: usize) {
        self.input.advance(bytes);
        if self.input.is_empty() {
            // A connection that waits holds no buffer.
            self.input = BytesMut::new();
        }
    }
}
