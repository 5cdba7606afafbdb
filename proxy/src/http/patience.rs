//! How long an endpoint may take until the head of its answer is there.
//!
//! The time runs from the moment that the request is complete: an endpoint need not answer before
//! it has heard everything, and how fast the rest comes is the client's affair. A gRPC call may be
//! silent for as long as its client likes, which is what `grpc-timeout` says; without it there is no
//! limit (gRPC over HTTP/2, "Timeout").

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};

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

/// The patience with a request.
pub(super) fn of(headers: &HeaderMap, default: Duration) -> Patience {
    let is_grpc = headers
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return Patience::Answer(default);
    }
    headers
        .get("grpc-timeout")
        .and_then(|v| grpc_timeout(v.as_bytes()))
        .map_or(Patience::Endless, Patience::Call)
}

impl Patience {
    /// Waits for an answer to a request that was handed over at `sent`; `None` if patience ran out.
    pub(super) async fn wait<F: Future>(
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
