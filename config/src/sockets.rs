//! Where sockets are made.
//!
//! A socket belongs to the network namespace of the thread that created it. In `sealane up` the
//! workers live in the cluster's namespace, where pods are, while DNS upstreams, node ports and
//! endpoints outside the cluster belong to the host's: a thread that stayed there makes those
//! sockets and hands them over. Only creating or binding costs the thread hop; connecting and all
//! traffic happen on the worker.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::{mpsc, oneshot};

/// Requests waiting for the factory thread. Each is answered in microseconds.
const QUEUE: usize = 256;

/// Backlog of the listeners made here; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Room of a UDP socket for datagrams that arrive while a worker is busy, bytes; the kernel caps it
/// at `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What kind of socket is wanted.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// An unconnected TCP socket for this address's family.
    Tcp(SocketAddr),
    /// A UDP socket bound to a random port of this address.
    Udp(IpAddr),
    /// A TCP listener with `SO_REUSEPORT`.
    TcpListener(SocketAddr),
    /// A UDP socket bound to this address, with `SO_REUSEPORT`.
    UdpListener(SocketAddr),
}

struct Request {
    wanted: Wanted,
    reply: oneshot::Sender<io::Result<Socket>>,
}

/// Makes sockets in the namespace that leads out of the cluster.
#[derive(Clone, Debug)]
pub struct HostSockets {
    /// `None`: the calling thread is in the right namespace already.
    thread: Option<mpsc::Sender<Request>>,
    /// `SO_MARK` of TCP sockets that the calling thread makes.
    mark: Option<u32>,
}

impl HostSockets {
    /// Sockets are made by the calling thread: on a real cluster, and in loopback mode.
    pub fn here() -> Self {
        Self {
            thread: None,
            mark: None,
        }
    }

    /// The same, and TCP sockets carry a mark by which rules of the kernel know them.
    ///
    /// # Errors
    /// `PermissionDenied`: setting a mark takes `CAP_NET_ADMIN`.
    pub fn marked(mark: u32) -> io::Result<Self> {
        tcp((Ipv4Addr::LOCALHOST, 0).into(), Some(mark))?;
        Ok(Self {
            thread: None,
            mark: Some(mark),
        })
    }

    /// Starts a thread that makes sockets in the namespace of the caller. It ends with the last
    /// clone of the returned handle.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn spawn() -> io::Result<Self> {
        let (sender, mut requests) = mpsc::channel::<Request>(QUEUE);
        std::thread::Builder::new()
            .name("host-sockets".into())
            .spawn(move || {
                while let Some(request) = requests.blocking_recv() {
                    // The requester may have given up; then the socket is just closed.
                    let _ = request.reply.send(make(request.wanted, None));
                }
            })?;
        Ok(Self {
            thread: Some(sender),
            mark: None,
        })
    }

    /// An unconnected, non-blocking TCP socket that can connect to `peer`.
    ///
    /// # Errors
    /// The system call's error, or `BrokenPipe` if the thread is gone.
    pub async fn tcp(&self, peer: SocketAddr) -> io::Result<Socket> {
        self.get(Wanted::Tcp(peer)).await
    }

    /// A non-blocking UDP socket on a port that the kernel chose at random, not connected.
    ///
    /// # Errors
    /// As for [`Self::tcp`].
    pub async fn udp(&self, peer: SocketAddr) -> io::Result<std::net::UdpSocket> {
        let any = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.udp_from(any).await
    }

    /// The same, on a random port of one of our addresses.
    ///
    /// # Errors
    /// As for [`Self::tcp`]; `AddrNotAvailable` if it is none of ours.
    pub async fn udp_from(&self, source: IpAddr) -> io::Result<std::net::UdpSocket> {
        self.get(Wanted::Udp(source)).await.map(Into::into)
    }

    /// A non-blocking TCP listener with `SO_REUSEPORT`, so that each worker can have its own.
    ///
    /// # Errors
    /// As for [`Self::tcp`]; `AddrInUse` if another process has the address.
    pub async fn tcp_listener(&self, addr: SocketAddr) -> io::Result<std::net::TcpListener> {
        self.get(Wanted::TcpListener(addr)).await.map(Into::into)
    }

    /// A non-blocking UDP socket on this address with `SO_REUSEPORT`, so that each worker can have its
    /// own.
    ///
    /// # Errors
    /// As for [`Self::tcp_listener`].
    pub async fn udp_listener(&self, addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
        self.get(Wanted::UdpListener(addr)).await.map(Into::into)
    }

    async fn get(&self, wanted: Wanted) -> io::Result<Socket> {
        let Some(thread) = &self.thread else {
            return make(wanted, self.mark);
        };
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the socket thread ended");
        let (reply, answer) = oneshot::channel();
        thread
            .send(Request { wanted, reply })
            .await
            .map_err(|_closed| gone())?;
        answer.await.map_err(|_closed| gone())?
    }
}

fn tcp(peer: SocketAddr, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}

fn make(wanted: Wanted, mark: Option<u32>) -> io::Result<Socket> {
    match wanted {
        Wanted::Tcp(peer) => tcp(peer, mark),
        Wanted::Udp(source) => {
            let source = SocketAddr::from((source, 0));
            let socket = Socket::new(
                Domain::for_address(source),
                Type::DGRAM,
                Some(Protocol::UDP),
            )?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::from(source))?;
            Ok(socket)
        }
        Wanted::TcpListener(addr) => tcp_listener(addr),
        Wanted::UdpListener(addr) => {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_port(true)?;
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            if addr.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&SockAddr::from(addr))?;
            Ok(socket)
        }
    }
}

/// A non-blocking TCP listener with `SO_REUSEPORT` and `SO_REUSEADDR`, made by the calling thread.
///
/// # Errors
/// The system call's error.
pub fn tcp_listener(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_makes_sockets_that_work_here() {
        for sockets in [HostSockets::here(), HostSockets::spawn().unwrap()] {
            let listener = sockets
                .tcp_listener((Ipv4Addr::LOCALHOST, 0).into())
                .await
                .unwrap();
            let addr = listener.local_addr().unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let socket = sockets.tcp(addr).await.unwrap();
            let client = tokio::net::TcpSocket::from_std_stream(socket.into()).connect(addr);
            let (client, accepted) = tokio::join!(client, listener.accept());
            assert_eq!(client.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        }
    }
}
