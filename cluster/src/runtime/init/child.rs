//! The program: started, watched, reaped.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use nix::sys::signal::{self, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::PidfdFlags;

use super::SUBCOMMAND;
use super::wire::{self, Order, Report, Run};

/// `sealane __init reap`: process 1 of a container.
pub(super) fn reap() -> io::Result<ExitCode> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let (run, _) = wire::receive_run()?;
    // Without it programs see the host's processes under numbers that mean nothing to them. Where
    // the kernel refuses (a container that hides parts of /proc) they still run.
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    let _ = rustix::mount::mount("proc", "/proc", "proc", flags, None);
    supervise(&run, Everything::Namespace)
}

/// Without namespaces: the same, with the process group and adopted orphans in their place.
pub(super) fn run_here(run: &Run) -> io::Result<ExitCode> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    supervise(run, Everything::Descendants)
}

/// What container runtimes give a program, whatever the agent's is.
const UMASK: Mode = Mode::from_raw_mode(0o022);

/// What "everything in the container" is.
#[derive(Clone, Copy)]
enum Everything {
    /// All that this process can see but itself.
    Namespace,
    /// This process's children, and theirs.
    Descendants,
}

fn supervise(run: &Run, everything: Everything) -> io::Result<ExitCode> {
    let program = match spawn(run, Stdio::null()) {
        Ok(program) => program,
        Err(message) => {
            wire::report(&Report::NotStarted(message));
            return Ok(ExitCode::from(128));
        }
    };
    wire::report(&Report::Started);
    std::thread::spawn(move || obey(program, everything));
    let status = wait_for(program)?;
    end(everything, None);
    let (code, signal) = outcome(status);
    wire::report(&Report::Exited { code, signal });
    Ok(exit_code(status))
}

/// `sealane __init exec`, inside the container: the command, with the client's input and terminal.
pub(super) fn run_command(run: &Run, stdin: Option<OwnedFd>) -> io::Result<ExitCode> {
    let stdin = stdin.map_or_else(Stdio::null, Stdio::from);
    let started = if run.tty {
        spawn_on_terminal(run, stdin)
    } else {
        spawn(run, stdin)
    };
    let program = match started {
        Ok(program) => program,
        Err(message) => {
            wire::report(&Report::NotStarted(message));
            return Ok(ExitCode::from(127));
        }
    };
    wire::report(&Report::Started);
    let status = attend(program)?;
    let (code, signal) = outcome(status);
    wire::report(&Report::Exited { code, signal });
    Ok(exit_code(status))
}

/// Waits for the command and does what the agent says, without a thread: a process that has joined
/// a PID namespace for its children cannot make one.
fn attend(program: Pid) -> io::Result<ExitStatus> {
    let missing = || io::Error::other("the command has no number");
    let pid = rustix::process::Pid::from_raw(program.as_raw()).ok_or_else(missing)?;
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut connected = true;
    loop {
        let stdin = rustix::stdio::stdin();
        let mut ready = [
            PollFd::new(&ended, PollFlags::IN),
            PollFd::new(&stdin, PollFlags::IN),
        ];
        let watched = if connected { 2 } else { 1 };
        match poll(&mut ready[..watched], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !ready[0].revents().is_empty() {
            return wait_for(program);
        }
        if connected && !ready[1].revents().is_empty() {
            match wire::next_order() {
                Some(Order::Signal(number)) => send(program, number),
                Some(Order::KillAll) => send(program, Signal::SIGKILL as i32),
                None => {
                    send(program, Signal::SIGKILL as i32);
                    connected = false;
                }
            }
        }
    }
}

/// Starts the program in a process group of its own. The error is for people, in the words of
/// container runtimes.
fn spawn(run: &Run, stdin: Stdio) -> Result<Pid, String> {
    let (program, mut command) = command(run)?;
    command.process_group(0);
    start(command, stdin, &program)
}

/// Starts a stage that takes the terminal before it becomes the program: a controlling terminal is
/// taken by the leader of a session.
fn spawn_on_terminal(run: &Run, stdin: Stdio) -> Result<Pid, String> {
    let (program, wanted) = command(run)?;
    let mut command = Command::new("/proc/self/exe");
    command.args([SUBCOMMAND, "terminal"]).args(&run.command);
    command
        .env_clear()
        .envs(run.env.iter().map(|(name, value)| (name, value)));
    if let Some(dir) = wanted.get_current_dir() {
        command.current_dir(dir);
    }
    start(command, stdin, &program)
}

fn command(run: &Run) -> Result<(String, Command), String> {
    let Some((program, args)) = run.command.split_first() else {
        return Err("no command".to_owned());
    };
    if !run.working_dir.is_dir() {
        return Err(format!(
            "cannot start in {}: no such directory",
            run.working_dir.display()
        ));
    }
    let mut command = Command::new(absolute(program, &run.working_dir));
    command
        .args(args)
        .env_clear()
        .envs(run.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&run.working_dir);
    Ok((program.clone(), command))
}

/// A relative path with a slash counts from the working directory; a bare name is looked up in PATH.
fn absolute(program: &str, working_dir: &Path) -> std::path::PathBuf {
    if program.contains('/') {
        working_dir.join(program)
    } else {
        program.into()
    }
}

fn start(mut command: Command, stdin: Stdio, program: &str) -> Result<Pid, String> {
    rustix::process::umask(UMASK);
    let found = in_path(&command, program);
    let child = command
        .stdin(stdin)
        .spawn()
        .map_err(|error| match error.kind() {
            // A directory of PATH that may not be read makes the kernel say "permission denied" of a
            // program that is nowhere.
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                if !program.contains('/') && !found =>
            {
                format!("exec: {program:?}: executable file not found in $PATH")
            }
            io::ErrorKind::NotFound => format!("exec: {program:?}: no such file or directory"),
            io::ErrorKind::PermissionDenied => format!("exec: {program:?}: permission denied"),
            _ => format!("exec: {program:?}: {error}"),
        })?;
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(|_large| "the process has no number".to_owned())
}

/// Whether a directory of the command's PATH has the program.
fn in_path(command: &Command, program: &str) -> bool {
    let path = command.get_envs().find(|(name, _)| *name == "PATH");
    let path = path.and_then(|(_, value)| value).unwrap_or_default();
    std::env::split_paths(path).any(|dir| dir.join(program).is_file())
}

/// Does what the agent says; ends everything when it is gone.
fn obey(program: Pid, everything: Everything) {
    while let Some(order) = wire::next_order() {
        match order {
            Order::Signal(number) => send(program, number),
            Order::KillAll => {
                send(program, Signal::SIGKILL as i32);
                end(everything, Some(program));
            }
        }
    }
    send(program, Signal::SIGKILL as i32);
    end(everything, Some(program));
}

/// To the program's process group; a group that is gone needs no signal.
fn send(program: Pid, number: i32) {
    if let Ok(signal) = Signal::try_from(number) {
        let _ = signal::killpg(program, signal);
    }
}

/// Ends what is left. `program` is killed too if it still runs, and left to [`wait_for`], which wants
/// to know how it ended.
fn end(everything: Everything, program: Option<Pid>) {
    match everything {
        Everything::Namespace => {
            let _ = signal::kill(Pid::from_raw(-1), Signal::SIGKILL);
        }
        Everything::Descendants => {
            // Orphans become our children when their parents end: until none is left.
            for _ in 0..64 {
                if let Some(program) = program {
                    let _ = signal::kill(program, Signal::SIGKILL);
                }
                let mut children = children();
                children.retain(|&child| Some(child) != program);
                if children.is_empty() {
                    return;
                }
                for child in children {
                    let _ = signal::kill(child, Signal::SIGKILL);
                    let _ = waitpid(child, None);
                }
            }
        }
    }
}

/// Our children, by proc_pid_task_children(5).
fn children() -> Vec<Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| {
            let numbers = list
                .split_whitespace()
                .filter_map(|number| number.parse().ok());
            numbers.map(Pid::from_raw).collect::<Vec<_>>()
        })
        .collect()
}

/// Reaps whatever ends until it is the program.
fn wait_for(program: Pid) -> io::Result<ExitStatus> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => {
                return Ok(ExitStatus::from_raw(code << 8));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                return Ok(ExitStatus::from_raw(signal as i32));
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Exit code (128 + signal) and signal.
fn outcome(status: ExitStatus) -> (i32, Option<i32>) {
    match status.signal() {
        Some(signal) => (128 + signal, Some(signal)),
        None => (status.code().unwrap_or(255), None),
    }
}

/// The same as this process's own exit code.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    ExitCode::from(u8::try_from(outcome(status).0).unwrap_or(255))
}
