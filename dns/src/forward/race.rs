//! Asking several upstreams for one answer.
//!
//! - The next upstream is asked as well when the last one has not answered after twice its usual
//!   time ([`Upstream::hedge_after`]), and at once when one fails or answers with a code of `failover`.
//! - When all were asked, those that failed or are silent get a second chance: at once after
//!   failures, after [`AGAIN`] for a datagram that may have been lost. So there are at most two tries
//!   an upstream.
//! - The first good answer wins. NOERROR and NXDOMAIN are good; any other code is passed on too, but
//!   if others are being asked already they may do better.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_proto::op::ResponseCode;
use tokio::time::{Instant, sleep_until};

use super::ForwardError;
use super::upstream::Upstream;
use crate::answer::Answer;
use crate::config::ForwardSettings;

/// After this time without an answer from anybody upstreams are asked a second time.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// Asks `order`, in order, by `ask`, and tells `suspect` of those that fail or are slow. Has no time
/// limit of its own.
pub(super) async fn race<A, F>(
    order: Vec<Rc<Upstream>>,
    settings: &ForwardSettings,
    suspect: impl Fn(&Rc<Upstream>),
    ask: A,
) -> Result<Answer, ForwardError>
where
    A: Fn(Rc<Upstream>) -> F,
    F: Future<Output = Result<Answer, ForwardError>>,
{
    let max_fails = settings.max_fails;
    let start = |upstream: Rc<Upstream>| {
        upstream.metrics.asked();
        let (began, answer) = (Instant::now(), ask(Rc::clone(&upstream)));
        async move { (upstream, began, answer.await) }
    };
    let mut first_round = order.iter();
    let mut second_round = order.iter();
    let mut last = Rc::clone(first_round.next().ok_or(ForwardError::NoUpstream)?);
    let mut tries = FuturesUnordered::new();
    tries.push(start(Rc::clone(&last)));
    let mut hedge_at = Instant::now() + patience(&last, first_round.len());
    let mut outcome = Err(ForwardError::TimedOut);
    let mut not_sent = 0;
    loop {
        let next = tokio::select! {
            biased;
            Some((upstream, began, result)) = tries.next() => {
                let failed_over = match result {
                    Ok(answer) => {
                        let took = began.elapsed();
                        upstream.answered(took);
                        upstream.metrics.answered(answer.rcode, took);
                        let fails_over = settings.failover.contains(&answer.rcode);
                        if !fails_over && (is_good(&answer) || tries.is_empty()) {
                            return Ok(answer);
                        }
                        outcome = Ok(answer);
                        fails_over
                    }
                    Err(error) => {
                        upstream.failed(max_fails);
                        suspect(&upstream);
                        not_sent += u32::from(error == ForwardError::Network);
                        // An answer, if a bad one, says more than an error.
                        if outcome.is_err() {
                            outcome = Err(error);
                        }
                        false
                    }
                };
                let given_up = settings.max_connect_attempts > 0
                    && not_sent >= settings.max_connect_attempts;
                let retry = match () {
                    () if given_up => None,
                    () if failed_over || outcome.is_ok() => first_round.next(),
                    () => first_round.next().or_else(|| second_round.next()),
                };
                if retry.is_none() && tries.is_empty() {
                    return outcome;
                }
                retry
            },
            () = sleep_until(hedge_at), if first_round.len() > 0 || second_round.len() > 0 => {
                if first_round.len() > 0 {
                    last.is_slow(last.hedge_after(), max_fails);
                    suspect(&last);
                }
                first_round.next().or_else(|| second_round.next())
            }
        };
        let Some(upstream) = next else { continue };
        last = Rc::clone(upstream);
        tries.push(start(Rc::clone(upstream)));
        hedge_at = Instant::now() + patience(&last, first_round.len());
    }
}

/// How long an upstream is waited for before something else is tried.
fn patience(upstream: &Upstream, not_asked_yet: usize) -> Duration {
    match not_asked_yet {
        0 => AGAIN,
        _ => upstream.hedge_after(),
    }
}

fn is_good(answer: &Answer) -> bool {
    matches!(answer.rcode, ResponseCode::NoError | ResponseCode::NXDomain)
}

#[cfg(test)]
mod tests;
