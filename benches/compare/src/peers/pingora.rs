//! pingora: benches/peers/pingora, built on its own so that nobody else has to.

use super::{Running, cpus, endpoints};
use crate::case::{Case, Variant};
use crate::process::Program;
use crate::stage::Stage;

pub(super) fn start(stage: &Stage, case: Case, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let dir = stage.dir("pingora")?;
    let mut arguments = vec![
        addr.to_string(),
        variant.workers.to_string(),
        variant.hosts.to_string(),
    ];
    arguments.extend(endpoints(case, variant).iter().map(ToString::to_string));
    let path = std::path::absolute(&stage.pingora)?;
    let mut program = Program::start(&cpus(variant), &dir, &path, arguments)?;
    program.listens(addr)?;
    Ok(Running::alone(addr, program))
}
