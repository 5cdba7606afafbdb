//! Sockets that the host sees, bound before anything else starts: a taken port is an error while
//! there is nothing to undo yet, and after the process entered its own namespaces it is too late.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use sealane_config::sockets::tcp_listener;
use socket2::{Domain, Protocol, Socket, Type};

use super::settings::Settings;
use crate::exit::Failure;

/// Receive buffer of a DNS socket, bytes: a burst of queries while the worker is busy.
const UDP_BUFFER: usize = 1 << 20;

/// What one worker listens on at the host's side.
#[derive(Debug)]
pub(crate) struct WorkerSockets {
    /// Gateway, plain.
    pub(crate) http: TcpListener,
    /// Gateway, TLS.
    pub(crate) https: TcpListener,
    /// DNS over UDP.
    pub(crate) dns_udp: UdpSocket,
    /// DNS over TCP.
    pub(crate) dns_tcp: TcpListener,
}

/// Every socket that the host sees, and the addresses they really got (a port given as 0 is chosen
/// by the kernel).
#[derive(Debug)]
pub(crate) struct HostListeners {
    /// A set for each worker, sharing the ports by `SO_REUSEPORT`.
    pub(crate) workers: Vec<WorkerSockets>,
    /// The Kubernetes API, or the node's own for a joined control plane.
    pub(crate) api: TcpListener,
    /// Gateway, plain.
    pub(crate) http: SocketAddr,
    /// Gateway, TLS.
    pub(crate) https: SocketAddr,
    /// DNS, UDP and TCP.
    pub(crate) dns: SocketAddr,
}

/// Binds everything.
///
/// # Errors
/// Every address that cannot be bound, a line each, with the flag that changes it.
pub(crate) fn bind(settings: &Settings) -> Result<HostListeners, Failure> {
    let mut problems = Vec::new();
    let http = shared(settings.http, settings.workers, tcp_listener);
    let http = keep(http, "--http", settings.http, &mut problems);
    let https = shared(settings.https, settings.workers, tcp_listener);
    let https = keep(https, "--https", settings.https, &mut problems);
    let names = keep(dns(settings), "--dns", settings.dns, &mut problems);
    let api = shared(settings.api, 1, unshared);
    let api = keep(api, "--api", settings.api, &mut problems);
    let (Some(http), Some(https), Some(names), Some(mut api)) = (http, https, names, api) else {
        return Err(Failure::Input(problems));
    };
    let workers = http.1.into_iter().zip(https.1).zip(names.1);
    let workers = workers.map(|((http, https), (udp, tcp))| WorkerSockets {
        http: http.into(),
        https: https.into(),
        dns_udp: udp.into(),
        dns_tcp: tcp.into(),
    });
    let Some(api) = api.1.pop() else {
        return Err(Failure::Input(problems));
    };
    Ok(HostListeners {
        workers: workers.collect(),
        api: api.into(),
        http: http.0,
        https: https.0,
        dns: names.0,
    })
}

type Bound<S> = (SocketAddr, Vec<S>);

/// Ports that are tried for DNS where the kernel chooses: it chooses for UDP, and TCP may have the
/// same number in use.
const DNS_TRIES: usize = 16;

/// UDP and TCP sockets of the same number, a pair for each worker.
fn dns(settings: &Settings) -> io::Result<Bound<(Socket, Socket)>> {
    let mut tries = if settings.dns.port() == 0 {
        DNS_TRIES
    } else {
        1
    };
    loop {
        let (addr, udp) = shared(settings.dns, settings.workers, udp_socket)?;
        tries -= 1;
        match shared(addr, settings.workers, tcp_listener) {
            Ok((_, tcp)) => return Ok((addr, udp.into_iter().zip(tcp).collect())),
            Err(_) if tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
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
    socket.bind(&addr.into())?;
    Ok(Some(socket))
}

fn unshared(addr: SocketAddr) -> io::Result<Socket> {
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
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    socket.set_recv_buffer_size(UDP_BUFFER)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn keep<S>(
    result: io::Result<Bound<S>>,
    flag: &str,
    addr: SocketAddr,
    problems: &mut Vec<String>,
) -> Option<Bound<S>> {
    match result {
        Ok(bound) => Some(bound),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            problems.push(format!(
                "{addr} is taken by another program: stop it, or give another address with {flag}"
            ));
            None
        }
        Err(error) => {
            problems.push(format!(
                "cannot listen on {addr}: {error}; change it with {flag}"
            ));
            None
        }
    }
}
