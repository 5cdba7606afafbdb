//! The two servers as processes, with the same configuration.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use sealane_test_kubernetes::{Process, free_port};

use crate::client::{Client, Transport};
use crate::support::until;
use crate::wire::{Query, kind, rcode};

/// What a server is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings<'a> {
    /// How the API server is reached.
    pub(crate) kubeconfig: &'a Path,
    /// Where other names are asked for, in this order; none: nowhere.
    pub(crate) upstreams: &'a [SocketAddr],
    /// Port; none: any that is free.
    pub(crate) port: Option<u16>,
    /// More flags of ours.
    pub(crate) flags: &'a [&'a str],
}

impl<'a> Settings<'a> {
    /// On a free port, without other flags.
    pub(crate) fn new(kubeconfig: &'a Path, upstreams: &'a [SocketAddr]) -> Self {
        Self {
            kubeconfig,
            upstreams,
            port: None,
            flags: &[],
        }
    }
}

/// Where a server is reached.
#[derive(Clone, Copy, Debug)]
struct Ports {
    dns: u16,
    health: u16,
    ready: u16,
    metrics: u16,
}

/// The file that kubeadm installs, with the ports of this machine, the upstreams of a test, and a
/// lameduck of one second instead of five.
fn corefile(settings: &Settings<'_>, ports: Ports) -> String {
    let Ports {
        dns,
        health,
        ready,
        metrics,
    } = ports;
    let kubeconfig = settings.kubeconfig.display();
    let upstreams = settings.upstreams.iter();
    let upstreams: String = upstreams.map(|addr| format!(" {addr}")).collect();
    let forward = match &*upstreams {
        "" => String::new(),
        _ => format!(
            "forward .{upstreams} {{
        max_concurrent 1000
        policy sequential
    }}"
        ),
    };
    format!(
        ".:{dns} {{
    errors
    health 127.0.0.1:{health} {{
        lameduck 1s
    }}
    ready 127.0.0.1:{ready}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus 127.0.0.1:{metrics}
    {forward}
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

/// A DNS server as a process. Dropping it ends it at once.
#[derive(Debug)]
pub(crate) struct Server {
    process: Option<Process>,
    pub(crate) addr: SocketAddr,
    ports: Ports,
}

impl Server {
    /// Starts CoreDNS.
    pub(crate) fn coredns(program: &Path, directory: &Path, settings: &Settings<'_>) -> Self {
        Self::start(program, &[], directory, settings)
    }

    /// Starts ours, in the calling thread's network namespace.
    pub(crate) fn sealane(directory: &Path, settings: &Settings<'_>) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_sealane"));
        let arguments = [&["dns", "--admin=127.0.0.1:0"], settings.flags].concat();
        Self::start(binary, &arguments, directory, settings)
    }

    fn start(
        program: &Path,
        arguments: &[&str],
        directory: &Path,
        settings: &Settings<'_>,
    ) -> Self {
        let ports = Ports {
            dns: settings.port.unwrap_or_else(free_port),
            health: free_port(),
            ready: free_port(),
            metrics: free_port(),
        };
        let file = directory.join(format!("Corefile-{}-{}", ports.dns, ports.health));
        std::fs::write(&file, corefile(settings, ports)).unwrap();
        let conf = ["-conf".to_owned(), file.display().to_string()];
        let arguments = arguments.iter().map(|text| (*text).to_owned()).chain(conf);
        let process = Process::start(program, arguments, &file.with_extension("log")).unwrap();
        Self {
            process: Some(process),
            addr: (Ipv4Addr::LOCALHOST, ports.dns).into(),
            ports,
        }
    }

    /// Its process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs until it is dropped")
    }

    /// Status of `/ready`.
    ///
    /// # Errors
    /// Nothing listens there.
    pub(crate) fn ready(&self) -> Result<u16, String> {
        get(self.ports.ready, "/ready")
    }

    /// Status of `/health`.
    ///
    /// # Errors
    /// Nothing listens there.
    pub(crate) fn health(&self) -> Result<u16, String> {
        get(self.ports.health, "/health")
    }

    /// Waits until it is ready.
    pub(crate) fn until_ready(&mut self) {
        until("ready", || {
            self.process().check().unwrap();
            match self.ready()? {
                200 => Ok(()),
                status => Err(format!("{status}")),
            }
        });
    }

    /// Waits until this name has an address.
    pub(crate) fn until_answers(&mut self, name: &str) {
        let query = Query::new(name, kind::A);
        let addr = self.addr;
        let mut client = Client::new(addr);
        until(&format!("{name} at {addr}"), || {
            self.process().check().unwrap();
            let reply = client.ask(&query, Transport::Tcp)?;
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

/// The status of a page.
fn get(port: u16, path: &str) -> Result<u16, String> {
    let text = |error: std::io::Error| format!("{port}: {error}");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(text)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.ok_or(answer)
}
