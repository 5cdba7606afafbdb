//! The agent's end of an init process: its socket, its reports, its output.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::Stdio;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{mpsc, watch};

use super::{Exit, InitCommand, Orders, StartError};
use crate::runtime::init::wire::{self, Order, Report, Run};

/// Orders that can wait; more than a container ever gets before it has ended.
const ORDERS: usize = 16;

/// Exit code of a process that ended without saying how.
const LOST: i32 = 137;

/// What is known of a process.
#[derive(Clone, Debug)]
pub(super) enum State {
    Starting,
    Running,
    NotStarted(String),
    NotPrepared(String),
    Ended(Exit),
}

/// An init process and what runs under it. Dropping it ends both.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    orders: Orders,
    state: super::State,
}

/// A process just started, with its output.
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Process {
    /// Starts a stage of the init with its output on pipes.
    pub(super) fn start(
        init: &InitCommand,
        stage: &str,
        run: &Run,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Started> {
        Self::start_with(init, stage, run, fds, (Stdio::piped(), Stdio::piped()))
    }

    /// Starts a stage of the init with its output somewhere.
    pub(super) fn start_with(
        init: &InitCommand,
        stage: &str,
        run: &Run,
        fds: &[BorrowedFd<'_>],
        (stdout, stderr): (Stdio, Stdio),
    ) -> io::Result<Started> {
        let Some((program, args)) = init.0.split_first() else {
            return Err(io::Error::other("no init command"));
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut child = Command::new(program)
            .args(args)
            .arg(stage)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout)
            .stderr(stderr)
            // Out of reach of Ctrl-C in our terminal: the agent decides when pods end.
            .process_group(0)
            .spawn()?;
        // A few kilobytes into an empty socket: the environment at most, which fits.
        wire::send_run(ours.as_fd(), run, fds)?;
        ours.set_nonblocking(true)?;
        let (reports, writer) = UnixStream::from_std(ours)?.into_split();
        let (orders, queue) = mpsc::channel(ORDERS);
        let (sender, state) = watch::channel(State::Starting);
        let pid = child.id().unwrap_or_default();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        tokio::spawn(pass_orders(queue, writer));
        tokio::spawn(follow(child, reports, sender));
        Ok(Started {
            process: Self { pid, orders, state },
            stdout,
            stderr,
        })
    }

    /// Waits until the program runs.
    pub(super) async fn ready(&self) -> Result<(), StartError> {
        let mut state = self.state.clone();
        let known = state
            .wait_for(|state| !matches!(state, State::Starting))
            .await;
        match known.as_deref() {
            Ok(State::NotStarted(message)) => Err(StartError::Program(message.clone())),
            Ok(State::NotPrepared(message)) => Err(StartError::Prepare(message.clone())),
            Ok(State::Running | State::Ended(_) | State::Starting) => Ok(()),
            Err(_gone) => Err(StartError::Init(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Queues an order; one that does not fit comes after others that end the process anyway.
    pub(super) fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        match &*self.state.borrow() {
            State::Ended(exit) => Some(*exit),
            _ => None,
        }
    }

    pub(super) async fn wait(&self) -> Exit {
        let mut state = self.state.clone();
        let ended = state
            .wait_for(|state| matches!(state, State::Ended(_)))
            .await;
        match ended.as_deref() {
            Ok(State::Ended(exit)) => *exit,
            _ => lost(),
        }
    }
}

/// Writes orders to the init until the process is dropped; then the socket closes, and the init ends
/// what is left.
async fn pass_orders(mut queue: mpsc::Receiver<Order>, mut writer: OwnedWriteHalf) {
    while let Some(order) = queue.recv().await {
        let Ok(line) = wire::line(&order) else { return };
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Reads the init's reports until it has ended and was reaped.
async fn follow(mut child: Child, reports: OwnedReadHalf, state: watch::Sender<State>) {
    let mut lines = BufReader::new(reports).lines();
    let mut ended = None;
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(report) = serde_json::from_str(&line) else {
            tracing::warn!("a container's init said something unknown");
            continue;
        };
        match report {
            Report::Started => drop(state.send(State::Running)),
            Report::NotStarted(message) => drop(state.send(State::NotStarted(message))),
            Report::NotPrepared(message) => drop(state.send(State::NotPrepared(message))),
            Report::Exited { code, signal } => {
                ended.get_or_insert(Exit {
                    code,
                    signal,
                    finished_at: Timestamp::now(),
                });
            }
        }
    }
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "cannot wait for a container's init");
    }
    let failed = matches!(
        &*state.borrow(),
        State::NotStarted(_) | State::NotPrepared(_)
    );
    if !failed {
        let _ = state.send(State::Ended(ended.unwrap_or_else(lost)));
    }
}

fn lost() -> Exit {
    Exit {
        code: LOST,
        signal: Some(rustix::process::Signal::KILL.as_raw()),
        finished_at: Timestamp::now(),
    }
}
