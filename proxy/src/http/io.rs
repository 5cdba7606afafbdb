//! A client's connection: its first bytes, and how long it may keep us waiting.
//!
//! hyper's own head timeout runs while a connection is idle too, so it is either too long for a
//! slow head or too short for keep-alive. Here the two are told apart by what was read and by what
//! is being served:
//! - the first byte has to come within the head timeout;
//! - *idle*: no request, no byte of one; closed after the idle timeout;
//! - *head*: the first byte of a head came, its last has not; ended after the head timeout;
//! - *busy*: a request is being served; ended only if the client takes none of the answer for the
//!   stall timeout.
//!
//! HTTP/2 has pings of its own to find peers that are gone, and frames that belong to no request:
//! there is no *head* there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::frames::Frames;
use super::gate;
use super::serve::ServerOptions;
use crate::clock;

const FLOODS: &str = "sealane_http2_floods_total";

/// What is kept of a head to be looked at as a whole, bytes: more than is ever read of one.
const MAX_BEGUN: usize = 256 * 1024;

/// How an HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection is doing. Shared by its stream, its driver and its requests.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests being served.
    busy: AtomicU32,
    /// A head has begun.
    head: AtomicBool,
    /// When the present state began.
    since: AtomicU64,
    /// Since when the client takes no bytes; 0 while it does.
    stalled: AtomicU64,
    /// The head that was read says in two ways where its body ends.
    ends_twice: AtomicBool,
}

/// When a connection's time is over, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// Nothing to wait for.
    None,
    /// Then it was idle for long enough.
    Idle(u64),
    /// Then the client is too slow.
    Slow(u64),
}

impl Activity {
    pub(super) fn deadline(&self, options: &ServerOptions) -> Deadline {
        let after = |since: u64, limit: Duration| since.saturating_add(clock::nanos(limit));
        let stalled = self.stalled.load(Relaxed);
        if stalled != 0 {
            return Deadline::Slow(after(stalled, options.stall_timeout));
        }
        let since = self.since.load(Relaxed);
        if self.busy.load(Relaxed) != 0 {
            Deadline::None
        } else if self.head.load(Relaxed) {
            Deadline::Slow(after(since, options.head_timeout))
        } else {
            Deadline::Idle(after(since, options.idle_timeout))
        }
    }

    /// Says whether what was read is of a head.
    fn read(&self) -> bool {
        let idle = self.busy.load(Relaxed) == 0;
        if idle && !self.head.swap(true, Relaxed) {
            self.since.store(clock::now(), Relaxed);
        }
        idle
    }

    /// Whether the head of the request that begins says in two ways where its body ends.
    pub(super) fn take_ends_twice(&self) -> bool {
        self.ends_twice.load(Relaxed) && self.ends_twice.swap(false, Relaxed)
    }
}

/// A request that is being served, until the last byte of its answer was taken.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn start(activity: &Arc<Activity>) -> Self {
        activity.busy.fetch_add(1, Relaxed);
        activity.head.store(false, Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.since.store(clock::now(), Relaxed);
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// A client's stream, watched.
#[derive(Debug)]
pub(super) struct Watched<I> {
    stream: I,
    /// Read already, while finding out what is spoken.
    prefix: Bytes,
    activity: Arc<Activity>,
    heads: bool,
    /// A head of which not all was read.
    begun: Vec<u8>,
    /// What an HTTP/2 client's frames are good for.
    frames: Option<Box<Frames>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Watched<I> {
    /// Reads until it is clear what the client speaks, the whole preface if it is HTTP/2; `prefix` was
    /// read already. `None` if it says nothing.
    pub(super) async fn open(
        mut stream: I,
        mut prefix: BytesMut,
        http2_only: bool,
    ) -> io::Result<Option<(Self, Spoken)>> {
        loop {
            if prefix.is_empty() && stream.read_buf(&mut prefix).await? == 0 {
                return Ok(None);
            }
            let seen = prefix.len().min(PREFACE.len());
            let spoken = if prefix.get(..seen) != PREFACE.get(..seen) {
                // What is not HTTP/2 where that was agreed on is hyper's to refuse.
                if http2_only {
                    Spoken::Http2
                } else {
                    Spoken::Http1
                }
            } else if seen == PREFACE.len() {
                Spoken::Http2
            } else if stream.read_buf(&mut prefix).await? == 0 {
                return Ok(None);
            } else {
                continue;
            };
            let activity = Arc::new(Activity::default());
            activity.since.store(clock::now(), Relaxed);
            let heads = spoken == Spoken::Http1;
            activity.head.store(heads, Relaxed);
            let mut watched = Self {
                stream,
                prefix: Bytes::new(),
                activity,
                heads,
                begun: Vec::new(),
                frames: (!heads).then(|| Box::new(Frames::new())),
            };
            if heads {
                watched.look_at_head(&prefix);
            }
            watched.prefix = prefix.freeze();
            return Ok(Some((watched, spoken)));
        }
    }

    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Looks at what was read of a head, for what hyper does not say: of `Transfer-Encoding` and
    /// `Content-Length` it drops the latter, and nobody behind it knows that there were both.
    fn look_at_head(&mut self, bytes: &[u8]) {
        let head = if self.begun.is_empty() {
            bytes
        } else {
            self.begun.extend_from_slice(bytes);
            &self.begun
        };
        match gate::ends_twice(head) {
            Some(twice) => {
                self.activity.ends_twice.store(twice, Relaxed);
                self.begun = Vec::new();
            }
            None if head.len() > MAX_BEGUN => self.begun = Vec::new(),
            None if self.begun.is_empty() => self.begun = bytes.to_vec(),
            None => {}
        }
    }

    /// Looks at what was read.
    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(frames) = &mut self.frames else {
            return Ok(());
        };
        frames.read(bytes).map_err(|flood| {
            metrics::counter!(FLOODS).increment(1);
            io::Error::other(flood)
        })
    }

    /// So many bytes went out.
    fn sent(&mut self, result: &Poll<io::Result<usize>>) {
        if let (Some(frames), Poll::Ready(Ok(sent))) = (&mut self.frames, result) {
            frames.wrote(*sent);
        }
    }

    fn written<T>(&self, result: &Poll<io::Result<T>>) {
        let stalled = &self.activity.stalled;
        if result.is_pending() {
            if stalled.load(Relaxed) == 0 {
                stalled.store(clock::now(), Relaxed);
            }
        } else if stalled.load(Relaxed) != 0 {
            stalled.store(0, Relaxed);
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.has_remaining() {
            let n = this.prefix.len().min(buf.remaining());
            let bytes = this.prefix.split_to(n);
            buf.put_slice(&bytes);
            return Poll::Ready(this.look(&bytes));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if this.heads && buf.filled().len() > before && this.activity.read() {
            this.look_at_head(buf.filled().get(before..).unwrap_or_default());
        }
        let bytes = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(this.look(bytes))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(&result);
        this.sent(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(&result);
        this.sent(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(cx);
        this.written(&result);
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
