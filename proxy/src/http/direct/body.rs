//! The rest of an answer's body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio_util::io::poll_read_buf;

use super::Connection;
use crate::http::BodyError;
use crate::http::relay::Keep;
use crate::http::relay::framing::Framing;
use crate::scratch;

/// What is read at once of a body that is known to be long, without being copied.
const LONG: u64 = 16 * 1024;
const PIECE: usize = 64 * 1024;

/// A body of which not all came with the head.
pub(in super::super) struct Rest {
    /// Gone at the end.
    connection: Option<Connection>,
    framing: Framing,
    keep: Keep,
    /// Read and not yet shown.
    ready: BytesMut,
}

impl Rest {
    pub(super) fn new(connection: Connection, framing: Framing, keep: Keep, came: Bytes) -> Self {
        Self {
            connection: Some(connection),
            framing,
            keep,
            ready: came.into(),
        }
    }

    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while self.ready.is_empty() {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            if self.framing.is_done() {
                self.finish();
                return Poll::Ready(None);
            }
            let read = ready!(read(connection, &mut self.framing, &mut self.ready, cx));
            match read {
                Ok(true) => self.keep = Keep::NOT,
                Ok(false) => {}
                Err(error) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let data = self.ready.split().freeze();
        if self.framing.is_done() {
            self.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    pub(in super::super) fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.framing.is_done()
    }

    pub(in super::super) fn size_hint(&self) -> SizeHint {
        let ready = self.ready.len() as u64;
        match &self.framing {
            Framing::Length(left) => SizeHint::with_exact(left.saturating_add(ready)),
            framing if framing.is_done() => SizeHint::with_exact(ready),
            _ => {
                let mut hint = SizeHint::new();
                hint.set_lower(ready);
                hint
            }
        }
    }

    /// The endpoint's connection is free before the client has read the rest.
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.give_back(self.keep);
        }
    }
}

/// Reads once. Says whether something came behind the end of the body.
fn read(
    connection: &mut Connection,
    framing: &mut Framing,
    ready: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<Result<bool, BodyError>> {
    let stream = &mut connection.stream;
    if let Framing::Length(left) = framing
        && *left >= LONG
    {
        let most = usize::try_from(*left).map_or(PIECE, |left| left.min(PIECE));
        ready.reserve(most);
        let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut ready.limit(most)))?;
        *left -= read as u64;
        return Poll::Ready(if read == 0 {
            Err(cut_short())
        } else {
            Ok(false)
        });
    }
    let read = scratch::poll_read(stream, cx, |_, bytes| {
        if bytes.is_empty() {
            return if matches!(framing, Framing::End) {
                *framing = Framing::Nothing;
                Ok(false)
            } else {
                Err(cut_short())
            };
        }
        let taken = framing.take_data(bytes, |data| ready.extend_from_slice(data));
        taken
            .map(|taken| taken < bytes.len())
            .map_err(|_malformed| "the endpoint's answer is malformed".into())
    });
    Poll::Ready(ready!(read)?)
}

fn cut_short() -> BodyError {
    "the endpoint's answer was cut short".into()
}
