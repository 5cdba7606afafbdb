//! Datagrams that were not answered, counted by reason.

use std::cell::Cell;

/// Datagrams of one worker that got no answer, by reason.
#[derive(Debug, Default)]
pub struct Dropped {
    /// They came from a port of a service that answers whatever it is sent.
    pub(super) reflector: Cell<u64>,
    /// Too many queries waited for an upstream.
    pub(super) overload: Cell<u64>,
    /// Their client asks more than it may.
    pub(crate) client_rate: Cell<u64>,
    /// The reply could not be sent.
    pub(super) unsendable: Cell<u64>,
    /// They came faster than they were read, so that the kernel had no room for them.
    pub(super) receive_buffer: Cell<u64>,
}

impl Dropped {
    /// The counts, with the words for their reasons in metrics.
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("reflector", self.reflector.get()),
            ("overload", self.overload.get()),
            ("client_rate", self.client_rate.get()),
            ("unsendable", self.unsendable.get()),
            ("receive_buffer", self.receive_buffer.get()),
        ]
    }

    pub(crate) fn add(&self, to: &Cell<u64>, count: u64) {
        to.set(to.get() + count);
    }
}
