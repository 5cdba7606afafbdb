//! unbound: the same names as local data.

use std::fmt::Write as _;

use super::{Running, cpus};
use crate::case::Variant;
use crate::names;
use crate::process::Program;
use crate::stage::{Stage, write};

pub(super) fn start(stage: &Stage, variant: &Variant) -> anyhow::Result<Running> {
    let dir = stage.dir("unbound")?;
    let addr = stage.listen();
    let mut text = format!(
        "server:\n  interface: 0.0.0.0\n  port: {}\n  access-control: 0.0.0.0/0 allow\n  \
         num-threads: {}\n  do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  directory: \".\"\n  \
         pidfile: \"\"\n  use-syslog: no\n  module-config: \"iterator\"\n  \
         local-zone: \"cluster.local.\" static\n",
        addr.port(),
        variant.workers
    );
    let mut data = |record: String| {
        let _ = writeln!(text, "  local-data: \"{record}\"");
    };
    data(
        "cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. \
         1 7200 1800 86400 30"
            .to_owned(),
    );
    for service in names::services(variant.hosts) {
        let (name, ip) = (service.name(), service.ip);
        data(format!("{name}. 30 IN A {ip}"));
        data(format!("_http._tcp.{name}. 30 IN SRV 0 100 80 {name}."));
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    let file = write(&dir, "unbound.conf", &text)?;
    let arguments = ["-d".as_ref(), "-c".as_ref(), file.as_os_str()];
    let mut program = Program::start(&cpus(variant), &dir, "unbound".as_ref(), arguments)?;
    names::wait_until_served(&mut program, addr, variant.hosts)?;
    Ok(Running {
        addr,
        program,
        _helper: None,
    })
}
