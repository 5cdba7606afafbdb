//! The ports of `health`, `ready` and `prometheus`.
//!
//! A port that stays when the configuration changes is never closed, so probes go on succeeding
//! whatever becomes of a reload.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use sealane_dns::DnsConfig;
use tokio_util::sync::CancellationToken;

use super::listeners::has_no_such_family;
use crate::admin::{self, Answer, Exposition, MetricsHandle, Readiness, answer};
use crate::serve::bind;

/// What is served on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Roles {
    health: bool,
    ready: bool,
    metrics: bool,
}

/// The ports of the configuration in force.
#[derive(Debug)]
pub(crate) struct Ports {
    answers: Answers,
    open: BTreeMap<SocketAddr, CancellationToken>,
}

/// Ports of another configuration, bound and not served yet.
pub(crate) struct BoundPorts {
    wanted: BTreeMap<SocketAddr, Roles>,
    new: Vec<(SocketAddr, TcpListener)>,
}

/// What answers are made of; clones share it.
#[derive(Clone, Debug)]
struct Answers {
    readiness: Readiness,
    metrics: MetricsHandle,
    roles: Arc<Mutex<BTreeMap<SocketAddr, Roles>>>,
}

impl BoundPorts {
    /// The address of each page.
    pub(crate) fn addresses(&self) -> BTreeMap<&'static str, SocketAddr> {
        let mut addresses = BTreeMap::new();
        for (&addr, roles) in &self.wanted {
            let all = [
                (roles.health, "health"),
                (roles.ready, "ready"),
                (roles.metrics, "metrics"),
            ];
            addresses.extend(
                all.into_iter()
                    .filter(|(has, _)| *has)
                    .map(|(_, name)| (name, addr)),
            );
        }
        addresses
    }
}

impl Ports {
    /// None yet.
    pub(crate) fn new(readiness: Readiness, metrics: MetricsHandle) -> Self {
        Self {
            answers: Answers {
                readiness,
                metrics,
                roles: Arc::default(),
            },
            open: BTreeMap::new(),
        }
    }

    /// Binds what a configuration needs and is not there.
    ///
    /// # Errors
    /// What cannot be bound, a line each that names the block.
    pub(crate) fn bind(&self, config: &DnsConfig) -> Result<BoundPorts, Vec<String>> {
        let mut bound = BoundPorts {
            wanted: BTreeMap::new(),
            new: Vec::new(),
        };
        let mut problems = Vec::new();
        for block in &config.blocks {
            let plugins = &block.plugins;
            let uses = [
                (plugins.health.map(|it| it.address), "health"),
                (plugins.ready.map(|it| it.address), "ready"),
                (plugins.prometheus, "prometheus"),
            ];
            for (addr, plugin) in uses {
                let Some(addr) = addr else { continue };
                let is_known = bound.wanted.contains_key(&addr) || self.open.contains_key(&addr);
                let roles = bound.wanted.entry(addr).or_default();
                match plugin {
                    "health" => roles.health = true,
                    "ready" => roles.ready = true,
                    _ => roles.metrics = true,
                }
                if is_known {
                    continue;
                }
                match listen(addr) {
                    Ok(listener) => bound.new.push((addr, listener)),
                    Err(error) => {
                        let problem = bind::problem(addr, &error, &format!("'{plugin}'"));
                        problems.push(format!("{} - {problem}", block.place));
                    }
                }
            }
        }
        match problems.is_empty() {
            true => Ok(bound),
            false => Err(problems),
        }
    }

    /// Serves these ports, and no others.
    ///
    /// # Errors
    /// A listener cannot be used.
    pub(crate) fn serve(&mut self, bound: BoundPorts) -> std::io::Result<()> {
        let BoundPorts { wanted, new } = bound;
        self.open.retain(|addr, token| {
            let stays = wanted.contains_key(addr);
            if !stays {
                token.cancel();
            }
            stays
        });
        *self.answers.lock() = wanted;
        for (addr, listener) in new {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let token = CancellationToken::new();
            self.open.insert(addr, token.clone());
            let answers = self.answers.clone();
            let respond = move |request: Request<Incoming>, _| {
                let answer = answers.respond(addr, &request);
                async move { answer }
            };
            tokio::spawn(token.run_until_cancelled_owned(admin::accept(listener, respond)));
        }
        Ok(())
    }
}

impl Answers {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Roles>> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn respond(&self, port: SocketAddr, request: &Request<Incoming>) -> Answer {
        let roles = self.lock().get(&port).copied().unwrap_or_default();
        match request.uri().path() {
            // Also while the process drains: a kubelet must not kill it for that.
            "/health" if roles.health => answer(StatusCode::OK, "OK"),
            "/ready" if roles.ready => {
                let pending = self.readiness.pending();
                match pending.is_empty() {
                    true => answer(StatusCode::OK, "OK"),
                    false => answer(StatusCode::SERVICE_UNAVAILABLE, pending.join(",")),
                }
            }
            "/metrics" if roles.metrics => {
                let headers = request.headers();
                let wanted = Exposition::wanted(headers.get(ACCEPT), headers.get(ACCEPT_ENCODING));
                admin::metrics_answer(&self.metrics, wanted)
            }
            _ => answer(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}

/// A listener; the wildcard address is that of both families, or of the one that the host has.
fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let bound = match bind::unshared(addr) {
        Err(error) if addr.ip().is_unspecified() && has_no_such_family(&error) => {
            bind::unshared((Ipv4Addr::UNSPECIFIED, addr.port()).into())
        }
        bound => bound,
    };
    bound.map(Into::into)
}
