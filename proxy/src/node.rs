//! The node proxy: takes connections and datagrams to Services, and connections out of the cluster,
//! on one worker.
//!
//! Connections come in on intercepted listeners, whose local address is what the client dialled, on
//! listeners of node ports in the host's namespace and, where nothing can be intercepted, on a
//! listener for each Service address. All of them take the same way: the local address says which
//! Service port it is; the port's `appProtocol`, or the client's first bytes, say whether requests
//! are balanced or the connection as a whole.

mod accept;
mod listeners;
mod places;
mod pod;
mod serve;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use sealane_config::Reader;
use sealane_config::sockets::HostSockets;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::Connector;
use crate::http::Engine;
use crate::intercept::{self, InterceptOptions};
use crate::live::UPKEEP;
use crate::sidecar::{Direction, PodOptions};
use crate::tcp::{Flows, Metrics};
use crate::udp::{Arrival, FlowBudget, UdpOptions, UdpProxy};

use listeners::Listeners;
pub(crate) use places::Places;
use pod::OwnPorts;

/// Connections of one worker at a time. More wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 32 * 1024;

/// How connections get here.
#[derive(Clone, Debug)]
pub enum Capture {
    /// Intercepted by rules with these options; see [`intercept`].
    Transparent(InterceptOptions),
    /// Each Service address is local and gets listeners of its own: loopback mode.
    Listeners,
    /// Redirected within a pod, in one direction; see [`sidecar`](crate::sidecar).
    Pod(Arc<PodOptions>, Direction),
}

/// The node proxy of one worker.
pub struct NodeProxy {
    worker: Rc<Worker>,
    intercepted: Vec<TcpListener>,
    /// None in a pod.
    listeners: Option<Listeners>,
    /// None in a pod, where datagrams go their own way.
    udp: Option<UdpProxy>,
}

/// What every connection of a worker needs.
struct Worker {
    reader: Reader,
    engine: Engine,
    flows: Flows,
    host: HostSockets,
    capture: Capture,
    places: Places,
    /// Ports of the pod that connections to it are for.
    own_ports: OwnPorts,
    metrics: Metrics,
    connections: TaskTracker,
    slots: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl NodeProxy {
    /// Binds the listeners for intercepted connections, in the namespace of the calling thread and
    /// on its runtime. Node ports get theirs from `host` while the proxy runs.
    ///
    /// # Errors
    /// The system call's error: without `CAP_NET_ADMIN` nothing can be intercepted.
    pub fn bind(
        capture: Capture,
        reader: Reader,
        engine: Engine,
        connector: Connector,
        host: HostSockets,
    ) -> io::Result<Self> {
        let mut intercepted = Vec::new();
        let mut direction = Direction::Outbound;
        if let Capture::Transparent(options) = &capture {
            intercepted.push(listen((Ipv4Addr::UNSPECIFIED, options.port).into())?);
            match listen((Ipv6Addr::UNSPECIFIED, options.port).into()) {
                Ok(listener) => intercepted.push(listener),
                // A kernel without IPv6.
                Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {}
                Err(error) => return Err(error),
            }
        }
        let mut listeners = Some(Listeners::new(matches!(capture, Capture::Listeners)));
        if let Capture::Pod(pod, of) = &capture {
            direction = *of;
            intercepted = pod.listen(direction)?;
            listeners = None;
        }
        let flows = Flows::new(connector.clone());
        let arrival = Arrival::of(&capture);
        let udp = arrival.map(|arrival| {
            UdpProxy::bind(UdpOptions {
                arrival,
                reader: reader.clone(),
                places: Places::of(&capture),
                engine: engine.clone(),
                connector,
                host: host.clone(),
                budget: FlowBudget::default(),
            })
        });
        let udp = udp.transpose()?;
        let worker = Worker {
            reader,
            engine,
            flows,
            host,
            places: Places::of(&capture),
            capture,
            own_ports: OwnPorts::default(),
            metrics: Metrics::new(direction),
            connections: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            shutdown: CancellationToken::new(),
        };
        Ok(Self {
            worker: Rc::new(worker),
            intercepted,
            listeners,
            udp,
        })
    }

    /// Shares a bound on UDP flows with other workers; without this the worker has one of its own.
    #[must_use]
    pub fn with_flow_budget(mut self, budget: FlowBudget) -> Self {
        if let Some(udp) = &mut self.udp {
            udp.set_budget(budget);
        }
        self
    }

    /// Serves until `shutdown`, then takes no more connections and returns when those that are open
    /// have ended: HTTP ones after the requests in flight, others when their sides end them. Drop
    /// the future to cut them off. Runs within a [`tokio::task::LocalSet`].
    pub async fn run(self, shutdown: CancellationToken) {
        let worker = self.worker;
        let _stop = worker.shutdown.clone().drop_guard();
        for listener in self.intercepted {
            let stop = worker.shutdown.clone();
            let accept = Rc::clone(&worker).accept(listener, stop);
            worker.connections.spawn_local(accept);
        }
        if let Some(listeners) = self.listeners {
            let listening = listeners.follow(Rc::clone(&worker));
            worker.connections.spawn_local(listening);
        }
        if let Some(udp) = self.udp {
            let datagrams = udp.run(worker.shutdown.clone());
            worker.connections.spawn_local(datagrams);
        }
        let measured = Rc::clone(&worker);
        let upkeep = async move {
            loop {
                sleep(UPKEEP).await;
                measured.metrics.upkeep();
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = upkeep => {}
        }
        worker.shutdown.cancel();
        worker.connections.close();
        worker.connections.wait().await;
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(intercept::listener(addr)?)
}
