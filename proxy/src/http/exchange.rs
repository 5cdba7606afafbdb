//! One request's stay at an endpoint: from the head of the answer to the end of its body.

use super::engine::Target;
use crate::balance::Flight;
use crate::pool::Lease;

/// Holds the endpoint's in-flight count and the connection. Dropped in the middle (the client went
/// away), it closes an HTTP/1.1 connection, which is out of step then.
pub(super) struct Exchange {
    flight: Flight,
    lease: Lease,
    target: Target,
}

impl Exchange {
    pub(super) fn new(flight: Flight, lease: Lease, target: Target) -> Self {
        Self {
            flight,
            lease,
            target,
        }
    }

    /// The answer is complete: the connection can be used again.
    pub(super) fn finish(self) {
        self.lease.give_back();
    }

    /// The endpoint broke off in the middle of its answer.
    pub(super) fn broke(self) {
        let rules = &self.target.port.http.balancing;
        self.flight.failed(self.target.endpoints(), rules);
    }
}
