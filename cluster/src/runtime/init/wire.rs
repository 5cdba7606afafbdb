//! What the agent and a container's init say to each other: JSON, a line each, over a Unix socket
//! that is the init's standard input. File descriptors travel beside the first line.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest line: environments are bounded by the kernel at 2 MiB.
const MAX_LINE: usize = 4 << 20;

/// Most file descriptors beside a line.
const MAX_FDS: usize = 8;

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runtime) struct Run {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The complete environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub working_dir: PathBuf,
    /// Host name, in a UTS namespace of the container's own.
    pub hostname: String,
    /// Files to put in place of others: source, target, read-only.
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
    /// An empty directory on the machine, for what it takes to make targets that are missing.
    pub staging: PathBuf,
    /// Enter the namespaces whose descriptors come along: the pod's network for a new container,
    /// all of a container's for a further command.
    pub namespaces: bool,
    /// A further command in a running container.
    pub joins: bool,
    /// Run on a terminal (exec only).
    pub tty: bool,
    /// The client sends input (exec only); the last descriptor is then the program's standard input.
    pub stdin: bool,
}

/// What the agent tells a running init.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runtime) enum Order {
    /// Send this signal to the program's process group.
    Signal(i32),
    /// End everything in the container.
    KillAll,
}

/// What an init tells the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runtime) enum Report {
    /// The program runs.
    Started,
    /// The program could not be started; the text is for people.
    NotStarted(String),
    /// The namespaces could not be set up.
    NotPrepared(String),
    /// The program ended.
    Exited {
        /// Its exit code, 128 + signal if a signal ended it.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
    },
}

/// Sends the first line with descriptors beside it.
pub(in crate::runtime) fn send_run(
    socket: BorrowedFd<'_>,
    run: &Run,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let line = line(run)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    // The first byte carries the descriptors, the rest follows as it fits.
    let (first, rest) = line.split_at(1);
    sendmsg(
        socket,
        &[IoSlice::new(first)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    write_all(socket, rest)?;
    if run.namespaces && !run.joins {
        // The container's first process reads it once more.
        write_all(socket, &line)?;
    }
    Ok(())
}

/// Receives the first line and its descriptors, on the init's side.
pub(super) fn receive_run() -> io::Result<(Run, Vec<OwnedFd>)> {
    let socket = rustix::stdio::stdin();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut first = [0];
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut first)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let mut line = vec![first[0]];
    read_line(&mut line)?;
    Ok((parse(&line)?, fds))
}

/// The next order from the agent, `None` when it is gone.
pub(super) fn next_order() -> Option<Order> {
    let mut line = Vec::new();
    read_line(&mut line).ok()?;
    parse(&line).ok()
}

/// Tells the agent.
pub(super) fn report(report: &Report) {
    // If the agent is gone there is nobody to tell.
    let _ = line(report).and_then(|line| write_all(rustix::stdio::stdin(), &line));
}

/// Tells the agent that the setup failed.
pub(super) fn report_failure(error: &io::Error) {
    report(&Report::NotPrepared(error.to_string()));
}

/// A message as a line.
pub(in crate::runtime) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(line)?)
}

/// Reads up to the next line feed, a byte at a time: what follows belongs to the next reader.
fn read_line(line: &mut Vec<u8>) -> io::Result<()> {
    let socket = rustix::stdio::stdin();
    let mut buffer = [0; 4096];
    while line.last() != Some(&b'\n') {
        if line.len() > MAX_LINE {
            return Err(io::Error::other("the line is too long"));
        }
        // Look first, take only up to the end of the line.
        let (seen, _) = retry(|| rustix::net::recv(socket, &mut buffer, RecvFlags::PEEK))?;
        let seen = seen.min(buffer.len());
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = buffer[..seen].iter().position(|byte| *byte == b'\n');
        let wanted = end.map_or(seen, |end| end + 1);
        let (taken, _) =
            retry(|| rustix::net::recv(socket, &mut buffer[..wanted], RecvFlags::empty()))?;
        line.extend_from_slice(&buffer[..taken.min(wanted)]);
    }
    Ok(())
}

fn write_all(socket: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = retry(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
