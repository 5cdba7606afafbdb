//! QUIC connections and streams of quinn, as the HTTP/3 library wants them.
//!
//! `h3-quinn` does the same. This is here because it panics when reading is stopped while a read is
//! under way, tells nobody that a client has lost interest in an answer, ends answers that were broken
//! off as if they were complete, and has no limit for what the library keeps ([`super::frames`]).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{
    self, ConnectionErrorIncoming, RecvStream as _, SendStream as _, StreamErrorIncoming, StreamId,
    WriteBuf,
};
use quinn::{ConnectionError, VarInt};

use super::frames::{Fault, Frames};
use errors::{ended, lost, unread, unwritten};

mod errors;

/// What is read of a stream at a time, bytes.
const READ: usize = 16 * 1024;

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>>>>;

/// Ends when nobody wants what a stream sends, or when all of it was received: then with `true`.
pub(super) type Taken = Pin<Box<dyn Future<Output = bool>>>;

/// What its owner and the library share of a connection.
#[derive(Default)]
pub(super) struct Shared {
    /// Requests that come now are rejected.
    pub(super) is_closed: Cell<bool>,
    /// There was a request.
    pub(super) is_used: Cell<bool>,
    /// Of the request stream that was accepted last.
    taken: RefCell<Option<Taken>>,
}

impl Shared {
    /// Of the request stream that was accepted last.
    pub(super) fn taken(&self) -> Option<Taken> {
        self.taken.borrow_mut().take()
    }
}

/// A connection.
pub(super) struct Connection {
    quic: quinn::Connection,
    shared: Rc<Shared>,
    /// The longest frame of a request but DATA, bytes.
    longest: u64,
    requests: Option<Opening<(quinn::SendStream, quinn::RecvStream)>>,
    receiving: Option<Opening<quinn::RecvStream>>,
    sending: Option<Opening<quinn::SendStream>>,
}

impl Connection {
    pub(super) fn new(quic: quinn::Connection, shared: Rc<Shared>, longest: u64) -> Self {
        Self {
            quic,
            shared,
            longest,
            requests: None,
            receiving: None,
            sending: None,
        }
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown(
            "a server opens no requests".into(),
        )))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let sending = self.sending.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.open_uni().await })
        });
        let opened = ready!(sending.as_mut().poll(cx));
        self.sending = None;
        Poll::Ready(match opened {
            Ok(stream) => Ok(SendStream::new(stream, false)),
            Err(error) => Err(lost(error)),
        })
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(number(code.value()), reason);
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Self;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let quic = &self.quic;
        let receiving = self.receiving.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.accept_uni().await })
        });
        let accepted = ready!(receiving.as_mut().poll(cx));
        self.receiving = None;
        Poll::Ready(match accepted {
            Ok(stream) => Ok(RecvStream::new(stream, Frames::of_unidirectional())),
            Err(error) => Err(ended(error)),
        })
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        loop {
            let quic = &self.quic;
            let requests = self.requests.get_or_insert_with(|| {
                let quic = quic.clone();
                Box::pin(async move { quic.accept_bi().await })
            });
            let accepted = ready!(requests.as_mut().poll(cx));
            self.requests = None;
            let (send, receive) = match accepted {
                Ok(streams) => streams,
                Err(error) => return Poll::Ready(Err(ended(error))),
            };
            let stopped = send.stopped();
            let mut stream = BidiStream {
                send: SendStream::new(send, true),
                receive: RecvStream::new(receive, Frames::of_request(self.longest)),
            };
            if self.shared.is_closed.get() {
                stream.reset(Code::H3_REQUEST_REJECTED.value());
                stream.stop_sending(Code::H3_REQUEST_REJECTED.value());
                continue;
            }
            self.shared.is_used.set(true);
            let taken = async move { matches!(stopped.await, Ok(None)) };
            *self.shared.taken.borrow_mut() = Some(Box::pin(taken));
            return Poll::Ready(Ok(stream));
        }
    }

    fn opener(&self) -> Self {
        Self::new(self.quic.clone(), Rc::clone(&self.shared), self.longest)
    }
}

/// A request and its answer.
pub(super) struct BidiStream {
    send: SendStream,
    receive: RecvStream,
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.receive)
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receive.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receive.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// What a client sends.
pub(super) struct RecvStream {
    stream: quinn::RecvStream,
    frames: Frames,
    is_over: bool,
}

impl RecvStream {
    fn new(stream: quinn::RecvStream, frames: Frames) -> Self {
        Self {
            stream,
            frames,
            is_over: false,
        }
    }

    fn fail(&mut self, fault: Fault) -> StreamErrorIncoming {
        let code = match fault {
            Fault::TooLong => Code::H3_EXCESSIVE_LOAD,
            Fault::Incomplete => Code::H3_FRAME_ERROR,
        };
        self.stop_sending(code.value());
        StreamErrorIncoming::Unknown(fault.into())
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(bytes) = self.frames.next() {
                return Poll::Ready(Ok(Some(bytes)));
            }
            // Reading can be given up and begun again without losing anything.
            let read = ready!(pin!(self.stream.read_chunk(READ, true)).poll(cx));
            let outcome = match read {
                Ok(Some(chunk)) => self.frames.came(chunk.bytes),
                Ok(None) => {
                    self.is_over = true;
                    match self.frames.end() {
                        Ok(()) => return Poll::Ready(Ok(None)),
                        Err(fault) => Err(fault),
                    }
                }
                Err(error) => {
                    self.is_over = true;
                    return Poll::Ready(Err(unread(error)));
                }
            };
            if let Err(fault) = outcome {
                return Poll::Ready(Err(self.fail(fault)));
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.is_over = true;
        // Fails for a stream that is over, which is as well.
        let _ = self.stream.stop(number(code));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for RecvStream {
    /// Nobody reads on. That is no error if the request was answered (RFC 9114, 4.1).
    fn drop(&mut self) {
        if !self.is_over {
            self.stop_sending(Code::H3_NO_ERROR.value());
        }
    }
}

/// What a client is sent.
pub(super) struct SendStream {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    /// It has to be finished: one that is not was broken off.
    is_open: bool,
}

impl SendStream {
    fn new(stream: quinn::SendStream, is_answer: bool) -> Self {
        Self {
            stream,
            writing: None,
            is_open: is_answer,
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = &mut self.writing {
            if !data.has_remaining() {
                self.writing = None;
                break;
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk()));
            data.advance(written.map_err(unwritten)?);
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown(
                "the last data was not written".into(),
            ));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.is_open = false;
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, code: u64) {
        self.is_open = false;
        // Fails for a stream that is over, which is as well.
        let _ = self.stream.reset(number(code));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for SendStream {
    /// quinn would finish the stream, and a part of an answer would look like all of it.
    fn drop(&mut self) {
        if self.is_open {
            self.reset(Code::H3_INTERNAL_ERROR.value());
        }
    }
}

fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn id(stream: quinn::StreamId) -> StreamId {
    let number = VarInt::from(stream).into_inner();
    StreamId::try_from(number).expect("both are below 2^62")
}
