//! Where a redirected connection was going, which the kernel's connection tracking remembers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{Ip6tOriginalDst, OriginalDst};

/// The destination that the client of an accepted connection dialled, before a `redirect` rule gave
/// it to this listener (`SO_ORIGINAL_DST`). A connection that nothing has redirected has its own
/// local address there. IPv4 in an IPv6 coat is unwrapped.
///
/// # Errors
/// `NotFound` if the kernel does not track the connection, or does not any more.
pub fn original_destination(
    stream: &impl AsFd,
    local_address: SocketAddr,
) -> io::Result<SocketAddr> {
    if local_address.ip().to_canonical().is_ipv4() {
        let found: libc::sockaddr_in = getsockopt(stream, OriginalDst)?;
        let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
        Ok((ip, u16::from_be(found.sin_port)).into())
    } else {
        let found: libc::sockaddr_in6 = getsockopt(stream, Ip6tOriginalDst)?;
        let ip = Ipv6Addr::from(found.sin6_addr.s6_addr);
        Ok((ip.to_canonical(), u16::from_be(found.sin6_port)).into())
    }
}
