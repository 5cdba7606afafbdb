//! The sockets of a Corefile's server blocks, on all workers.
//!
//! New ones are bound before anything is changed, so that a configuration whose ports cannot be had
//! changes nothing. A listener that stays keeps its sockets and what waits in them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use nix::errno::Errno;
use sealane_dns::config::{Scheme, ServerBlock, ServerTls, Timeouts};
use sealane_dns::{DnsConfig, Listener, TlsIdentity};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::serve::bind::{self, DnsSockets};
use crate::serve::names::{DnsChange, Seat};

/// How a listener is served, besides by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    timeouts: Option<Timeouts>,
    tls: Option<ServerTls>,
}

/// The listeners of the configuration in force.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// One for each worker.
    workers: Vec<mpsc::Sender<DnsChange>>,
    open: HashMap<Seat, Open>,
    /// Somebody else may have the ports, who is about to leave them.
    may_share: bool,
}

#[derive(Debug)]
struct Open {
    terms: Terms,
    /// Ends what keeps the certificate current.
    keeper: Option<CancellationToken>,
}

/// Listeners of another configuration, bound and not served yet.
pub(crate) struct Bound {
    config: Arc<DnsConfig>,
    new: Vec<(Seat, Terms, Option<TlsIdentity>)>,
    /// For each worker.
    sockets: Vec<Vec<DnsSockets>>,
    /// Those that are no longer needed, or are served in another way.
    close: Vec<Seat>,
}

impl Bound {
    /// The addresses that were bound.
    pub(crate) fn seats(&self) -> impl Iterator<Item = Seat> {
        self.new.iter().map(|(seat, ..)| *seat)
    }
}

impl Listeners {
    /// None yet, and what tells the workers of them.
    pub(crate) fn new(workers: usize, may_share: bool) -> (Self, Vec<mpsc::Receiver<DnsChange>>) {
        let (senders, receivers) = (0..workers).map(|_| mpsc::channel(1)).unzip();
        let listeners = Self {
            workers: senders,
            open: HashMap::new(),
            may_share,
        };
        (listeners, receivers)
    }

    /// Binds what a configuration needs and is not there.
    ///
    /// # Errors
    /// What cannot be bound, and certificates that cannot be used, a line each that names the block.
    pub(crate) fn bind(&self, config: &Arc<DnsConfig>) -> Result<Bound, Vec<String>> {
        let mut bound = Bound {
            config: Arc::clone(config),
            new: Vec::new(),
            sockets: self.workers.iter().map(|_| Vec::new()).collect(),
            close: Vec::new(),
        };
        let mut wanted: HashMap<Seat, Terms> = HashMap::new();
        let mut problems = Vec::new();
        for listener in config.listeners() {
            let Some(block) = block_of(config, listener) else {
                continue;
            };
            let terms = terms(config, listener);
            for addr in addresses(listener) {
                wanted.insert((listener, addr), terms.clone());
            }
            if let Err(problem) = self.bind_listener(listener, &terms, &mut bound) {
                problems.push(format!("{} - {problem}", block.place));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let stays = |seat: &&Seat| wanted.get(seat) == self.open.get(seat).map(|open| &open.terms);
        let close = self.open.keys().filter(|seat| !stays(seat));
        // A listener that is served in another way has new sockets under the same name.
        let close = close.filter(|seat| !wanted.contains_key(seat));
        bound.close = close.copied().collect();
        Ok(bound)
    }

    fn bind_listener(
        &self,
        listener: Listener,
        terms: &Terms,
        bound: &mut Bound,
    ) -> Result<(), String> {
        let is_served = |seat: &Seat| self.open.get(seat).is_some_and(|open| open.terms == *terms);
        let addresses = addresses(listener);
        let seats = addresses.iter().map(|&addr| (listener, addr));
        let new: Vec<Seat> = seats.filter(|seat| !is_served(seat)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let identity = match (&terms.tls, listener.scheme) {
            (_, Scheme::Dns) => None,
            (None, _) => return Err(format!("{listener} needs 'tls CERTIFICATE KEY'")),
            (Some(files), _) => {
                let loaded = TlsIdentity::load(files.clone());
                Some(loaded.map_err(|error| crate::exit::chain(&error.into()))?)
            }
        };
        // Whoever has the port may be ourselves, at another address or for the last configuration.
        let is_ours = self
            .open
            .keys()
            .any(|(_, addr)| addr.port() == listener.port);
        let mut missing = None;
        let mut found = 0;
        for seat in new {
            let (_, addr) = seat;
            let may_share = self.may_share || is_ours;
            match bind::name_sockets(listener.scheme, addr, self.workers.len(), may_share) {
                Ok(sockets) => {
                    found += 1;
                    bound.new.push((seat, terms.clone(), identity.clone()));
                    for (worker, (udp, tcp)) in bound.sockets.iter_mut().zip(sockets) {
                        worker.push(DnsSockets {
                            listener,
                            addr,
                            udp,
                            tcp,
                            timeouts: terms.timeouts,
                            identity: identity.clone(),
                        });
                    }
                }
                // A host may have one family only.
                Err(error) if listener.addr.is_none() && has_no_such_family(&error) => {
                    missing = Some((addr, error));
                }
                Err(error) => {
                    let changed_by = "'bind' or the block's port";
                    return Err(bind::problem(addr, &error, changed_by));
                }
            }
        }
        match missing {
            Some((addr, error)) if found == 0 && addresses.len() > 1 => {
                Err(bind::problem(addr, &error, "'bind'"))
            }
            _ => Ok(()),
        }
    }

    /// Puts a configuration in force on all workers, and waits until it is. Workers that have ended
    /// are left out.
    pub(crate) async fn serve(&mut self, bound: Bound) {
        let Bound {
            config,
            new,
            sockets,
            close,
        } = bound;
        let (done, mut in_force) = mpsc::channel(self.workers.len().max(1));
        for (worker, open) in self.workers.iter().zip(sockets) {
            let change = DnsChange {
                config: Arc::clone(&config),
                open,
                close: close.clone(),
                done: done.clone(),
            };
            let _ = worker.send(change).await;
        }
        drop(done);
        while in_force.recv().await.is_some() {}
        for seat in close {
            self.open.remove(&seat).into_iter().for_each(Open::end);
        }
        for (seat, terms, identity) in new {
            let keeper = identity.map(|identity| {
                let token = CancellationToken::new();
                tokio::spawn(identity.keep_current(token.clone()));
                token
            });
            let replaced = self.open.insert(seat, Open { terms, keeper });
            replaced.into_iter().for_each(Open::end);
        }
    }

    /// The addresses that are listened on.
    pub(crate) fn seats(&self) -> Vec<Seat> {
        let mut seats: Vec<Seat> = self.open.keys().copied().collect();
        seats.sort_unstable();
        seats
    }
}

impl Open {
    fn end(self) {
        if let Some(keeper) = self.keeper {
            keeper.cancel();
        }
    }
}

/// The first block of a listener.
fn block_of(config: &DnsConfig, listener: Listener) -> Option<&Arc<ServerBlock>> {
    let mut blocks = config.blocks.iter();
    blocks.find(|block| block.listeners().contains(&listener))
}

/// How a listener is served: the first block that says so decides.
fn terms(config: &DnsConfig, listener: Listener) -> Terms {
    let blocks = config.blocks.iter();
    let blocks = blocks.filter(|block| block.listeners().contains(&listener));
    let mut plugins = blocks.map(|block| &block.plugins);
    let tls = match listener.scheme {
        Scheme::Dns => None,
        Scheme::Tls | Scheme::Https | Scheme::Quic => {
            plugins.clone().find_map(|plugins| plugins.tls.clone())
        }
    };
    Terms {
        timeouts: plugins.find_map(|plugins| plugins.timeouts),
        tls,
    }
}

/// Where a listener listens: on the wildcard addresses of both families without `bind`.
fn addresses(listener: Listener) -> Vec<SocketAddr> {
    let ips: Vec<IpAddr> = match listener.addr {
        Some(ip) => vec![ip],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let addresses = ips.into_iter().map(|ip| (ip, listener.port).into());
    addresses.collect()
}

/// This host does not have the family of the address.
pub(super) fn has_no_such_family(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}
