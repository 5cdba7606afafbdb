//! The engine on real sockets: a client, a [`Front`] as the node proxy has it, origins.

mod connections;
mod messages;
mod policies;
mod relayed;
mod retries;
mod streams;
mod treatment;
mod upgrades;
mod versions;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sealane_config::model::{AppProtocol, ClientAddr, HttpPolicy, PREFIX};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::accept::{Acceptor, Listener};
use crate::connect::Connector;
use crate::testing::{RawClient, World, backend};

/// Runs a test where a worker runs its connections.
fn on_worker(test: impl Future<Output = ()>) -> impl Future<Output = ()> {
    // Boxed, because tests are large.
    let test = Box::pin(test);
    async move { LocalSet::new().run_until(test).await }
}

/// A listener whose connections all go to Service `api`.
struct Front {
    addr: SocketAddr,
    world: World,
    engine: Engine,
    shutdown: CancellationToken,
    farewell: CancellationToken,
    connections: TaskTracker,
}

impl Front {
    async fn new(endpoints: &[SocketAddr]) -> Self {
        Self::treating(endpoints, &[]).await
    }

    /// With annotations of the Service.
    async fn treating(endpoints: &[SocketAddr], annotations: &[(&str, &str)]) -> Self {
        let mut world = World::new();
        if !annotations.is_empty() {
            world.http = policy(annotations);
        }
        world.service("api", AppProtocol::Detect, endpoints);
        let farewell = CancellationToken::new();
        let options = EngineOptions {
            farewell: farewell.clone(),
            ..EngineOptions::default()
        };
        let engine = Engine::new(Connector::Direct, options);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let front = Self {
            addr: listener.local_addr().unwrap(),
            engine,
            shutdown: CancellationToken::new(),
            farewell,
            connections: TaskTracker::new(),
            world,
        };
        let target = ServiceTarget {
            reader: front.world.reader.clone(),
            backend: backend("api"),
            dialled: Dialled::default(),
            fixed: None,
        };
        let (engine, shutdown) = (front.engine.clone(), front.shutdown.clone());
        let connections = front.connections.clone();
        let listener = Listener::new(listener).unwrap();
        tokio::task::spawn_local(async move {
            let mut acceptor = Acceptor::default();
            while let Ok((stream, client)) = acceptor.accept_fresh(&listener).await {
                let (engine, target) = (engine.clone(), target.clone());
                let shutdown = shutdown.clone();
                connections.spawn_local(async move {
                    let client = ClientAddr(client);
                    engine.serve_service(stream, client, target, shutdown).await;
                });
            }
        });
        front
    }

    async fn client(&self) -> RawClient {
        RawClient::connect(self.addr).await
    }
}

/// What a Service with these annotations gets.
fn policy(annotations: &[(&str, &str)]) -> Arc<HttpPolicy> {
    let named = annotations
        .iter()
        .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()));
    let policy = HttpPolicy::read(&named.collect(), |name, why| panic!("{name}: {why:?}"));
    Arc::new(policy)
}

/// Milliseconds.
fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A whole response.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Reads until the end of a head.
async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(n) if n > 0) {
            return false;
        }
    }
    true
}
