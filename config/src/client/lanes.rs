//! Connections to the API server, shared by requests.
//!
//! All requests share one HTTP/2 connection while it has room. A server limits the streams of a
//! connection (Go's default is 250, kube-apiserver's 100), and what goes beyond waits: a request
//! behind a hundred open watches would wait until one of them ends. So there are as many lanes, each a
//! connection, as the streams need.
//!
//! A lane connects when it is used and has no connection. Requests that come meanwhile wait for that
//! one attempt and share its outcome: after an outage all watches come back at once. (hyper's pool
//! would make a connection for each of them and throw all but one away.)
//!
//! A server that speaks no HTTP/2 gets a connection for each request.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use tokio::time::{Instant, timeout};
use tower::{BoxError, Service};

use super::LinkOptions;
use crate::defaults::CONNECT_TIMEOUT;

/// Requests at a time on one connection: well below what a server allows.
const STREAMS: usize = 64;

/// The connections to one server, made by `C`. Clones share them.
pub(super) struct Lanes<C> {
    inner: Arc<Inner<C>>,
}

impl<C> Clone for Lanes<C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

struct Inner<C> {
    connector: C,
    link: LinkOptions,
    lanes: Mutex<Vec<Arc<Lane>>>,
}

/// One connection, and the next when it has ended.
#[derive(Default)]
struct Lane {
    streams: AtomicUsize,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    sender: Option<http2::SendRequest<Body>>,
    /// When the last attempt failed, and why.
    failed: Option<(Instant, String)>,
}

/// A stream's place in a lane, given back when it is dropped.
struct Slot(Arc<Lane>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request can be sent on.
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl<C> Lanes<C>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
{
    pub(super) fn new(connector: C, link: LinkOptions) -> Self {
        let inner = Inner {
            connector,
            link,
            lanes: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sends a request with an absolute URI.
    async fn send(self, mut request: Request<Body>) -> Result<Response<Stream>, BoxError> {
        let slot = self.inner.slot();
        let mut may_repeat = true;
        loop {
            let sent = match self.inner.sender(&slot.0, request.uri()).await? {
                Sender::Http1(mut sender) => {
                    name_host(&mut request)?;
                    sender.send_request(request).await?
                }
                Sender::Http2(mut sender) => match sender.try_send_request(request).await {
                    Ok(sent) => sent,
                    // The connection ended before the request was sent.
                    Err(mut failed) => match failed.take_message() {
                        Some(unsent) if std::mem::take(&mut may_repeat) => {
                            request = unsent;
                            continue;
                        }
                        Some(_) | None => return Err(failed.into_error().into()),
                    },
                },
            };
            return Ok(sent.map(|body| Stream { body, _slot: slot }));
        }
    }
}

impl<C> Inner<C>
where
    C: Service<Uri> + Clone,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
{
    /// A place on a connection with room.
    fn slot(&self) -> Slot {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = |lane: &Arc<Lane>| lane.streams.load(Ordering::Relaxed);
        let with_room = lanes.iter().find(|lane| streams(lane) < STREAMS).cloned();
        let lane = with_room.unwrap_or_else(|| {
            let lane = Arc::new(Lane::default());
            lanes.push(Arc::clone(&lane));
            lane
        });
        lane.streams.fetch_add(1, Ordering::Relaxed);
        // Lanes that a burst needed go when they are empty; the first one stays.
        let mut first = true;
        lanes.retain(|lane| std::mem::take(&mut first) || streams(lane) > 0);
        Slot(lane)
    }

    /// The lane's connection, or a new one.
    async fn sender(&self, lane: &Lane, uri: &Uri) -> Result<Sender, BoxError> {
        let asked = Instant::now();
        let mut state = lane.state.lock().await;
        if let Some(sender) = state.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(Sender::Http2(sender.clone()));
        }
        if let Some((when, reason)) = &state.failed
            && *when >= asked
        {
            return Err(io::Error::other(reason.clone()).into());
        }
        let attempt = timeout(CONNECT_TIMEOUT, self.connect(uri)).await;
        let attempt = attempt.unwrap_or_else(|_elapsed| {
            let late = "no connection to the API server";
            Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
        });
        match &attempt {
            Ok(Sender::Http2(sender)) => state.sender = Some(sender.clone()),
            Ok(Sender::Http1(_)) => state.sender = None,
            Err(error) => state.failed = Some((Instant::now(), chain(error.as_ref()))),
        }
        attempt
    }

    async fn connect(&self, uri: &Uri) -> Result<Sender, BoxError> {
        let mut connector = self.connector.clone();
        std::future::poll_fn(|context| connector.poll_ready(context))
            .await
            .map_err(Into::into)?;
        let io = connector.call(uri.clone()).await.map_err(Into::into)?;
        if io.connected().is_negotiated_h2() {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(self.link.interval)
                .keep_alive_timeout(self.link.timeout)
                .keep_alive_while_idle(true);
            let (sender, connection) = builder.handshake(io).await?;
            tokio::spawn(connection.map(ended));
            Ok(Sender::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection.map(ended));
            Ok(Sender::Http1(sender))
        }
    }
}

/// Whoever waits for an answer learns of it, too.
fn ended(outcome: hyper::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!("connection to the API server lost: {}", chain(&error));
    }
}

/// An error and its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// HTTP/1.1 names the host in a header and the path alone in the request line (RFC 9112 section 3.2).
fn name_host(request: &mut Request<Body>) -> Result<(), BoxError> {
    let uri = request.uri();
    let host = uri.authority().map(|authority| authority.as_str());
    let host = HeaderValue::from_str(host.unwrap_or_default())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = path.parse()?;
    request.headers_mut().entry(HOST).or_insert(host);
    *request.uri_mut() = path;
    Ok(())
}

impl<C> Service<Request<Body>> for Lanes<C>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
{
    type Response = Response<Stream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Stream>, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}

/// A response's body, which holds its stream's place.
pub(super) struct Stream {
    body: Incoming,
    _slot: Slot,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
