//! Bodies of requests.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::server::RequestStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};
use sealane_proxy::http::{Body, BodyError};

use super::transport::RecvStream;

/// A body has another length than its head says (RFC 9114, 4.1.2): the request is malformed.
#[derive(Debug, thiserror::Error)]
#[error("the body is not as long as content-length says")]
struct OtherLength;

/// A body on its way.
struct Incoming {
    stream: RequestStream<RecvStream, Bytes>,
    /// Bytes that are to come, if the head says so.
    left: Option<u64>,
    /// Read already.
    first: Option<Result<Frame<Bytes>, BodyError>>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Over,
}

/// The body of a request with these fields; empty if its end is there already.
pub(super) async fn of(headers: &HeaderMap, stream: RequestStream<RecvStream, Bytes>) -> Body {
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let mut incoming = Incoming {
        stream,
        left: length.and_then(|length| length.parse().ok()),
        first: None,
        stage: Stage::Data,
    };
    match poll_fn(|cx| Poll::Ready(incoming.poll(cx))).await {
        Poll::Ready(None) => return Body::empty(),
        Poll::Ready(first) => incoming.first = first,
        Poll::Pending => {}
    }
    Body::other(incoming)
}

impl Incoming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let next = match self.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Data => match ready!(self.stream.poll_recv_data(cx)) {
                    Ok(Some(mut data)) => {
                        let data = data.copy_to_bytes(data.remaining());
                        self.took(data.len()).map(|()| Some(Frame::data(data)))
                    }
                    Ok(None) if self.left.is_some_and(|left| left > 0) => Err(self.malformed()),
                    Ok(None) => {
                        self.stage = Stage::Trailers;
                        continue;
                    }
                    Err(error) => Err(error.into()),
                },
                Stage::Trailers => {
                    let trailers = ready!(self.stream.poll_recv_trailers(cx));
                    self.stage = Stage::Over;
                    let trailers = trailers.map_err(BodyError::from);
                    trailers.map(|trailers| trailers.map(Frame::trailers))
                }
            };
            if next.is_err() {
                self.stage = Stage::Over;
            }
            return Poll::Ready(next.transpose());
        }
    }

    fn took(&mut self, bytes: usize) -> Result<(), BodyError> {
        if let Some(left) = self.left {
            let rest = left.checked_sub(bytes as u64);
            self.left = Some(rest.ok_or_else(|| self.malformed())?);
        }
        Ok(())
    }

    fn malformed(&mut self) -> BodyError {
        self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        OtherLength.into()
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.stage == Stage::Over
    }

    fn size_hint(&self) -> SizeHint {
        let first = self
            .first
            .as_ref()
            .and_then(|it| it.as_ref().ok()?.data_ref());
        let first = first.map_or(0, |data| data.len() as u64);
        self.left
            .map_or_else(SizeHint::new, |left| SizeHint::with_exact(left + first))
    }
}
