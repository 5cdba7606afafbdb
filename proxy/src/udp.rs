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
mod relay;
mod socket;
mod table;
mod undelivered;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sealane_config::Reader;
use sealane_config::model::VipAddr;
use sealane_config::sockets::HostSockets;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::connect::Connector;
use crate::http::Engine;
use crate::intercept::Method;
use crate::node::{Capture, Places};

use batch::{BATCH, Batch};
use flow::Flow;
use front::{Front, Fronts};
use listen::{CHANGES, Change, Listeners};
use metrics::Metrics;
use poll::{EVENTS, Poller, Token};
use refuse::Refuser;
use table::FlowTable;

pub use budget::FlowBudget;

/// How often idle flows are looked for.
const TICK: Duration = Duration::from_secs(1);

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
}
