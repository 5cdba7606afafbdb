//! Not being woken by a sender whose bytes cannot be passed on yet.
//!
//! The runtime is told of every packet that arrives at a connection, also while nothing is read from it
//! because the receiver at the other side of the relay is behind. That was half of the worker's turns
//! under much data. `SO_RCVLOWAT` (socket(7)) tells the kernel how much has to be there before it is
//! worth an event.
#![expect(
    unsafe_code,
    reason = "no safe interface has this option: neither socket2, rustix nor nix"
)]

use std::io;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::libc;
use socket2::SockRef;
use tokio::net::TcpStream;

/// From which receive buffer on it pays: smaller ones are full before many packets have come.
const WORTH: usize = 256 * 1024;

/// Which part of the receive buffer has to be filled: a third. The kernel lets a buffer grow in which so
/// much has no room together with what it keeps for each packet, so that half of it would be more
/// memory for each slow client where a packet of 1.5 KB takes a page of 4 KiB.
const PART: usize = 3;

/// A connection that does not count as readable before much is there. The end of its stream, errors and
/// a window that is full count as ever. As it was before when this is dropped, and what has arrived
/// meanwhile is an event then.
pub(crate) struct LowWater<'a>(&'a TcpStream);

impl<'a> LowWater<'a> {
    /// `None` where it is not worth it, or the kernel refuses.
    pub(crate) fn raise(stream: &'a TcpStream) -> Option<Self> {
        let room = SockRef::from(stream).recv_buffer_size().ok()?;
        if room < WORTH {
            return None;
        }
        set(stream, room / PART).ok()?;
        Some(Self(stream))
    }
}

impl Drop for LowWater<'_> {
    fn drop(&mut self) {
        // Fails only on a socket that is none.
        let _ = set(self.0, 1);
    }
}

fn set(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let length = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `bytes`, which is that long and lives until then.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            length,
        )
    };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::RecvFlags;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn is_readable(stream: &TcpStream) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
    }

    /// A connection whose receive buffer has that size, and its sender.
    async fn connection(room: usize) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        // The kernel doubles it.
        SockRef::from(&receiver)
            .set_recv_buffer_size(room / 2)
            .unwrap();
        (receiver, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_few_bytes_are_no_event_until_it_is_dropped() {
        let (receiver, mut sender) = connection(WORTH).await;
        let raised = LowWater::raise(&receiver).unwrap();
        sender.write_all(b"few").await.unwrap();
        // The runtime is not told of them.
        let arrived = async {
            while rustix::net::recv(&receiver, &mut [0; 8], RecvFlags::PEEK).is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, arrived).await.unwrap();
        assert!(!is_readable(&receiver));
        drop(raised);
        assert!(is_readable(&receiver));
    }

    #[tokio::test]
    async fn much_and_the_end_are_events() {
        let (receiver, mut sender) = connection(WORTH).await;
        let _raised = LowWater::raise(&receiver).unwrap();
        sender.write_all(&[0; WORTH / PART]).await.unwrap();
        let readable = timeout(DEADLINE, receiver.readable()).await;
        readable.unwrap().unwrap();

        let (receiver, sender) = connection(WORTH).await;
        let _raised = LowWater::raise(&receiver).unwrap();
        drop(sender);
        let readable = timeout(DEADLINE, receiver.readable()).await;
        readable.unwrap().unwrap();
    }

    #[tokio::test]
    async fn small_buffers_stay_as_they_are() {
        let (receiver, _sender) = connection(WORTH / 2).await;
        assert!(LowWater::raise(&receiver).is_none());
    }
}
