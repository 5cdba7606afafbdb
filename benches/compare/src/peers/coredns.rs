//! CoreDNS: the `kubernetes` plugin and nothing else, on the API server of a `sealane up`.

use super::{Running, cpus, sealane};
use crate::case::Variant;
use crate::names;
use crate::process::Program;
use crate::stage::{Stage, write};

pub(super) fn start(stage: &Stage, variant: &Variant) -> anyhow::Result<Running> {
    let (api, kubeconfig) = sealane::api_with_services(stage, variant)?;
    let dir = stage.dir("coredns")?;
    let addr = stage.listen();
    let corefile = format!(
        ".:{} {{\n  kubernetes cluster.local in-addr.arpa ip6.arpa {{\n    kubeconfig {}\n    ttl 30\n  }}\n}}\n",
        addr.port(),
        kubeconfig.display()
    );
    let corefile = write(&dir, "Corefile", &corefile)?;
    let path = std::path::absolute(&stage.coredns)?;
    let arguments = ["-conf".as_ref(), corefile.as_os_str()];
    let mut program = Program::start(&cpus(variant), &dir, &path, arguments)?;
    names::wait_until_served(&mut program, addr, variant.hosts)?;
    Ok(Running {
        addr,
        program,
        _helper: Some(api),
    })
}
