//! Enters and makes namespaces, then starts what runs inside them.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::wire;
use super::{SUBCOMMAND, child};
use crate::runtime::mountpoint::{Kind, MountPoints};

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
    let (run, fds) = wire::receive_run()?;
    if !run.namespaces {
        // Killed with the agent, this process could not end what it started; it sees the socket
        // close and does.
        return child::run_here(&run);
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
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
    let mut points = MountPoints::new(&run.staging);
    for (source, target, read_only) in &run.mounts {
        mount(&mut points, source, target, *read_only)
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
    let (run, mut fds) = wire::receive_run()?;
    let stdin = if run.stdin { fds.pop() } else { None };
    for (namespace, kind) in fds.iter().zip(JOINED) {
        setns(namespace, kind).map_err(context("cannot enter the container"))?;
    }
    drop(fds);
    child::run_command(&run, stdin)
}

/// Puts a file or directory in place of another.
fn mount(
    points: &mut MountPoints,
    source: &Path,
    target: &Path,
    read_only: bool,
) -> io::Result<()> {
    let kind = if source.metadata()?.is_dir() {
        Kind::Directory
    } else {
        Kind::File
    };
    points
        .prepare(target, kind)
        .map_err(|error| match std::error::Error::source(&error) {
            Some(cause) => io::Error::other(format!("{error}: {cause}")),
            None => io::Error::other(error),
        })?;
    // A symbolic link is followed by hand: its target is what programs read.
    let target = target.canonicalize()?;
    mount_bind(source, &target)?;
    if read_only {
        remount_read_only(&target)?;
    }
    Ok(())
}

/// A bind mount takes its flags from a remount only. In a user namespace the restrictions of the
/// source's file system are locked (`mount_namespaces(7)`): a remount that leaves one out is refused.
fn remount_read_only(target: &Path) -> io::Result<()> {
    let has = rustix::fs::statvfs(target)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (restriction, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if has.contains(restriction) {
            flags |= flag;
        }
    }
    Ok(mount_remount(target, flags, "")?)
}

fn context(what: &'static str) -> impl Fn(nix::Error) -> io::Error {
    move |error| describe(what, &error.into())
}

fn describe(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
