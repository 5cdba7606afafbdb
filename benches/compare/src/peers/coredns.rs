//! CoreDNS, and a Corefile that both it and Sealane can read: kubeadm's without what needs a cluster.

use std::net::SocketAddr;
use std::path::Path;

use super::{Running, cpus, sealane};
use crate::case::{Case, Variant};
use crate::load::{First, Start};
use crate::process::Program;
use crate::stage::{Stage, write};
use crate::{names, services};

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

/// A Corefile that answers for a cluster's Services, on every address.
fn corefile(stage: &Stage, addr: SocketAddr, kubeconfig: &Path) -> String {
    let (port, kubeconfig) = (addr.port(), kubeconfig.display());
    let metrics = stage.listen();
    format!(
        ".:{port} {{\n    errors\n    prometheus {metrics}\n    \
         kubernetes cluster.local in-addr.arpa ip6.arpa {{\n        kubeconfig {kubeconfig}\n        \
         ttl 30\n    }}\n    reload\n    loadbalance\n}}\n"
    )
}

pub(super) fn start(stage: &Stage, case: Case, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let dir = stage.dir("coredns")?;
    let mut helper = None;
    let corefile = if case == Case::Dns {
        let (api, kubeconfig) = sealane::api_with_services(stage, variant)?;
        helper = Some(api);
        corefile(stage, addr, &kubeconfig)
    } else {
        forwarding(stage, addr)?
    };
    write(&dir, "Corefile", &corefile)?;
    let arguments = ["-conf", "Corefile"];
    let mut program = Program::start(&cpus(variant), &dir, &stage.coredns, arguments)?;
    program.listens(addr)?;
    if case == Case::Dns {
        services::wait_until_served(&mut program, addr, variant.hosts)?;
    }
    Ok(Running {
        _helper: helper,
        ..Running::alone(addr, program)
    })
}

/// Starts it on a real API server.
///
/// # Errors
/// It cannot be started.
pub(super) fn begin(stage: &Stage, variant: &Variant) -> anyhow::Result<(Start, First)> {
    let cluster = stage.cluster(variant)?;
    let kubeconfig = cluster.kubeconfig();
    let addr = stage.listen();
    let dir = stage.dir("coredns")?;
    write(&dir, "Corefile", &corefile(stage, addr, kubeconfig))?;
    let arguments = ["-conf", "Corefile"];
    let start = || Program::start(&cpus(variant), &dir, &stage.coredns, arguments);
    Ok((Start::of(start)?, First::name(addr, variant)))
}
