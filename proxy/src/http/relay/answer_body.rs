//! The rest of an answer whose head is written: copied, or spliced where much is left.

use std::io;
use std::task::{Context, Poll, ready};

use sealane_config::model::Endpoint;
use tokio::net::TcpStream;

use super::Route;
use super::attempts::Attempt;
use super::client::{Client, ClientStream, Gone};
use super::connections::Keep;
use super::exchange::{Exchange, Upstream};
use super::framing::Framing;
use super::response::{Answer, Malformed};
use crate::low_water::LowWater;
use crate::splice::{self, Pipe};
use crate::{clock, scratch};

/// An answer whose head is in the client's output.
pub(super) struct Begun {
    pub(super) answer: Answer,
    /// Read behind the head, and not used.
    pub(super) extra: bool,
    /// The body breaks HTTP's rules already.
    pub(super) malformed: bool,
}

impl Begun {
    /// The body goes on and is not spliced, because it is short or its length is not known. What follows
    /// a mistake is not part of a body.
    pub(super) fn is_copied(&self) -> bool {
        !self.malformed
            && match &self.answer.framing {
                Framing::Length(left) => (1..splice::MIN as u64).contains(left),
                framing => !framing.is_done(),
            }
    }

    /// Takes what is there of the rest of the body, so that it goes out together with the head.
    pub(super) fn read_on(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) {
        let framing = &mut self.answer.framing;
        let read = scratch::poll_read(stream, cx, |_, bytes| framing.more(bytes, out));
        match read {
            Poll::Ready(Ok(Ok(extra))) => self.extra = extra,
            Poll::Ready(_) => self.malformed = true,
            Poll::Pending => {}
        }
    }
}

impl<R: Route> Exchange<'_, R> {
    /// Relays the rest of an answer, and keeps the endpoint's connection if it can be used again.
    /// Not an `async fn`, which would keep its arguments twice.
    pub(super) fn finish<I>(
        &self,
        client: &mut Client<I>,
        mut upstream: Upstream,
        begun: Begun,
        attempt: Attempt<'_>,
    ) -> impl Future<Output = Result<bool, Gone>>
    where
        I: ClientStream,
    {
        let Attempt {
            target,
            endpoint,
            flight,
            ..
        } = attempt;
        let Begun {
            answer,
            mut extra,
            malformed: mut broken,
        } = begun;
        let mut framing = answer.framing;
        // How long the endpoint may be silent.
        let silence = match clock::nanos(target.policy().timeouts.idle) {
            0 => u64::MAX,
            limit => limit,
        };
        async move {
            if framing.is_done() {
                // The endpoint's connection is free before the client has read the rest.
                drop(flight);
                if !extra {
                    self.give_back(upstream, endpoint, answer.keep);
                }
                if self.is_last {
                    client.send_last(self.stall).await?;
                } else {
                    client.send(self.stall).await?;
                }
                return Ok(!self.close.get());
            }
            while !framing.is_done() && !broken {
                client.send(self.stall).await?;
                let has_socket = client.stream.socket().is_some();
                let pipe = match &framing {
                    Framing::Length(left) if has_socket && *left >= splice::MIN as u64 => {
                        // Without descriptors for a pipe it is copied.
                        Pipe::take().ok()
                    }
                    _ => None,
                };
                let read = match (&mut framing, pipe) {
                    (Framing::Length(left), Some(pipe)) => {
                        self.splice(client, &upstream.stream, (pipe, silence), left)
                            .await?
                    }
                    (framing, _) => self.more(client, &mut upstream, framing, silence).await?,
                };
                match read {
                    Ok(more) => extra = more,
                    Err(Malformed) => broken = true,
                }
            }
            client.send(self.stall).await?;
            if broken {
                flight.failed(target.everywhere(), &target.policy().balancing);
                self.state.metrics.failed("UC");
                // What the client got is not all, and the end of the connection says so.
                return Err(Gone);
            }
            if !extra {
                self.give_back(upstream, endpoint, answer.keep);
            }
            Ok(!self.close.get())
        }
    }

    fn give_back(&self, upstream: Upstream, endpoint: &Endpoint, keep: Keep) {
        let (stream, source) = (upstream.stream, upstream.source);
        let connections = &self.engine.relayed;
        connections.give_back(stream, source, &endpoint.stats, keep);
    }

    /// Moves the rest of a body from socket to socket; nothing of what follows it is taken.
    async fn splice<I>(
        &self,
        client: &mut Client<I>,
        from: &TcpStream,
        (mut pipe, silence): (Pipe, u64),
        left: &mut u64,
    ) -> Result<Result<bool, Malformed>, Gone>
    where
        I: ClientStream,
    {
        while *left > 0 {
            match pipe.fill(from, usize::try_from(*left).unwrap_or(usize::MAX)) {
                Ok(0) => return Ok(Err(Malformed)),
                Ok(moved) => *left -= moved as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let deadline = clock::now().saturating_add(silence);
                    let waited = std::future::poll_fn(|cx| {
                        if from.poll_read_ready(cx).is_ready() {
                            return Poll::Ready(Ok(Ok(())));
                        }
                        if client.poll_gone(cx).is_ready() {
                            return Poll::Ready(Err(Gone));
                        }
                        ready!(client.timer.poll(cx, deadline));
                        Poll::Ready(Ok(Err(Malformed)))
                    });
                    if let Err(silent) = waited.await? {
                        return Ok(Err(silent));
                    }
                }
                Err(_) => return Ok(Err(Malformed)),
            }
            self.drain(client, from, &mut pipe).await?;
            tokio::task::consume_budget().await;
        }
        Ok(Ok(false))
    }

    /// Empties a pipe into the client's socket.
    async fn drain<I>(
        &self,
        client: &mut Client<I>,
        from: &TcpStream,
        pipe: &mut Pipe,
    ) -> Result<(), Gone>
    where
        I: ClientStream,
    {
        while !pipe.is_empty() {
            let to = client.stream.socket().ok_or(Gone)?;
            match pipe.drain(to) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _raised = LowWater::raise(from);
                    let deadline = clock::now().saturating_add(self.stall);
                    std::future::poll_fn(|cx| {
                        if to.poll_write_ready(cx).is_ready() {
                            return Poll::Ready(Ok(()));
                        }
                        ready!(client.timer.poll(cx, deadline));
                        Poll::Ready(Err(Gone))
                    })
                    .await?;
                }
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// Reads more of a body into the client's output. Says whether something came behind its end.
    async fn more<I>(
        &self,
        client: &mut Client<I>,
        upstream: &mut Upstream,
        framing: &mut Framing,
        silence: u64,
    ) -> Result<Result<bool, Malformed>, Gone>
    where
        I: ClientStream,
    {
        let deadline = clock::now().saturating_add(silence);
        std::future::poll_fn(|cx| {
            let output = &mut client.output;
            let read = scratch::poll_read(&mut upstream.stream, cx, |_, bytes| {
                framing.more(bytes, output)
            });
            match read {
                Poll::Ready(Ok(read)) => return Poll::Ready(Ok(read)),
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(Err(Malformed))),
                Poll::Pending => {}
            }
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Gone));
            }
            ready!(client.timer.poll(cx, deadline));
            Poll::Ready(Ok(Err(Malformed)))
        })
        .await
    }
}
