//! Doing something where a pod is.

use std::fs::{self, File};
use std::thread::JoinHandle;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

/// Starts a thread in a pod's network namespace.
///
/// # Errors
/// There is no process of such a pod, or its namespace must not be entered.
pub(crate) fn spawn<T: Send + 'static>(
    pod: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
    let namespace = open(pod)?;
    Ok(std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the pod's namespace")?;
        Ok(work())
    }))
}

/// The node agent tells a pod's processes its name.
fn open(pod: &str) -> anyhow::Result<File> {
    let wanted = format!("HOSTNAME={pod}");
    let entries = fs::read_dir("/proc").context("cannot list processes")?;
    for entry in entries.flatten() {
        let Ok(environment) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        let mut variables = environment.split(|byte| *byte == 0);
        if variables.any(|variable| variable == wanted.as_bytes()) {
            return File::open(entry.path().join("ns/net")).context("cannot open its namespace");
        }
    }
    anyhow::bail!("no process of pod {pod}")
}
