//! Ports for programs that have to be told theirs.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that is free on UDP and TCP of every IPv4 address. It is below the range of outgoing
/// connections, so that none of them takes it before it is used, and another one every time.
pub fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let number = std::process::id().wrapping_mul(64).wrapping_add(number);
        let port = 10_000 + (number % 20_000) as u16;
        let addr = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() {
            return port;
        }
    }
}
