//! Datagrams on their way, to endpoints and back.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use sealane_config::model::{ClientAddr, Protocol, VipAddr};
use tokio::time::Instant;

use super::batch::{self, BATCH, Kind};
use super::flow::{self, Flow};
use super::front::Front;
use super::metrics::Lost;
use super::poll::Token;
use super::table::{FlowId, FlowKey};
use super::{UdpProxy, undelivered};

/// Endpoints that one datagram is tried on.
const ATTEMPTS: usize = 3;

impl UdpProxy {
    /// Relays a batch of clients' datagrams and returns how many; [`BATCH`] also if it is not known
    /// whether that was all.
    pub(super) async fn serve_clients(&mut self, id: u32, now: Instant) -> usize {
        let Some(front) = self.fronts.get(id) else {
            return 0;
        };
        let count = match self.batch.receive(&front.socket, front.kind) {
            Ok(count) => count,
            Err(error) => {
                tracing::trace!(%error, addr = %front.addr, "nothing received");
                return if is_failure(&error) { BATCH } else { 0 };
            }
        };
        let mut start = 0;
        while start < count {
            let datagrams = &self.batch.datagrams()[start..count];
            let first = datagrams[0];
            let same = |d: &&batch::Datagram| (d.from, d.dialled) == (first.from, first.dialled);
            let end = start + datagrams.iter().take_while(same).count();
            let key = FlowKey {
                client: ClientAddr(first.from),
                vip: VipAddr(first.dialled.unwrap_or(front.addr)),
            };
            self.forward(key, &front, start..end, now).await;
            start = end;
        }
        count
    }

    /// Sends datagrams of one flow on their way.
    async fn forward(
        &mut self,
        key: FlowKey,
        front: &Rc<Front>,
        range: Range<usize>,
        now: Instant,
    ) {
        let mut rest = range;
        let mut attempts = 0;
        while attempts < ATTEMPTS && !rest.is_empty() {
            let id = match self.flow(key, front, now).await {
                Ok(id) => id,
                Err(lost) => return self.lost(key, front, lost, rest.len()),
            };
            let Some(flow) = self.table.get_mut(id) else {
                return;
            };
            let (sent, error) = self.batch.send(&flow.upstream, rest.clone(), None);
            let sent_range = rest.start..rest.start + sent;
            if let Some(last) = self.batch.datagrams()[sent_range.clone()].last() {
                (flow.last_length, flow.resent) = (last.length, 0);
            }
            let bytes = self.batch.bytes(sent_range);
            flow.metrics().to_endpoint.count(sent, bytes);
            rest.start += sent;
            self.table.asked(id, now);
            let Some(flow) = self.table.get(id).map(|(_, flow)| flow) else {
                return;
            };
            match error {
                None => {}
                Some(error) if is_backlog(&error) => {
                    flow.metrics().dropped(Lost::Backlog, rest.len());
                    rest.start = rest.end;
                }
                // Mostly of an earlier datagram, which is dealt with first.
                Some(error) => {
                    attempts += 1;
                    tracing::debug!(client = %key.client, vip = %key.vip, endpoint = %flow.endpoint.addr, %error, "endpoint refuses");
                    self.refused(id, is_failure(&error), now).await;
                }
            }
        }
        if !rest.is_empty() {
            self.lost(key, front, Lost::Unreachable, rest.len());
        }
    }

    /// Relays a batch of an endpoint's datagrams and returns how many, as
    /// [`Self::serve_clients`] does.
    pub(super) async fn serve_endpoint(&mut self, id: FlowId, now: Instant) -> usize {
        let Some((key, flow)) = self.table.get(id) else {
            return 0;
        };
        let client = key.client;
        let kind = Kind::bound(flow.endpoint.addr.socket());
        let count = match self.batch.receive(&flow.upstream, kind) {
            Ok(count) => count,
            Err(error) => {
                self.refused(id, is_failure(&error), now).await;
                return BATCH;
            }
        };
        // What came in before the socket was connected can be anybody's, and goes nowhere.
        let endpoint = flow.endpoint.addr.socket();
        let others = |d: &batch::Datagram| d.from != endpoint;
        let last = self.batch.datagrams().iter().rposition(others);
        let mut rest = last.map_or(0, |last| last + 1)..count;
        while !rest.is_empty() {
            let front = &flow.front.socket;
            let (sent, error) = self.batch.send(front, rest.clone(), Some(client.0));
            let bytes = self.batch.bytes(rest.start..rest.start + sent);
            flow.metrics().to_client.count(sent, bytes);
            rest.start += sent;
            if let Some(error) = error {
                tracing::trace!(%client, %error, "cannot reply");
                let lost = match error.raw_os_error() {
                    Some(nix::libc::EMSGSIZE) => Lost::TooLarge,
                    _ if is_backlog(&error) => Lost::Backlog,
                    _ => Lost::Unreachable,
                };
                flow.metrics().dropped(lost, 1);
                rest.start += 1;
            }
        }
        if let Some(flow) = self.table.get_mut(id) {
            flow.answered(now);
        }
        self.table.answered(id, now);
        count
    }

    /// The kernel has something to say about datagrams of a flow. If they were refused, the last one
    /// is sent to another endpoint; if there is none, the client is told.
    async fn refused(&mut self, id: FlowId, is_failure: bool, now: Instant) {
        let Some((&key, flow)) = self.table.get(id) else {
            return;
        };
        let undelivered = undelivered::take(&flow.upstream, flow.last_length);
        let (endpoint, resent) = (flow.endpoint.addr, flow.resent + 1);
        let front = Rc::clone(&flow.front);
        if !is_failure && !undelivered.is_failure {
            return;
        }
        tracing::debug!(client = %key.client, vip = %key.vip, %endpoint, "datagram refused");
        if let Some(flow) = self.table.get_mut(id) {
            flow.failed(key.client, &self.options);
        }
        if let Some(content) = undelivered.last
            && resent <= ATTEMPTS
            && let Ok(id) = self.flow(key, &front, now).await
            && let Some(flow) = self.table.get_mut(id)
            && !flow.is_last_resort()
            && flow.upstream.send(&content).is_ok()
        {
            (flow.last_length, flow.resent) = (content.len(), resent);
            flow.metrics().to_endpoint.count(1, content.len());
            return;
        }
        self.lost(key, &front, Lost::Unreachable, 1);
    }

    /// The flow of a datagram, as it was or with another endpoint if it has to be.
    async fn flow(
        &mut self,
        key: FlowKey,
        front: &Rc<Front>,
        now: Instant,
    ) -> Result<FlowId, Lost> {
        let mut refusing = Vec::new();
        if let Some(id) = self.table.find(&key) {
            let snapshot = self.options.reader.load();
            let places = &self.options.places;
            if let Some(flow) = self.table.get_mut(id)
                && flow.may_stay(&snapshot, key, places)
            {
                return Ok(id);
            }
            // Its port and descriptor are for the next one.
            let flow = self.table.remove(id);
            refusing = flow.map_or_else(Vec::new, Flow::into_refusing);
        }
        if key.client.0.port() == 0 {
            return Err(Lost::NoSender);
        }
        let choice = flow::choose(&self.options, key, &refusing)?;
        let room = loop {
            if let Some(room) = self.options.budget.take() {
                break room;
            }
            let expendable = self.table.expendable().ok_or(Lost::TooManyFlows)?;
            self.table.remove(expendable);
        };
        let reply = self.fronts.replying(front, key.vip, &self.poller);
        let reply = reply.map_err(|error| {
            tracing::debug!(vip = %key.vip, %error, "cannot reply from a Service's address");
            Lost::NoSocket
        })?;
        let mut upstream = choice.connect(&self.options, key.client).await;
        if upstream.as_ref().is_err_and(is_out_of_descriptors)
            && let Some(expendable) = self.table.expendable()
        {
            self.table.remove(expendable);
            upstream = choice.connect(&self.options, key.client).await;
        }
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(error) => {
                tracing::debug!(client = %key.client, %error, "no socket for a flow");
                return Err(Lost::NoSocket);
            }
        };
        let metrics = self.metrics.of(Some(&choice.port.service));
        let poller = &self.poller;
        let added = self.table.insert(key, now, |id| {
            poller.add(&upstream, Token::Flow(id))?;
            Ok(Flow::new(
                choice,
                upstream,
                reply,
                room,
                metrics.opened(),
                refusing,
                now,
            ))
        });
        added.map_err(|error: io::Error| {
            tracing::debug!(%error, "cannot wait for an endpoint");
            Lost::NoSocket
        })
    }

    /// Counts datagrams as dropped and, where the kernel would refuse them, tells the client.
    fn lost(&self, key: FlowKey, front: &Front, reason: Lost, datagrams: usize) {
        tracing::trace!(client = %key.client, vip = %key.vip, reason = reason.label(), "dropped");
        if front.is_here() && matches!(reason, Lost::NoEndpoints | Lost::Unreachable) {
            self.refuser.refuse(key.client, key.vip);
        }
        let snapshot = self.options.reader.load();
        let places = &self.options.places;
        let found = places.find(&snapshot, key.vip.0, Protocol::Udp);
        let service = found.as_ref().map(|found| &found.port.service);
        self.metrics.of(service).dropped(reason, datagrams);
    }
}

/// The socket's buffer, or the device's queue, is full.
fn is_backlog(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(nix::libc::ENOBUFS)
}

/// The process, or the machine, may not open any more.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno == Some(nix::libc::EMFILE) || errno == Some(nix::libc::ENFILE)
}

/// The endpoint cannot take datagrams: not that there is nothing to receive, nor that the path takes
/// smaller datagrams only, to which the kernel adapts.
fn is_failure(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::WouldBlock && error.raw_os_error() != Some(nix::libc::EMSGSIZE)
}
