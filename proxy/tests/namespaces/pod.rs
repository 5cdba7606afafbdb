//! A pod's own namespace: the rules of `sealane init`.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sealane_proxy::intercept::original_destination;
use sealane_proxy::intercept::redirect::{
    Probe, RedirectOptions, install, plain_socket, probe, remove,
};

use crate::world::{Pod, TIMEOUT, v6};

pub(crate) const INBOUND: u16 = 15006;
pub(crate) const OUTBOUND: u16 = 15001;
pub(crate) const MARK: u32 = 0x534d;

/// How long a connection that is not redirected is waited for.
const PATIENCE: Duration = Duration::from_millis(200);

pub(crate) fn options() -> RedirectOptions {
    RedirectOptions {
        inbound_port: INBOUND,
        outbound_port: OUTBOUND,
        // Nobody here.
        proxy_uid: 65532,
        mark: MARK,
        skip_inbound_ports: Vec::new(),
        skip_outbound_ports: Vec::new(),
        skip_outbound_cidrs: Vec::new(),
    }
}

fn install_in(pod: &Pod, options: &RedirectOptions) {
    let options = options.clone();
    assert!(pod.run(move || install(&options).unwrap()), "nft_socket");
}

fn probe_in(pod: &Pod, options: &RedirectOptions) -> [Probe; 2] {
    let options = options.clone();
    pod.run(move || probe(&options, plain_socket, PATIENCE).unwrap())
}

fn listen(pod: &Pod, addr: impl Into<SocketAddr>) -> TcpListener {
    let addr = addr.into();
    pod.run(move || {
        let listener = TcpListener::bind(addr).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    })
}

/// What the next connection was for, and who dialled.
fn next(listener: &TcpListener) -> Option<(SocketAddr, SocketAddr)> {
    let begun = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let local = stream.local_addr().unwrap();
                return Some((original_destination(&stream, local).unwrap_or(local), peer));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn proxy_i3_rules_are_idempotent_proved_and_removed() {
    let Some((pod, peer)) = Pod::with_peer() else {
        return;
    };
    assert_eq!(probe_in(&pod, &options()), [Probe::Passed; 2]);
    assert_eq!(probe_in(&peer, &options()), [Probe::NoRoute; 2]);
    for _ in 0..3 {
        install_in(&pod, &options());
        assert_eq!(probe_in(&pod, &options()), [Probe::Redirected; 2]);
    }
    for _ in 0..2 {
        pod.run(|| remove().unwrap());
        assert_eq!(probe_in(&pod, &options()), [Probe::Passed; 2]);
    }
}

#[test]
fn proxy_i9_rules_are_written_in_one_transaction_and_proved_within_fifty_milliseconds() {
    let Some((pod, _peer)) = Pod::with_peer() else {
        return;
    };
    let mut options = options();
    options.skip_outbound_ports = (1..100).map(|port| port * 100..=port * 100 + 9).collect();
    let fastest = (0..5)
        .map(|_| {
            let options = options.clone();
            pod.run(move || {
                let begun = Instant::now();
                install(&options).unwrap();
                assert_eq!(
                    probe(&options, plain_socket, PATIENCE).unwrap(),
                    [Probe::Redirected; 2]
                );
                begun.elapsed()
            })
        })
        .min();
    assert!(fastest.unwrap() < Duration::from_millis(50), "{fastest:?}");
}

#[test]
fn proxy_i4_the_original_destination_is_known_in_both_families_and_directions() {
    let Some((pod, peer)) = Pod::with_peer() else {
        return;
    };
    install_in(&pod, &options());
    let outside: [IpAddr; 2] = [
        Ipv4Addr::new(192, 0, 2, 7).into(),
        "2001:db8::7".parse().unwrap(),
    ];
    let own = [pod.ip, v6(1)];
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for family in [0, 1] {
        let outbound = listen(&pod, (loopback[family], OUTBOUND));
        let dialled = SocketAddr::new(outside[family], 443);
        let client = pod.connect(dialled).unwrap();
        let seen = next(&outbound).unwrap();
        assert_eq!(seen, (dialled, client.local_addr().unwrap()));

        let inbound = listen(&pod, (any[family], INBOUND));
        let _app = listen(&pod, (own[family], 8000));
        let dialled = SocketAddr::new(own[family], 8000);
        let client = peer.connect(dialled).unwrap();
        let seen = next(&inbound).unwrap();
        assert_eq!(seen, (dialled, client.local_addr().unwrap()));
    }
}

#[test]
fn proxy_s4_inbound_ports_that_nobody_listens_on_are_refused_by_the_kernel() {
    let Some((pod, peer)) = Pod::with_peer() else {
        return;
    };
    install_in(&pod, &options());
    let inbound = listen(&pod, (Ipv4Addr::UNSPECIFIED, INBOUND));
    let dial = || peer.connect((pod.ip, 8000)).map_err(|(kind, _)| kind);
    assert_eq!(dial().unwrap_err(), ErrorKind::ConnectionRefused);
    for (name, addr, reached) in [
        ("all addresses", Ipv4Addr::UNSPECIFIED.into(), true),
        (
            "all addresses of both families",
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
            true,
        ),
        ("the pod's address", pod.ip, true),
        ("loopback only", Ipv4Addr::LOCALHOST.into(), false),
    ] {
        let app = listen(&pod, (addr, 8000));
        assert_eq!(dial().is_ok(), reached, "{name}");
        assert_eq!(next(&inbound).is_some(), reached, "{name}");
        assert_eq!(next(&app), None, "{name}");
    }
    assert_eq!(dial().unwrap_err(), ErrorKind::ConnectionRefused);
}

#[test]
fn proxy_i5_the_proxys_own_connections_and_loopback_are_left_alone() {
    let Some((pod, peer)) = Pod::with_peer() else {
        return;
    };
    let mut rules = options();
    install_in(&pod, &rules);
    let outbound = listen(&pod, (Ipv4Addr::LOCALHOST, OUTBOUND));
    let inbound = listen(&pod, (Ipv4Addr::UNSPECIFIED, INBOUND));
    let server = listen(&peer, (peer.ip, 80));
    let app = listen(&pod, (Ipv4Addr::UNSPECIFIED, 8000));
    let dial = |addr: SocketAddr, mark: Option<u32>| {
        pod.run(move || {
            let socket = plain_socket(addr).unwrap();
            if let Some(mark) = mark {
                socket.set_mark(mark).unwrap();
            }
            socket.connect_timeout(&addr.into(), TIMEOUT).unwrap();
            TcpStream::from(socket)
        })
    };
    let out = SocketAddr::new(peer.ip, 80);

    let _taken = dial(out, None);
    assert_eq!(next(&outbound).unwrap().0, out);
    assert_eq!(next(&server), None);
    let _marked = dial(out, Some(MARK));
    assert!(next(&server).is_some(), "the mark");
    assert_eq!(next(&outbound), None);
    for addr in [pod.ip, Ipv4Addr::LOCALHOST.into()] {
        let _within = dial((addr, 8000).into(), None);
        assert!(next(&app).is_some(), "{addr}");
        assert_eq!((next(&inbound), next(&outbound)), (None, None), "{addr}");
    }
    rules.proxy_uid = nix::unistd::geteuid().as_raw();
    install_in(&pod, &rules);
    let _by_user = dial(out, None);
    assert!(next(&server).is_some(), "the user");
    assert_eq!(next(&outbound), None);
}

#[test]
fn proxy_i1_skipped_ports_and_networks_pass_both_ways() {
    let Some((pod, peer)) = Pod::with_peer() else {
        return;
    };
    let mut rules = options();
    rules.skip_inbound_ports = vec![4567..=4568];
    rules.skip_outbound_ports = vec![25..=25, 4000..=4010];
    rules.skip_outbound_cidrs = vec![
        "10.9.0.128/25".parse().unwrap(),
        "fd09::/64".parse().unwrap(),
    ];
    install_in(&pod, &rules);
    let outbound = listen(&pod, (Ipv4Addr::LOCALHOST, OUTBOUND));
    let outbound6 = listen(&pod, (Ipv6Addr::LOCALHOST, OUTBOUND));
    let inbound = listen(&pod, (Ipv4Addr::UNSPECIFIED, INBOUND));
    for (name, ip, port, taken) in [
        ("before the range", peer.ip, 3999, true),
        ("the first of the range", peer.ip, 4000, false),
        ("the last of the range", peer.ip, 4010, false),
        ("behind the range", peer.ip, 4011, true),
        ("a single port", peer.ip, 25, false),
        ("a network", v6(2), 80, false),
    ] {
        let server = listen(&peer, (ip, port));
        let _client = pod.connect((ip, port)).unwrap();
        let at_proxy = next(if ip.is_ipv4() { &outbound } else { &outbound6 });
        assert_eq!(
            (at_proxy.is_some(), next(&server).is_some()),
            (taken, !taken),
            "{name}"
        );
    }
    for (port, taken) in [(4566, true), (4567, false), (4568, false), (4569, true)] {
        let app = listen(&pod, (pod.ip, port));
        let _client = peer.connect((pod.ip, port)).unwrap();
        let seen = (next(&inbound).is_some(), next(&app).is_some());
        assert_eq!(seen, (taken, !taken), "{port}");
    }
}
