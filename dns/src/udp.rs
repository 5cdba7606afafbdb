//! DNS over UDP.
//!
//! One loop a socket: wait until it is readable, answer up to [`BATCH`] datagrams, let other tasks
//! run. Queries that need an upstream become tasks, at most as many as the forwarder lets wait.
//! A reply that the socket's buffer has no room for is dropped, as the network would.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::encode::Transport;
use crate::server::{Front, Step};

mod datagrams;

use datagrams::Datagrams;

/// Datagrams answered before other tasks run.
const BATCH: usize = 64;
/// Largest query that is read. What is longer is cut off, so that it is malformed.
const DATAGRAM: usize = 4096;
/// Ports from which no query comes, but from which something answers whatever it is sent: none, echo,
/// daytime, qotd, chargen and other name servers. A reply could go back and forth for ever.
const REFLECTORS: [u16; 6] = [0, 7, 13, 17, 19, 53];
/// How long queries may wait for an upstream after shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// At shutdown, how long nothing may arrive before the socket counts as empty.
const QUIET: Duration = Duration::from_millis(20);
/// How long nothing is received after an error of the socket, so that one that stays does not spin.
const PAUSE: Duration = Duration::from_millis(10);

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
    let worker = Worker {
        server,
        datagrams: Rc::new(Datagrams::new(socket)?),
        waiting: TaskTracker::new(),
    };
    let mut buffer = vec![0; DATAGRAM];
    let mut reply = Vec::with_capacity(DATAGRAM);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            ready = worker.datagrams.readable() => ready?,
        }
        match worker.answer_batch(&mut buffer, &mut reply) {
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
        while Instant::now() < end && worker.answer_batch(&mut buffer, &mut reply).is_ok() {}
    }
    worker.waiting.close();
    // What is still waiting is given up.
    let _ = timeout(GRACE, worker.waiting.wait()).await;
    Ok(())
}

struct Worker {
    server: Front,
    datagrams: Rc<Datagrams>,
    waiting: TaskTracker,
}

impl Worker {
    /// Answers datagrams that have arrived. `WouldBlock` once there are none left.
    fn answer_batch(&self, buffer: &mut [u8], reply: &mut Vec<u8>) -> io::Result<()> {
        for _ in 0..BATCH {
            let (length, peer) = self.datagrams.try_receive(buffer)?;
            reply.clear();
            if REFLECTORS.contains(&peer.addr.port()) {
                continue;
            }
            let message = &buffer[..length];
            match self.server.start(message, peer.addr, Transport::Udp, reply) {
                Step::Silence => {}
                Step::Replied => self.datagrams.try_send(reply, &peer),
                Step::Later(later) => {
                    let server = self.server.clone();
                    let datagrams = Rc::clone(&self.datagrams);
                    self.waiting.spawn_local(async move {
                        let mut reply = Vec::new();
                        server.finish(later, &mut reply).await;
                        datagrams.try_send(&reply, &peer);
                    });
                }
            }
        }
        Ok(())
    }
}
