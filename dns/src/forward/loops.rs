//! Finding upstreams that lead back to this server.
//!
//! Each plain upstream is asked for the HINFO record of a random name in a zone that is forwarded. If
//! that question arrives here, this upstream is the server itself or forwards to it. CoreDNS sends
//! its probe to itself and so learns only that there is a loop, not through whom.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use sealane_config::sockets::HostSockets;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::answer::encode::{self, DnssecOk};
use crate::message::{Question, flag};
use crate::name::Name;

/// How long an upstream is asked until it replies.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reply is waited for.
const REPLY: Duration = Duration::from_secs(2);
/// Pause after an error.
const PAUSE: Duration = Duration::from_millis(500);

/// Names that were asked for, with the upstream that was asked.
#[derive(Debug, Default)]
pub(super) struct Loops {
    asked: Mutex<HashMap<Name, SocketAddr>>,
}

impl Loops {
    /// The upstream through which a question of ours came back.
    pub(super) fn came_back(&self, question: &Question) -> Option<SocketAddr> {
        if question.record_type != RecordType::HINFO {
            return None;
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&question.name.to_lowercase()).copied()
    }

    fn add(&self, name: Name, upstream: SocketAddr) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert(name, upstream);
    }

    fn remove(&self, name: &Name) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.remove(name);
    }
}

/// Asks an upstream until it replies or [`PATIENCE`] is over. Each time the name is another one: behind
/// a Service a question may go round among other servers, which join those that are equal.
pub(super) async fn probe(
    loops: &Loops,
    sockets: &HostSockets,
    upstream: SocketAddr,
    source: Option<IpAddr>,
    zone: &Name,
) {
    let zone = zone.to_lowercase();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // A zone without room for two labels of twenty digits cannot be probed.
        let Some(name) = random_name(&zone) else {
            return;
        };
        loops.add(name.clone(), upstream);
        let question = Question::new(name.clone(), RecordType::HINFO);
        let asked = timeout(REPLY, ask(sockets, upstream, source, &question)).await;
        loops.remove(&name);
        match asked {
            Ok(Ok(())) => return,
            Ok(Err(_unreachable)) => sleep(PAUSE).await,
            Err(_silent) => {}
        }
    }
}

/// A name that nobody else asks for.
fn random_name(zone: &Name) -> Option<Name> {
    let labels = [rand::random::<u64>(), rand::random()].map(|random| random.to_string());
    Name::prepend(labels.iter().map(String::as_str), zone)
}

/// Sends the question and waits for a reply with its id.
async fn ask(
    sockets: &HostSockets,
    upstream: SocketAddr,
    source: Option<IpAddr>,
    question: &Question,
) -> io::Result<()> {
    let source = source.filter(|source| source.is_ipv4() == upstream.is_ipv4());
    let socket = match source {
        Some(source) => sockets.udp_from(source).await?,
        None => sockets.udp(upstream).await?,
    };
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(upstream).await?;
    let id: u16 = rand::random();
    let query = encode::query(id, question, Some(DnssecOk(false)), flag::RD);
    socket.send(&query).await?;
    let mut head = [0; 2];
    loop {
        socket.recv(&mut head).await?;
        if u16::from_be_bytes(head) == id {
            return Ok(());
        }
    }
}
