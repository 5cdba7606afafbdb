//! The table `inet sealane-pod`: interception within a pod's own network namespace, by REDIRECT.
//!
//! The proxy of a pod runs without privileges, so the rules are written once, before it starts, and
//! never follow the snapshot. They hold four things:
//!
//! - the proxy's own connections are left alone, known by its user and by a mark: whatever it dials
//!   would otherwise come back to it
//! - connections within the pod (`lo`) are left alone, those to its own address among them. One to a
//!   Service leaves by another device, whichever endpoint it will get, and is taken (S22)
//! - outbound connections go to the proxy's loopback port, which nobody outside the pod can dial
//! - inbound connections go to the proxy only if the pod has a socket for them. What nobody listens
//!   on is refused by the kernel as it would be without a proxy, so that a TCP probe tells the truth
//!
//! What a connection was for is asked of connection tracking (`SO_ORIGINAL_DST`). UDP is left alone.
//!
//! Chain priorities are numbers: nft's name for -100 is not accepted on every hook (I9).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::netlink::{Batch, NfTables};
use super::original::original_destination;
use super::rule::{Family, Rule};
use super::table::{self, LOOPBACK, NAT_PRIORITY};
use super::{InterceptError, unsupported};

const TABLE: &str = "sealane-pod";
const INBOUND: &str = "prerouting";
const OUTBOUND: &str = "output";

/// The port of [`PROBES`]: discard.
const DISCARD: u16 = 9;

/// Destinations that nobody has (RFC 5737, RFC 6666), for [`probe`].
const PROBES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)),
];

/// What to redirect in a pod.
#[derive(Clone, Debug)]
pub struct RedirectOptions {
    /// The proxy's port for connections to the pod, on all addresses.
    pub inbound_port: u16,
    /// The proxy's port for connections from the pod, on the loopback addresses.
    pub outbound_port: u16,
    /// The user that the proxy runs as.
    pub proxy_uid: u32,
    /// The mark of the proxy's connections, if it may set one.
    pub mark: u32,
    /// Connections to these ports of the pod go to the application itself.
    pub skip_inbound_ports: Vec<RangeInclusive<u16>>,
    /// Connections to these ports go out unchanged.
    pub skip_outbound_ports: Vec<RangeInclusive<u16>>,
    /// Connections to addresses in these go out unchanged.
    pub skip_outbound_cidrs: Vec<IpNet>,
}

/// Writes the table into the calling thread's namespace, in place of one that is there: one
/// transaction, so that there is no moment without rules.
///
/// Returns whether the kernel refuses inbound connections that nobody in the pod listens for. Without
/// `nft_socket` the proxy takes them too, and resets them.
///
/// # Errors
/// The kernel refused, or no netlink socket could be made.
pub fn install(options: &RedirectOptions) -> Result<bool, InterceptError> {
    let mut kernel = NfTables::open().map_err(InterceptError::Netlink)?;
    let written = kernel.transaction(|batch| create(batch, options, true));
    match written.map_err(unsupported) {
        Ok(()) => Ok(true),
        Err(InterceptError::Unsupported(_)) => {
            let written = kernel.transaction(|batch| create(batch, options, false));
            written.map_err(unsupported).map(|()| false)
        }
        Err(error) => Err(error),
    }
}

/// Removes the table from the calling thread's namespace. Not having it is no error.
///
/// # Errors
/// The kernel refused, or no netlink socket could be made.
pub fn remove() -> Result<(), InterceptError> {
    let mut kernel = NfTables::open().map_err(InterceptError::Netlink)?;
    kernel.transaction(|batch| table::remove(batch, TABLE))
}

fn create(batch: &mut Batch, options: &RedirectOptions, only_for_sockets: bool) {
    table::remove(batch, TABLE);
    table::create_table(batch, TABLE);
    for (chain, hook) in [
        (INBOUND, libc::NF_INET_PRE_ROUTING),
        (OUTBOUND, libc::NF_INET_LOCAL_OUT),
    ] {
        table::base_chain(batch, TABLE, chain, "nat", (hook, NAT_PRIORITY));
    }
    let mut add = |chain, rule: Rule| table::add_rule(batch, TABLE, chain, &rule);
    let rule = Rule::default;

    add(INBOUND, rule().input_device(LOOPBACK).accept());
    for ports in &options.skip_inbound_ports {
        add(INBOUND, rule().tcp().destination_port_in(ports).accept());
    }
    let taken = if only_for_sockets {
        rule().tcp().for_a_socket()
    } else {
        rule().tcp()
    };
    add(INBOUND, taken.redirect(options.inbound_port));

    add(OUTBOUND, rule().user(options.proxy_uid).accept());
    add(OUTBOUND, rule().marked(options.mark).accept());
    add(OUTBOUND, rule().output_device(LOOPBACK).accept());
    for ports in &options.skip_outbound_ports {
        add(OUTBOUND, rule().tcp().destination_port_in(ports).accept());
    }
    for cidr in &options.skip_outbound_cidrs {
        let family = rule().family(Family::of(cidr.addr()));
        add(OUTBOUND, table::within(family, cidr).accept());
    }
    add(OUTBOUND, rule().tcp().redirect(options.outbound_port));
}

/// What became of a connection to an address that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It arrived at the proxy's port, with its original destination known.
    Redirected,
    /// It did not arrive there.
    Passed,
    /// The namespace has no route for this family, so that no connection leaves it at all.
    NoRoute,
    /// Every address that could be tried is one to be skipped.
    Skipped,
}

/// Finds out whether connections from the calling thread's namespace are redirected, with a real one
/// for each family: IPv4, then IPv6. `socket` makes the one that dials; the proxy's own must not come
/// back to it, any other has to.
///
/// Listens on the outbound port meanwhile, which therefore has to be free. Takes up to `patience` for a
/// family whose connections are not redirected.
///
/// # Errors
/// `AddrInUse` if the proxy runs already, or another system call's error.
pub fn probe(
    options: &RedirectOptions,
    socket: impl Fn(SocketAddr) -> io::Result<Socket>,
    patience: Duration,
) -> io::Result<[Probe; 2]> {
    let mut outcome = [Probe::NoRoute; 2];
    for (family, loopback) in [
        (Family::V4, IpAddr::V4(Ipv4Addr::LOCALHOST)),
        (Family::V6, IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ] {
        let listener = match TcpListener::bind((loopback, options.outbound_port)) {
            Ok(listener) => listener,
            // This pod has no IPv6.
            Err(error) if family == Family::V6 && is_without_family(&error) => continue,
            Err(error) => return Err(error),
        };
        outcome[usize::from(family == Family::V6)] = match probe_destination(options, family) {
            Some(target) => dial(&listener, &socket(target)?, target, patience)?,
            None => Probe::Skipped,
        };
    }
    Ok(outcome)
}

/// Binding an address of a family that the namespace does not have.
pub(crate) fn is_without_family(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(libc::EAFNOSUPPORT) || code == Some(libc::EADDRNOTAVAIL)
}

/// An address that is redirected, if rules are in force.
fn probe_destination(options: &RedirectOptions, family: Family) -> Option<SocketAddr> {
    let skipped = |ip: &IpAddr| options.skip_outbound_cidrs.iter().any(|c| c.contains(ip));
    let mut candidates = PROBES.iter().filter(|ip| Family::of(**ip) == family);
    let ip = candidates.find(|ip| !skipped(ip))?;
    let mut ports = (DISCARD..=u16::MAX).chain(1..DISCARD);
    let skipped = |port: &u16| options.skip_outbound_ports.iter().any(|p| p.contains(port));
    let port = ports.find(|port| !skipped(port))?;
    Some(SocketAddr::new(*ip, port))
}

fn dial(
    listener: &TcpListener,
    socket: &Socket,
    target: SocketAddr,
    patience: Duration,
) -> io::Result<Probe> {
    listener.set_nonblocking(true)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(target)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) if is_unroutable(&error) => return Ok(Probe::NoRoute),
        // Refused by whoever is on the way: it was not redirected.
        Err(_refused) => return Ok(Probe::Passed),
    }
    let dialled_from = socket.local_addr()?.as_socket();
    let until = Instant::now() + patience;
    loop {
        match listener.accept() {
            // Others than ours may come in, too.
            Ok((accepted, peer)) if Some(peer) == dialled_from => {
                let found = original_destination(&accepted, accepted.local_addr()?);
                return Ok(match found {
                    Ok(original) if original == target => Probe::Redirected,
                    _ => Probe::Passed,
                });
            }
            Ok(_other) => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Probe::Passed);
        }
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(
            &mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)],
            left,
        )?;
    }
}

fn is_unroutable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
    )
}

/// A socket as any program of the pod would make it, for [`probe`].
///
/// # Errors
/// The system call's error.
pub fn plain_socket(peer: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))
}
