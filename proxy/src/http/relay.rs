//! HTTP/1.1 to HTTP/1.1 without hyper, for the plain case.
//!
//! Most requests need nothing but a look at their head: where they go, a few fields changed, and the
//! answer back. For those the relay parses in place, writes the endpoint's head from the client's and
//! the client's from the endpoint's, and sends head and body at once: four system calls a request
//! that carry data, and no task, channel or timer of its own. What is not plain beyond doubt
//! ([`request`]) goes to hyper, and the connection with it, at the boundary between two requests.
//! Picking, retries, ejection, budget and metrics are the engine's.
//!
//! Limits are those of [`super::io`]: a first byte and a head within the head timeout, the next request
//! within the idle timeout, a client that takes an answer's bytes; and the endpoint's response timeout.
//! A connection that waits for a request holds no buffer.

mod alarms;
mod answer_body;
mod attempts;
mod client;
mod connections;
pub(super) mod exchange;
pub(super) mod framing;
mod request;
pub(super) mod response;
pub(super) mod stream;

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use sealane_config::model::HttpPolicy;

use super::engine::{Engine, Target, Upstream};
use super::serve::ServerOptions;
use crate::admission::Ending;
use crate::{clock, scratch};

pub(crate) use alarms::Alarms;
pub use client::ClientStream;
pub(crate) use client::send_last;
use client::{Client, Gone, Timer};
pub(crate) use connections::{Connections, Keep};
pub use request::{PlainHead, write_field};

/// Who a relayed connection belongs to: where its requests go, and what endpoints are told.
pub trait Front {
    /// Plain requests of HTTP/2 go the same way; if not, they are left to hyper, as endpoints that are
    /// spoken to in their client's version have to be.
    const STREAMS: bool;

    /// What was decided about a request.
    type Route: Route;

    /// Where a plain request goes. `None` if it takes more than that (an error, a redirect, a
    /// changed path): hyper serves the connection from then on.
    fn route(&self, head: &PlainHead<'_>) -> Option<Self::Route>;

    /// Whether a field of the client's is passed on.
    fn passes(&self, name: &str) -> bool;

    /// Writes fields of its own, with [`write_field`].
    fn write_fields(&self, head: &PlainHead<'_>, out: &mut Vec<u8>);
}

/// A field of an answer: its name, in lower case, and its value.
pub type OwnField<'a> = (&'static str, &'a [u8]);

/// Where a request goes.
pub trait Route {
    /// The Service port.
    fn target(&self) -> &Target;

    /// A field that the answer gets, in place of the endpoint's of that name.
    fn answer_field(&self) -> Option<OwnField<'_>> {
        None
    }

    /// A field that the answer gets if the endpoint has sent none of that name.
    fn added_field(&self) -> Option<OwnField<'_>> {
        None
    }

    /// The head of the answer is there, `elapsed` after that of the request.
    fn answered(&self, status: StatusCode, elapsed: Duration);
}

/// The relay can do all that the target asks for: plain HTTP/1.1, and a Service without settings of
/// its own. ingress-nginx's defaults are no more than it can do either: the longest body that it takes
/// is shorter than theirs.
pub fn is_default(target: &Target) -> bool {
    let habits = target.overrides.as_ref();
    target.upstream == Upstream::Http1
        && Arc::ptr_eq(&target.port.http, &HttpPolicy::shared())
        && habits.is_none_or(|policy| Arc::ptr_eq(policy, &HttpPolicy::shared_compat()))
}

/// A connection that is left to hyper: its stream, and what was read from it already.
pub(super) type Left<I> = (I, BytesMut);

/// Relays requests until the client is done, or there is one that is not for the relay. Not an
/// `async fn`, which would keep the stream twice.
pub(super) fn relay<I, F>(
    stream: I,
    engine: &Engine,
    front: &F,
    options: &ServerOptions,
    shutdown: &Ending,
) -> impl Future<Output = Option<Left<I>>>
where
    I: ClientStream,
    F: Front,
{
    let mut client = Client {
        stream,
        input: BytesMut::new(),
        output: Vec::new(),
        timer: Timer::default(),
    };
    async move {
        let mut wait = options.head_timeout;
        loop {
            let mut sent = Vec::new();
            let limits = (clock::nanos(wait), clock::nanos(options.head_timeout));
            let plain = match next(&mut client, front, &mut sent, limits, shutdown).await {
                Next::Plain(plain) => plain,
                Next::Other => return Some((client.stream, client.input)),
                Next::End => break,
            };
            client.output = scratch::take();
            let exchange = exchange::Exchange {
                engine: engine.inner(),
                state: engine
                    .inner()
                    .services
                    .get(&plain.route.target().port.service),
                route: &plain.route,
                hop: options.hop,
                is_head: plain.is_head,
                idempotent: plain.idempotent,
                has_body: plain.has_body,
                is_last: plain.close,
                close: Cell::new(plain.close),
                shutdown,
                stall: clock::nanos(options.stall_timeout),
            };
            let relayed = exchange.run(&mut client, &sent).await;
            scratch::give_back(sent);
            scratch::give_back(std::mem::take(&mut client.output));
            match relayed {
                Ok(true) => {}
                Ok(false) => break,
                Err(Gone) => return None,
            }
            wait = options.idle_timeout;
        }
        // Closing a socket says all that there is to say; a session has an end of its own.
        if !client.stream.is_bare() {
            let shut = std::future::poll_fn(|cx| Pin::new(&mut client.stream).poll_shutdown(cx));
            // The client may be gone already.
            let _ = shut.await;
        }
        None
    }
}

/// What comes next on a connection.
enum Next<R> {
    Plain(request::Plain<R>),
    Other,
    End,
}

/// Reads the next request. `limits` are how long its first byte and its head may take, nanoseconds.
async fn next<I, F>(
    client: &mut Client<I>,
    front: &F,
    out: &mut Vec<u8>,
    (wait, head): (u64, u64),
    shutdown: &Ending,
) -> Next<F::Route>
where
    I: ClientStream,
    F: Front,
{
    if !client.input.is_empty() {
        match request::read(&client.input, front, out) {
            request::Read::Plain(plain) => {
                client.used(plain.length);
                return Next::Plain(plain);
            }
            request::Read::Other => return Next::Other,
            request::Read::Partial => {}
        }
    }
    // Asks for the token when something is waited for.
    let mut cancelled = std::pin::pin!(async { shutdown.token().cancelled().await });
    let (mut first_byte, mut whole_head) = (None, None);
    std::future::poll_fn(|cx| {
        loop {
            let Client { stream, input, .. } = client;
            let read = scratch::poll_read(stream, cx, |_, bytes| {
                if bytes.is_empty() {
                    return Some(Next::End);
                }
                let read = if input.is_empty() {
                    request::read(bytes, front, out)
                } else {
                    input.extend_from_slice(bytes);
                    request::read(input, front, out)
                };
                let used = match &read {
                    request::Read::Plain(plain) => plain.length,
                    request::Read::Other | request::Read::Partial => 0,
                };
                if input.is_empty() {
                    input.extend_from_slice(&bytes[used..]);
                } else {
                    input.advance(used);
                }
                match read {
                    request::Read::Plain(plain) => Some(Next::Plain(plain)),
                    request::Read::Other => Some(Next::Other),
                    request::Read::Partial => None,
                }
            });
            match read {
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Ok(Some(next))) => return Poll::Ready(next),
                Poll::Ready(Err(_)) => return Poll::Ready(Next::End),
                Poll::Pending => break,
            }
        }
        let begun = !client.input.is_empty();
        if !begun && cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Next::End);
        }
        let (deadline, limit) = if begun {
            (&mut whole_head, head)
        } else {
            (&mut first_byte, wait)
        };
        let at = *deadline.get_or_insert_with(|| clock::now().saturating_add(limit));
        ready!(client.timer.poll(cx, at));
        Poll::Ready(Next::End)
    })
    .await
}
