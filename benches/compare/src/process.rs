//! Processes that are started, measured and ended by their ids.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The unit of /proc/PID/stat: `USER_HZ`, which is 100 on every architecture that Rust's standard
/// library supports on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// How long a program may take until it listens.
const START: Duration = Duration::from_secs(120);

/// How long a program may take to end before it is killed.
const END: Duration = Duration::from_secs(2);

/// A program on its CPUs, and the processes that it started.
pub(crate) struct Program {
    child: Child,
    log: std::path::PathBuf,
}

impl Program {
    /// Starts a program pinned to `cpus`; what it says goes to `NAME.log` in `dir`.
    pub(crate) fn start<I, S>(
        cpus: &str,
        dir: &Path,
        program: &Path,
        arguments: I,
    ) -> anyhow::Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log)?;
        let mut command = Command::new("taskset");
        command.arg("-c").arg(cpus).arg(program);
        command.args(arguments).current_dir(dir);
        command
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out);
        let child = command
            .spawn()
            .context("cannot run `taskset` (util-linux)")?;
        Ok(Self { child, log })
    }

    /// Stops it, or lets it go on. One that ended meanwhile is noticed where it is measured.
    pub(crate) fn pause(&self, is_paused: bool) {
        let signal = if is_paused {
            Signal::STOP
        } else {
            Signal::CONT
        };
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits until it listens.
    pub(crate) fn listens(&mut self, addr: SocketAddr) -> anyhow::Result<()> {
        self.until(|| TcpStream::connect_timeout(&addr, END).is_ok())
            .with_context(|| format!("nobody listens on {addr}"))
    }

    /// Waits until something holds.
    pub(crate) fn until(&mut self, holds: impl Fn() -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !holds() {
            self.is_running()?;
            if begun.elapsed() > START {
                bail!("not within {START:?}:\n{}", self.last_words());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Looks whether it still runs.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn is_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("it ended ({status}):\n{}", self.last_words()),
            None => Ok(()),
        }
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// What it and its children have used so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let mut sum = Usage::default();
        for pid in tree(self.child.id())? {
            // One that has just ended has nothing to add.
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            let (user, system) = ticks(&stat).context("unknown form of /proc/PID/stat")?;
            sum.user += user;
            sum.system += system;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            sum.resident += kibibytes(&status, "VmRSS:") * 1024;
            sum.peak += kibibytes(&status, "VmHWM:") * 1024;
        }
        Ok(sum)
    }
}

impl Drop for Program {
    /// SIGTERM, then SIGKILL: pingora ignores the first for minutes, and an nginx worker whose
    /// master was killed would stay.
    fn drop(&mut self) {
        let pids = tree(self.child.id()).unwrap_or_default();
        let signal = |signal| {
            for pid in &pids {
                if let Some(pid) = Pid::from_raw(*pid as i32) {
                    // Gone already is what is wanted.
                    let _ = kill_process(pid, signal);
                }
            }
        };
        signal(Signal::TERM);
        // It may be paused.
        signal(Signal::CONT);
        let begun = Instant::now();
        while begun.elapsed() < END && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(20));
        }
        signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// What processes have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time in user mode.
    pub(crate) user: Duration,
    /// CPU time in the kernel.
    pub(crate) system: Duration,
    /// Memory now, bytes.
    pub(crate) resident: u64,
    /// The most memory there was, bytes.
    pub(crate) peak: u64,
}

/// A process and all of its descendants.
fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let parent = fields(&stat).and_then(|mut fields| fields.nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    Ok(found)
}

/// The fields behind the program's name, which may hold blanks and brackets.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split(' '))
}

/// User and system time, that of children that have ended included; fields 14 to 17 (proc(5)), of
/// which two come before the state.
fn ticks(stat: &str) -> Option<(Duration, Duration)> {
    let mut fields = fields(stat)?.skip(11);
    let mut next = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_nanos(
            ticks * 1_000_000_000 / TICKS_PER_SECOND,
        ))
    };
    let (user, system) = (next()?, next()?);
    Some((user + next()?, system + next()?))
}

fn kibibytes(status: &str, name: &str) -> u64 {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name));
    value.map_or(0, |v| v.trim().trim_end_matches(" kB").parse().unwrap_or(0))
}
