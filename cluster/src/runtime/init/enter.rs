//! Enters and makes namespaces, then starts what runs inside them.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::wire;
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
    // This process cannot have threads any more, and it has nothing to say: the socket goes on to
    // the container's first process.
    let status = Command::new("/proc/self/exe")
        .args([SUBCOMMAND, "reap"])
        .env_clear()
        .status()?;
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

fn context(what: &'static str) -> impl Fn(nix::Error) -> io::Error {
    move |error| describe(what, &error.into())
}

fn describe(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
