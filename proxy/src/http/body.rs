//! The one body type of the engine, for requests and responses alike.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::direct;
use super::exchange::Exchange;
use super::held::Held;
use super::io::Busy;
use super::pace::{Paced, Source};
use super::replay::Replay;
use super::tee::Tee;
use crate::access::Meter;

/// Why a body ended early. Sources keep an HTTP/2 reset code, so that it is passed on.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A message body: empty, a few bytes of our own, or what a peer is sending.
pub struct Body {
    kind: Kind,
    /// Keeps the client's connection marked as busy until the response is through.
    busy: Option<Busy>,
    /// Counts bytes for the access log.
    meter: Option<Box<Meter>>,
    /// What is given back when the body has gone.
    held: Option<Held>,
    /// Copies what is sent.
    tee: Option<Box<Tee>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    /// What comes by a transport that hyper does not speak.
    Other(OtherBody),
    /// A request body that must not come too slowly.
    Paced(Box<Paced>),
    /// A request body that can be sent again.
    Replay(Replay),
    /// A response body whose end is the end of an exchange with an endpoint.
    Exchange(AnswerBody, Option<Box<Exchange>>),
}

/// A body by a transport that hyper does not speak. Boxed, so that the engine knows no such transport.
pub(super) type OtherBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>;

/// The body of an endpoint's answer.
pub(super) enum AnswerBody {
    /// It was there with the head.
    Whole(Bytes),
    /// The rest of it comes without hyper.
    Direct(Box<direct::Rest>),
    /// By hyper.
    Incoming(Incoming),
}

impl AnswerBody {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Direct(rest) => rest.poll_frame(cx),
            Self::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Direct(rest) => rest.is_end_stream(),
            Self::Incoming(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Direct(rest) => rest.size_hint(),
            Self::Incoming(incoming) => incoming.size_hint(),
        }
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Kind::Empty.into()
    }

    /// A body that is known as a whole.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Self::empty();
        }
        Kind::Full(bytes).into()
    }

    pub(super) fn incoming(incoming: Incoming) -> Self {
        if incoming.is_end_stream() && incoming.size_hint().exact() == Some(0) {
            return Self::empty();
        }
        Kind::Incoming(incoming).into()
    }

    /// What a client sends by a transport that hyper does not speak.
    pub fn other(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        Kind::Other(Box::pin(body)).into()
    }

    /// The same, if it is sent by a client, with an eye on how fast.
    pub(super) fn paced(mut self) -> Self {
        let source = match self.kind {
            Kind::Incoming(incoming) => Source::Incoming(incoming),
            Kind::Other(other) => Source::Other(other),
            _ => return self,
        };
        self.kind = Kind::Paced(Box::new(Paced::new(source)));
        self
    }

    pub(super) fn replay(replay: Replay) -> Self {
        Kind::Replay(replay).into()
    }

    /// A response's body; `exchange` is finished when the body is.
    pub(super) fn exchange(answer: AnswerBody, exchange: Exchange) -> Self {
        match answer {
            AnswerBody::Whole(bytes) => {
                exchange.finish();
                Self::full(bytes)
            }
            AnswerBody::Incoming(incoming) if incoming.is_end_stream() => {
                exchange.finish();
                Kind::Incoming(incoming).into()
            }
            answer => Kind::Exchange(answer, Some(Box::new(exchange))).into(),
        }
    }

    /// What a body of our own says; nothing for every other body.
    pub(super) fn into_full(self) -> Bytes {
        match self.kind {
            Kind::Full(bytes) => bytes,
            Kind::Empty
            | Kind::Incoming(_)
            | Kind::Other(_)
            | Kind::Paced(_)
            | Kind::Replay(_)
            | Kind::Exchange(..) => Bytes::new(),
        }
    }

    pub(crate) fn metered(mut self, mut meter: Meter) -> Self {
        if self.is_end_stream() {
            meter.end();
        }
        self.meter = Some(Box::new(meter));
        self
    }

    /// Keeps `held` until the body is through, or dropped.
    pub fn holding(mut self, held: Held) -> Self {
        self.held = Some(held);
        self
    }

    /// Copies the body while it is sent, and calls `done` with the copy when that was all. A body that
    /// is longer than `most` bytes, or that ends before its end, is not copied.
    pub fn copied(mut self, most: usize, done: impl FnOnce(Vec<u8>) + 'static) -> Self {
        self.tee = Some(Box::new(Tee::new(most, done)));
        self
    }

    pub(super) fn busy(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            busy: None,
            meter: None,
            held: None,
            tee: None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Incoming(_) => "incoming",
            Kind::Other(_) => "other",
            Kind::Paced(_) => "paced",
            Kind::Replay(_) => "replay",
            Kind::Exchange(..) => "exchange",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl Body {
    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Kind::Other(other) => other.as_mut().poll_frame(cx),
            Kind::Paced(paced) => paced.poll_frame(cx),
            Kind::Replay(replay) => replay.poll_frame(cx),
            Kind::Exchange(answer, exchange) => {
                let frame = match answer.poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => {
                        if exchange.as_mut().is_some_and(|it| it.is_overdue(cx))
                            && let Some(exchange) = exchange.take()
                        {
                            exchange.broke("UT");
                            let late = "the endpoint took too long with its answer";
                            return Poll::Ready(Some(Err(late.into())));
                        }
                        return Poll::Pending;
                    }
                };
                if let (Some(Ok(frame)), Some(exchange)) = (&frame, exchange.as_mut()) {
                    exchange.moved();
                    if let Some(trailers) = frame.trailers_ref() {
                        exchange.trailers(trailers);
                    }
                }
                match &frame {
                    Some(Ok(_)) if !answer.is_end_stream() => {}
                    // The endpoint's connection is free before the client has read the rest.
                    Some(Ok(_)) | None => {
                        if let Some(exchange) = exchange.take() {
                            exchange.finish();
                        }
                    }
                    Some(Err(_)) => {
                        if let Some(exchange) = exchange.take() {
                            exchange.broke("UC");
                        }
                    }
                }
                Poll::Ready(frame)
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.poll_kind(cx));
        if self.meter.is_some() || self.tee.is_some() {
            let is_end = frame.is_none() || self.is_end_stream();
            let data = frame.as_ref().and_then(|it| it.as_ref().ok()?.data_ref());
            let bytes = data.map_or(0, Bytes::len);
            if let Some(tee) = &mut self.tee {
                data.into_iter().for_each(|data| tee.add(data));
                if matches!(frame, Some(Err(_))) {
                    self.tee = None;
                } else if is_end {
                    tee.end();
                }
            }
            if let Some(meter) = &mut self.meter {
                meter.count(bytes);
                if is_end {
                    meter.end();
                }
            }
        }
        Poll::Ready(frame)
    }
    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Other(other) => other.is_end_stream(),
            Kind::Exchange(answer, _) => answer.is_end_stream(),
            Kind::Paced(paced) => paced.inner.is_end_stream(),
            Kind::Replay(replay) => replay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Other(other) => other.size_hint(),
            Kind::Exchange(answer, _) => answer.size_hint(),
            Kind::Paced(paced) => paced.inner.size_hint(),
            Kind::Replay(replay) => replay.size_hint(),
        }
    }
}
