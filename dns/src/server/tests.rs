//! The server over loopback sockets.

mod answers;
mod blocks;
mod connections;
mod descriptors;
mod edns;
mod forwarding;
mod limits;
mod plugins;
mod search;
mod vectors;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query as TheirQuery};
use hickory_proto::rr::Name as TheirName;
use sealane_config::{Publisher, Snapshot, snapshot};
use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::*;
use crate::config::ForwardSettings;
use crate::limit::OverLimit;
use crate::settings::DnsSettings;
use crate::testing::secure::local;
use crate::testing::upstream::Upstream;
use crate::udp::bind_udp;

/// How long a test waits for what has to come.
const DEADLINE: Duration = Duration::from_secs(10);

/// A server on UDP and TCP.
struct Running {
    udp: SocketAddr,
    tcp: SocketAddr,
    publisher: Publisher,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<io::Result<()>>>,
}

impl From<DnsSettings> for DnsConfig {
    fn from(settings: DnsSettings) -> Self {
        Self::cluster(settings, Vec::new())
    }
}

fn forwarding_to(upstream: &Upstream) -> DnsConfig {
    DnsConfig::cluster(DnsSettings::default(), vec![upstream.addr])
}

fn server(snapshot: Snapshot, config: impl Into<DnsConfig>) -> (Publisher, DnsServer) {
    let (mut publisher, reader) = snapshot::channel();
    publisher.publish(snapshot);
    let server = DnsServer::new(reader, HostSockets::here(), &config.into());
    (publisher, server)
}

impl Running {
    async fn start(snapshot: Snapshot, config: impl Into<DnsConfig>) -> Self {
        let (publisher, server) = server(snapshot, config);
        let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (udp, tcp) = (socket.local_addr().unwrap(), listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let (by_udp, by_tcp) = (server.clone(), server);
        let limits = ConnectionLimits::default();
        let (stop_udp, stop_tcp) = (shutdown.clone(), shutdown.clone());
        let tasks = vec![
            spawn_local(async move { by_udp.serve_udp(Listener::CLUSTER, socket, stop_udp).await }),
            spawn_local(async move {
                by_tcp
                    .serve_tcp(Listener::CLUSTER, listener, limits, stop_tcp)
                    .await
            }),
        ];
        Self {
            udp,
            tcp,
            publisher,
            shutdown,
            tasks,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
        }
    }

    /// Asks over UDP, without EDNS.
    async fn ask(&self, name: &str, record_type: &str) -> Message {
        ask_at(self.udp, &query(name, record_type)).await
    }
}

fn query(name: &str, record_type: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let name = TheirName::from_ascii(name).unwrap();
    message.add_query(TheirQuery::query(name, record_type.parse().unwrap()));
    message
}

fn with_edns(mut message: Message, udp_size: u16) -> Message {
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_max_payload(udp_size);
    message.edns = Some(edns);
    message
}

/// A connected socket, so that only replies from `server` are received.
async fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let length = timeout(DEADLINE, socket.recv(&mut buffer)).await;
    buffer.truncate(length.expect("no reply").unwrap());
    buffer
}

async fn ask_at(server: SocketAddr, message: &Message) -> Message {
    let socket = client(server).await;
    socket.send(&message.to_vec().unwrap()).await.unwrap();
    let reply = Message::from_vec(&receive(&socket).await).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    reply
}

/// Code and records as text.
fn lines(message: &Message) -> Vec<String> {
    let mut lines = vec![format!("{:?}", message.metadata.response_code).to_uppercase()];
    lines.extend(message.answers.iter().map(ToString::to_string));
    lines.extend(
        message
            .authorities
            .iter()
            .map(|record| format!("@{record}")),
    );
    lines
}
