//! One flow: its endpoint, its socket, and what it counts for.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

use sealane_config::Snapshot;
use sealane_config::model::{ClientAddr, Endpoint, EndpointAddr, Scope, ServicePort};
use tokio::time::Instant;

use super::budget::Room;
use super::destination::{self, Destination};
use super::front::Front;
use super::metrics::{Lost, Open, ServiceMetrics};
use super::pick::{Seed, pick};
use super::table::FlowKey;
use super::{UdpOptions, socket, undelivered};
use crate::balance::Flight;
use crate::node::Places;

/// Endpoints that refused which a flow remembers.
const REMEMBERED: usize = 8;

/// The endpoint that a new flow gets.
pub(super) struct Choice {
    pub(super) port: Arc<ServicePort>,
    scope: Scope,
    /// The client's address, if endpoints may see it.
    source: Option<IpAddr>,
    endpoint: Arc<Endpoint>,
    /// The snapshot that says so.
    generation: u64,
}

/// Chooses an endpoint; none of `avoid`, if there are others.
pub(super) fn choose(
    options: &UdpOptions,
    key: FlowKey,
    avoid: &[EndpointAddr],
) -> Result<Choice, Lost> {
    let snapshot = options.reader.load();
    let client = key.client.0;
    let found = destination::find(&snapshot, client.ip(), key.vip, &options.places);
    let Destination {
        port,
        scope,
        source,
    } = found.ok_or(Lost::NoService)?;
    let seed = match port.policy.affinity {
        Some(_) => {
            let service = &port.service;
            Seed::of_client(client.ip(), &service.name, &service.namespace, port.port)
        }
        None => Seed::of_flow(client, key.vip.0),
    };
    let endpoints = port.within(scope);
    let picked =
        options
            .engine
            .balancer()
            .stay_or(Some(client.ip()), &port, endpoints, avoid, || {
                pick(endpoints, seed, avoid)
            });
    let endpoint = picked.cloned().ok_or(if port.endpoints.is_empty() {
        Lost::NoEndpoints
    } else {
        Lost::NoLocalEndpoints
    })?;
    Ok(Choice {
        port,
        scope,
        source,
        endpoint,
        generation: snapshot.generation,
    })
}

impl Choice {
    /// A socket that is connected to the endpoint.
    pub(super) async fn connect(
        &self,
        options: &UdpOptions,
        client: ClientAddr,
    ) -> io::Result<UdpSocket> {
        let socket = self.open(options, client).await?;
        undelivered::keep(&socket)?;
        Ok(socket)
    }

    async fn open(&self, options: &UdpOptions, client: ClientAddr) -> io::Result<UdpSocket> {
        let endpoint = self.endpoint.addr;
        if options.connector.source(self.source, endpoint).is_some() {
            let socket = socket::from_client(client, endpoint);
            // The client's address may have no free port left; the node's own has.
            if !socket
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
            {
                return socket;
            }
        }
        options.connector.udp(endpoint).await
    }
}

/// One flow.
pub(super) struct Flow {
    pub(super) endpoint: Arc<Endpoint>,
    /// Connected to the endpoint.
    pub(super) upstream: UdpSocket,
    /// Where replies leave.
    pub(super) front: Rc<Front>,
    port: Arc<ServicePort>,
    scope: Scope,
    /// The last snapshot that it was checked against.
    generation: u64,
    began: Instant,
    is_answered: bool,
    is_refused: bool,
    /// Endpoints that have refused since one answered.
    refusing: Vec<EndpointAddr>,
    /// Bytes of the last datagram that went to the endpoint.
    pub(super) last_length: usize,
    /// How often that one was sent again.
    pub(super) resent: usize,
    flight: Flight,
    open: Open,
    _room: Room,
}

impl Flow {
    pub(super) fn new(
        choice: Choice,
        upstream: UdpSocket,
        front: Rc<Front>,
        room: Room,
        open: Open,
        refusing: Vec<EndpointAddr>,
        now: Instant,
    ) -> Self {
        Self {
            flight: Flight::start(&choice.endpoint),
            endpoint: choice.endpoint,
            upstream,
            front,
            port: choice.port,
            scope: choice.scope,
            generation: choice.generation,
            began: now,
            is_answered: false,
            is_refused: false,
            refusing,
            last_length: 0,
            resent: 0,
            open,
            _room: room,
        }
    }

    /// Whether its endpoint still serves the Service port that was dialled.
    pub(super) fn may_stay(&mut self, snapshot: &Snapshot, key: FlowKey, places: &Places) -> bool {
        if self.is_refused {
            return false;
        }
        if self.generation == snapshot.generation {
            return true;
        }
        let client = key.client.0.ip();
        let Some(found) = destination::find(snapshot, client, key.vip, places) else {
            return false;
        };
        let Destination { port, scope, .. } = found;
        let is_same = Arc::ptr_eq(&port, &self.port) && scope == self.scope;
        // Another Service may have the address now.
        let stays = is_same
            || (port.service == self.port.service
                && destination::serves(snapshot, &port, scope, self.endpoint.addr));
        if stays {
            (self.port, self.scope) = (port, scope);
            self.generation = snapshot.generation;
        }
        stays
    }

    /// A datagram came back.
    pub(super) fn answered(&mut self, now: Instant) {
        if !self.is_answered {
            self.is_answered = true;
            self.refusing = Vec::new();
            self.flight.succeeded(now - self.began);
        }
    }

    /// Nobody listens at the endpoint, or it cannot be reached: another one is chosen for the next
    /// datagram.
    pub(super) fn failed(&mut self, client: ClientAddr, options: &UdpOptions) {
        self.is_refused = true;
        let peers = self.port.within(self.scope);
        self.flight.failed(peers, &self.port.http.balancing);
        let balancer = options.engine.balancer();
        balancer.not_connected(Some(client.0.ip()), &self.port, &self.endpoint);
    }

    /// Whether its endpoint is one that has refused: there is no other.
    pub(super) fn is_last_resort(&self) -> bool {
        self.refusing.contains(&self.endpoint.addr)
    }

    /// Endpoints that its successor should not have.
    pub(super) fn into_refusing(mut self) -> Vec<EndpointAddr> {
        if self.is_refused {
            // All have refused: it is tried with one after the other again.
            if self.is_last_resort() {
                self.refusing.clear();
            }
            if self.refusing.len() == REMEMBERED {
                self.refusing.remove(0);
            }
            self.refusing.push(self.endpoint.addr);
        }
        self.refusing
    }

    pub(super) fn metrics(&self) -> &ServiceMetrics {
        &self.open.0
    }
}
