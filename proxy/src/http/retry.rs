//! When a request may be sent again.
//!
//! - *Free*: it cannot have reached the application. No connection was made, the connection was
//!   found closed before the request was written, or the endpoint said that it did not process it
//!   (HTTP/2 `REFUSED_STREAM`, `GOAWAY`). Any method, and not charged to the budget.
//! - *Stale*: a connection that had been idle broke before any byte of an answer, most likely
//!   closed by the endpoint while the request was on its way. Repeated if the method is idempotent
//!   or nothing of the body was sent, on a new connection, not charged.
//! - *Broken*: a new connection broke before any byte of an answer. Only idempotent methods (RFC
//!   9110, 9.2.2), once, on another endpoint, charged.
//!
//! The budget is what keeps retries from multiplying an outage: a fifth of the requests, and ten a
//! second on top so that a quiet Service has any at all.

use std::cell::Cell;

use http::Method;
use tokio::time::Instant;

/// Retries earned by one request.
const PER_REQUEST: f64 = 0.2;

/// Retries earned by a second.
const PER_SECOND: f64 = 10.0;

/// What can be saved up: what ten seconds earn without requests.
const MOST: f64 = 100.0;

/// Whether, and on what terms, an attempt may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Free,
    Stale,
    Broken,
    Never,
}

/// Repeating the request has the same effect as sending it once (RFC 9110, 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    )
}

/// Pays for retries. One for each worker.
#[derive(Debug)]
pub(super) struct Budget {
    tokens: Cell<f64>,
    since: Cell<Instant>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            tokens: Cell::new(PER_SECOND),
            since: Cell::new(Instant::now()),
        }
    }

    /// A request came in.
    pub(super) fn earn(&self) {
        self.tokens.set((self.tokens.get() + PER_REQUEST).min(MOST));
    }

    /// Takes one retry out, if there is one.
    pub(super) fn spend(&self) -> bool {
        let now = Instant::now();
        let seconds = now.duration_since(self.since.replace(now)).as_secs_f64();
        let tokens = (self.tokens.get() + seconds * PER_SECOND).min(MOST);
        let affordable = tokens >= 1.0;
        self.tokens
            .set(if affordable { tokens - 1.0 } else { tokens });
        affordable
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn proxy_l14_the_budget_is_a_fifth_of_the_requests_and_ten_a_second() {
        let budget = Budget::new();
        while budget.spend() {}
        for _ in 0..50 {
            budget.earn();
        }
        let granted = (0..50).filter(|_| budget.spend()).count();
        assert!((9..=10).contains(&granted), "{granted} of 50 requests");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..50).filter(|_| budget.spend()).count(), 10);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..500).filter(|_| budget.spend()).count(), 100);
    }
}
