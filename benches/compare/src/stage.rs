//! Where the comparison takes place: namespace, addresses, limits, CPUs, programs, files.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustls::pki_types::CertificateDer;

use crate::Options;
use crate::case::Variant;
use crate::cluster::Cluster;
use crate::programs;

/// What servers show to clients of TLS: a self-signed P-256 certificate.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    /// Certificate, then key, in PEM.
    pub(crate) pem: [String; 2],
    /// The files that hold them, and one with both.
    pub(crate) files: [PathBuf; 3],
}

/// The CPU of the proxies.
pub(crate) const PROXY_CPU: usize = 0;

/// The CPU of the load generator and the backend.
pub(crate) const LOAD_CPU: usize = 1;

/// Where backends listen; every address of 10.200.0.0/16 is local.
pub(crate) const BACKENDS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 200, 0, 2),
    Ipv4Addr::new(10, 200, 0, 3),
    Ipv4Addr::new(10, 200, 0, 4),
];

/// Descriptors that every process may have.
const DESCRIPTORS: u64 = 65_536;

/// What the kernel lets a network namespace set of its own.
const SETTINGS: &str = "/proc/sys/net/ipv4";

/// Runs this program again in a network namespace of its own.
///
/// # Errors
/// Only errors return: `unshare` is missing or not allowed.
pub(crate) fn enter_namespace<T>(marker: &str) -> anyhow::Result<T> {
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    command
        .arg("--")
        .arg(program)
        .args(std::env::args_os().skip(1));
    let error = command.env(marker, "1").exec();
    Err(error).context("cannot run `unshare` (util-linux)")
}

/// The place, set once.
pub(crate) struct Stage {
    /// Configurations, logs and data of everything that is started.
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sealane: PathBuf,
    pub(crate) envoy: PathBuf,
    pub(crate) pingora: PathBuf,
    pub(crate) coredns: PathBuf,
    next_port: AtomicU16,
    identity: OnceLock<Identity>,
    clusters: Mutex<HashMap<usize, Arc<Cluster>>>,
}

impl Stage {
    /// Sets network, limits and this process's CPU.
    pub(crate) fn set(options: &Options) -> anyhow::Result<Self> {
        ip(&["link", "set", "lo", "up"])?;
        ip(&["address", "add", "10.200.0.2/16", "dev", "lo"])?;
        // New connections need many ports; they all come from one address.
        for (key, value) in [
            ("ip_local_port_range", "10240 65000"),
            ("tcp_tw_reuse", "1"),
            ("tcp_max_syn_backlog", "16384"),
        ] {
            let path = format!("{SETTINGS}/{key}");
            std::fs::write(&path, value)
                .with_context(|| format!("cannot write {value:?} to {path}"))?;
        }
        use_congestion_control(&options.congestion_control)?;
        let most = getrlimit(Resource::Nofile).maximum;
        let limit = most.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(limit),
                maximum: most,
            },
        )
        .context("cannot raise the limit of open files")?;
        let mut cpus = CpuSet::new();
        cpus.set(LOAD_CPU);
        sched_setaffinity(None, &cpus).context("two CPUs are needed: 0 and 1")?;
        let sealane = match &options.sealane {
            Some(path) => path.clone(),
            None => built()?,
        };
        Ok(Self {
            dir: tempfile::tempdir().context("no temporary directory")?,
            sealane,
            // They run in directories of their own.
            envoy: match programs::find(&options.envoy) {
                Some(found) => std::path::absolute(found)?,
                None => options.envoy.clone(),
            },
            pingora: options.pingora.clone(),
            coredns: std::path::absolute(&options.coredns)?,
            next_port: AtomicU16::new(7000),
            identity: OnceLock::new(),
            clusters: Mutex::default(),
        })
    }

    /// A real API server with as much as a variant has, made when it is first asked for.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn cluster(&self, variant: &Variant) -> anyhow::Result<Arc<Cluster>> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = clusters.get(&variant.hosts) {
            return Ok(Arc::clone(cluster));
        }
        let started = Arc::new(Cluster::start(variant)?);
        clusters.insert(variant.hosts, Arc::clone(&started));
        Ok(started)
    }

    /// Made when it is first asked for.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub(crate) fn identity(&self) -> anyhow::Result<&Identity> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity);
        }
        let made = Identity::make(self.dir.path())?;
        Ok(self.identity.get_or_init(|| made))
    }

    /// A port that nobody in this namespace uses. Below the range of outgoing connections.
    pub(crate) fn port(&self) -> u16 {
        self.next_port.fetch_add(1, Relaxed)
    }

    /// A free address to listen on.
    pub(crate) fn listen(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// A new directory for one process.
    pub(crate) fn dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.path().join(format!("{name}-{}", self.port()));
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }
}

impl Identity {
    fn make(dir: &Path) -> anyhow::Result<Self> {
        let names = ["*.test".to_owned(), "host-0.test".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).context("no certificate")?;
        let pem = [made.cert.pem(), made.signing_key.serialize_pem()];
        let files = [
            write(dir, "tls.crt", &pem[0])?,
            write(dir, "tls.key", &pem[1])?,
            write(dir, "tls.pem", &pem.concat())?,
        ];
        Ok(Self {
            certificate: made.cert.der().clone(),
            pem,
            files,
        })
    }
}

/// Writes a file and returns its path.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A namespace may use what the machine's own allows to everybody, and only there is that changed.
fn use_congestion_control(name: &str) -> anyhow::Result<()> {
    let path = format!("{SETTINGS}/tcp_congestion_control");
    std::fs::write(path, name).map_err(|error| {
        let known = |which| {
            let path = format!("{SETTINGS}/tcp_{which}_congestion_control");
            std::fs::read_to_string(path).unwrap_or_default()
        };
        congestion_control_error(name, &error, &known("allowed"), &known("available"))
    })
}

/// Says what to do about it.
fn congestion_control_error(
    name: &str,
    error: &io::Error,
    allowed: &str,
    available: &str,
) -> anyhow::Error {
    let (allowed, available) = (allowed.trim(), available.trim());
    match error.kind() {
        io::ErrorKind::PermissionDenied => anyhow!(
            "congestion control {name} is not allowed in network namespaces here: as root, run\n    \
             sysctl -w net.ipv4.tcp_allowed_congestion_control=\"{allowed} {name}\"\n\
             or name one of {allowed} with --congestion-control"
        ),
        io::ErrorKind::NotFound => anyhow!(
            "the kernel has no congestion control {name}: name one of {available} with --congestion-control"
        ),
        _ => anyhow!("cannot use congestion control {name}: {error}"),
    }
}

fn built() -> anyhow::Result<PathBuf> {
    let candidates = ["target/release/sealane", "target/bench-fast/sealane"].map(PathBuf::from);
    let found = candidates.into_iter().find(|path| path.exists());
    found.context("build it first: cargo build --release, or name it with --sealane")
}

/// Runs `ip`, in the calling thread's namespace.
///
/// # Errors
/// It is missing or fails.
pub(crate) fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("ip").args(arguments).status();
    if !status.context("cannot run `ip` (iproute2)")?.success() {
        bail!("`ip {}` failed", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_congestion_control_that_is_not_to_be_had_is_said_with_what_to_do() {
        let said = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            congestion_control_error("cubic", &error, "reno bbr\n", "reno bbr vegas\n").to_string()
        };
        let (not_permitted, not_found, invalid) = (1, 2, 22);
        let refused = said(not_permitted);
        let remedy = "sysctl -w net.ipv4.tcp_allowed_congestion_control=\"reno bbr cubic\"";
        assert!(refused.contains(remedy), "{refused}");
        assert!(refused.contains("one of reno bbr with"), "{refused}");
        let missing = said(not_found);
        assert!(missing.contains("one of reno bbr vegas with"), "{missing}");
        let other = said(invalid);
        assert!(other.contains("Invalid argument"), "{other}");
    }
}
