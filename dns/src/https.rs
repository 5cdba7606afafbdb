//! DNS over HTTPS (RFC 8484), HTTP/2 and HTTP/1.1 over TLS.
//!
//! | request | answer |
//! |---|---|
//! | `GET /dns-query?dns=BASE64URL`, `POST /dns-query` with `application/dns-message` | 200, whatever the DNS code |
//! | another path | 404 |
//! | another method | 405 |
//! | POST of another content type | 415 |
//! | GET with more than [`MAX_GET`] of base64url, POST with more than [`MAX_POST`] | 413 |
//! | a message that gets silence over UDP, no `dns`, bad base64url | 400 |
//! | a body that takes longer than [`ConnectionLimits::read`] | 408 |
//!
//! `cache-control: max-age` is the lowest TTL of the answer section, or without one that of the SOA
//! record (section 5.1), so that no HTTP cache keeps a reply for longer than a resolver would.
//! Streams of a connection are bounded like queries over TCP. A connection without a request in
//! progress is closed after [`ConnectionLimits::idle`], whatever drips in.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::rt::{Executor, Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::encode::Transport;
use crate::limit::{ConnectionLimits, MAX_IN_FLIGHT};
use crate::message::{HEADER, flag};
use crate::metrics::names;
use crate::server::Front;
use crate::tcp::{self, GRACE};
use crate::tls::{self, TlsIdentity};
use crate::wire::{Cursor, Malformed};

/// The path that everybody uses (RFC 8484 section 4.1.1 leaves it to a template).
const PATH: &str = "/dns-query";
/// The media type of DNS messages.
const MEDIA_TYPE: &str = "application/dns-message";
/// Longest `dns` parameter, bytes of base64url. Queries are far shorter.
const MAX_GET: usize = 1024;
/// Longest body, bytes: a DNS message is never longer.
const MAX_POST: usize = 65_535;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// Streams that a client may open and reset before they are looked at.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that may be reset for a client's errors before the connection is given up.
const MAX_LOCAL_RESETS: usize = 100;
/// What a stream may send before it is read, bytes.
const STREAM_WINDOW: u32 = 64 * 1024;

/// RFC 4648 section 5. RFC 8484 wants no padding; what clients send is not worth an error.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

type Body = Full<Bytes>;

/// Serves DNS over HTTPS.
pub(crate) async fn serve(
    server: Front,
    listener: std::net::TcpListener,
    identity: TlsIdentity,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let handle = |stream, client| {
        let (server, limits, shutdown) = (server.clone(), limits.clone(), shutdown.clone());
        let config = Arc::clone(&identity.current().https);
        async move {
            let Some(stream) = tls::handshake(config, stream).await else {
                return;
            };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream = TokioIo::new(stream);
            let handler = Rc::new(Handler {
                server,
                client,
                limits,
                in_flight: Cell::new(0),
                last: Cell::new(Instant::now()),
            });
            let service = {
                let handler = Rc::clone(&handler);
                service_fn(move |request| {
                    let handler = Rc::clone(&handler);
                    async move { Ok::<_, Infallible>(handler.handle(request).await) }
                })
            };
            match is_http2 {
                true => {
                    handler
                        .drive(http2().serve_connection(stream, service), shutdown)
                        .await
                }
                false => {
                    handler
                        .drive(http1().serve_connection(stream, service), shutdown)
                        .await
                }
            }
        }
    };
    tcp::accept(listener, &limits, &shutdown, handle).await
}

/// Runs tasks of a connection on its worker.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// The time for a head is that of an idle connection, which [`Handler::drive`] keeps.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .half_close(false)
        .max_buf_size(MAX_HEAD);
    builder
}

fn http2() -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_IN_FLIGHT as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .max_header_list_size(MAX_HEAD as u32)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS);
    builder
}

/// A connection that can be asked to end once its requests are answered.
trait Connection: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Connection for http1::Connection<I, S>
where
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: Read + Write + Unpin,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Connection for http2::Connection<I, S, LocalExecutor>
where
    S: HttpService<Incoming, ResBody = Body>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: Read + Write + Unpin,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Answers the requests of one connection.
struct Handler {
    server: Front,
    client: SocketAddr,
    limits: ConnectionLimits,
    /// Requests in progress.
    in_flight: Cell<usize>,
    /// When the last request ended.
    last: Cell<Instant>,
}

/// A request in progress.
struct Busy<'a>(&'a Handler);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.in_flight.update(|count| count - 1);
        self.0.last.set(Instant::now());
    }
}

impl Handler {
    /// Runs a connection until the client is done with it, it was idle for too long, or `shutdown`
    /// asks for an end and what is in progress was answered.
    async fn drive(&self, connection: impl Connection, shutdown: CancellationToken) {
        let mut connection = pin!(connection);
        let mut end = None;
        loop {
            let idle_at = self.last.get() + self.limits.idle_now();
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "HTTPS connection ended");
                    }
                    return;
                }
                () = shutdown.cancelled(), if end.is_none() => end = Some(Instant::now() + GRACE),
                () = sleep_until(end.unwrap_or(idle_at)) => {
                    if end.is_some() {
                        return;
                    }
                    if self.in_flight.get() > 0 {
                        self.last.set(Instant::now());
                        continue;
                    }
                    if self.last.get() + self.limits.idle_now() > Instant::now() {
                        continue;
                    }
                    end = Some(Instant::now() + self.limits.write);
                }
            }
            connection.as_mut().finish();
        }
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        self.in_flight.update(|count| count + 1);
        let _busy = Busy(self);
        let response = self.response(request).await;
        let status = response.status().as_u16();
        self.server
            .statuses()
            .count(&names::HTTPS_RESPONSES, status);
        response
    }

    async fn response(&self, request: Request<Incoming>) -> Response<Body> {
        let message = match self.message(request).await {
            Ok(message) => message,
            Err(status) => return failure(status),
        };
        let mut reply = Vec::new();
        let answered = self
            .server
            .answer(&message, self.client, Transport::Https, &mut reply);
        if !answered.await {
            return failure(StatusCode::BAD_REQUEST);
        }
        success(reply)
    }

    /// The message that a request carries.
    async fn message(&self, request: Request<Incoming>) -> Result<Bytes, StatusCode> {
        if request.uri().path() != PATH {
            return Err(StatusCode::NOT_FOUND);
        }
        match *request.method() {
            Method::GET => from_query(request.uri().query().unwrap_or_default()),
            Method::POST => {
                let media_type = request.headers().get(CONTENT_TYPE);
                if media_type.is_none_or(|value| !is_dns_message(value)) {
                    return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
                }
                let body = request.into_body();
                if body.size_hint().lower() > MAX_POST as u64 {
                    return Err(StatusCode::PAYLOAD_TOO_LARGE);
                }
                let body = Limited::new(body, MAX_POST).collect();
                match timeout(self.limits.read, body).await {
                    Ok(Ok(body)) => Ok(body.to_bytes()),
                    Ok(Err(error)) if error.is::<LengthLimitError>() => {
                        Err(StatusCode::PAYLOAD_TOO_LARGE)
                    }
                    Ok(Err(_broken)) => Err(StatusCode::BAD_REQUEST),
                    Err(_late) => Err(StatusCode::REQUEST_TIMEOUT),
                }
            }
            _ => Err(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

/// The message in the `dns` parameter of a GET request.
fn from_query(query: &str) -> Result<Bytes, StatusCode> {
    let mut parameters = query.split('&');
    let text = parameters
        .find_map(|parameter| parameter.strip_prefix("dns="))
        .ok_or(StatusCode::BAD_REQUEST)?;
    if text.len() > MAX_GET {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let message = BASE64URL.decode(text);
    message
        .map(Bytes::from)
        .map_err(|_encoding| StatusCode::BAD_REQUEST)
}

/// The media type, parameters aside.
fn is_dns_message(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(MEDIA_TYPE)
}

fn success(reply: Vec<u8>) -> Response<Body> {
    let age = format!("max-age={}", max_age(&reply).unwrap_or_default());
    let mut response = Response::new(Full::from(reply));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Ok(age) = HeaderValue::from_str(&age) {
        headers.insert(CACHE_CONTROL, age);
    }
    response
}

fn failure(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let methods = HeaderValue::from_static("GET, POST");
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

/// For how many seconds a reply may be kept: the lowest TTL of its answers, and of its SOA record
/// where that says for how long there is nothing more (RFC 2308 section 5). Failures are not kept.
fn max_age(reply: &[u8]) -> Result<u32, Malformed> {
    let mut header = Cursor::new(reply, 0);
    let mut words = [0; HEADER / 2];
    for word in &mut words {
        *word = header.u16()?;
    }
    let [_, flags, questions, answers, authority, _] = words;
    let rcode = ResponseCode::from_low((flags & flag::RCODE) as u8);
    if !matches!(rcode, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Ok(0);
    }
    let mut cursor = header;
    for _ in 0..questions {
        cursor.skip_name()?;
        cursor.bytes(4)?;
    }
    let mut lowest = None;
    for index in 0..answers + authority {
        cursor.skip_name()?;
        let record_type = RecordType::from(cursor.u16()?);
        cursor.u16()?;
        let mut ttl = cursor.u32()?;
        let length = cursor.u16()?;
        let data = cursor.bytes(usize::from(length))?;
        let counts = match (index < answers, record_type, data.last_chunk()) {
            (true, ..) => true,
            (false, RecordType::SOA, Some(minimum)) => {
                ttl = ttl.min(u32::from_be_bytes(*minimum));
                true
            }
            _ => false,
        };
        if counts {
            lowest = Some(lowest.map_or(ttl, |lowest: u32| lowest.min(ttl)));
        }
    }
    Ok(lowest.unwrap_or_default())
}

#[cfg(test)]
mod tests;
