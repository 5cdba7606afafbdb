//! Serves a client's connection, HTTP/1.1 or HTTP/2, whatever it begins with.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sealane_config::model::Limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::engine::Engine;
use super::gate;
use super::io::{Activity, Busy, Deadline, Spoken, Watched};
use super::pace;
use super::relay::{ClientStream, Front, relay, stream};
use super::respond::{self, Hop};
use crate::admission::Ending;
use crate::{Error, clock};

/// What an HTTP/1.1 connection buffers in each direction besides a head.
const BUFFER: usize = 16 * 1024;

/// Streams that a client may have open at a time.
const MAX_STREAMS: u32 = 100;

/// Unread bytes of one stream, and of all streams of a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Unsent bytes of one stream.
const STREAM_BUFFER: usize = 64 * 1024;

/// Streams that a client may reset before they were looked at, and that it may make us reset
/// (CVE-2023-44487, CVE-2025-8671).
const MAX_PENDING_RESETS: usize = 20;
const MAX_LOCAL_RESETS: usize = 250;

/// A client that does not answer a ping is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How large the head of a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of its header fields, names and values.
    pub bytes: u64,
    /// Header fields.
    pub fields: u32,
}

impl HeadLimits {
    /// What a Service asks for.
    pub fn of(limits: &Limits) -> Self {
        Self {
            bytes: limits.header_bytes,
            fields: limits.header_fields,
        }
    }

    /// What is read of a head in order to say that it is too large: twice as much as allowed. More
    /// is answered by hyper, without a reason.
    pub fn read_bytes(self) -> usize {
        usize::try_from(self.bytes.saturating_mul(2)).unwrap_or(usize::MAX)
    }

    fn read_fields(self) -> usize {
        usize::try_from(self.fields.saturating_mul(2)).unwrap_or(usize::MAX)
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

/// How long a client may keep us waiting.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// For its first byte, and for the rest of a head once that began.
    pub head_timeout: Duration,
    /// For the next request on a connection that is kept alive.
    pub idle_timeout: Duration,
    /// For taking any byte of an answer that we have for it.
    pub stall_timeout: Duration,
    /// How large its requests may be.
    pub head: HeadLimits,
    /// Who we are, for error answers.
    pub hop: Hop,
    /// Client and server have agreed on HTTP/2 (ALPN): anything else is a connection error. Without
    /// that the first bytes say which version is spoken.
    pub http2_only: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            head: HeadLimits::default(),
            hop: Hop::default(),
            http2_only: false,
        }
    }
}

/// Spawns hyper's tasks on the worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves a connection until its client is done with it, its time is over, or `shutdown` asks for
/// an end and the requests in flight are answered. `handler` gets every request that passes the
/// [gate].
pub async fn serve<I, H, F>(
    stream: I,
    options: &ServerOptions,
    handler: H,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + 'static,
    F: Future<Output = Response<Body>> + 'static,
{
    let never = |_: &Request<Incoming>| None::<std::future::Pending<Response<Body>>>;
    serve_from(stream, BytesMut::new(), options, never, handler, shutdown).await;
}

/// As [`serve()`], but plain requests are relayed to where `front` says, and `handler` gets only what
/// is left. Once it has got one it gets all that follow on the connection. Not an
/// `async fn`, which would keep its arguments twice.
pub fn serve_relayed<I, R, H, F>(
    stream: I,
    options: &ServerOptions,
    (engine, front): (&Engine, &R),
    handler: H,
    shutdown: Ending,
) -> impl Future<Output = ()>
where
    I: ClientStream + Send + 'static,
    R: Front + Clone + 'static,
    H: Fn(Request<Body>) -> F + 'static,
    F: Future<Output = Response<Body>> + 'static,
{
    let http2_only = options.http2_only;
    async move {
        let left = if http2_only {
            Some((stream, BytesMut::new()))
        } else {
            relay(stream, engine, front, options, &shutdown).await
        };
        if let Some((stream, read)) = left {
            let (engine, front, head) = (engine.clone(), front.clone(), options.head);
            let plain = move |request: &Request<Incoming>| {
                let plain = R::STREAMS.then(|| stream::read(request, head, &front))??;
                Some(plain.answer(engine.clone()))
            };
            // Boxed, because it is large, and most connections never need it.
            let shutdown = shutdown.token().clone();
            Box::pin(serve_from(stream, read, options, plain, handler, shutdown)).await;
        }
    }
}

/// Serves a connection of which `read` was read already. `plain` has the answer to a request that
/// `handler` need not see.
async fn serve_from<I, P, G, H, F>(
    stream: I,
    read: BytesMut,
    options: &ServerOptions,
    plain: P,
    handler: H,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Fn(&Request<Incoming>) -> Option<G> + 'static,
    G: Future<Output = Response<Body>> + 'static,
    H: Fn(Request<Body>) -> F + 'static,
    F: Future<Output = Response<Body>> + 'static,
{
    let opened = tokio::select! {
        opened = timeout(
            options.head_timeout,
            Watched::open(stream, read, options.http2_only),
        ) => opened,
        () = shutdown.cancelled() => return,
    };
    let Ok(Ok(Some((stream, spoken)))) = opened else {
        return;
    };
    let activity = Arc::clone(stream.activity());
    let handler = Rc::new(handler);
    let service = {
        let activity = Arc::clone(&activity);
        let (head, hop) = (options.head, options.hop);
        service_fn(move |request: Request<Incoming>| {
            let busy = Busy::start(&activity);
            let ends_twice = activity.take_ends_twice();
            let done = move |mut response: Response<Body>| {
                respond::name_hop(&mut response, hop);
                Ok::<_, Infallible>(response.map(|body| body.busy(busy)))
            };
            // Boxed, because hyper moves them several times before they are polled, and they are large.
            if let Some(answer) = plain(&request) {
                return Either::Left(Box::pin(async move { done(answer.await) }));
            }
            let handler = Rc::clone(&handler);
            Either::Right(Box::pin(async move {
                done(admit_and_handle(request, head, ends_twice, &*handler).await)
            }))
        })
    };
    let stream = TokioIo::new(stream);
    match spoken {
        Spoken::Http1 => {
            let connection = http1(options.head)
                .serve_connection(stream, service)
                .with_upgrades();
            drive(connection, &activity, options, shutdown).await;
        }
        Spoken::Http2 => {
            let connection = http2(options.head).serve_connection(stream, service);
            drive(connection, &activity, options, shutdown).await;
        }
    }
}

async fn admit_and_handle<H, F>(
    request: Request<Incoming>,
    limits: HeadLimits,
    ends_twice: bool,
    handler: &H,
) -> Response<Body>
where
    H: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>>,
{
    let request = request.map(Body::incoming);
    match gate::check_ends(ends_twice) {
        Ok(()) => admit_or_refuse(request, limits, handler).await,
        Err(error) => refused(&error, &request),
    }
}

/// Answers a request that came by a transport that hyper does not speak, as [`serve()`] would have it
/// answered: `handler` gets it if it passes the [gate].
pub async fn answer<H, F>(
    request: Request<Body>,
    options: &ServerOptions,
    handler: H,
) -> Response<Body>
where
    H: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>>,
{
    let mut response = admit_or_refuse(request, options.head, &handler).await;
    respond::name_hop(&mut response, options.hop);
    response
}

async fn admit_or_refuse<H, F>(
    mut request: Request<Body>,
    limits: HeadLimits,
    handler: &H,
) -> Response<Body>
where
    H: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>>,
{
    let admitted = gate::check_size(request.headers(), limits);
    match admitted.and_then(|()| gate::admit(&mut request)) {
        Ok(()) => handler(pace::keep(request)).await,
        Err(error) => refused(&error, &request),
    }
}

fn refused(error: &Error, request: &Request<Body>) -> Response<Body> {
    let asked = respond::Asked::new(request.version(), request.headers());
    respond::error(error, asked)
}

/// hyper's own head timeout is off: [`super::io`] has the reason and the replacement.
fn http1(head: HeadLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .half_close(false)
        .max_buf_size(head.read_bytes() + BUFFER)
        .max_header_size(head.read_bytes())
        .max_headers(head.read_fields());
    builder
}

fn http2(head: HeadLimits) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_BUFFER)
        .max_header_list_size(u32::try_from(head.read_bytes()).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A connection that can be asked to end once its requests are answered.
trait Connection: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Connection for http1::UpgradeableConnection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Connection for http2::Connection<I, S, LocalExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs a connection and keeps its deadlines. The timer is touched only when it fires or when a
/// deadline comes closer, never once a request.
async fn drive<C: Connection>(
    connection: C,
    activity: &Activity,
    options: &ServerOptions,
    shutdown: CancellationToken,
) {
    let mut connection = pin!(connection);
    let mut cancelled = pin!(shutdown.cancelled());
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut armed = None;
    let mut finishing = false;
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, "client connection ended");
                }
                return Poll::Ready(());
            }
            let mut finish = !finishing && cancelled.as_mut().poll(cx).is_ready();
            loop {
                let now = clock::now();
                let at = match activity.deadline(options) {
                    Deadline::None => break,
                    Deadline::Slow(at) if at <= now => return Poll::Ready(()),
                    Deadline::Idle(at) if at <= now => {
                        finish |= !finishing;
                        break;
                    }
                    Deadline::Slow(at) | Deadline::Idle(at) => at,
                };
                if armed.is_none_or(|armed| at < armed) {
                    armed = Some(at);
                    let left = Duration::from_nanos(at - now);
                    timer.as_mut().reset(Instant::now() + left);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    break;
                }
                armed = None;
            }
            if !finish {
                return Poll::Pending;
            }
            finishing = true;
            connection.as_mut().finish();
        }
    })
    .await;
}
