//! Datagrams that were not answered, counted by reason.

use crate::metrics::{Counter, Metrics, names};

/// Datagrams of one worker that got no answer, by reason.
#[derive(Debug)]
pub struct Dropped {
    /// They came from a port of a service that answers whatever it is sent.
    pub(super) reflector: Counter,
    /// Too many queries waited for an upstream.
    pub(super) overload: Counter,
    /// Their client asks more than it may.
    pub(crate) client_rate: Counter,
    /// The reply could not be sent.
    pub(super) unsendable: Counter,
    /// They came faster than they were read, so that the kernel had no room for them.
    pub(super) receive_buffer: Counter,
}

impl Dropped {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counter = |reason| metrics.counter(&names::DROPPED, &[reason]);
        Self {
            reflector: counter("reflector"),
            overload: counter("overload"),
            client_rate: counter("client_rate"),
            unsendable: counter("unsendable"),
            receive_buffer: counter("receive_buffer"),
        }
    }

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

    pub(crate) fn add(&self, to: &Counter, count: u64) {
        to.add(count);
    }
}
