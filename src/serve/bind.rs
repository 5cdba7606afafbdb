//! Sockets that others see, bound before anything else starts: a taken port is an error while there is
//! nothing to undo yet, and after `up` entered its own namespaces it is too late.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use sealane_config::sockets::tcp_listener;
use sealane_dns::config::{Scheme, Timeouts};
use sealane_dns::{Listener, TlsIdentity};
use sealane_ingress::http3;
use socket2::{Domain, Protocol, Socket, Type};

use crate::exit::Failure;

/// Receive buffer of a DNS socket, bytes: a burst of queries while the worker is busy.
const UDP_BUFFER: usize = 1 << 20;

/// What one worker's gateway listens on.
#[derive(Debug)]
pub(crate) struct GatewaySockets {
    /// Plain.
    pub(crate) http: TcpListener,
    /// TLS.
    pub(crate) https: TcpListener,
    /// A part of what comes to the socket of HTTP/3, if that is served.
    pub(crate) http3: Option<http3::Share>,
}

/// What one worker's DNS listens on at one address.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    /// Which server blocks answer.
    pub(crate) listener: Listener,
    /// The address.
    pub(crate) addr: SocketAddr,
    /// Datagrams, if the listener takes such.
    pub(crate) udp: Option<UdpSocket>,
    /// Connections, if the listener takes such.
    pub(crate) tcp: Option<TcpListener>,
    /// How long clients' connections are waited for.
    pub(crate) timeouts: Option<Timeouts>,
    /// The certificate, of listeners that need one.
    pub(crate) identity: Option<TlsIdentity>,
}

/// The gateway's listeners, a pair for each worker that share the ports by `SO_REUSEPORT`. The
/// addresses are those that they really got: a port given as 0 is chosen by the kernel.
#[derive(Debug)]
pub(crate) struct GatewayListeners {
    /// Plain.
    pub(crate) http: SocketAddr,
    /// TLS.
    pub(crate) https: SocketAddr,
    /// For the workers.
    pub(crate) sockets: Vec<GatewaySockets>,
}

/// The sockets of DNS, a pair for each worker.
#[derive(Debug)]
pub(crate) struct DnsListeners {
    /// UDP and TCP.
    pub(crate) addr: SocketAddr,
    /// For the workers.
    pub(crate) sockets: Vec<DnsSockets>,
}

/// Binds, and gathers what cannot be bound.
#[derive(Debug, Default)]
pub(crate) struct Binder {
    problems: Vec<String>,
}

impl Binder {
    /// The gateway's addresses, flags `--http` and `--https`; the latter for UDP, too, with `http3`.
    pub(crate) fn gateway(
        &mut self,
        http: SocketAddr,
        https: SocketAddr,
        http3: bool,
        workers: usize,
    ) -> Option<GatewayListeners> {
        let plain = shared(http, workers, tcp_listener);
        let plain = self.keep(plain, "--http", http);
        let tls = tls_listeners(https, http3, workers);
        let tls = self.keep(tls, "--https", https);
        let ((http, plain), (https, tls)) = (plain?, tls?);
        let sockets = plain.into_iter().zip(tls);
        let sockets = sockets.map(|(http, (https, http3))| GatewaySockets {
            http: http.into(),
            https: https.into(),
            http3,
        });
        Some(GatewayListeners {
            http,
            https,
            sockets: sockets.collect(),
        })
    }

    /// The address of DNS, flag `--dns`.
    pub(crate) fn dns(&mut self, addr: SocketAddr, workers: usize) -> Option<DnsListeners> {
        let (addr, sockets) = self.keep(dns(addr, workers), "--dns", addr)?;
        let sockets = sockets.into_iter().map(|(udp, tcp)| DnsSockets {
            listener: Listener::CLUSTER,
            addr,
            udp: Some(udp.into()),
            tcp: Some(tcp.into()),
            timeouts: None,
            identity: None,
        });
        Some(DnsListeners {
            addr,
            sockets: sockets.collect(),
        })
    }

    /// One listener for control work.
    pub(crate) fn control(&mut self, flag: &str, addr: SocketAddr) -> Option<TcpListener> {
        let (_, sockets) = self.keep(shared(addr, 1, unshared), flag, addr)?;
        sockets.into_iter().next().map(Into::into)
    }

    /// The listeners, if all of them could be bound.
    ///
    /// # Errors
    /// Every address that cannot be bound, a line each, with the flag that changes it.
    pub(crate) fn finish<T>(self, bound: Option<T>) -> Result<T, Failure> {
        bound
            .filter(|_| self.problems.is_empty())
            .ok_or(Failure::Input(self.problems))
    }

    fn keep<S>(
        &mut self,
        result: io::Result<Bound<S>>,
        flag: &str,
        addr: SocketAddr,
    ) -> Option<Bound<S>> {
        let error = match result {
            Ok(bound) => return Some(bound),
            Err(error) => error,
        };
        self.problems.push(problem(addr, &error, flag));
        None
    }
}

/// Why there is no listener, and which flag or line changes that.
pub(crate) fn problem(addr: SocketAddr, error: &io::Error, changed_by: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{addr} is taken by another program: stop it, or give another address with {changed_by}"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "cannot listen on {addr}: {error}; ports below 1024 take CAP_NET_BIND_SERVICE, \
             or give another address with {changed_by}"
        ),
        _ => format!("cannot listen on {addr}: {error}; change it with {changed_by}"),
    }
}

type Bound<S> = (SocketAddr, Vec<S>);

/// Ports that are tried where the kernel chooses and both UDP and TCP are needed: it chooses for one, and
/// the other may have the same number in use.
const TRIES: usize = 16;

/// Listeners for TLS, one for each worker, and with `http3` a part in one UDP socket on their port.
fn tls_listeners(
    wanted: SocketAddr,
    http3: bool,
    workers: usize,
) -> io::Result<Bound<(Socket, Option<http3::Share>)>> {
    let mut tries = if wanted.port() == 0 { TRIES } else { 1 };
    loop {
        let (addr, tcp) = shared(wanted, workers, tcp_listener)?;
        if !http3 {
            return Ok((addr, tcp.into_iter().map(|tcp| (tcp, None)).collect()));
        }
        tries -= 1;
        match quic_socket(addr) {
            Ok(udp) => {
                let shares = http3::distribute(udp.into(), workers, http3::Limits::default())?;
                let pairs = tcp.into_iter().zip(shares.into_iter().map(Some));
                return Ok((addr, pairs.collect()));
            }
            Err(_) if tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// UDP and TCP sockets of the same number, a pair for each worker.
fn dns(wanted: SocketAddr, workers: usize) -> io::Result<Bound<(Socket, Socket)>> {
    let mut tries = if wanted.port() == 0 { TRIES } else { 1 };
    loop {
        let (addr, udp) = shared(wanted, workers, udp_socket)?;
        tries -= 1;
        match shared(addr, workers, tcp_listener) {
            Ok((_, tcp)) => return Ok((addr, udp.into_iter().zip(tcp).collect())),
            Err(_) if tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a listener has at an address on one worker: for datagrams, for connections.
pub(crate) type NameSockets = (Option<UdpSocket>, Option<TcpListener>);

/// The sockets of a listener at an address, for each worker. Unless it `may_share` the port, nobody
/// else may have it.
///
/// # Errors
/// The system call's error.
pub(crate) fn name_sockets(
    scheme: Scheme,
    addr: SocketAddr,
    workers: usize,
    may_share: bool,
) -> io::Result<Vec<NameSockets>> {
    let many = |make: fn(SocketAddr) -> io::Result<Socket>| match may_share {
        true => (0..workers).map(|_| make(addr)).collect(),
        false => shared(addr, workers, make).map(|(_, sockets)| sockets),
    };
    let udp = match scheme {
        Scheme::Dns | Scheme::Quic => many(udp_socket)?,
        Scheme::Tls | Scheme::Https => Vec::new(),
    };
    let tcp = match scheme {
        Scheme::Dns | Scheme::Tls | Scheme::Https => many(tcp_listener)?,
        Scheme::Quic => Vec::new(),
    };
    let (mut udp, mut tcp) = (udp.into_iter(), tcp.into_iter());
    let pairs = (0..workers).map(|_| (udp.next().map(Into::into), tcp.next().map(Into::into)));
    Ok(pairs.collect())
}

/// One socket a worker on the same port. The first one decides the port, and it must be free: with
/// `SO_REUSEPORT` alone a second instance of the same user would silently share it.
fn shared(
    addr: SocketAddr,
    count: usize,
    make: impl Fn(SocketAddr) -> io::Result<Socket>,
) -> io::Result<Bound<Socket>> {
    drop(probe(addr, &make)?);
    let mut sockets = Vec::with_capacity(count);
    let mut addr = addr;
    for _ in 0..count {
        let socket = make(addr)?;
        if let Some(bound) = socket.local_addr()?.as_socket() {
            addr = bound;
        }
        sockets.push(socket);
    }
    Ok((addr, sockets))
}

/// Binds without `SO_REUSEPORT` once, to find out whether somebody else has the port.
fn probe(
    addr: SocketAddr,
    make: &impl Fn(SocketAddr) -> io::Result<Socket>,
) -> io::Result<Option<Socket>> {
    if addr.port() == 0 {
        return Ok(None);
    }
    let kind = make((addr.ip(), 0).into())?.r#type()?;
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    if kind == Type::STREAM {
        // Old connections in TIME_WAIT do not count as taken.
        socket.set_reuse_address(true)?;
    }
    if addr.is_ipv6() {
        // As the listener: the IPv4 wildcard address may be its neighbour's.
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(Some(socket))
}

/// A listener for control work. The IPv6 wildcard address takes IPv4, too, as Go's listeners do.
///
/// # Errors
/// The system call's error.
pub(crate) fn unshared(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(128)?;
    Ok(socket)
}

/// A UDP socket that shares its port with the other workers, made by the calling thread.
///
/// # Errors
/// The system call's error.
pub(crate) fn udp_socket(addr: SocketAddr) -> io::Result<Socket> {
    datagrams(addr, true)
}

/// The one UDP socket of HTTP/3.
fn quic_socket(addr: SocketAddr) -> io::Result<Socket> {
    datagrams(addr, false)
}

fn datagrams(addr: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_recv_buffer_size(UDP_BUFFER)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}
