//! The two servers as processes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use sealane_test_kubernetes::Process;

use crate::client::Client;
use crate::support::{free_port, until};
use crate::wire::{Query, kind, rcode};

/// What a Corefile says where machines differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Corefile<'a> {
    /// How the API server is reached.
    pub(crate) kubeconfig: &'a Path,
    /// Where other names are asked for.
    pub(crate) upstream: SocketAddr,
    /// More lines of the `kubernetes` plugin.
    pub(crate) kubernetes: &'a str,
}

impl Corefile<'_> {
    /// The file that kubeadm installs, on ports of this machine.
    fn kubeadm(&self, port: u16) -> String {
        let [health, ready, metrics] = [free_port(), free_port(), free_port()];
        let (kubeconfig, upstream) = (self.kubeconfig.display(), self.upstream);
        let more = self.kubernetes;
        format!(
            ".:{port} {{
    errors
    health 127.0.0.1:{health} {{
       lameduck 5s
    }}
    ready 127.0.0.1:{ready}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
       kubeconfig {kubeconfig}
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
       {more}
    }}
    prometheus 127.0.0.1:{metrics}
    forward . {upstream} {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success cluster.local
       disable denial cluster.local
    }}
    loop
    reload
    loadbalance
}}
"
        )
    }
}

/// A DNS server as a process. Dropping it ends it at once.
#[derive(Debug)]
pub(crate) struct Server {
    process: Option<Process>,
    pub(crate) addr: SocketAddr,
}

impl Server {
    /// Starts CoreDNS.
    pub(crate) fn coredns(program: &Path, directory: &Path, corefile: &Corefile<'_>) -> Self {
        let port = free_port();
        let file = directory.join(format!("Corefile-{port}"));
        std::fs::write(&file, corefile.kubeadm(port)).unwrap();
        let arguments = ["-conf".to_owned(), file.display().to_string()];
        Self::start(program, arguments, &file, port)
    }

    /// Starts ours.
    pub(crate) fn sealane(directory: &Path, corefile: &Corefile<'_>) -> Self {
        let port = free_port();
        let file = directory.join(format!("sealane-{port}"));
        let arguments = [
            "dns".to_owned(),
            format!("--dns=0.0.0.0:{port}"),
            "--admin=127.0.0.1:0".to_owned(),
            format!("--upstream={}", corefile.upstream),
            format!("--kubeconfig={}", corefile.kubeconfig.display()),
        ];
        Self::start(
            Path::new(env!("CARGO_BIN_EXE_sealane")),
            arguments,
            &file,
            port,
        )
    }

    fn start<const N: usize>(
        program: &Path,
        arguments: [String; N],
        file: &Path,
        port: u16,
    ) -> Self {
        let process = Process::start(program, arguments, &file.with_extension("log")).unwrap();
        Self {
            process: Some(process),
            addr: (Ipv4Addr::LOCALHOST, port).into(),
        }
    }

    /// Its process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs until it is dropped")
    }

    /// Waits until this name has an address.
    pub(crate) fn until_answers(&mut self, name: &str) {
        let query = Query::new(name, kind::A);
        let addr = self.addr;
        let mut client = Client::new(addr);
        until(&format!("{name} at {addr}"), || {
            self.process().check().unwrap();
            let reply = client.ask(&query, crate::client::Transport::Tcp)?;
            if reply.rcode == rcode::NOERROR && !reply.answer.is_empty() {
                return Ok(());
            }
            Err(format!("{reply}\n{}", self.process().log_tail()))
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            if std::thread::panicking() {
                eprintln!("{}", process.log_tail());
            }
            process.kill();
        }
    }
}
