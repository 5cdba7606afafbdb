//! CoreDNS, and a Corefile that both it and Sealane can read: kubeadm's without what needs a cluster.

use std::net::SocketAddr;

use super::{Running, cpus};
use crate::case::Variant;
use crate::names;
use crate::process::Program;
use crate::stage::{Stage, write};

/// A Corefile that forwards to the resolver of this process, with a cache.
///
/// # Errors
/// The resolver did not start.
pub(super) fn forwarding(stage: &Stage, addr: SocketAddr) -> anyhow::Result<String> {
    let upstream = names::start()?;
    let (ip, port) = (addr.ip(), addr.port());
    let metrics = stage.listen();
    Ok(format!(
        ".:{port} {{\n    bind {ip}\n    errors\n    prometheus {metrics}\n    \
         forward . {upstream} {{\n        max_concurrent 1000\n    }}\n    \
         cache 30\n    loop\n    reload\n    loadbalance\n}}\n"
    ))
}

pub(super) fn start(stage: &Stage, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let dir = stage.dir("coredns")?;
    write(&dir, "Corefile", &forwarding(stage, addr)?)?;
    let arguments = ["-conf", "Corefile"];
    let mut program = Program::start(&cpus(variant), &dir, &stage.coredns, arguments)?;
    program.listens(addr)?;
    Ok(Running {
        addr,
        program,
        _helper: None,
    })
}
