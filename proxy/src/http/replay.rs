//! Request bodies that can be sent a second time.
//!
//! Up to [`LIMIT`] bytes are kept while the body is being sent, and no more than the process has
//! memory for in all. A body that is longer, or that ends in an error, cannot be sent again; nor can one whose request must not be repeated, for which
//! nothing is kept at all: it can be sent again only as long as nobody has read from it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::body::{Body, BodyError};
use super::pace::TooSlow;
use super::services::Shared;

/// The longest body that is kept, bytes.
const LIMIT: usize = 64 * 1024;

/// The body as the forwarding loop holds it.
pub(super) enum Original {
    /// There is none.
    Empty,
    /// There is one.
    Shared(Rc<RefCell<State>>),
}

pub(super) struct State {
    inner: Body,
    kept: Vec<Frame<Bytes>>,
    kept_bytes: usize,
    /// What is read is kept.
    keep: bool,
    /// Something was read and not kept.
    lost: bool,
    /// Where memory for what is kept comes from.
    memory: Shared,
    /// Bytes that were read, and that may be; 0: any number.
    read_bytes: u64,
    most_bytes: u64,
    /// What is wrong with it.
    fault: Option<Fault>,
    /// When the last of it was read.
    ended: Option<Instant>,
    /// When a piece was handed to a connection that has not asked for the next one.
    handed: Option<Instant>,
    /// Which [`Replay`] may read: the latest. An abandoned connection may still hold an older one.
    reader: u32,
}

/// Why a body is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client did not send all of it, or sent it malformed.
    Broken,
    /// It comes too slowly.
    TooSlow,
    /// It is longer than it may be.
    TooLong,
}

/// How a body is treated.
pub(super) struct Rules {
    /// The request may be repeated after some of its body was sent.
    pub(super) keep: bool,
    /// Bytes that the body may have; 0: any number.
    pub(super) most_bytes: u64,
}

/// The body as a connection to an endpoint holds it.
pub(super) struct Replay {
    state: Rc<RefCell<State>>,
    reader: u32,
    next: usize,
}

impl Original {
    /// Wraps a request's body.
    pub(super) fn new(body: Body, rules: &Rules, memory: &Shared) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Shared(Rc::new(RefCell::new(State {
            inner: body,
            kept: Vec::new(),
            kept_bytes: 0,
            keep: rules.keep,
            lost: false,
            memory: memory.clone(),
            read_bytes: 0,
            most_bytes: rules.most_bytes,
            fault: None,
            ended: None,
            handed: None,
            reader: 0,
        })))
    }

    /// The body from its beginning; `None` if that is not to be had any more.
    pub(super) fn start_over(&self) -> Option<Body> {
        match self {
            Self::Empty => Some(Body::empty()),
            Self::Shared(shared) => {
                let mut state = shared.borrow_mut();
                if state.lost {
                    return None;
                }
                state.reader += 1;
                state.handed = None;
                Some(Body::replay(Replay {
                    state: Rc::clone(shared),
                    reader: state.reader,
                    next: 0,
                }))
            }
        }
    }

    /// When the client had delivered all of it; `None` while it has not. A request without a body
    /// was complete at `sent`.
    pub(super) fn complete_since(&self, sent: Instant) -> Option<Instant> {
        match self {
            Self::Empty => Some(sent),
            Self::Shared(shared) => shared.borrow().ended.map(|ended| ended.max(sent)),
        }
    }

    /// Since when the endpoint has taken nothing of what is there; `None` while we wait for the
    /// client, or the client has delivered all of it.
    pub(super) fn untaken_since(&self) -> Option<Instant> {
        match self {
            Self::Empty => None,
            Self::Shared(shared) => {
                let state = shared.borrow();
                state.handed.filter(|_| state.ended.is_none())
            }
        }
    }

    /// What is wrong with it.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Empty => None,
            Self::Shared(shared) => shared.borrow().fault,
        }
    }

    /// The request can be sent again even if a connection breaks while it is being written.
    pub(super) fn is_repeatable(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Shared(shared) => shared.borrow().keep,
        }
    }

    /// Nothing of the body was sent to anybody.
    pub(super) fn untouched(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Shared(shared) => {
                let state = shared.borrow();
                !state.lost && state.kept.is_empty()
            }
        }
    }
}

impl State {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let copy = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _)
                if self.keep
                    && self.kept_bytes + data.len() <= LIMIT
                    && self.memory.keep(data.len()) =>
            {
                self.kept_bytes += data.len();
                Frame::data(data.clone())
            }
            (None, Some(trailers)) if self.keep => Frame::trailers(trailers.clone()),
            _ => {
                self.lost = true;
                self.keep = false;
                self.kept = Vec::new();
                self.memory.forget(std::mem::take(&mut self.kept_bytes));
                return;
            }
        };
        self.kept.push(copy);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.memory.forget(self.kept_bytes);
    }
}

impl Replay {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state.borrow_mut();
        if state.reader != self.reader {
            return Poll::Ready(Some(Err("the request is sent elsewhere".into())));
        }
        state.handed = None;
        if let Some(kept) = state.kept.get(self.next) {
            self.next += 1;
            let frame = match (kept.data_ref(), kept.trailers_ref()) {
                (Some(data), _) => Frame::data(data.clone()),
                (None, trailers) => Frame::trailers(trailers.cloned().unwrap_or_default()),
            };
            state.handed = Some(Instant::now());
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = ready!(Pin::new(&mut state.inner).poll_frame(cx));
        if frame.is_none() || state.inner.is_end_stream() {
            state.ended.get_or_insert_with(Instant::now);
        }
        match &frame {
            Some(Ok(frame)) => {
                state.read_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if state.most_bytes != 0 && state.read_bytes > state.most_bytes {
                    state.lost = true;
                    state.fault = Some(Fault::TooLong);
                    let too_long = "the request's body is longer than it may be";
                    return Poll::Ready(Some(Err(too_long.into())));
                }
                state.keep(frame);
                state.handed = Some(Instant::now());
                if !state.lost {
                    self.next += 1;
                }
            }
            Some(Err(error)) => {
                state.lost = true;
                state.fault = Some(if error.is::<TooSlow>() {
                    Fault::TooSlow
                } else {
                    Fault::Broken
                });
            }
            None => {}
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        self.next >= state.kept.len() && state.inner.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let again: u64 = state
            .kept
            .iter()
            .skip(self.next)
            .filter_map(|f| f.data_ref().map(|d| d.len() as u64))
            .sum();
        let rest = state.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(again));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(again));
        }
        hint
    }
}

#[cfg(test)]
mod tests;
