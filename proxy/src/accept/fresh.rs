//! A client's connection as it was accepted.
//!
//! To tell the runtime of a connection takes two system calls, one of them when it ends, an event and
//! one more turn of its task. Most clients send their request as soon as they may, and a connection
//! that ends with the answer is never waited for. So the runtime is told when there is a reason to
//! wait: the first read, or a write, finds nothing to do, or there is something to be read again.
//! Only one read goes without the runtime, since those do not count towards what a task may do in
//! one turn.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{self, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{ClientStream, send_last};

/// A listener whose connections the runtime is not told of.
#[derive(Debug)]
pub struct Listener(AsyncFd<net::TcpListener>);

impl Listener {
    /// Has to be called within a runtime.
    ///
    /// # Errors
    /// The system call's.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        let listener = listener.into_std()?;
        #[expect(
            deprecated,
            reason = "what the unsafe one in its place asks of the caller, `TcpListener` gives"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        Ok(Self(listener))
    }

    /// As it was before, without the runtime.
    pub fn into_std(self) -> net::TcpListener {
        self.0.into_inner()
    }

    pub(super) async fn accept(&self) -> io::Result<(Fresh, SocketAddr)> {
        let accept = |listener: &net::TcpListener| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (socket, client) = acceptfrom_with(listener, flags)?;
            let client = client.and_then(|client| SocketAddr::try_from(client).ok());
            // Not to be had of a TCP socket.
            let client = client.ok_or(io::ErrorKind::AddrNotAvailable)?;
            Ok((Fresh::new(socket.into()), client))
        };
        self.0.async_io(Interest::READABLE, accept).await
    }
}

/// A connection that the runtime may not know of yet.
#[derive(Debug)]
pub struct Fresh {
    stream: Stream,
    was_read: bool,
}

#[derive(Debug)]
enum Stream {
    Unregistered(net::TcpStream),
    Registered(TcpStream),
    /// The runtime did not take it.
    Lost,
}

impl Fresh {
    fn new(stream: net::TcpStream) -> Self {
        Self {
            stream: Stream::Unregistered(stream),
            was_read: false,
        }
    }

    /// The connection, of which the runtime knows from now on.
    ///
    /// # Errors
    /// The system call's: there is no memory for it.
    pub fn registered(&mut self) -> io::Result<&mut TcpStream> {
        if let Stream::Unregistered(_) = self.stream
            && let Stream::Unregistered(stream) = std::mem::replace(&mut self.stream, Stream::Lost)
        {
            self.stream = Stream::Registered(TcpStream::from_std(stream)?);
        }
        match &mut self.stream {
            Stream::Registered(stream) => Ok(stream),
            Stream::Unregistered(_) | Stream::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// As [`Self::registered`].
    ///
    /// # Errors
    /// As there.
    pub fn into_registered(mut self) -> io::Result<TcpStream> {
        self.registered()?;
        match self.stream {
            Stream::Registered(stream) => Ok(stream),
            Stream::Unregistered(_) | Stream::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsRawFd for Fresh {
    fn as_raw_fd(&self) -> RawFd {
        match &self.stream {
            Stream::Unregistered(stream) => stream.as_raw_fd(),
            Stream::Registered(stream) => stream.as_raw_fd(),
            Stream::Lost => -1,
        }
    }
}

impl From<TcpStream> for Fresh {
    fn from(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Registered(stream),
            was_read: false,
        }
    }
}

impl ClientStream for Fresh {
    fn socket(&mut self) -> Option<&TcpStream> {
        self.registered().ok().map(|stream| &*stream)
    }

    fn is_bare(&self) -> bool {
        true
    }

    fn try_write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Unregistered(stream) => send_last(stream, bytes),
            Stream::Registered(stream) => stream.try_write_last(bytes),
            Stream::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn is_registered(&self) -> bool {
        !matches!(self.stream, Stream::Unregistered(_))
    }
}

impl AsyncRead for Fresh {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Stream::Unregistered(stream) = &mut this.stream
            && !std::mem::replace(&mut this.was_read, true)
        {
            match stream.read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if is_to_wait(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(this.registered()?).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Fresh {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Stream::Unregistered(stream) = &mut this.stream {
            match stream.write(bytes) {
                Err(error) if is_to_wait(&error) => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(this.registered()?).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().registered()?).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().registered()?).poll_shutdown(cx)
    }
}

fn is_to_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
