//! HAProxy: connections to backends shared and kept, `X-Forwarded-For`, hosts in a map.

use std::fmt::Write as _;

use super::{Running, cpus, endpoints, hosts};
use crate::case::{Case, Variant};
use crate::process::Program;
use crate::stage::{Stage, write};

pub(super) fn start(stage: &Stage, case: Case, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let dir = stage.dir("haproxy")?;
    let tcp = case.tcp_port().is_some();
    let mut map = String::new();
    for host in hosts(variant) {
        let _ = writeln!(map, "{host} backend");
    }
    let map = write(&dir, "hosts.map", &map)?;
    // Half of the limit of descriptors may be less than it wants; connections to backends are few.
    let mut text = format!(
        "global\n  no strict-limits\n  maxconn 30000\n  nbthread {}\n\ndefaults\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n",
        variant.workers
    );
    if tcp {
        text.push_str("  mode tcp\n  option splice-response\n");
    } else {
        text.push_str(
            "  mode http\n  http-reuse always\n  option forwardfor\n  option splice-response\n",
        );
    }
    let mut speaks = String::new();
    if variant.tls {
        let [.., both] = &stage.identity()?.files;
        let _ = write!(speaks, " ssl crt {}", both.display());
    }
    match (case == Case::Http2, variant.tls) {
        (true, true) => speaks.push_str(" alpn h2"),
        (true, false) => speaks.push_str(" proto h2"),
        (false, _) => {}
    }
    let _ = write!(
        text,
        "\nfrontend front\n  bind {addr}{speaks} backlog 16384\n  maxconn 30000\n"
    );
    if tcp {
        text.push_str("  default_backend backend\n");
    } else {
        let _ = writeln!(
            text,
            "  use_backend %[req.hdr(host),lower,map_str({})]",
            map.display()
        );
    }
    text.push_str("\nbackend backend\n  balance leastconn\n");
    for (index, endpoint) in endpoints(case, variant).into_iter().enumerate() {
        let _ = writeln!(text, "  server s{index} {endpoint}");
    }
    let configuration = write(&dir, "haproxy.cfg", &text)?;
    let arguments = ["-db".as_ref(), "-f".as_ref(), configuration.as_os_str()];
    let mut program = Program::start(&cpus(variant), &dir, "haproxy".as_ref(), arguments)?;
    program.listens(addr)?;
    Ok(Running::alone(addr, program))
}
