//! When a request may be sent again.
//!
//! - *Not connected, refused*: it cannot have reached the application. No connection was made, or
//!   the endpoint said that it did not process it (HTTP/2 `REFUSED_STREAM`, `GOAWAY`). Any method,
//!   another endpoint, not charged.
//! - *Stale*: a connection that had been idle broke before any byte of an answer, most likely
//!   closed by the endpoint while the request was on its way. Repeated if the method is idempotent
//!   or nothing of the body was sent, on a new connection, not charged.
//! - *Broken, expired*: a new connection broke before any byte of an answer, or the attempt took
//!   longer than an attempt may. Only idempotent methods (RFC 9110, 9.2.2), another endpoint, charged.
//! - *Timed out*: the head of the answer took too long. Only if the policy says so, idempotent
//!   methods, another endpoint, charged.
//! - *Status, gRPC code*: the endpoint answered with an error that the Service's policy names. HTTP
//!   statuses only for idempotent methods; gRPC codes for any call, because all of them are `POST`.
//!   After a pause, on another endpoint if there is one, charged.
//!
//! Charged retries are limited twice: by a count for each request, and by the Service's [`Budget`],
//! which is what keeps retries from multiplying an outage.
//!
//! Nothing here knows how requests are sent: whoever forwards them shares these rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::Method;
use sealane_config::model::{Endpoint, EndpointAddr, RetryPolicy};

use crate::clock;

/// Endpoints that one request is tried on without being charged.
const MAX_ATTEMPTS: usize = 5;

/// Why an attempt did not end in an answer for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No connection was made.
    NotConnected,
    /// The endpoint has not looked at the request.
    Refused,
    /// An idle connection turned out to be closed.
    Stale,
    /// A new connection broke.
    Broken,
    /// The attempt took too long.
    Expired,
    /// The head of the answer took too long.
    TimedOut,
    /// An answer with this status.
    Status(u16),
    /// An answer with this gRPC status code.
    Grpc(u32),
    /// Anything else.
    Final,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request is sent again after a pause, which may be zero.
    Again(Duration),
    /// It is not.
    Stop,
    /// It would be, but the budget is used up.
    OverBudget,
}

/// What a request has been through.
#[derive(Debug)]
pub(crate) struct Attempts {
    idempotent: bool,
    /// Endpoints that it need not be tried on again.
    tried: Vec<EndpointAddr>,
    /// A connection turned out to be stale, so the next one is new.
    fresh: bool,
    /// Attempts that may have had an effect and were repeated.
    charged: u32,
    /// Attempts, but for those on a connection that was old.
    made: u32,
    /// When the request began, nanoseconds on the process's clock.
    began: u64,
}

/// What the decision about one more attempt depends on, besides the attempts so far.
pub(crate) struct Choice<'a> {
    /// The endpoints to choose from now.
    pub(crate) endpoints: &'a [Arc<Endpoint>],
    /// The Service's rules.
    pub(crate) policy: &'a RetryPolicy,
    /// Nothing of the request's body was sent to anybody.
    pub(crate) untouched: bool,
    /// A random number.
    pub(crate) random: u64,
}

impl Attempts {
    /// No attempt yet at a request that may, or may not, be repeated, and began at a time of
    /// [`clock::now`].
    pub(crate) fn new(idempotent: bool, began: u64) -> Self {
        Self {
            idempotent,
            tried: Vec::new(),
            fresh: false,
            charged: 0,
            made: 0,
            began,
        }
    }

    /// Endpoints that are to be avoided.
    pub(crate) fn tried(&self) -> &[EndpointAddr] {
        &self.tried
    }

    /// The next attempt must not use a connection that was idle.
    pub(crate) fn fresh(&self) -> bool {
        self.fresh
    }

    /// The policy names this as a reason for this request, whatever was tried.
    pub(crate) fn is_reason(&self, reason: Reason, policy: &RetryPolicy) -> bool {
        match reason {
            Reason::NotConnected => policy.on.connect_failure,
            Reason::Refused => policy.on.refused_stream,
            Reason::Stale => true,
            Reason::Broken | Reason::Expired => policy.on.reset && self.idempotent,
            Reason::TimedOut => policy.on.timeout && self.idempotent,
            Reason::Status(status) => self.idempotent && policy.on.has_status(status),
            Reason::Grpc(code) => policy.on.has_grpc(code),
            Reason::Final => false,
        }
    }

    /// Whether the request is sent once more, after an attempt on `endpoint` that ended for
    /// `reason`. `spend` takes a retry out of the budget.
    pub(crate) fn next(
        &mut self,
        reason: Reason,
        endpoint: EndpointAddr,
        choice: &Choice<'_>,
        spend: impl FnOnce() -> bool,
    ) -> Verdict {
        if !self.is_reason(reason, choice.policy) {
            return Verdict::Stop;
        }
        if reason != Reason::Stale {
            self.made += 1;
            if self.is_over(choice.policy) {
                return Verdict::Stop;
            }
        }
        let pause = match reason {
            Reason::Stale => {
                // The same endpoint will do: it is the connection that was old.
                let safe = self.idempotent || choice.untouched;
                let again = safe && !std::mem::replace(&mut self.fresh, true);
                return if again {
                    Verdict::Again(Duration::ZERO)
                } else {
                    Verdict::Stop
                };
            }
            Reason::NotConnected | Reason::Refused => {
                self.tried.push(endpoint);
                let again = self.tried.len() < MAX_ATTEMPTS && self.has_untried(choice.endpoints);
                return if again {
                    Verdict::Again(Duration::ZERO)
                } else {
                    Verdict::Stop
                };
            }
            Reason::Broken | Reason::Expired | Reason::TimedOut => {
                self.tried.push(endpoint);
                if !self.has_untried(choice.endpoints) {
                    return Verdict::Stop;
                }
                Duration::ZERO
            }
            Reason::Status(_) | Reason::Grpc(_) => {
                self.tried.push(endpoint);
                if !self.has_untried(choice.endpoints) {
                    if choice.policy.elsewhere {
                        return Verdict::Stop;
                    }
                    self.tried.clear();
                }
                self.pause(choice)
            }
            Reason::Final => return Verdict::Stop,
        };
        if self.charged >= choice.policy.count {
            return Verdict::Stop;
        }
        if !spend() {
            return Verdict::OverBudget;
        }
        self.charged += 1;
        Verdict::Again(pause)
    }

    /// No further attempt is to be made.
    fn is_over(&self, policy: &RetryPolicy) -> bool {
        let within = clock::nanos(policy.within);
        let is_late = within != 0 && clock::now().saturating_sub(self.began) >= within;
        is_late || policy.tries != 0 && self.made >= policy.tries
    }

    fn has_untried(&self, endpoints: &[Arc<Endpoint>]) -> bool {
        endpoints.iter().any(|e| !self.tried.contains(&e.addr))
    }

    /// Doubled with each retry, drawn at random from the whole, so that clients of an endpoint that
    /// failed for all of them at once do not come back at once.
    fn pause(&self, choice: &Choice<'_>) -> Duration {
        let doubled = 1_u32.checked_shl(self.charged).unwrap_or(u32::MAX);
        let backoff = &choice.policy.backoff;
        let longest = clock::nanos(backoff.start().saturating_mul(doubled).min(*backoff.end()));
        let drawn = (u128::from(longest) * u128::from(choice.random)) >> 64;
        Duration::from_nanos(u64::try_from(drawn).unwrap_or(0))
    }
}

/// Repeating the request has the same effect as sending it once (RFC 9110, 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    )
}

/// Thousandths of a retry.
const RETRY: i64 = 1000;

/// What can be saved up: what so many seconds earn without requests.
const SAVED_SECONDS: u32 = 10;

/// Pays for the retries of a Service; one for all workers of a process.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// Thousandths of a retry.
    saved: AtomicI64,
    /// When the seconds were last paid for; 0: never.
    paid: AtomicU64,
}

impl Budget {
    /// So many requests came in.
    pub(crate) fn earn(&self, requests: u32, policy: &RetryPolicy) {
        let earned = i64::from(requests) * i64::from(policy.budget_percent) * (RETRY / 100);
        self.saved.fetch_add(earned, Relaxed);
    }

    /// Takes one retry out, if there is one.
    pub(crate) fn spend(&self, policy: &RetryPolicy) -> bool {
        let now = clock::now();
        // What the first second earns is there from the beginning.
        let elapsed = match self.paid.swap(now, Relaxed) {
            0 => 1_000_000_000,
            before => now.saturating_sub(before),
        };
        let per_second = u64::from(policy.budget_per_second);
        let earned = u128::from(elapsed) * u128::from(per_second) / 1_000_000;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        let most = i64::from((policy.budget_per_second * SAVED_SECONDS).max(10)) * RETRY;
        let after = |saved: i64| saved.saturating_add(earned).min(most);
        let before = self.saved.fetch_update(Relaxed, Relaxed, |saved| {
            let saved = after(saved);
            Some(if saved >= RETRY { saved - RETRY } else { saved })
        });
        before.is_ok_and(|saved| after(saved) >= RETRY)
    }
}

#[cfg(test)]
mod tests;
