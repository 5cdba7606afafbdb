//! The worker's buffers: what is read lands in one of them first, and messages are written into others,
//! so that a connection that waits holds none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of one read at most.
pub(crate) const SCRATCH: usize = 64 * 1024;

/// Buffers for messages that are kept, and how large one may be.
const KEPT: usize = 64;
const LARGEST: usize = 64 * 1024;

/// What a message is given at first: a usual head.
const USUAL: usize = 2048;

thread_local! {
    static MESSAGES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Lends the buffer; what is in it is whatever was read last. Must not be asked for again inside.
pub(crate) fn with<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| use_it(buffer))
}

/// Reads once and shows what came; nothing came at the end of the stream.
pub(crate) fn poll_read<S, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    see: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
) -> Poll<io::Result<T>>
where
    S: AsyncRead + Unpin,
{
    poll_read_at_most(SCRATCH, stream, cx, see)
}

/// The same of at most `most` bytes, [`SCRATCH`] in any case.
pub(crate) fn poll_read_at_most<S, T>(
    most: usize,
    stream: &mut S,
    cx: &mut Context<'_>,
    see: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
) -> Poll<io::Result<T>>
where
    S: AsyncRead + Unpin,
{
    with(|buffer| {
        let mut read = ReadBuf::new(&mut buffer[..most.min(SCRATCH)]);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(see(cx, read.filled())))
    })
}

/// An empty buffer for a message.
pub(crate) fn take() -> Vec<u8> {
    let kept = MESSAGES.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| Vec::with_capacity(USUAL))
}

/// Keeps a buffer for the next message of any connection.
pub(crate) fn give_back(mut buffer: Vec<u8>) {
    if (USUAL..=LARGEST).contains(&buffer.capacity()) {
        buffer.clear();
        MESSAGES.with_borrow_mut(|kept| {
            if kept.len() < KEPT {
                kept.push(buffer);
            }
        });
    }
}
