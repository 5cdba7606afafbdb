//! unbound as a forwarder: one thread a worker, no validation, everything else as it comes.

use super::{Running, cpus};
use crate::case::Variant;
use crate::names;
use crate::process::Program;
use crate::stage::{Stage, write};

pub(super) fn start(stage: &Stage, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let upstream = names::start()?;
    let dir = stage.dir("unbound")?;
    let (ip, port) = (addr.ip(), addr.port());
    let (to, to_port) = (upstream.ip(), upstream.port());
    let threads = variant.workers;
    let text = format!(
        "server:\n  interface: {ip}@{port}\n  num-threads: {threads}\n  so-reuseport: yes\n  \
         username: \"\"\n  chroot: \"\"\n  directory: \".\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         do-daemonize: no\n  do-not-query-localhost: no\n  module-config: \"iterator\"\n  \
         cache-max-ttl: 30\n\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \".\"\n  forward-addr: {to}@{to_port}\n"
    );
    write(&dir, "unbound.conf", &text)?;
    let arguments = ["-c", "unbound.conf"];
    let mut program = Program::start(&cpus(variant), &dir, "unbound".as_ref(), arguments)?;
    program.listens(addr)?;
    Ok(Running {
        addr,
        program,
        _helper: None,
    })
}
