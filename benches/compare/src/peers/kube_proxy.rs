//! kube-proxy in nftables mode, as a node's proxy of Services.

use super::cpus;
use crate::case::Variant;
use crate::cluster::NODE;
use crate::load::Start;
use crate::process::Program;
use crate::stage::Stage;

/// Starts it in the calling thread's namespace.
pub(super) fn begin(stage: &Stage, variant: &Variant) -> anyhow::Result<Start> {
    let cluster = stage.cluster(variant)?;
    let kubeconfig = cluster.kubeconfig();
    let program = sealane_test_kubernetes::path(sealane_test_kubernetes::Program::KubeProxy);
    let program = program.map_err(|reason| anyhow::anyhow!(reason.0))?;
    let program = std::path::absolute(program)?;
    let dir = stage.dir("kube-proxy")?;
    let flags = sealane_test_kubernetes::kube_proxy_flags(kubeconfig, NODE);
    Start::of(|| Program::start(&cpus(variant), &dir, &program, flags))
}
