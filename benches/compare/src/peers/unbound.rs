//! unbound: one thread a worker, no validation, everything else as it comes. A forwarder, or with the
//! names of Services as local data.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{Running, cpus};
use crate::case::{Case, Variant};
use crate::process::Program;
use crate::stage::{Stage, write};
use crate::{names, services};

pub(super) fn start(stage: &Stage, case: Case, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let dir = stage.dir("unbound")?;
    let (ip, port) = (addr.ip(), addr.port());
    let threads = variant.workers;
    let (names, forward) = match case {
        Case::Dns => (cluster(variant), String::new()),
        _ => (String::new(), forward(names::start()?)),
    };
    let text = format!(
        "server:\n  interface: {ip}@{port}\n  num-threads: {threads}\n  so-reuseport: yes\n  \
         username: \"\"\n  chroot: \"\"\n  directory: \".\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         do-daemonize: no\n  do-not-query-localhost: no\n  module-config: \"iterator\"\n  \
         cache-max-ttl: 30\n{names}\
         remote-control:\n  control-enable: no\n{forward}"
    );
    write(&dir, "unbound.conf", &text)?;
    let arguments = ["-c", "unbound.conf"];
    let mut program = Program::start(&cpus(variant), &dir, "unbound".as_ref(), arguments)?;
    program.listens(addr)?;
    if case == Case::Dns {
        services::wait_until_served(&mut program, addr, variant.hosts)?;
    }
    Ok(Running::alone(addr, program))
}

/// Where everything is forwarded to.
fn forward(to: SocketAddr) -> String {
    let (ip, port) = (to.ip(), to.port());
    format!("forward-zone:\n  name: \".\"\n  forward-addr: {ip}@{port}\n")
}

/// The Services' names.
fn cluster(variant: &Variant) -> String {
    let mut text = String::from(
        "  local-zone: \"cluster.local.\" static\n  \
         local-data: \"cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. \
         1 7200 1800 86400 30\"\n",
    );
    for service in services::services(variant.hosts) {
        let (name, ip) = (service.name(), service.ip);
        let _ = writeln!(
            text,
            "  local-data: \"{name}. 30 IN A {ip}\"\n  \
             local-data: \"_http._tcp.{name}. 30 IN SRV 0 100 80 {name}.\""
        );
    }
    text
}
