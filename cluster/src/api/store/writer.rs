//! The thread that writes changes to disk, all that wait in one transaction of the file.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::disk::Disk;
use super::{Event, Inner};

/// Changes of one transaction that wait for the disk.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) events: Vec<Arc<Event>>,
    pub(super) done: oneshot::Sender<Result<(), String>>,
}

/// Owns the thread that writes to disk.
#[derive(Debug)]
pub(super) struct Writer {
    inner: Arc<Inner>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(inner: &Arc<Inner>, disk: Disk) -> std::io::Result<Self> {
        let writing = Arc::clone(inner);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_loop(&writing, &disk))?;
        Ok(Self {
            inner: Arc::clone(inner),
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inner.lock().closed = true;
        self.inner.pending.notify_all();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the storage thread panicked");
        }
    }
}

fn write_loop(inner: &Inner, disk: &Disk) {
    loop {
        let commits = {
            let mut state = inner.lock();
            while state.waiting.is_empty() && !state.closed {
                state = inner
                    .pending
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::take(&mut state.waiting)
        };
        if commits.is_empty() {
            return;
        }
        let outcome = disk.write(commits.iter().flat_map(|commit| &commit.events));
        if let Err(failure) = &outcome {
            tracing::error!(error = %failure, "the store cannot write; refusing all writes");
            inner.lock().failed = Some(failure.clone());
        }
        for commit in commits {
            // The request may have been given up by its client.
            let _ = commit.done.send(outcome.clone());
        }
    }
}
