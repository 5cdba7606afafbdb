//! Whether a connection is alive, judged by what is heard on it: one that was silent for [`SILENT`]
//! while a query waited gets no new queries.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// See the module. Shorter than the time after which an upstream is asked again, so that this goes
/// over another connection.
const SILENT: Duration = Duration::from_millis(900);

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Liveness {
    waiting: Cell<usize>,
    /// When something was heard last, or the first of those queries was sent that wait now.
    quiet_since: Cell<Instant>,
    retired: Cell<bool>,
}

impl Liveness {
    pub(super) fn new() -> Self {
        Self {
            waiting: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
            retired: Cell::new(false),
        }
    }

    /// Queries that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Something came.
    pub(super) fn heard(&self) {
        self.quiet_since.set(Instant::now());
    }

    /// It gets no new queries.
    pub(super) fn retire(&self) {
        self.retired.set(true);
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.retired.get() && (self.waiting.get() == 0 || !self.is_silent())
    }

    fn is_silent(&self) -> bool {
        self.quiet_since.get().elapsed() >= SILENT
    }

    /// A query waits until the result is dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        if self.waiting.get() == 0 {
            self.heard();
        }
        self.waiting.set(self.waiting.get() + 1);
        Waiting(self)
    }
}

/// A query that waits.
pub(super) struct Waiting<'a>(&'a Liveness);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        if self.0.is_silent() {
            self.0.retire();
        }
    }
}
