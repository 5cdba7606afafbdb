//! `sealane up` as a child process.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use sealane_test_kubernetes::{
    ControlPlane as Kubernetes, Options as KubernetesOptions, Unavailable,
};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{DEADLINE, output, root};

/// Clusters that run at once: each has pods, probes and controllers of its own.
const AT_ONCE: usize = 2;

/// Waits for a place: tests that start clusters take turns.
pub(crate) async fn place() -> OwnedSemaphorePermit {
    static PLACES: OnceLock<Arc<Semaphore>> = OnceLock::new();
    let places = PLACES.get_or_init(|| Arc::new(Semaphore::new(AT_ONCE)));
    Arc::clone(places)
        .acquire_owned()
        .await
        .expect("never closed")
}

/// The control plane under the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlPlane {
    /// The embedded one.
    Embedded,
    /// A real kube-apiserver with its controllers and scheduler; `sealane up` joins it.
    Kubernetes,
}

impl ControlPlane {
    /// What `SEALANE_TEST_API` asks for: `embedded`, which is the default, or `kubernetes`.
    pub(crate) fn asked() -> Self {
        match std::env::var("SEALANE_TEST_API").as_deref() {
            Err(_) | Ok("" | "embedded") => Self::Embedded,
            Ok("kubernetes") => Self::Kubernetes,
            Ok(other) => panic!("SEALANE_TEST_API={other}: give embedded or kubernetes"),
        }
    }
}

/// A running `sealane up`. Dropping it stops it.
pub(crate) struct Cluster {
    child: Child,
    /// The summary that it printed.
    pub(crate) summary: Value,
    log: Arc<Mutex<String>>,
    data: Data,
    /// Ends after the process that has joined it.
    _kubernetes: Option<Kubernetes>,
    _place: OwnedSemaphorePermit,
}

/// A data directory, made for the test or kept by it.
enum Data {
    Own(tempfile::TempDir),
    Kept(PathBuf),
}

/// How a cluster is started.
#[derive(Default)]
pub(crate) struct Options {
    args: Vec<String>,
    data_dir: Option<PathBuf>,
    user: Option<u32>,
}

impl Options {
    /// Adds arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Uses a data directory that outlives the cluster.
    pub(crate) fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }

    /// Runs as this user, without any privilege.
    pub(crate) fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// The command, on ports that the kernel chooses.
    pub(crate) fn command(&self, data_dir: &Path) -> Command {
        let binary = env!("CARGO_BIN_EXE_sealane");
        let mut command = match self.user {
            None => Command::new(binary),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={uid}"))
                    .arg(format!("--regid={uid}"))
                    .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
                    .args(["--no-new-privs", binary]);
                command
            }
        };
        command
            .arg("up")
            .args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
            .args(["--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(data_dir)
            .args(&self.args)
            .current_dir(root())
            .env_remove("RUST_LOG");
        command
    }

    /// Starts the cluster and waits for its summary.
    pub(crate) async fn start(self) -> Cluster {
        let place = place().await;
        let kubernetes = match ControlPlane::asked() {
            ControlPlane::Embedded => None,
            ControlPlane::Kubernetes => Some(kubernetes().await),
        };
        let data = match &self.data_dir {
            Some(dir) => Data::Kept(dir.clone()),
            None => Data::Own(tempfile::tempdir().expect("a temporary directory")),
        };
        if let (Some(uid), Data::Own(dir)) = (self.user, &data) {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(uid)).expect("root");
        }
        let path = match &data {
            Data::Own(dir) => dir.path(),
            Data::Kept(dir) => dir,
        };
        let mut command = self.command(path);
        if let Some(kubernetes) = &kubernetes {
            command.arg("--kubeconfig").arg(kubernetes.kubeconfig());
        } else {
            command.args(["--api", "127.0.0.1:0"]);
        }
        let mut child = command
            .args(["-o", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sealane starts");
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("piped"), Arc::clone(&log));
        let stdout = child.stdout.take().expect("piped");
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            line
        });
        let line = tokio::time::timeout(DEADLINE + Duration::from_secs(30), line).await;
        let line = line.expect("a summary in time").expect("no panic");
        let Ok(summary) = serde_json::from_str(&line) else {
            let _ = child.kill();
            let status = child.wait();
            panic!(
                "no summary ({status:?}): {line}\n{}",
                log.lock().expect("text")
            );
        };
        Cluster {
            child,
            summary,
            log,
            data,
            _kubernetes: kubernetes,
            _place: place,
        }
    }

    /// Runs a command that is expected to end by itself.
    pub(crate) fn run(&self, data_dir: &Path) -> Output {
        self.command(data_dir)
            .args(["--api", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .output()
            .expect("sealane starts")
    }
}

async fn kubernetes() -> Kubernetes {
    match Kubernetes::start(KubernetesOptions::default()).await {
        Ok(Ok(kubernetes)) => kubernetes,
        Ok(Err(Unavailable(reason))) => panic!("SEALANE_TEST_API=kubernetes, but {reason}"),
        Err(error) => panic!("{error:#}"),
    }
}

/// Gathers what a child process writes.
pub(crate) fn collect(mut from: impl std::io::Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            into.lock()
                .expect("text")
                .push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
}

impl Cluster {
    /// The example shop, all ready.
    pub(crate) async fn shop() -> Self {
        let cluster = Options::default()
            .args(&["-f", "examples/shop"])
            .start()
            .await;
        cluster.assert_ready();
        cluster
    }

    /// Fails, with the log, unless the summary says that all is ready.
    pub(crate) fn assert_ready(&self) {
        assert_eq!(
            self.summary["ready"],
            true,
            "{}\n{}",
            self.summary,
            self.log()
        );
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("text").clone()
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        match &self.data {
            Data::Own(dir) => dir.path(),
            Data::Kept(dir) => dir,
        }
    }

    /// The gateway's HTTP address.
    pub(crate) fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// The gateway's HTTPS address.
    pub(crate) fn https(&self) -> SocketAddr {
        self.address("https")
    }

    /// DNS.
    pub(crate) fn dns(&self) -> SocketAddr {
        self.address("dns")
    }

    fn address(&self, field: &str) -> SocketAddr {
        let text = self.summary[field].as_str().expect("an address");
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        text.parse().expect("an address")
    }

    /// kubectl with the cluster's kubeconfig.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env(
                "KUBECONFIG",
                self.summary["kubeconfig"].as_str().expect("a path"),
            )
            .env("HOME", self.data_dir())
            .args(args)
            .current_dir(root())
            .stdin(Stdio::null());
        command
    }

    /// What kubectl prints; fails if it fails.
    pub(crate) fn kubectl_output(&self, args: &[&str]) -> String {
        output(&mut self.kubectl(args))
    }

    /// Objects as JSON.
    pub(crate) fn get(&self, what: &[&str]) -> Value {
        let mut args = vec!["get", "-o", "json"];
        args.extend(what);
        serde_json::from_str(&self.kubectl_output(&args)).expect("JSON")
    }

    /// Names of the pods with a label, those that are being deleted left out.
    pub(crate) fn pods(&self, selector: &str) -> Vec<String> {
        let pods = self.get(&["pods", "-l", selector]);
        let pods = pods["items"].as_array().expect("a list").iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: &str) {
        output(
            Command::new("kill")
                .arg(format!("-{signal}"))
                .arg(self.pid().to_string()),
        );
    }

    /// Waits until the process has ended, at most `deadline`; says how long it took and how it went.
    pub(crate) fn wait(&mut self, deadline: Duration) -> (Duration, std::process::ExitStatus) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return (started.elapsed(), status);
            }
            assert!(
                started.elapsed() < deadline,
                "still there after {deadline:?}\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if std::thread::panicking() {
            let seen = self.kubectl(&["get", "nodes,pods,events", "-A", "-o", "wide"]);
            if let Ok(seen) = { seen }.output() {
                eprintln!("{}", String::from_utf8_lossy(&seen.stdout));
            }
        }
        let _ = Command::new("kill").arg(self.pid().to_string()).status();
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Processes whose command line contains a text, by their numbers.
pub(crate) fn processes(text: &str) -> Vec<(u32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let mut line = String::new();
        std::fs::File::open(format!("/proc/{pid}/cmdline"))
            .and_then(|mut file| file.read_to_string(&mut line))
            .ok()?;
        let line = line.replace('\0', " ");
        line.contains(text).then_some((pid, line))
    })
    .collect()
}
