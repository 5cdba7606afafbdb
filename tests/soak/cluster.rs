//! A cluster of one machine, as its users start it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use sealane_test_kubernetes::{ControlPlane, Options as ControlPlaneOptions, Unavailable};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Longest start of a cluster, and longest wait for any state of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Host name of the Ingress.
pub(crate) const HOST: &str = "api.soak.test";

/// A Deployment whose pods can all be replaced at once, a Service, a way in, and a pod to send
/// requests from.
const MANIFEST: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxSurge: 100%, maxUnavailable: 0}}
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      containers:
      - name: api
        image: sealane/echo:1.0
        ports: [{name: http, containerPort: 8000}]
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  selector: {app: api}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: api}
spec:
  ingressClassName: sealane
  rules:
  - host: api.soak.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}
---
apiVersion: v1
kind: Pod
metadata: {name: CLIENT}
spec:
  containers: [{name: client, image: 'sealane/echo:1.0'}]
";

/// A running `sealane up`. Dropping it stops it.
pub(crate) struct Cluster {
    child: Child,
    /// Its API.
    pub(crate) client: kube::Client,
    /// The gateway.
    pub(crate) http: SocketAddr,
    /// The same over TLS.
    pub(crate) https: SocketAddr,
    /// The pod that requests are sent from.
    pub(crate) client_pod: String,
    directory: tempfile::TempDir,
    /// Ends after the process that has joined it.
    _kubernetes: Option<ControlPlane>,
}

impl Cluster {
    /// Starts it, on the embedded control plane or on the one that `SEALANE_TEST_API` names, and
    /// waits until all pods are ready.
    pub(crate) async fn start(sealane: Option<PathBuf>) -> anyhow::Result<Self> {
        Self::with(sealane, "").await
    }

    /// The same with more objects.
    pub(crate) async fn with(sealane: Option<PathBuf>, more: &str) -> anyhow::Result<Self> {
        let sealane = sealane.map_or_else(beside, Ok)?;
        let kubernetes = match std::env::var("SEALANE_TEST_API").as_deref() {
            Ok("kubernetes") => Some(kubernetes().await?),
            Err(_) | Ok("" | "embedded") => None,
            Ok(other) => bail!("SEALANE_TEST_API={other}: give embedded or kubernetes"),
        };
        let directory = tempfile::tempdir().context("no temporary directory")?;
        let client_pod = format!("client-{}", std::process::id());
        let manifest = directory.path().join("soak.yaml");
        let objects = MANIFEST.replace("CLIENT", &client_pod) + more;
        std::fs::write(&manifest, objects)?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new(&sealane);
        command
            .arg("up")
            .args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
            .args(["--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["-o", "json", "-f"])
            .arg(&manifest)
            .arg("--data-dir")
            .arg(directory.path().join("data"));
        match &kubernetes {
            Some(plane) => command.arg("--kubeconfig").arg(plane.kubeconfig()),
            None => command.args(["--api", "127.0.0.1:0"]),
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", sealane.display()))?;
        let stdout = child.stdout.take().context("a pipe")?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let summary = tokio::time::timeout(DEADLINE, stdout.read_line(&mut line)).await;
        let log = || std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        summary.with_context(|| format!("no summary in time\n{}", log()))??;
        let summary: Value = serde_json::from_str(&line)
            .with_context(|| format!("no summary: {line}\n{}", log()))?;
        anyhow::ensure!(summary["ready"] == true, "not ready: {summary}\n{}", log());
        let kubeconfig = summary["kubeconfig"].as_str().context("no kubeconfig")?;
        Ok(Self {
            http: address(&summary["http"])?,
            https: address(&summary["https"])?,
            client: client(Path::new(kubeconfig)).await?,
            client_pod,
            directory,
            _kubernetes: kubernetes,
            child,
        })
    }

    /// The process.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("it has ended")
    }

    /// Has it stop in order, and does not wait for that.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("a process")?;
        kill_process(pid, Signal::TERM).context("it has ended")
    }

    /// The end of what it wrote to standard error.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It has ended by itself otherwise.
        let _ = self.terminate();
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _ = self.child.start_kill();
    }
}

/// The address in a URL.
fn address(url: &Value) -> anyhow::Result<SocketAddr> {
    let url = url.as_str().context("no address")?;
    let addr = url.rsplit_once('/').map_or(url, |(_, addr)| addr);
    addr.parse().context("an address")
}

/// As many descriptors as the system allows, for this process and for those that it starts.
pub(crate) fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    // With fewer of them connections are lost, which is counted.
    let _ = setrlimit(Resource::Nofile, all);
}

/// The program of the same build: this one is in `target/PROFILE/examples`.
fn beside() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("no path of this program")?;
    let built = own.parent().and_then(Path::parent).context("no build")?;
    let program = built.join("sealane");
    let why = "build it with the same profile: cargo build";
    anyhow::ensure!(program.is_file(), "no {}: {why}", program.display());
    Ok(program)
}

async fn kubernetes() -> anyhow::Result<ControlPlane> {
    match ControlPlane::start(ControlPlaneOptions::default()).await? {
        Ok(plane) => Ok(plane),
        Err(Unavailable(reason)) => bail!("SEALANE_TEST_API=kubernetes, but {reason}"),
    }
}

async fn client(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(kube::Client::try_from(config)?)
}
