//! A network namespace that stands for a node, from which the API server can be reached.
//!
//! It has nothing but a loopback device. A listener in it has the API server's address, and hands
//! connections over to the real one outside, so that a kubeconfig is right inside and outside.

use std::fs::{self, File};
use std::io;
use std::net::{self, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{Shutdown, shutdown};

/// The namespace. It goes when this is dropped, and whatever runs in it has ended.
#[derive(Debug)]
pub struct NodeNamespace {
    file: PathBuf,
    /// A socket keeps its namespace.
    listener: TcpListener,
    /// The namespace's thread ends when this is dropped.
    _alive: mpsc::Sender<()>,
}

impl Drop for NodeNamespace {
    fn drop(&mut self) {
        // Ends the thread that accepts; it fails if that has ended already.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

impl NodeNamespace {
    /// Makes one in which connections to `addr` end at `addr` of the caller's namespace.
    ///
    /// # Errors
    /// The process may not make namespaces, or there is no `ip` program (iproute2).
    pub fn reaching(addr: SocketAddr) -> anyhow::Result<Self> {
        let (alive, end) = mpsc::channel();
        let (send, made) = mpsc::channel();
        thread::spawn(move || {
            // Nobody waits if the program has ended.
            let _ = send.send(make(addr));
            // An error is the end that is waited for.
            let _ = end.recv();
        });
        let (listener, file) = made.recv().context("the namespace's thread")??;
        let accepting = listener.try_clone().context("a listener")?;
        thread::spawn(move || hand_over(&accepting, addr));
        Ok(Self {
            file,
            listener,
            _alive: alive,
        })
    }

    /// The file that names it, for `nsenter --net=`.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Runs something on a thread of the namespace, where sockets and child processes are in it, and
    /// waits for it.
    ///
    /// # Errors
    /// What it returns, or the namespace cannot be entered.
    pub fn run<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                work()
            });
            let result = thread.join();
            result.unwrap_or_else(|_panic| anyhow::bail!("a thread of a namespace panicked"))
        })
    }

    /// Leads the calling thread, for good, into the namespace.
    ///
    /// # Errors
    /// The process may not.
    pub fn enter(&self) -> anyhow::Result<()> {
        let file = File::open(&self.file).context("a namespace's file")?;
        setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
    }
}

/// Leads the calling thread into a new namespace; returns a listener in it, and its file.
fn make(addr: SocketAddr) -> anyhow::Result<(TcpListener, PathBuf)> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root")?;
    let up = ["link", "set", "lo", "up"];
    let status = Command::new("ip").args(up).status();
    let status = status.context("cannot run `ip` (iproute2)")?;
    ensure!(status.success(), "ip: {status}");
    let listener = TcpListener::bind(addr)?;
    let thread = fs::canonicalize("/proc/thread-self")?;
    Ok((listener, thread.join("ns/net")))
}

/// Connections to `listener` end at `addr`.
fn hand_over(listener: &TcpListener, addr: SocketAddr) {
    for inside in listener.incoming() {
        let Ok(inside) = inside else { return };
        let Ok(outside) = TcpStream::connect(addr) else {
            continue;
        };
        for (from, to) in [(&inside, &outside), (&outside, &inside)] {
            let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
                continue;
            };
            thread::spawn(move || {
                // Either side's end ends the other.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(net::Shutdown::Both);
            });
        }
    }
}
