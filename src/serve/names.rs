//! DNS on one worker: a task for each socket, which come and go with the configuration.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use sealane_dns::config::Scheme;
use sealane_dns::{ConnectionLimits, Connections, DnsConfig, DnsServer, Listener};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::bind::DnsSockets;

/// A listener at one of its addresses.
pub(crate) type Seat = (Listener, SocketAddr);

/// Another configuration, for one worker.
#[derive(Debug)]
pub(crate) struct DnsChange {
    /// What is served from now on.
    pub(crate) config: Arc<DnsConfig>,
    /// Listeners that are new.
    pub(crate) open: Vec<DnsSockets>,
    /// Listeners that are needed no more. What they have received is answered.
    pub(crate) close: Vec<Seat>,
    /// Told when the change is in force.
    pub(crate) done: mpsc::Sender<()>,
}

/// The DNS server of a worker with its listeners.
pub(super) struct Names {
    server: DnsServer,
    connections: Connections,
    serving: HashMap<Seat, CancellationToken>,
    tasks: JoinSet<io::Result<()>>,
    drain: CancellationToken,
}

impl Names {
    /// Without listeners; `connections` are those of all workers.
    pub(super) fn new(
        server: DnsServer,
        connections: Connections,
        drain: CancellationToken,
    ) -> Self {
        Self {
            server,
            connections,
            serving: HashMap::new(),
            tasks: JoinSet::new(),
            drain,
        }
    }

    /// Serves until the drain, then what has arrived.
    ///
    /// # Errors
    /// A listener failed.
    pub(super) async fn run(
        mut self,
        sockets: Vec<DnsSockets>,
        mut changes: Option<mpsc::Receiver<DnsChange>>,
    ) -> anyhow::Result<()> {
        for set in sockets {
            self.open(set);
        }
        loop {
            tokio::select! {
                () = self.drain.cancelled() => break,
                Some(change) = next(&mut changes) => self.apply(change).await,
                Some(ended) = self.tasks.join_next() => check(ended)?,
            }
        }
        while let Some(ended) = self.tasks.join_next().await {
            check(ended)?;
        }
        Ok(())
    }

    async fn apply(&mut self, change: DnsChange) {
        self.server.reconfigure(&change.config);
        for set in change.open {
            self.open(set);
        }
        for seat in change.close {
            if let Some(shutdown) = self.serving.remove(&seat) {
                shutdown.cancel();
            }
        }
        // Whoever changed it may have gone.
        let _ = change.done.send(()).await;
    }

    fn open(&mut self, set: DnsSockets) {
        let shutdown = self.drain.child_token();
        let DnsSockets {
            listener,
            addr,
            udp,
            tcp,
            timeouts,
            identity,
        } = set;
        let replaced = self.serving.insert((listener, addr), shutdown.clone());
        // One that is served in another way from now on: its sockets have received their last query.
        if let Some(replaced) = replaced {
            replaced.cancel();
        }
        let limits = ConnectionLimits::new(self.connections.clone(), timeouts.as_ref());
        let server = self.server.clone();
        let task: LocalBoxFuture<'static, io::Result<()>> =
            match (listener.scheme, udp, tcp, identity) {
                (Scheme::Dns, udp, tcp, _) => async move {
                    let datagrams = async {
                        match udp {
                            Some(socket) => {
                                server.serve_udp(listener, socket, shutdown.clone()).await
                            }
                            None => Ok(()),
                        }
                    };
                    let connections = async {
                        match tcp {
                            Some(socket) => {
                                server
                                    .serve_tcp(listener, socket, limits, shutdown.clone())
                                    .await
                            }
                            None => Ok(()),
                        }
                    };
                    tokio::try_join!(datagrams, connections).map(drop)
                }
                .boxed_local(),
                (Scheme::Tls, _, Some(socket), Some(identity)) => async move {
                    server
                        .serve_tls(listener, socket, identity, limits, shutdown)
                        .await
                }
                .boxed_local(),
                (Scheme::Https, _, Some(socket), Some(identity)) => async move {
                    server
                        .serve_https(listener, socket, identity, limits, shutdown)
                        .await
                }
                .boxed_local(),
                (Scheme::Quic, Some(socket), _, Some(identity)) => async move {
                    server
                        .serve_quic(listener, socket, identity, limits, shutdown)
                        .await
                }
                .boxed_local(),
                (Scheme::Tls | Scheme::Https | Scheme::Quic, ..) => {
                    tracing::error!(%listener, "a listener without its sockets or certificate");
                    return;
                }
            };
        self.tasks.spawn_local(task);
    }
}

/// The next change; never, if there can be none.
async fn next(changes: &mut Option<mpsc::Receiver<DnsChange>>) -> Option<DnsChange> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}

fn check(ended: Result<io::Result<()>, JoinError>) -> anyhow::Result<()> {
    ended
        .context("a DNS listener failed inside")?
        .context("cannot serve DNS")
}
