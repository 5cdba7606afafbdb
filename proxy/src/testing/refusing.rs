//! Nobody at an address.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A loopback address that refuses connections. It is bound, so that nobody else gets its port while this
/// lives, and not listened on.
pub struct Refusing {
    /// Where nobody is.
    pub addr: SocketAddr,
    _socket: TcpSocket,
}

impl Refusing {
    /// An address of its own.
    pub fn bind() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self {
            addr: socket.local_addr().unwrap(),
            _socket: socket,
        }
    }
}
