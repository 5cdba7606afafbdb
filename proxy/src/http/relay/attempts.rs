//! One endpoint after the other, until one answers.

use std::sync::Arc;

use sealane_config::model::Endpoint;

use super::super::engine::{Inner, Target};
use super::super::failure::{self, Failure};
use super::super::retry::{Attempts, Choice, Verdict};
use super::super::services::ServiceState;
use crate::balance::Flight;

/// Where a plain request goes, and what decides whether it may be sent again.
pub(super) struct Sending<'a> {
    pub(super) engine: &'a Inner,
    pub(super) state: &'a ServiceState,
    pub(super) target: &'a Target,
    /// RFC 9110, 9.2.2.
    pub(super) idempotent: bool,
    pub(super) has_body: bool,
    /// When the request began, a time of [`clock::now`](crate::clock::now).
    pub(super) began: u64,
}

/// One attempt: its endpoint among those of a target, which is newer than the request's own where
/// the Service has changed meanwhile.
pub(super) struct Attempt<'a> {
    pub(super) target: &'a Target,
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) flight: Flight,
    /// It must not use a connection that was idle.
    pub(super) fresh: bool,
}

impl Attempt<'_> {
    /// Counts what has gone wrong against the endpoint.
    pub(super) fn blame(&self, engine: &Inner, failure: &Failure) {
        engine.blame(failure, &self.flight, self.target, self.endpoint);
    }
}

impl Sending<'_> {
    /// Makes attempts until one has an answer, or none is left. One that fails has to say so by
    /// [`Attempt::blame`].
    pub(super) async fn run<T>(
        &self,
        attempt: &mut impl AsyncFnMut(Attempt<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut attempts = Attempts::new(self.idempotent, self.began);
        // Boxed, because it is rare, and every connection has room for it.
        let mut latest: Option<Box<Target>> = None;
        loop {
            let target = latest.as_deref().unwrap_or(self.target);
            let endpoint = self.engine.pick(target, attempts.tried());
            let endpoint = endpoint.map_err(Failure::last)?;
            let made = attempt(Attempt {
                target,
                endpoint,
                flight: Flight::start(endpoint),
                fresh: attempts.fresh(),
            });
            let failure = match made.await {
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            let newer = self.engine.latest(target);
            let choice = newer.as_ref().unwrap_or(target);
            let policy = &self.target.policy().retries;
            let choice = Choice {
                endpoints: choice.everywhere(),
                policy,
                untouched: !self.has_body,
                random: self.engine.balancer.random(),
            };
            let spend = || self.state.spend(policy);
            match attempts.next(failure.reason, endpoint.addr, &choice, spend) {
                // A pause follows answers only, which the relay does not repeat.
                Verdict::Again(_) => {}
                Verdict::Stop => return Err(failure),
                Verdict::OverBudget => {
                    return Err(Failure::last(failure::over_budget(failure.error)));
                }
            }
            latest = newer.map(Box::new).or(latest);
            self.state.metrics.retries.increment(1);
        }
    }
}
