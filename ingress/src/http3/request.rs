//! A request and its answer.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use sealane_proxy::http::{Body, answer};
use tokio::time::timeout;

use super::body;
use super::connection::Client;
use super::transport::{Connection, SendStream, Taken};
use crate::handle;

/// Bytes that go out at a time, each time within the time that a client has for taking any.
const PIECE: usize = 16 * 1024;

/// Serves the request of a stream. `taken` ends when its client has lost interest in the answer.
pub(super) async fn serve(
    client: &Client,
    resolver: RequestResolver<Connection, Bytes>,
    mut taken: Taken,
) {
    let options = &client.gateway.options.server;
    let resolved = timeout(options.head_timeout, resolver.resolve_request()).await;
    // One that is late or malformed is reset, as its stream is dropped.
    let Ok(Ok((request, stream))) = resolved else {
        return;
    };
    client.place.used();
    let (parts, ()) = request.into_parts();
    let (mut stream, incoming) = stream.split();
    let body = body::of(&parts.headers, incoming).await;
    let method = parts.method.clone();
    let request = Request::from_parts(parts, body);
    let handler = |request| {
        let (gateway, peer) = (Rc::clone(&client.gateway), Rc::clone(&client.peer));
        handle::handle(gateway, peer, request)
    };
    let answered = async {
        // Boxed, because it is large.
        let response = Box::pin(answer(request, options, handler)).await;
        send(&mut stream, response, &method, options.stall_timeout).await
    };
    let outcome = tokio::select! {
        outcome = answered => outcome,
        _not_wanted = &mut taken => return client.cancelled(),
    };
    match outcome {
        // A connection must not be closed over data that is still on its way.
        Ok(()) => drop(timeout(options.stall_timeout, taken).await),
        Err(Broken::Client(error)) => tracing::debug!(%error, "an answer was broken off"),
        Err(Broken::Slow) => stream.stop_stream(Code::H3_REQUEST_CANCELLED),
        Err(Broken::Answer) => stream.stop_stream(Code::H3_INTERNAL_ERROR),
    }
}

/// Why an answer did not go out.
enum Broken {
    /// The client does not take it.
    Client(StreamError),
    /// It takes it too slowly.
    Slow,
    /// The endpoint has not sent all of it.
    Answer,
}

type Stream = RequestStream<SendStream, Bytes>;

async fn send(
    stream: &mut Stream,
    response: Response<Body>,
    method: &Method,
    stall: Duration,
) -> Result<(), Broken> {
    let (mut parts, mut body) = response.into_parts();
    let has_body = may_have_body(parts.status, method);
    finish_head(&mut parts.headers, parts.status, &body);
    let head = Response::from_parts(parts, ());
    in_time(stall, stream.send_response(head)).await?;
    if has_body {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_broken| Broken::Answer)?;
            match frame.into_data() {
                Ok(mut data) => {
                    while !data.is_empty() {
                        let piece = data.split_to(data.len().min(PIECE));
                        in_time(stall, stream.send_data(piece)).await?;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        in_time(stall, stream.send_trailers(trailers)).await?;
                    }
                }
            }
        }
    }
    in_time(stall, stream.finish()).await
}

async fn in_time(
    stall: Duration,
    sent: impl Future<Output = Result<(), StreamError>>,
) -> Result<(), Broken> {
    match timeout(stall, sent).await {
        Ok(sent) => sent.map_err(Broken::Client),
        Err(_elapsed) => Err(Broken::Slow),
    }
}

/// RFC 9110, 6.4.1.
fn may_have_body(status: StatusCode, method: &Method) -> bool {
    let never = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    *method != Method::HEAD && !status.is_informational() && !never.contains(&status)
}

/// What hyper does for HTTP/2: a length where it is known, a date, and nothing about a connection of
/// HTTP/1 (RFC 9114, 4.2).
fn finish_head(headers: &mut HeaderMap, status: StatusCode, body: &Body) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    let has_length = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    if let Some(length) = body.size_hint().exact().filter(|_| has_length) {
        headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
    if !headers.contains_key(DATE)
        && let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, now);
    }
}
