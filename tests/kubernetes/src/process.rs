//! Child processes that never outlive the test.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process has to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of a log is shown.
const TAIL: usize = 4096;

/// A child process whose output goes to a file. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` in the network namespace of the calling thread. Its output is appended to
    /// `log`.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        Self::start_with(program, arguments, &[], log)
    }

    /// The same with more variables in its environment.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start_with(
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
        environment: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a log file")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(namespace) = own_network() {
            command
                .arg("nsenter")
                .arg(format!("--net={}", namespace.display()));
        }
        command
            .arg(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        Ok(Self {
            name: program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            child: spawn(command).with_context(|| format!("cannot start {}", program.display()))?,
            log: log.to_owned(),
        })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process number")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Fails, with the end of its log, if the process has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("cannot look at a child")? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended: {status}\n{}", self.name, self.log_tail()),
        }
    }

    /// The end of what it printed.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
    }

    /// Ends it at once, and waits until it is gone.
    pub fn kill(mut self) {
        self.end_by_kill();
    }

    fn end_by_kill(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.signal(Signal::SIGTERM);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        self.end_by_kill();
    }
}

/// The calling thread's network namespace, if it is not that of the process.
fn own_network() -> Option<PathBuf> {
    let thread = format!(
        "/proc/{}/task/{}/ns/net",
        std::process::id(),
        nix::unistd::gettid()
    );
    let main = std::fs::read_link("/proc/self/ns/net").ok()?;
    (std::fs::read_link(&thread).ok()? != main).then(|| thread.into())
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a child from a thread that never ends: the kernel sends the signal of a parent's death
/// when the *thread* that started the child is gone.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Nobody waits for the answer if the test has ended.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, spawned) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    spawner.send((command, answer)).map_err(|_order| gone())?;
    spawned.recv().map_err(|_closed| gone())?
}
