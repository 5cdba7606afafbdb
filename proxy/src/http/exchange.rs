//! One request's stay at an endpoint: from the head of the answer to the end of its body.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, Sleep, sleep_until};

use super::engine::Target;
use super::failure::{self, Quality};
use super::services::Admission;
use crate::balance::Flight;
use crate::pool::Lease;

/// Holds the endpoint's in-flight count and the connection. Dropped in the middle (the client went
/// away), it closes an HTTP/1.1 connection, which is out of step then.
pub(super) struct Exchange {
    // Given up in this order: a request that waits for room finds it.
    flight: Flight,
    /// hyper's connection; `None` where the body has it.
    lease: Option<Lease>,
    target: Target,
    /// The answer is part of a gRPC call, whose status is still to come.
    open: bool,
    /// When the answer has to be complete.
    until: Option<Instant>,
    /// Set when a piece of the body was first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    waits_since: Option<Instant>,
    admission: Admission,
}

impl Exchange {
    pub(super) fn new(
        flight: Flight,
        lease: Option<Lease>,
        target: Target,
        admission: Admission,
        until: Option<Instant>,
    ) -> Self {
        Self {
            flight,
            lease,
            target,
            open: false,
            until,
            timer: None,
            waits_since: None,
            admission,
        }
    }

    /// The status of the call is still to come.
    pub(super) fn leave_open(mut self) -> Self {
        self.open = true;
        self
    }

    /// The endpoint keeps an idle connection for so long.
    pub(super) fn kept_for(mut self, timeout: Option<Duration>) -> Self {
        if let (Some(timeout), Some(lease)) = (timeout, &mut self.lease) {
            lease.keep_for(timeout);
        }
        self
    }

    /// The trailers are there.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        let Some(code) = failure::grpc_status(trailers).filter(|_| self.open) else {
            return;
        };
        self.open = false;
        if failure::quality_of_code(code) != Quality::Bad {
            return self.flight.was_good();
        }
        let (peers, rules) = (self.target.everywhere(), &self.target.policy().balancing);
        self.flight.failed(peers, rules);
        if let Some(wait) = failure::asks_to_wait(StatusCode::OK, trailers) {
            self.flight.asked_to_wait(peers, rules, wait);
        }
    }

    /// A piece of the body came.
    pub(super) fn moved(&mut self) {
        self.waits_since = None;
    }

    /// Nothing is there. True if that has been so for too long, or the request's time is over.
    pub(super) fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.target.policy().timeouts.idle;
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let silent = (!idle.is_zero()).then(|| since + idle);
        let due = match (silent, self.until) {
            (Some(silent), Some(until)) => silent.min(until),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return false,
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while timer.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                return true;
            }
            // It was set for an earlier piece.
            timer.as_mut().reset(due);
        }
        false
    }

    /// The answer is complete: the connection can be used again.
    pub(super) fn finish(self) {
        if self.open {
            self.flight.was_good();
        }
        if let Some(lease) = self.lease {
            lease.give_back();
        }
    }

    /// The endpoint broke off in the middle of its answer, or took too long with it.
    pub(super) fn broke(self, flag: &'static str) {
        let rules = &self.target.policy().balancing;
        self.flight.failed(self.target.everywhere(), rules);
        self.admission.state.metrics.failed(flag);
    }
}
