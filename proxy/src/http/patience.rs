//! How long an endpoint may take until the head of its answer is there.
//!
//! The time runs from the moment that the request is complete: an endpoint need not answer before
//! it has heard everything, and how fast the rest comes is the client's affair. A gRPC call may be
//! silent for as long as its client likes, which is what `grpc-timeout` says; without it there is no
//! limit (gRPC over HTTP/2, "Timeout").

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::replay::Original;

/// How often a request that is not complete is looked at.
const GLANCE: Duration = Duration::from_secs(1);

/// A limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// For the head of the answer, once the request is complete.
    Answer(Duration),
    /// For the head of the answer, whatever the request is doing.
    Call(Duration),
    Endless,
}

/// Which limit an endpoint has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// That of one attempt.
    Try,
    /// That of the answer's head.
    Response,
    /// That of the next piece of the request.
    Send,
    /// That of the whole request.
    Request,
}

/// The patience with a request; `default` is for one that is not gRPC, zero for none.
pub(super) fn of(headers: &HeaderMap, default: Duration) -> Patience {
    if !super::failure::is_grpc(headers) {
        return if default.is_zero() {
            Patience::Endless
        } else {
            Patience::Answer(default)
        };
    }
    headers
        .get("grpc-timeout")
        .and_then(|v| grpc_timeout(v.as_bytes()))
        .map_or(Patience::Endless, Patience::Call)
}

/// When an attempt ends at the latest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// For one attempt; zero for none.
    pub(super) per_try: Duration,
    /// When the request as a whole ends.
    pub(super) request: Option<Instant>,
}

impl Deadlines {
    fn earliest(self, sent: Instant) -> Option<(Instant, Limit)> {
        let per_try = (!self.per_try.is_zero()).then(|| (sent + self.per_try, Limit::Try));
        let request = self.request.map(|at| (at, Limit::Request));
        match (per_try, request) {
            (Some(a), Some(b)) => Some(if a.0 < b.0 { a } else { b }),
            (one, other) => one.or(other),
        }
    }
}

impl Patience {
    /// As [`Self::wait`], for a request that is not complete: the endpoint has to take each further
    /// piece of it within `send`.
    ///
    /// # Errors
    /// As there, or [`Limit::Send`].
    pub(super) async fn watch<F: Future>(
        self,
        answer: Pin<&mut F>,
        request: &Original,
        sent: Instant,
        deadlines: Deadlines,
        send: Duration,
    ) -> Result<F::Output, Limit> {
        tokio::select! {
            biased;
            answered = self.wait(answer, request, sent, deadlines) => answered,
            () = untaken(request, sent, send) => Err(Limit::Send),
        }
    }

    /// Waits for an answer to a request that was handed over at `sent`.
    ///
    /// # Errors
    /// The limit that was reached first.
    pub(super) async fn wait<F: Future>(
        self,
        answer: Pin<&mut F>,
        request: &Original,
        sent: Instant,
        deadlines: Deadlines,
    ) -> Result<F::Output, Limit> {
        let Some((at, limit)) = deadlines.earliest(sent) else {
            let answer = self.wait_for_head(answer, request, sent).await;
            return answer.ok_or(Limit::Response);
        };
        // Boxed, because few requests have such a limit.
        let limited = timeout_at(at, self.wait_for_head(answer, request, sent));
        match Box::pin(limited).await {
            Ok(answer) => answer.ok_or(Limit::Response),
            Err(_elapsed) => Err(limit),
        }
    }

    /// `None` if patience ran out.
    async fn wait_for_head<F: Future>(
        self,
        mut answer: Pin<&mut F>,
        request: &Original,
        sent: Instant,
    ) -> Option<F::Output> {
        let limit = match self {
            Self::Endless => return Some(answer.await),
            Self::Call(limit) => return timeout_at(sent + limit, answer).await.ok(),
            Self::Answer(limit) => limit,
        };
        let mut until = sent + limit;
        loop {
            if let Ok(answer) = timeout_at(until, answer.as_mut()).await {
                return Some(answer);
            }
            let due = request.complete_since(sent).map(|since| since + limit);
            until = match due {
                Some(due) if due <= Instant::now() => return None,
                Some(due) => due,
                None => Instant::now() + limit.min(GLANCE),
            };
        }
    }
}

/// Ends when an endpoint has taken nothing for `limit` of a request that was handed over at `sent`,
/// though there was something to take.
async fn untaken(request: &Original, sent: Instant, limit: Duration) {
    while request.complete_since(sent).is_none() {
        let due = request.untaken_since().map(|since| since + limit);
        if due.is_some_and(|due| due <= Instant::now()) {
            return;
        }
        sleep_until(due.unwrap_or_else(|| Instant::now() + limit.min(GLANCE))).await;
    }
    pending().await
}

/// At most eight digits and a unit.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
