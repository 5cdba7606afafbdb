//! Further commands in a running container: for `kubectl exec`, probes and hooks.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::process::{Process, Started};
use super::{Container, StartError};
use crate::runtime::init::wire::{Order, Run};
use crate::streams::{ExecOptions, ExecSession, StreamError};

/// Output of a probe that is kept for its event.
const PROBE_OUTPUT: u64 = 10 * 1024;

/// Terminal sizes that can wait.
const RESIZES: usize = 4;

/// What came of a command that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// It ended: exit code and the beginning of its output.
    Exited(i32, String),
    /// It did not end in time and was killed.
    TimedOut,
    /// It could not be started.
    Failed(String),
}

/// Namespaces of a container, in the order in which they are joined.
const NAMESPACES: [&str; 4] = ["net", "uts", "pid_for_children", "mnt"];

/// Runs a command and waits for it, at most `timeout`.
pub(super) async fn outcome(
    container: &Container,
    command: &[String],
    timeout: Duration,
) -> ExecOutcome {
    let run = run(container, command.to_vec(), false, false);
    let started = match start(container, &run, None, (Stdio::piped(), Stdio::piped())) {
        Ok(started) => started,
        Err(error) => return ExecOutcome::Failed(error.to_string()),
    };
    let Started {
        process,
        stdout,
        stderr,
    } = started;
    let work = async {
        if let Err(error) = process.ready().await {
            return ExecOutcome::Failed(error.to_string());
        }
        let mut output = Vec::new();
        let mut errors = Vec::new();
        let (exit, _, _) = tokio::join!(
            process.wait(),
            keep(stdout, &mut output),
            keep(stderr, &mut errors)
        );
        output.append(&mut errors);
        ExecOutcome::Exited(exit.code, String::from_utf8_lossy(&output).into_owned())
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => {
            process.order(Order::KillAll);
            ExecOutcome::TimedOut
        }
    }
}

/// Keeps the beginning and reads the rest, so that the command does not block on a full pipe.
async fn keep(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(mut from) = from {
        let _ = (&mut from).take(PROBE_OUTPUT).read_to_end(into).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
}

/// Runs a command for a client.
pub(super) async fn session(
    container: &Container,
    options: ExecOptions,
) -> Result<ExecSession, StreamError> {
    if options.command.is_empty() {
        return Err(StreamError::BadRequest(
            "you must specify at least one command".into(),
        ));
    }
    let internal = |error: io::Error| StreamError::Internal(format!("cannot run it: {error}"));
    let (resize, sizes) = mpsc::channel(RESIZES);
    let mut terminal = None;
    let stdin_wanted = options.stdin || options.tty;
    let run = run(
        container,
        options.command.clone(),
        options.tty,
        stdin_wanted,
    );
    let (started, stdin, stdout) = if options.tty {
        let Terminal { master, client } = Terminal::open().map_err(internal)?;
        let output = |client: &OwnedFd| client.try_clone().map(Stdio::from).map_err(internal);
        let outputs = (output(&client)?, output(&client)?);
        let started = start(container, &run, Some(client.as_fd()), outputs).map_err(internal)?;
        // A terminal is read and written like a pipe.
        let reader = master
            .try_clone()
            .and_then(pipe::Receiver::from_owned_fd_unchecked);
        let writer = master
            .try_clone()
            .and_then(pipe::Sender::from_owned_fd_unchecked);
        let reader = TerminalOutput(reader.map_err(internal)?);
        let writer = TerminalInput(writer.map_err(internal)?);
        terminal = Some(master);
        let stdin = options
            .stdin
            .then(|| Box::pin(writer) as Pin<Box<dyn AsyncWrite + Send>>);
        (
            started,
            stdin,
            Some(Box::pin(reader) as Pin<Box<dyn AsyncRead + Send>>),
        )
    } else if options.stdin {
        let (sender, receiver) = pipe::pipe().map_err(internal)?;
        let receiver = receiver.into_blocking_fd().map_err(internal)?;
        let outputs = (Stdio::piped(), Stdio::piped());
        let started = start(container, &run, Some(receiver.as_fd()), outputs).map_err(internal)?;
        let stdin = Box::pin(sender) as Pin<Box<dyn AsyncWrite + Send>>;
        (started, Some(stdin), None)
    } else {
        let outputs = (Stdio::piped(), Stdio::piped());
        let started = start(container, &run, None, outputs).map_err(internal)?;
        (started, None, None)
    };
    let stdout = stdout.or(started.stdout.map(|out| Box::pin(out) as Pin<Box<_>>));
    let stderr = started
        .stderr
        .map(|err| Box::pin(err) as Pin<Box<dyn AsyncRead + Send>>);
    if let Err(error) = started.process.ready().await {
        return Err(match error {
            StartError::Program(message) => StreamError::BadRequest(message),
            StartError::Prepare(_) | StartError::Init(_) => {
                StreamError::Internal(error.to_string())
            }
        });
    }
    let (sender, exit) = oneshot::channel();
    tokio::spawn(attend(started.process, sizes, terminal, sender));
    Ok(ExecSession {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    })
}

/// Resizes the terminal and waits for the end; ends the command when the client is gone.
async fn attend(
    process: Process,
    mut sizes: mpsc::Receiver<(u16, u16)>,
    terminal: Option<OwnedFd>,
    mut exit: oneshot::Sender<i32>,
) {
    let mut open = true;
    loop {
        tokio::select! {
            size = sizes.recv(), if open => match (size, &terminal) {
                (Some((columns, rows)), Some(terminal)) => resize(terminal, columns, rows),
                (Some(_), None) => {}
                (None, _) => open = false,
            },
            ended = process.wait() => {
                let _ = exit.send(if ended.code == 0 { 0 } else { ended.code });
                return;
            }
            () = exit.closed() => {
                process.order(Order::KillAll);
                return;
            }
        }
    }
}

fn resize(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    if let Err(error) = rustix::termios::tcsetwinsize(terminal, size) {
        tracing::debug!(%error, "cannot resize a terminal");
    }
}

fn run(container: &Container, command: Vec<String>, tty: bool, stdin: bool) -> Run {
    let environment = &container.environment;
    let mut env = environment.env.clone();
    if tty && !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    Run {
        command,
        env,
        working_dir: environment.working_dir.clone(),
        hostname: environment.hostname.clone(),
        mounts: Vec::new(),
        staging: PathBuf::new(),
        namespaces: environment.namespaces,
        joins: true,
        tty,
        stdin,
    }
}

/// Starts the command with the container's namespaces beside it, and its input last.
fn start(
    container: &Container,
    run: &Run,
    stdin: Option<BorrowedFd<'_>>,
    outputs: (Stdio, Stdio),
) -> io::Result<Started> {
    let mut namespaces = Vec::new();
    if container.environment.namespaces {
        for name in NAMESPACES {
            namespaces.push(File::open(format!("/proc/{}/ns/{name}", container.pid()))?);
        }
    }
    let mut fds: Vec<BorrowedFd<'_>> = namespaces.iter().map(|file| file.as_fd()).collect();
    fds.extend(stdin);
    Process::start_with(&container.init, "exec", run, &fds, outputs)
}

/// A pseudo-terminal.
struct Terminal {
    master: OwnedFd,
    client: OwnedFd,
}

impl Terminal {
    fn open() -> io::Result<Self> {
        let master =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let client = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self { master, client })
    }
}

/// Output of a terminal. The kernel answers EIO when the last program has closed the other side:
/// that is the end of the output.
struct TerminalOutput(pipe::Receiver);

impl AsyncRead for TerminalOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer).map(|result| {
            let closed = Some(rustix::io::Errno::IO.raw_os_error());
            result.or_else(|error| {
                if error.raw_os_error() == closed {
                    Ok(())
                } else {
                    Err(error)
                }
            })
        })
    }
}

/// Input of a terminal.
struct TerminalInput(pipe::Sender);

impl AsyncWrite for TerminalInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// End of input on a terminal is a character (EOT), not a closed descriptor.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(cx, &[4]).map_ok(drop)
    }
}
