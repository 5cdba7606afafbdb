//! How slowly a client may send a body.
//!
//! A body that trickles holds a connection and a place at an endpoint for as long as it likes. What
//! counts is the time in which we wait for the client, not that in which an endpoint is slow to take
//! what is there: a body may cost ten seconds of waiting, and one more for every 240 bytes.
//!
//! Streams of messages (gRPC) are silent while there is nothing to say, and are left alone; PINGs tell
//! whether their client is there.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::{Body, BodyError, OtherBody};

/// Waiting that a body may cost in any case.
const GRACE: Duration = Duration::from_secs(10);

/// Bytes a second that it has to bring after that.
const BYTES_PER_SECOND: u32 = 240;

/// The client is too slow.
#[derive(Debug, thiserror::Error)]
#[error("the request's body comes too slowly")]
pub(super) struct TooSlow;

/// A body and the time that it has taken.
pub(super) struct Paced {
    pub(super) inner: Source,
    pace: Pace,
}

/// Where a client's body comes from.
pub(super) enum Source {
    Incoming(Incoming),
    Other(OtherBody),
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Self::Other(other) => other.as_mut().poll_frame(cx),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(incoming) => incoming.is_end_stream(),
            Self::Other(other) => other.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Other(other) => other.size_hint(),
        }
    }
}

/// Sees to the pace of a request's body, if it has one that ought to be quick.
pub(super) fn keep(request: Request<Body>) -> Request<Body> {
    if is_stream(request.headers()) {
        return request;
    }
    request.map(Body::paced)
}

fn is_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    media_type.is_some_and(|it| it.starts_with(b"application/grpc"))
}

impl Paced {
    pub(super) fn new(inner: Source) -> Self {
        Self {
            inner,
            pace: Pace::default(),
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.inner.poll_frame(cx) {
            Poll::Ready(frame) => {
                let data = frame
                    .as_ref()
                    .and_then(|frame| frame.as_ref().ok()?.data_ref());
                self.pace.got(data.map_or(0, Bytes::len));
                Poll::Ready(frame)
            }
            Poll::Pending if self.pace.is_over(cx) => Poll::Ready(Some(Err(TooSlow.into()))),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What was waited for a body.
#[derive(Default)]
struct Pace {
    bytes: u64,
    waited: Duration,
    /// Since when we wait, and a timer for when that has been long enough.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Pace {
    /// So many bytes came.
    fn got(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
    }

    /// Nothing is there; says whether it has been waited for long enough, and wakes the task when.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let earned = Duration::from_millis(self.bytes * 1000 / u64::from(BYTES_PER_SECOND));
        let left = (GRACE + earned).saturating_sub(self.waited);
        let (_, timer) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + left)))
        });
        timer.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for so long, and says whether that was too long.
    async fn waits(pace: &mut Pace, seconds: u64) -> bool {
        let waiting = std::future::poll_fn(|cx| {
            if pace.is_over(cx) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        tokio::time::timeout(Duration::from_secs(seconds), waiting)
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn reliability_b13_a_body_has_ten_seconds_and_one_for_each_240_bytes() {
        for (name, bytes, pause, want) in [
            ("nothing", 0, 4, 3),
            ("one byte a time", 1, 4, 3),
            ("240 bytes every two seconds", 240, 2, 9),
            ("240 bytes a second", 240, 1, 1000),
            ("a lot now and then", 2400, 9, 1000),
        ] {
            let mut pace = Pace::default();
            let mut times = 1;
            while times < 1000 && !waits(&mut pace, pause).await {
                pace.got(bytes);
                times += 1;
            }
            assert_eq!(times, want, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reliability_b13_an_endpoint_that_takes_nothing_is_not_the_clients_fault() {
        let mut pace = Pace::default();
        assert!(!waits(&mut pace, 9).await);
        pace.got(1);
        tokio::time::advance(Duration::from_secs(1000)).await;
        pace.got(1);
        assert!(!waits(&mut pace, 1).await);
        assert!(waits(&mut pace, 1).await);
    }
}
