//! One run of a container: a program in namespaces, its log, and what can be asked of it.
//!
//! See [`super::init`] for how the program gets there.

mod exec;
mod process;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};

pub use self::exec::ExecOutcome;
use self::process::{Process, Started};
use super::init::wire::{Order, Run};
use super::logs::{LogTail, LogWriter};
use crate::streams::{ExecOptions, ExecSession, StreamError};

/// Directory in a container's scratch directory for its mount points.
const STAGING: &str = "mounts";

/// How this program is started again as a container's init.
#[derive(Clone, Debug)]
pub struct InitCommand(pub Vec<OsString>);

impl Default for InitCommand {
    fn default() -> Self {
        Self(vec!["/proc/self/exe".into(), "__init".into()])
    }
}

/// A file or directory that appears elsewhere in the container.
#[derive(Clone, Debug)]
pub struct Mount {
    /// What appears.
    pub source: PathBuf,
    /// Where, an absolute path; it is made in the container if the machine does not have it.
    pub target: PathBuf,
    /// The program may not write to it.
    pub read_only: bool,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Program and arguments. A name without a slash is looked up in the environment's `PATH`, a
    /// relative path counts from the working directory.
    pub command: Vec<String>,
    /// The complete environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub working_dir: PathBuf,
    /// Host name.
    pub hostname: String,
    /// Contents of `/etc/resolv.conf`; the machine's own if `None`.
    pub resolv_conf: Option<String>,
    /// Contents of `/etc/hosts`; the machine's own if `None`.
    pub hosts: Option<String>,
    /// Further files and directories.
    pub mounts: Vec<Mount>,
    /// The pod's network namespace; `None` runs the program without namespaces.
    pub netns: Option<Arc<OwnedFd>>,
    /// A directory for the files that are mounted over the machine's, only for this container.
    pub scratch: PathBuf,
    /// Where this run's output is logged.
    pub log: PathBuf,
}

/// Why a container could not be started. The messages are shown in the pod's status.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program cannot be executed.
    #[error("{0}")]
    Program(String),
    /// The container's namespaces or files could not be set up.
    #[error("cannot prepare the container: {0}")]
    Prepare(String),
    /// The init process could not be started or talked to.
    #[error("cannot start the container's init process")]
    Init(#[source] io::Error),
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, 128 + signal if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When.
    pub finished_at: Timestamp,
}

/// A program that was started. Dropping it ends it.
#[derive(Debug)]
pub struct Container {
    init: InitCommand,
    process: Process,
    started_at: Timestamp,
    environment: Environment,
    log: LogTail,
}

/// What a further command in the container needs to know.
#[derive(Clone, Debug)]
struct Environment {
    env: Vec<(String, String)>,
    working_dir: PathBuf,
    hostname: String,
    namespaces: bool,
}

impl Container {
    /// Starts the program; resolves once it was executed.
    ///
    /// Call it on a thread that lives as long as containers shall: the kernel ends them with it.
    ///
    /// # Errors
    /// The program cannot be executed, or its surroundings not be prepared.
    pub async fn start(init: &InitCommand, spec: ContainerSpec) -> Result<Self, StartError> {
        let mounts = mounts(&spec).map_err(StartError::Init)?;
        let log = LogWriter::create(&spec.log).map_err(StartError::Init)?;
        let run = Run {
            command: spec.command,
            env: spec.env.clone(),
            working_dir: spec.working_dir.clone(),
            hostname: spec.hostname.clone(),
            mounts,
            staging: spec.scratch.join(STAGING),
            namespaces: spec.netns.is_some(),
            joins: false,
            tty: false,
            stdin: false,
        };
        let netns: Vec<_> = spec.netns.iter().map(|fd| fd.as_fd()).collect();
        let mut started = Process::start(init, "start", &run, &netns).map_err(StartError::Init)?;
        let tail = log.tail();
        log.pump(started.stdout.take(), started.stderr.take());
        let Started { process, .. } = started;
        process.ready().await?;
        Ok(Self {
            init: init.clone(),
            process,
            started_at: Timestamp::now(),
            environment: Environment {
                env: spec.env,
                working_dir: spec.working_dir,
                hostname: spec.hostname,
                namespaces: spec.netns.is_some(),
            },
            log: tail,
        })
    }

    /// Number of the container's first process, as the agent sees it.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// When the program was started.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The end of the log, for those who follow it.
    pub fn log(&self) -> LogTail {
        self.log.clone()
    }

    /// Sends a signal to the program's process group.
    pub fn signal(&self, signal: Signal) {
        self.process.order(Order::Signal(signal.as_raw()));
    }

    /// Ends everything in the container at once.
    pub fn kill(&self) {
        self.process.order(Order::KillAll);
    }

    /// Waits for the program's end.
    pub async fn wait(&self) -> Exit {
        self.process.wait().await
    }

    /// Whether the program has ended, and how.
    pub fn exit(&self) -> Option<Exit> {
        self.process.exit()
    }

    /// Runs a command in the container for a client.
    ///
    /// # Errors
    /// The command could not be started.
    pub async fn exec(&self, options: ExecOptions) -> Result<ExecSession, StreamError> {
        exec::session(self, options).await
    }

    /// Runs a command in the container and waits for it, as probes and hooks do.
    pub async fn run_probe(&self, command: &[String], timeout: Duration) -> ExecOutcome {
        exec::outcome(self, command, timeout).await
    }
}

/// A channel of orders; what is full belongs to a process that takes none any more.
type Orders = mpsc::Sender<Order>;

/// How a process is: not yet known, running, ended.
type State = watch::Receiver<process::State>;

/// Writes the container's own files and says where they go.
fn mounts(spec: &ContainerSpec) -> io::Result<Vec<(PathBuf, PathBuf, bool)>> {
    if spec.netns.is_none() {
        return Ok(Vec::new());
    }
    std::fs::create_dir_all(spec.scratch.join(STAGING))?;
    let mut mounts = Vec::new();
    for (name, contents) in [("resolv.conf", &spec.resolv_conf), ("hosts", &spec.hosts)] {
        let target = PathBuf::from("/etc").join(name);
        // A link that leads nowhere cannot be mounted on, nor be replaced by a file.
        if let Some(contents) = contents
            && (target.exists() || !target.is_symlink())
        {
            let source = spec.scratch.join(name);
            std::fs::write(&source, contents)?;
            mounts.push((source, target, false));
        }
    }
    let volumes = spec.mounts.iter();
    mounts.extend(volumes.map(|m| (m.source.clone(), m.target.clone(), m.read_only)));
    Ok(mounts)
}
