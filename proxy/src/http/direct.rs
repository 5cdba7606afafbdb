//! A request without a body to an endpoint that speaks HTTP/1.1 in plain text, without hyper.
//!
//! What the [relay](super::relay) does for clients of HTTP/1.1 whose requests are plain, this does for
//! all the others, those of HTTP/2 before all: head and answer cost one write and one read, no task
//! and no channel, and the connections are the relay's. Everything else of a request (its way
//! through the filters, retries, ejection, metrics) is as it is with hyper, which keeps the requests
//! that have a body, ask for an upgrade, or take trailers.

mod body;

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, request};
use sealane_config::model::{Endpoint, EndpointStats};
use tokio::net::TcpStream;

use super::body::AnswerBody;
use super::engine::Target;
use super::failure::{self, Failure};
use super::relay::exchange::{broke, poll_write_all};
use super::relay::framing::Framing;
use super::relay::response::{self, Head, Malformed, Parsed};
use super::relay::{Connections, Keep, write_field};
use crate::scratch;

pub(super) use body::Rest;

/// Room for the fields of an answer, and for one or two of our own.
const FIELDS: usize = 8;

/// Whether a request without a body can go this way.
pub(super) fn is_fit(parts: &request::Parts) -> bool {
    let needs_more = [TE, EXPECT, UPGRADE];
    parts.method != Method::CONNECT
        && !needs_more
            .iter()
            .any(|name| parts.headers.contains_key(name))
}

/// Writes the head of a request that has no body.
pub(super) fn write_head(parts: &request::Parts, endpoint: &Endpoint, out: &mut Vec<u8>) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // A client of HTTP/1.0 need not say which host it means.
    if !parts.headers.contains_key(HOST) {
        write_field("host", endpoint.addr.to_string().as_bytes(), out);
    }
    for (name, value) in &parts.headers {
        write_field(name.as_str(), value.as_bytes(), out);
    }
    // RFC 9110, 8.6: where the method makes one expect a body.
    if matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
        write_field(CONTENT_LENGTH.as_str(), b"0", out);
    }
    out.extend_from_slice(b"\r\n");
}

/// A connection to an endpoint, for one request.
pub(super) struct Connection {
    stream: TcpStream,
    /// The client whose address the endpoint sees.
    source: Option<IpAddr>,
    /// It was idle before, so that its peer may have closed it.
    reused: bool,
    stats: Arc<EndpointStats>,
    pool: Rc<Connections>,
}

impl Connection {
    /// One that is idle, or else a new one. `fresh`: a new one in any case.
    pub(super) async fn lease(
        pool: &Rc<Connections>,
        target: &Target,
        endpoint: &Endpoint,
        fresh: bool,
    ) -> Result<Self, Failure> {
        let source = pool.source(target.source, endpoint);
        let limit = target.policy().timeouts.connect;
        let leased = pool.lease(endpoint, source, fresh, limit).await;
        let (stream, reused) = leased.map_err(|error| failure::not_connected(&error.into()))?;
        Ok(Self {
            stream,
            source,
            reused,
            stats: Arc::clone(&endpoint.stats),
            pool: Rc::clone(pool),
        })
    }

    /// The answer is complete; the endpoint keeps the connection for so long.
    fn give_back(self, keep: Keep) {
        let (stream, source) = (self.stream, self.source);
        self.pool.give_back(stream, source, &self.stats, keep);
    }

    /// Sends a head and waits for that of the answer.
    pub(super) async fn ask(&mut self, sent: &[u8], is_head: bool) -> Result<Answer, Failure> {
        let mut left = sent;
        let mut came = Vec::new();
        let answer = std::future::poll_fn(|cx| {
            let sending = poll_write_all(&mut self.stream, cx, &mut left);
            // An endpoint may answer, and close, before it has taken everything.
            loop {
                let read = scratch::poll_read(&mut self.stream, cx, |_, bytes| {
                    if bytes.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof);
                    }
                    Ok(look(bytes, &mut came, is_head))
                });
                return Poll::Ready(match read {
                    Poll::Ready(Ok(Ok(Ok(None)))) => continue,
                    Poll::Ready(Ok(Ok(Ok(Some(answer))))) => Ok(answer),
                    Poll::Ready(Ok(Ok(Err(Malformed)))) => Err(failure::malformed()),
                    Poll::Ready(Ok(Err(_)) | Err(_)) => Err(broke(self.reused, &came)),
                    Poll::Pending if matches!(sending, Poll::Ready(Err(_))) => {
                        Err(broke(self.reused, &came))
                    }
                    Poll::Pending => return Poll::Pending,
                });
            }
        });
        let mut answer = answer.await?;
        if !left.is_empty() {
            // A connection in the middle of a request cannot be used again.
            answer.keep = Keep::NOT;
        }
        Ok(answer)
    }
}

/// An answer, as far as one read shows it.
pub(super) struct Answer {
    response: Response<()>,
    framing: Framing,
    /// What came of the body.
    body: Bytes,
    keep: Keep,
}

impl Answer {
    /// With the connection that the rest of it comes on.
    pub(super) fn on(self, connection: Connection) -> Response<AnswerBody> {
        let Self {
            response,
            framing,
            body,
            keep,
        } = self;
        if !framing.is_done() {
            let rest = Rest::new(connection, framing, keep, body);
            return response.map(|()| AnswerBody::Direct(Box::new(rest)));
        }
        connection.give_back(keep);
        response.map(|()| AnswerBody::Whole(body))
    }
}

/// Looks at what came of an answer, of which `came` came before.
fn look(bytes: &[u8], came: &mut Vec<u8>, is_head: bool) -> Result<Option<Answer>, Malformed> {
    let mut bytes = if came.is_empty() {
        bytes
    } else {
        came.extend_from_slice(bytes);
        came.as_slice()
    };
    loop {
        let mut fields = response::no_fields();
        match response::parse(bytes, is_head, &mut fields)? {
            Parsed::Interim(length) => bytes = &bytes[length..],
            Parsed::Partial => {
                *came = bytes.to_vec();
                return Ok(None);
            }
            Parsed::Final(head) => return take(bytes, head).map(Some),
        }
    }
}

fn take(bytes: &[u8], head: Head<'_, '_>) -> Result<Answer, Malformed> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = copy_fields(&bytes[..head.length], &head)?;
    let mut framing = head.framing;
    let came = &bytes[head.length..];
    let mut body = BytesMut::with_capacity(came.len());
    let taken = framing.take_data(came, |data| body.extend_from_slice(data))?;
    Ok(Answer {
        response,
        // What came behind it nobody asked for.
        keep: if taken == came.len() {
            head.keep
        } else {
            Keep::NOT
        },
        framing,
        body: body.freeze(),
    })
}

/// The fields of a head that the client gets, whose values share one copy of it.
fn copy_fields(bytes: &[u8], head: &Head<'_, '_>) -> Result<HeaderMap, Malformed> {
    let copy = Bytes::copy_from_slice(bytes);
    let mut headers = HeaderMap::with_capacity(FIELDS);
    for field in head.passing() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let at = field.value.as_ptr().addr() - bytes.as_ptr().addr();
        let value = copy.slice(at..at + field.value.len());
        let value = HeaderValue::from_maybe_shared(value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Malformed);
        };
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
