//! One request that was read: to an endpoint, and the answer back.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use http::header::{CONNECTION, DATE};
use sealane_config::model::Endpoint;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::super::engine::Inner;
use super::super::failure::{self, Failure};
use super::super::patience::Limit;
use super::super::respond::{self, Hop};
use super::super::retry::Reason;
use super::super::services::ServiceState;
use super::Route;
use super::answer_body::Begun;
use super::attempts::{Attempt, Sending};
use super::client::{Client, ClientStream, Gone};
use super::connections::Keep;
use super::request::{write_field, write_length};
use super::response::{self, Malformed};
use crate::admission::Ending;
use crate::{Error, clock, scratch};

/// A request, and what is known of it.
pub(super) struct Exchange<'a, R> {
    pub(super) engine: &'a Inner,
    pub(super) route: &'a R,
    pub(super) state: Rc<ServiceState>,
    /// Who we are, for error answers.
    pub(super) hop: Hop,
    pub(super) is_head: bool,
    pub(super) idempotent: bool,
    pub(super) has_body: bool,
    /// The client has said that this is its last request.
    pub(super) is_last: bool,
    /// The client's connection ends with the answer.
    pub(super) close: Cell<bool>,
    /// When this is due before the answer begins, too.
    pub(super) shutdown: &'a Ending,
    /// How long the client may take no byte, nanoseconds.
    pub(super) stall: u64,
}

/// Bytes of an answer that are read with its head at most: more of a long body would be copied that can
/// be spliced.
const FIRST_READ: usize = 16 * 1024;

/// Why there is no answer to an attempt.
enum Broken {
    /// The endpoint's connection.
    Endpoint(Failure),
    /// The client went away.
    Client(Gone),
}

impl From<Gone> for Broken {
    fn from(gone: Gone) -> Self {
        Self::Client(gone)
    }
}

/// A connection to an endpoint.
pub(super) struct Upstream {
    pub(super) stream: TcpStream,
    /// The client whose address the endpoint sees.
    pub(super) source: Option<IpAddr>,
    /// It was idle before, so that its peer may have closed it.
    reused: bool,
}

impl<R: Route> Exchange<'_, R> {
    /// Sends the request and relays the answer. Says whether the client's connection goes on.
    pub(super) async fn run<I>(&self, client: &mut Client<I>, sent: &[u8]) -> Result<bool, Gone>
    where
        I: ClientStream,
    {
        let started = clock::now();
        let policy = self.route.target().policy();
        let forwarded = match self.state.admit(&policy.retries) {
            Ok(_admission) => self.forward(client, sent, started).await,
            Err(error) => Err(Failure::last(error)),
        };
        match forwarded {
            Ok(relayed) => relayed,
            Err(failure) => {
                let (service, error) = (&self.route.target().port.service, &failure.error);
                tracing::debug!(%service, ?error, "request failed");
                self.state.metrics.failed(error.kind().flag());
                let close = self.refuse(error, &mut client.output, started);
                client.send(self.stall).await?;
                Ok(!close)
            }
        }
    }

    async fn forward<I>(
        &self,
        client: &mut Client<I>,
        sent: &[u8],
        started: u64,
    ) -> Result<Result<bool, Gone>, Failure>
    where
        I: ClientStream,
    {
        let sending = Sending {
            engine: self.engine,
            state: &self.state,
            target: self.route.target(),
            idempotent: self.idempotent,
            has_body: self.has_body,
            began: started,
        };
        let mut attempt = async |attempt: Attempt<'_>| {
            let (upstream, begun) = match self.attempt(client, sent, &attempt).await {
                Ok(begun) => begun,
                Err(Broken::Endpoint(failure)) => {
                    attempt.blame(self.engine, &failure);
                    return Err(failure);
                }
                Err(Broken::Client(gone)) => return Ok(Err(gone)),
            };
            self.answered(begun.answer.status, started);
            Ok(self.finish(client, upstream, begun, attempt).await)
        };
        sending.run(&mut attempt).await
    }

    /// One attempt on one endpoint, up to the head of its answer.
    async fn attempt<I>(
        &self,
        client: &mut Client<I>,
        sent: &[u8],
        attempt: &Attempt<'_>,
    ) -> Result<(Upstream, Begun), Broken>
    where
        I: ClientStream,
    {
        let Attempt {
            target,
            endpoint,
            flight,
            fresh,
        } = attempt;
        let timeouts = &target.policy().timeouts;
        let connecting = self.connect(endpoint, target.source, *fresh, timeouts.connect);
        let mut upstream = connecting.await?;
        let begun = clock::now();
        let deadline = match clock::nanos(timeouts.response) {
            0 => u64::MAX,
            limit => begun.saturating_add(limit),
        };
        let answered = self.ask(client, &mut upstream, sent, deadline).await;
        let answered = answered.inspect_err(|_| client.output.clear())?;
        if answered.answer.is_failure() {
            let (peers, rules) = (target.everywhere(), &target.policy().balancing);
            flight.failed(peers, rules);
            if let Some(wait) = answered.answer.wait.filter(|wait| !wait.is_zero()) {
                flight.asked_to_wait(peers, rules, wait);
            }
        } else {
            let now = clock::now();
            flight.succeeded_at(Duration::from_nanos(now - begun), now);
        }
        Ok((upstream, answered))
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        client: Option<IpAddr>,
        fresh: bool,
        limit: Duration,
    ) -> Result<Upstream, Broken> {
        let connections = &self.engine.relayed;
        let source = connections.source(client, endpoint);
        let again = self.idempotent || !self.has_body;
        let idle = (!fresh).then(|| connections.idle(endpoint, source, again));
        let idle = idle.flatten();
        if let Some(stream) = idle {
            return Ok(Upstream {
                stream,
                source,
                reused: true,
            });
        }
        // Boxed, because connecting is rare and its future is many times the size of a request's.
        match Box::pin(connections.connect(endpoint, source, limit)).await {
            Ok(stream) => Ok(Upstream {
                stream,
                source,
                reused: false,
            }),
            Err(error) => Err(Broken::Endpoint(failure::not_connected(&error.into()))),
        }
    }

    /// Sends the request and reads the head of the answer, and what comes with it.
    async fn ask<I>(
        &self,
        client: &mut Client<I>,
        upstream: &mut Upstream,
        sent: &[u8],
        deadline: u64,
    ) -> Result<Begun, Broken>
    where
        I: ClientStream,
    {
        let mut left = sent;
        let mut head = Vec::new();
        let mut unwatched = None;
        std::future::poll_fn(|cx| {
            let sending = poll_write_all(&mut upstream.stream, cx, &mut left);
            // An endpoint may answer, and close, before it has taken everything.
            loop {
                let read =
                    scratch::poll_read_at_most(FIRST_READ, &mut upstream.stream, cx, |_, bytes| {
                        if bytes.is_empty() {
                            return Err(());
                        }
                        Ok(self.look(bytes, &mut head, &mut client.output))
                    });
                let failure = match read {
                    Poll::Ready(Ok(Ok(Ok(None)))) => continue,
                    Poll::Ready(Ok(Ok(Ok(Some(mut begun))))) => {
                        if !left.is_empty() {
                            // A connection in the middle of a request cannot be used again.
                            begun.answer.keep = Keep::NOT;
                        }
                        if begun.is_copied() {
                            begun.read_on(&mut upstream.stream, cx, &mut client.output);
                        }
                        return Poll::Ready(Ok(begun));
                    }
                    Poll::Ready(Ok(Ok(Err(Malformed)))) => failure::malformed(),
                    Poll::Ready(Ok(Err(_)) | Err(_)) => broke(upstream.reused, &head),
                    Poll::Pending if matches!(sending, Poll::Ready(Err(_))) => {
                        broke(upstream.reused, &head)
                    }
                    Poll::Pending => break,
                };
                return Poll::Ready(Err(Broken::Endpoint(failure)));
            }
            if !client.stream.is_registered() {
                // Most answers come before it pays to have the runtime know of the client's socket, only
                // to hear whether the client is still there.
                let pays = match unwatched {
                    Some(until) => until <= clock::now(),
                    None => {
                        let until = self.engine.alarms.set(cx.waker().clone());
                        unwatched = Some(until);
                        deadline < until
                    }
                };
                if !pays {
                    return Poll::Pending;
                }
            }
            if let Poll::Ready(gone) = client.poll_gone(cx) {
                return Poll::Ready(Err(gone.into()));
            }
            ready!(client.timer.poll(cx, deadline));
            Poll::Ready(Err(Broken::Endpoint(failure::timed_out(Limit::Response))))
        })
        .await
    }

    /// Looks at what came of an answer's head, of which `head` came before.
    fn look(
        &self,
        bytes: &[u8],
        head: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Begun>, Malformed> {
        let mut bytes = if head.is_empty() {
            bytes
        } else {
            head.extend_from_slice(bytes);
            head.as_slice()
        };
        loop {
            let own = (self.route.answer_field(), self.route.added_field());
            match response::read(bytes, self.is_head, self.closes(), own, out)? {
                response::Read::Interim(length) => bytes = &bytes[length..],
                response::Read::Partial => {
                    *head = bytes.to_vec();
                    return Ok(None);
                }
                response::Read::Final(mut answer) => {
                    let body = &bytes[answer.length..];
                    let taken = answer.framing.take(body, out);
                    return Ok(Some(Begun {
                        extra: taken.is_ok_and(|taken| taken < body.len()),
                        malformed: taken.is_err(),
                        answer,
                    }));
                }
            }
        }
    }

    /// Writes the answer to a request that failed. Says whether the connection ends with it.
    fn refuse(&self, error: &Error, out: &mut Vec<u8>, started: u64) -> bool {
        let asked = respond::Asked {
            grpc: false,
            http2: false,
        };
        let mut answer = respond::error(error, asked);
        respond::name_hop(&mut answer, self.hop);
        let (parts, body) = answer.into_parts();
        let close = self.closes() || parts.headers.contains_key(CONNECTION);
        self.answered(parts.status, started);
        response::write_status(parts.status, out);
        for (name, value) in &parts.headers {
            if *name != CONNECTION {
                write_field(name.as_str(), value.as_bytes(), out);
            }
        }
        let own = [self.route.answer_field(), self.route.added_field()];
        for (name, value) in own.into_iter().flatten() {
            write_field(name, value, out);
        }
        let body = body.into_full();
        write_length(body.len() as u64, out);
        response::finish_head(parts.headers.contains_key(DATE), close, out);
        if !self.is_head {
            out.extend_from_slice(&body);
        }
        close
    }

    /// Whether the client's connection ends with the answer, decided when that begins.
    fn closes(&self) -> bool {
        let close = self.close.get() || self.shutdown.is_due();
        self.close.set(close);
        close
    }

    fn answered(&self, status: StatusCode, started: u64) {
        let elapsed = clock::since(started);
        self.state.metrics.answered(status, elapsed);
        self.route.answered(status, elapsed);
    }
}

/// The connection broke before the head of the answer was there.
pub(in super::super) fn broke(reused: bool, head: &[u8]) -> Failure {
    if !head.is_empty() {
        return failure::malformed();
    }
    failure::closed(if reused {
        Reason::Stale
    } else {
        Reason::Broken
    })
}

/// Writes what is left of a request, as far as the connection takes it.
pub(in super::super) fn poll_write_all(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    left: &mut &[u8],
) -> Poll<io::Result<()>> {
    while !left.is_empty() {
        let written = ready!(Pin::new(&mut *stream).poll_write(cx, left))?;
        *left = &left[written..];
    }
    Poll::Ready(Ok(()))
}
