//! Enters and makes namespaces, then starts what runs inside them.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::wire::{self, Report, Run};
use super::{SUBCOMMAND, child};

/// Kinds of the namespaces whose descriptors come with `exec`, in that order. The mount namespace
/// is last: what is opened by path before it is the host's.
const JOINED: [CloneFlags; 4] = [
    CloneFlags::CLONE_NEWNET,
    CloneFlags::CLONE_NEWUTS,
    CloneFlags::CLONE_NEWPID,
    CloneFlags::CLONE_NEWNS,
];

/// `sealane __init start`: a new container.
pub(super) fn start() -> io::Result<ExitCode> {
    end_with_the_agent()?;
    let (run, fds) = wire::receive_run()?;
    if !run.namespaces {
        return child::run_here(&run);
    }
    let [netns] = fds.as_slice() else {
        return Err(io::Error::other("expected the pod's network namespace"));
    };
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(context("cannot enter the pod's network"))?;
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWPID;
    unshare(own).map_err(context("cannot make the container's namespaces"))?;
    nix::unistd::sethostname(&run.hostname).map_err(context("cannot set the host name"))?;
    // Nothing that is mounted here shows outside.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|error| describe("cannot make mounts private", &error.into()))?;
    for (source, target, read_only) in &run.mounts {
        mount(source, target, *read_only)
            .map_err(|error| describe(&format!("cannot mount {}", target.display()), &error))?;
    }
    let mut reaper = next_stage("reap", &run, &[], Stdio::inherit(), Stdio::inherit())?;
    let status = relay(&mut reaper)?;
    Ok(child::exit_code(status))
}

/// `sealane __init exec`: one more command in a running container.
pub(super) fn exec() -> io::Result<ExitCode> {
    end_with_the_agent()?;
    let (run, mut fds) = wire::receive_run()?;
    let stdin = if run.stdin { fds.pop() } else { None };
    for (namespace, kind) in fds.iter().zip(JOINED) {
        setns(namespace, kind).map_err(context("cannot enter the container"))?;
    }
    drop(fds);
    child::run_command(&run, stdin)
}

/// The kernel ends this process when the agent's thread ends, however it ends.
fn end_with_the_agent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Puts a file or directory in place of another.
fn mount(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    // A symbolic link is followed by hand: its target is what programs read.
    let target = target.canonicalize()?;
    mount_bind(source, &target)?;
    if read_only {
        // A bind mount takes its flags from a remount only. In a user namespace the flags that the
        // source's file system has are locked, and then it stays writable; the files themselves are
        // not writable for the program then.
        let _ = mount_remount(&target, MountFlags::BIND | MountFlags::RDONLY, "");
    }
    Ok(())
}

/// Starts a further stage with a socket of its own to hear from it.
fn next_stage(
    stage: &str,
    run: &Run,
    fds: &[BorrowedFd<'_>],
    stdout: Stdio,
    stderr: Stdio,
) -> io::Result<Stage> {
    let (ours, theirs) = UnixStream::pair()?;
    let process = Command::new("/proc/self/exe")
        .args([SUBCOMMAND, stage])
        .stdin(OwnedFd::from(theirs))
        .stdout(stdout)
        .stderr(stderr)
        .env_clear()
        .spawn()?;
    wire::pass_on(ours.as_fd(), run, fds)?;
    Ok(Stage {
        process,
        socket: ours,
    })
}

struct Stage {
    process: Child,
    socket: UnixStream,
}

/// Passes reports up and orders down until the stage ends.
fn relay(stage: &mut Stage) -> io::Result<ExitStatus> {
    let up = stage.socket.try_clone()?;
    let down = stage.socket.try_clone()?;
    let upward = std::thread::spawn(move || {
        let mut from = &up;
        io::copy(&mut from, &mut Agent)
    });
    std::thread::spawn(move || {
        while let Some(order) = wire::next_order() {
            let sent = wire::line(&order).and_then(|line| {
                let mut to = &down;
                io::Write::write_all(&mut to, &line)
            });
            if sent.is_err() {
                return;
            }
        }
        // The agent is gone: end the container.
        let _ = down.shutdown(std::net::Shutdown::Write);
    });
    let status = stage.process.wait()?;
    let reported = upward
        .join()
        .is_ok_and(|copied| copied.is_ok_and(|bytes| bytes > 0));
    if child::signal_of(status).is_some() || !reported {
        // It did not live to say how the program ended.
        let (code, signal) = child::outcome(status);
        wire::report(&Report::Exited { code, signal });
    }
    Ok(status)
}

/// Writes to the agent.
struct Agent;

impl io::Write for Agent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let socket = rustix::stdio::stdin();
        Ok(rustix::net::send(
            socket,
            bytes,
            rustix::net::SendFlags::NOSIGNAL,
        )?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn context(what: &'static str) -> impl Fn(nix::Error) -> io::Error {
    move |error| describe(what, &error.into())
}

fn describe(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
