//! DNS over UDP.
//!
//! One loop a socket: wait until it is readable, receive up to 64 datagrams with one system
//! call, answer them, send the replies with another, let other tasks run. Nothing is allocated for a
//! datagram whose answer is in memory. Queries that need an upstream become tasks.
//!
//! Too much to do:
//!
//! | queue | bound | above |
//! |---|---|---|
//! | received by the kernel, not read yet | [`RECEIVE_BUFFER`] | the kernel drops new ones, which costs us nothing |
//! | waiting for an upstream | [`MAX_WAITING`] | the oldest is given up: its client is the likeliest to be gone |
//! | sent, not taken by the network yet | the socket's send buffer | dropped, as the network would |

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::encode::Transport;
use crate::server::{Basis, Front, Step};

mod datagrams;
mod dropped;
mod repeats;

use datagrams::{Datagrams, Received, Replies};
pub use dropped::Dropped;
use repeats::Repeats;
pub(crate) use repeats::Reuse;

/// Queries of one socket that wait for an upstream.
const MAX_WAITING: usize = 4096;
/// Ports from which no query comes, but from which something answers whatever it is sent: none, echo,
/// daytime, qotd, chargen and other name servers. A reply could go back and forth for ever.
const REFLECTORS: [u16; 6] = [0, 7, 13, 17, 19, 53];
/// How long queries may wait for an upstream after shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// At shutdown, how long nothing may arrive before the socket counts as empty.
const QUIET: Duration = Duration::from_millis(20);
/// How long nothing is received after an error of the socket, so that one that stays does not spin.
const PAUSE: Duration = Duration::from_millis(10);

/// How often the kernel is asked what it dropped.
const LOOK_AT_LOSSES: Duration = Duration::from_secs(1);

/// Room for datagrams that have arrived and were not read yet, bytes; the kernel caps it at
/// `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A UDP socket for [`DnsServer::serve_udp`](crate::DnsServer::serve_udp), made by the calling thread. With `SO_REUSEPORT`, so
/// that each worker can have its own.
///
/// # Errors
/// The system call's error; `AddrInUse` if another program has the address.
pub fn bind_udp(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(addr))?;
    Ok(socket.into())
}

pub(crate) async fn serve(
    server: Front,
    socket: std::net::UdpSocket,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let datagrams = Rc::new(Datagrams::new(socket)?);
    let losses = spawn_local(count_losses(server.clone(), Rc::clone(&datagrams)));
    let mut worker = Worker {
        repeats: Repeats::new(),
        basis: server.basis(),
        server,
        received: Received::new(&datagrams),
        replies: Replies::new(&datagrams),
        datagrams,
        waiting: Waiting::default(),
    };
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            ready = worker.datagrams.readable() => ready?,
        }
        match worker.answer_batch() {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "cannot receive DNS queries");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // The socket is read until nothing comes any more; a flood cannot put off the end.
    let end = Instant::now() + GRACE;
    while Instant::now() < end
        && let Ok(Ok(())) = timeout(QUIET, worker.datagrams.readable()).await
    {
        while Instant::now() < end && worker.answer_batch().is_ok() {}
    }
    worker.waiting.tasks.close();
    // What is still waiting is given up.
    let _ = timeout(GRACE, worker.waiting.tasks.wait()).await;
    losses.abort();
    Ok(())
}

/// Keeps count of what the kernel drops.
async fn count_losses(server: Front, datagrams: Rc<Datagrams>) {
    let mut known = 0;
    loop {
        tokio::time::sleep(LOOK_AT_LOSSES).await;
        if let Some(lost) = datagrams.dropped_by_kernel() {
            let dropped = server.udp_dropped();
            dropped.add(&dropped.receive_buffer, lost.saturating_sub(known));
            known = lost;
        }
    }
}

struct Worker {
    server: Front,
    datagrams: Rc<Datagrams>,
    received: Received,
    replies: Replies,
    repeats: Repeats,
    /// What the repeats were made from.
    basis: Basis,
    waiting: Waiting,
}

impl Worker {
    /// Answers datagrams that have arrived. `WouldBlock` if there are none.
    fn answer_batch(&mut self) -> io::Result<()> {
        self.datagrams.try_receive(&mut self.received)?;
        let basis = self.server.basis();
        if basis != self.basis {
            self.basis = basis;
            self.repeats.clear();
        }
        let started = Instant::now().into_std();
        let dropped = self.server.udp_dropped();
        for (message, peer) in self.received.iter() {
            let client = match peer.client() {
                Some(client) if !REFLECTORS.contains(&client.port()) => client,
                _ => {
                    dropped.add(&dropped.reflector, 1);
                    continue;
                }
            };
            let reply = self.replies.bytes();
            let place = self.repeats.place(message);
            let start = reply.len();
            let repeated = place.and_then(|place| self.repeats.append(place, message, reply));
            if let Some(counted) = repeated {
                let sizes = (message.len(), reply.len() - start);
                self.server
                    .count(counted, (client, Transport::Udp), sizes, started);
                self.replies.end(&peer);
                continue;
            }
            match self.server.start(message, client, Transport::Udp, reply) {
                Step::Silence => {}
                Step::Replied(reuse, counted) => {
                    if let (Some(place), Some(counted)) = (place, counted) {
                        let reply = (&reply[start..], counted);
                        self.repeats.keep(place, message, reply, reuse);
                    }
                    self.replies.end(&peer);
                }
                Step::Later(later) => {
                    let server = self.server.clone();
                    let datagrams = Rc::clone(&self.datagrams);
                    let given_up = self.waiting.spawn(async move {
                        let mut reply = Vec::new();
                        server.finish(later, &mut reply).await;
                        if !datagrams.try_send(&reply, &peer) {
                            let dropped = server.udp_dropped();
                            dropped.add(&dropped.unsendable, 1);
                        }
                    });
                    dropped.add(&dropped.overload, given_up);
                }
            }
        }
        let lost = self.datagrams.try_send_all(&mut self.replies);
        dropped.add(&dropped.unsendable, lost);
        Ok(())
    }
}

/// Queries that wait for an upstream.
#[derive(Default)]
struct Waiting {
    tasks: TaskTracker,
    /// Those started last, oldest first; some have ended.
    handles: VecDeque<AbortHandle>,
}

impl Waiting {
    /// Starts a task, and ends the oldest if there are too many. Returns how many were ended.
    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) -> u64 {
        let mut ended = 0;
        if self.tasks.len() >= MAX_WAITING {
            while let Some(oldest) = self.handles.pop_front() {
                if !oldest.is_finished() {
                    oldest.abort();
                    ended += 1;
                    break;
                }
            }
        }
        if self.handles.len() >= 2 * MAX_WAITING {
            self.handles.retain(|handle| !handle.is_finished());
        }
        let handle = self.tasks.spawn_local(task);
        self.handles.push_back(handle.abort_handle());
        ended
    }
}
