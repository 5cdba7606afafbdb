//! Moving bytes from one connection to another inside of the kernel: `splice(2)` through a pipe.
//!
//! It pays for much data at a time, which then is not copied twice; for little it costs the same
//! two system calls as reading and writing. Pipes are kept by the worker for the next connection.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// From how many bytes on it is done.
pub(crate) const MIN: usize = crate::scratch::SCRATCH;

/// From how many bytes at a time on it costs less than copying them.
pub(crate) const WORTH: usize = 16 * 1024;

/// Bytes that a pipe holds at most, if the system lets it grow so far.
const SIZE: usize = 512 * 1024;

/// Pipes that one worker keeps: two descriptors each.
const KEPT: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

impl Ends {
    fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // Refused where a user has too many pages in pipes; smaller works, too.
        let _ = fcntl_setpipe_size(&into, SIZE);
        Ok(Self { out, into })
    }
}

/// A pipe, empty at first. Goes back to the worker when it is dropped empty.
pub(crate) struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// One that is kept, or a new one.
    pub(crate) fn take() -> io::Result<Self> {
        let kept = POOL.with_borrow_mut(Vec::pop);
        let ends = match kept {
            Some(ends) => ends,
            None => Ends::new()?,
        };
        Ok(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves at most `most` bytes into the pipe, which has to be empty: a full pipe and an idle
    /// connection would look the same. Returns 0 at the end of the stream.
    pub(crate) fn fill(&mut self, from: &TcpStream, most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let moved = from.try_io(Interest::READABLE, || {
            Ok(splice(
                from,
                None,
                &ends.into,
                None,
                most.min(SIZE),
                flags(),
            )?)
        })?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves what the connection takes out of the pipe.
    pub(crate) fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let moved = to.try_io(Interest::WRITABLE, || {
            Ok(splice(&ends.out, None, to, None, self.held, flags())?)
        })?;
        self.held -= moved;
        Ok(moved)
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(ends) = self.ends.take().filter(|_| self.held == 0) {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < KEPT {
                    pool.push(ends);
                }
            });
        }
    }
}
