//! nginx: keep-alive to backends, `X-Forwarded-For`, a server for each host, of which one has a file of
//! its own that is edited.

use std::fmt::Write as _;

use super::{Running, cpus, endpoints, hosts};
use crate::case::{Case, Variant};
use crate::load::Editor;
use crate::process::Program;
use crate::stage::{Stage, write};

pub(super) fn start(stage: &Stage, case: Case, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let dir = stage.dir("nginx")?;
    let mut upstream = String::from("upstream backend { least_conn;\n");
    for endpoint in endpoints(case, variant) {
        let _ = writeln!(upstream, "server {endpoint};");
    }
    let mut text = format!(
        "daemon off; worker_processes {}; pid nginx.pid; error_log stderr error;\n\
         worker_rlimit_nofile 65536;\nevents {{ worker_connections 32768; }}\n",
        variant.workers
    );
    let _ = write!(
        text,
        "http {{ access_log off; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 300s;\n\
             client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
             server_names_hash_max_size 131072; server_names_hash_bucket_size 64;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
             proxy_set_header X-Forwarded-For $remote_addr;\n\
             {upstream}keepalive 256; keepalive_requests 100000000; }}\n"
    );
    let reuse = if variant.workers > 1 {
        " reuseport"
    } else {
        ""
    };
    let mut speaks = String::new();
    if variant.tls {
        let [certificate, key, _] = &stage.identity()?.files;
        let (certificate, key) = (certificate.display(), key.display());
        let _ = writeln!(
            text,
            "ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n\
             ssl_session_cache shared:tls:10m;"
        );
        speaks.push_str(" ssl");
    }
    if case == Case::Http2 {
        speaks.push_str(" http2");
    }
    for (index, host) in hosts(variant).enumerate() {
        let options = if index == 0 {
            format!("{speaks} backlog=16384{reuse}")
        } else {
            speaks.clone()
        };
        let _ = writeln!(
            text,
            "server {{ listen {addr}{options}; server_name {host}; location / {{ proxy_pass http://backend; }} }}"
        );
    }
    let editor = (case == Case::Edits)
        .then(|| Editor::nginx(dir.clone(), addr))
        .transpose()?;
    if editor.is_some() {
        text.push_str("include edited.conf;\n");
    }
    text.push('}');
    write(&dir, "nginx.conf", &text)?;
    let arguments = ["-p", ".", "-c", "nginx.conf"];
    let mut program = Program::start(&cpus(variant), &dir, "nginx".as_ref(), arguments)?;
    program.listens(addr)?;
    Ok(Running {
        editor,
        ..Running::alone(addr, program)
    })
}
