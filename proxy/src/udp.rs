//! UDP Services: datagrams relayed flow by flow.
//!
//! A flow is a client's address and port and the Service address and port that it dialled. Its first
//! datagram chooses an endpoint, the later ones follow, until it has been idle for 30 s without or
//! 120 s with an answer (S17); replies leave from the address that was dialled. A flow has a socket
//! of its own to its endpoint, from the client's own address and port where the endpoint's answers
//! come back through this machine, so that the kernel tells flows apart and delivers an endpoint's
//! "port unreachable" to the flow that it is for.
//!
//! Stale flows (S18): a flow remembers the snapshot that it was checked against. With the first
//! datagram after a newer one was published the endpoint is looked up again, and if it does not serve
//! any more another one is chosen for that same datagram. Nothing has to be found and flushed when
//! endpoints change, and no datagram goes where nobody serves. A flow of an endpoint that is
//! terminating but serves stays.
//!
//! What is guaranteed across a restart: the choice follows from the flow and the endpoints
//! ([`pick`]), so that flows come to the same endpoint as long as the endpoints are the same and none
//! has over a quarter more than its share of flows; between pods with the same source port as well,
//! once the earlier process has ended. Datagrams that arrive while nobody runs are lost.
//!
//! On a worker one task serves all flows: datagrams are taken in batches, a flow costs a descriptor
//! and about 300 bytes, and the steady path allocates nothing. With `SO_REUSEPORT` the kernel gives
//! all datagrams of one flow to the same worker.

mod batch;
mod budget;
mod destination;
mod flow;
mod front;
mod listen;
mod metrics;
mod pick;
mod poll;
mod refuse;
mod socket;
mod table;
mod undelivered;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use sealane_config::Reader;
use sealane_config::model::{ClientAddr, Protocol, VipAddr};
use sealane_config::sockets::HostSockets;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::connect::Connector;
use crate::http::Engine;
use crate::intercept::Method;
use crate::node::{Capture, Places};

use batch::{BATCH, Batch, Kind};
use flow::Flow;
use front::{Front, Fronts};
use listen::{CHANGES, Change, Listeners};
use metrics::{Lost, Metrics};
use poll::{EVENTS, Poller, Token};
use refuse::Refuser;
use table::{FlowId, FlowKey, FlowTable};

pub use budget::FlowBudget;

/// How often idle flows are looked for.
const TICK: Duration = Duration::from_secs(1);

/// Endpoints that one datagram is tried on.
const ATTEMPTS: usize = 3;

/// How long flows are served after shutdown, so that what was asked is answered.
const DRAIN: Duration = Duration::from_secs(2);

/// Nothing arriving for so long ends that earlier.
const QUIET: Duration = Duration::from_millis(200);

/// How long nothing is done after an error of the set of sockets, so that one that stays does not
/// spin.
const PAUSE: Duration = Duration::from_millis(10);

/// How clients' datagrams arrive. Node ports have a listener on the host's loopback in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Rules give them to this port, whatever their destination is.
    Intercepted(u16),
    /// Rules deliver them to this machine with their destination as it is, so that each address of a
    /// Service has a transparent listener.
    Delivered,
    /// Each address of a Service is local and has a listener.
    Local,
}

impl Arrival {
    /// As captured packets arrive; a pod's datagrams are not captured.
    pub(crate) fn of(capture: &Capture) -> Option<Self> {
        Some(match capture {
            Capture::Transparent(options) => match options.method {
                Method::Transparent => Self::Intercepted(options.port),
                Method::Redirect => Self::Delivered,
            },
            Capture::Listeners => Self::Local,
            Capture::Pod(..) => return None,
        })
    }
}

/// Where datagrams come from, and how endpoints are reached.
pub(crate) struct UdpOptions {
    /// The state of the world.
    pub(crate) reader: Reader,
    /// How datagrams arrive.
    pub(crate) arrival: Arrival,
    /// Knows where addresses are.
    pub(crate) places: Places,
    /// Knows which clients stay with their endpoint.
    pub(crate) engine: Engine,
    /// Reaches endpoints.
    pub(crate) connector: Connector,
    /// Makes the listeners of node ports.
    pub(crate) host: HostSockets,
    /// Bounds the flows.
    pub(crate) budget: FlowBudget,
}

/// The UDP part of a worker.
pub(crate) struct UdpProxy {
    options: UdpOptions,
    poller: Poller,
    batch: Batch,
    table: FlowTable<Flow>,
    fronts: Fronts,
    metrics: Metrics,
    refuser: Refuser,
    /// The snapshot that reply sockets were checked against.
    swept: u64,
}

impl UdpProxy {
    /// Binds the sockets for intercepted datagrams, in the namespace of the calling thread and on
    /// its runtime.
    ///
    /// # Errors
    /// The system call's: without `CAP_NET_ADMIN` nothing can be intercepted.
    pub(crate) fn bind(options: UdpOptions) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut fronts = Fronts::default();
        if let Arrival::Intercepted(port) = options.arrival {
            let v4 = socket::intercepting((Ipv4Addr::UNSPECIFIED, port).into())?;
            fronts.intercept(v4, &poller)?;
            match socket::intercepting((Ipv6Addr::UNSPECIFIED, port).into()) {
                Ok(v6) => fronts.intercept(v6, &poller)?,
                // A kernel without IPv6.
                Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {}
                Err(error) => return Err(error),
            }
        }
        let refuser = match options.arrival {
            Arrival::Intercepted(_) | Arrival::Delivered => Refuser::new(),
            Arrival::Local => Refuser::none(),
        };
        Ok(Self {
            options,
            refuser,
            poller,
            batch: Batch::new(),
            table: FlowTable::new(),
            fronts,
            metrics: Metrics::default(),
            swept: 0,
        })
    }

    /// Bounds the flows from now on.
    pub(crate) fn set_budget(&mut self, budget: FlowBudget) {
        self.options.budget = budget;
    }

    /// Serves until `shutdown`, and a little longer if datagrams are on their way. Runs within a
    /// [`tokio::task::LocalSet`].
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let (changes, mut changed) = mpsc::channel(CHANGES);
        let listeners = Listeners {
            arrival: self.options.arrival,
            places: self.options.places.clone(),
            reader: self.options.reader.clone(),
            host: self.options.host.clone(),
            changes,
        };
        spawn_local(listeners.follow(shutdown.clone()));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tokens = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(change) = changed.recv() => self.change(change),
                _ = tick.tick() => self.tick(Instant::now()),
                ready = self.poller.ready(&mut tokens) => {
                    self.serve(ready, &mut tokens).await;
                    tokio::task::yield_now().await;
                }
            }
        }
        let end = Instant::now() + DRAIN;
        while Instant::now() < end
            && let Ok(ready) = tokio::time::timeout(QUIET, self.poller.ready(&mut tokens)).await
        {
            self.serve(ready, &mut tokens).await;
            tokio::task::yield_now().await;
        }
    }

    async fn serve(&mut self, ready: io::Result<()>, tokens: &mut Vec<Token>) {
        if let Err(error) = ready {
            tracing::warn!(%error, "cannot wait for datagrams");
            tokio::time::sleep(PAUSE).await;
        }
        let now = Instant::now();
        let mut is_drained = tokens.len() < EVENTS;
        for token in tokens.drain(..) {
            let count = match token {
                Token::Front(id) => self.serve_clients(id, now).await,
                Token::Flow(id) => self.serve_endpoint(id, now).await,
            };
            is_drained &= count < BATCH;
        }
        if is_drained {
            self.poller.drained();
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Open(addr, socket) => {
                if let Err(error) = self.fronts.listen(addr, socket, &self.poller) {
                    tracing::warn!(%addr, %error, "cannot listen for a UDP Service");
                }
            }
            Change::Close(addr) => {
                self.fronts.close(addr);
                self.end_all(|front| front.addr == addr);
            }
        }
    }

    /// Ends what is idle, and what is for addresses that no Service has any more: a socket that
    /// stays bound to such an address would keep datagrams of this machine's processes from being
    /// refused.
    fn tick(&mut self, now: Instant) {
        while self.table.pop_idle(now).is_some() {}
        self.fronts.close_unused();
        let snapshot = self.options.reader.load();
        if snapshot.generation == self.swept {
            return;
        }
        self.swept = snapshot.generation;
        let places = &self.options.places;
        let is_served =
            |addr: &SocketAddr| destination::is_served(&snapshot, VipAddr(*addr), places);
        let answering = self.fronts.answering();
        let gone: Vec<SocketAddr> = answering.filter(|addr| !is_served(addr)).collect();
        self.metrics
            .forget(|service| !snapshot.services.contains_key(service));
        drop(snapshot);
        if !gone.is_empty() {
            self.end_all(|front| gone.contains(&front.addr));
            self.fronts.close_unused();
        }
    }

    fn end_all(&mut self, choose: impl Fn(&Front) -> bool) {
        for id in self.table.chosen(|_, flow| choose(&flow.front)) {
            self.table.remove(id);
        }
    }

    /// Relays a batch of clients' datagrams and returns how many; [`BATCH`] also if it is not known
    /// whether that was all.
    async fn serve_clients(&mut self, id: u32, now: Instant) -> usize {
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
    async fn serve_endpoint(&mut self, id: FlowId, now: Instant) -> usize {
        let Some((key, flow)) = self.table.get(id) else {
            return 0;
        };
        let client = key.client;
        let kind = Kind::bound(flow.endpoint.addr.0);
        let count = match self.batch.receive(&flow.upstream, kind) {
            Ok(count) => count,
            Err(error) => {
                self.refused(id, is_failure(&error), now).await;
                return BATCH;
            }
        };
        // What came in before the socket was connected can be anybody's, and goes nowhere.
        let endpoint = flow.endpoint.addr.0;
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
