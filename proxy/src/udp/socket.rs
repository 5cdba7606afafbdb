//! The sockets of UDP: where clients' datagrams arrive, where replies leave from, and the one that a
//! flow has to its endpoint.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use sealane_config::model::{ClientAddr, EndpointAddr, VipAddr};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Room for datagrams that have arrived while the worker was busy, bytes; the kernel caps it at
/// `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 1 << 20;

fn socket(for_addr: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(for_addr);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn set_transparent(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    if addr.is_ipv4() {
        socket.set_ip_transparent_v4(true)
    } else {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)
    }
}

/// Takes the datagrams that are intercepted, each with the address that its sender dialled. With
/// `SO_REUSEPORT`: every worker has one, and the datagrams of one flow go to the same worker for as
/// long as there are as many.
pub(super) fn intercepting(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(addr)?;
    socket.set_reuse_port(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    set_transparent(&socket, addr)?;
    if addr.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?;
    }
    socket.bind(&SockAddr::from(addr))?;
    Ok(socket.into())
}

/// Sends from an address of a Service. Other workers have one, too, and other programs may listen on
/// that port of every address (`SO_REUSEADDR` on both sides): what arrives here is none of theirs,
/// because an address is chosen over a wildcard.
pub(super) fn replying(vip: VipAddr) -> io::Result<UdpSocket> {
    let socket = socket(vip.0)?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    set_transparent(&socket, vip.0)?;
    socket.bind(&SockAddr::from(vip.0))?;
    Ok(socket.into())
}

/// Leads to an endpoint from the client's own address and, unless another flow of this client has
/// it, the client's own port: a conversation goes on under the same four numbers when this program
/// is started again.
pub(super) fn from_client(client: ClientAddr, endpoint: EndpointAddr) -> io::Result<UdpSocket> {
    let own_port = bound_to(client.0);
    let bound = own_port.or_else(|error| match error.kind() {
        // Ports below 1024 may take CAP_NET_BIND_SERVICE.
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => {
            bound_to(SocketAddr::new(client.0.ip(), 0))
        }
        _ => Err(error),
    })?;
    bound.connect(&SockAddr::from(endpoint.socket()))?;
    Ok(bound.into())
}

fn bound_to(addr: SocketAddr) -> io::Result<Socket> {
    let socket = socket(addr)?;
    set_transparent(&socket, addr)?;
    socket.bind(&SockAddr::from(addr))?;
    Ok(socket)
}
