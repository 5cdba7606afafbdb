//! A mode for real clusters as a child process, on a real control plane, with the role that `deploy/`
//! gives it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use sealane_cluster::network::userns::prove_capabilities;
use sealane_cluster::network::{ClusterNetwork, ClusterNetworkOptions, PodNetwork};
use sealane_test_kubernetes::{ControlPlane, Options, Unavailable};
use serde_json::{Value, json};

use super::cluster::{collect, place};
use super::{DEADLINE, eventually, has, output, root, skip};

/// The node's address in the namespace that stands for one.
pub(crate) const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

/// A real control plane without controllers: only what a test writes is there.
pub(crate) struct Kubernetes {
    pub(crate) plane: ControlPlane,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Kubernetes {
    /// Starts one, if this machine can.
    pub(crate) async fn start() -> Option<Self> {
        if !has("kubectl") {
            return None;
        }
        let place = place().await;
        let options = Options {
            controllers: false,
            ..Options::default()
        };
        match ControlPlane::start(options).await {
            Ok(Ok(plane)) => Some(Self {
                plane,
                _place: place,
            }),
            Ok(Err(Unavailable(reason))) => {
                skip(&reason);
                None
            }
            Err(error) => panic!("{error:#}"),
        }
    }

    /// kubectl as somebody who may do everything.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Command {
        self.kubectl_as(self.plane.kubeconfig(), args)
    }

    /// kubectl with another kubeconfig.
    pub(crate) fn kubectl_as(&self, kubeconfig: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", self.plane.directory())
            .args(args)
            .current_dir(root())
            .stdin(Stdio::null());
        command
    }

    /// Installs a mode as `deploy/` has it, and returns the kubeconfig of its account.
    pub(crate) async fn deploy(&self, mode: &str) -> PathBuf {
        let file = format!("deploy/{mode}.yaml");
        let args = ["apply", "-f", "deploy/namespace.yaml", "-f", &file];
        output(&mut self.kubectl(&args));
        let made = self.plane.account_kubeconfig("sealane", mode).await;
        made.expect("a token")
    }

    /// Creates or changes objects.
    pub(crate) fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let file = self.plane.directory().join("objects.json");
        std::fs::write(&file, list.to_string()).unwrap();
        output(&mut self.kubectl(&["apply", "-f", file.to_str().unwrap()]));
    }

    /// An account of the cluster, from a namespace that does not have the API server: through a relay
    /// that listens in that namespace.
    pub(crate) async fn kubeconfig_within(&self, node: &Node, kubeconfig: &Path) -> PathBuf {
        let listener = node.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        self.kubeconfig_through(listener, kubeconfig)
    }

    /// The same through a listener of a pod's or the node's namespace.
    pub(crate) fn kubeconfig_through(&self, listener: TcpListener, kubeconfig: &Path) -> PathBuf {
        let relay = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let api = self.plane.api_addr();
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut outer) = tokio::net::TcpStream::connect(api).await {
                        let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
                    }
                });
            }
        });
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        let text = text.replace(&api.to_string(), &relay.to_string());
        let path = kubeconfig.with_extension("within");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Takes a verb on a resource out of a role (`clusterrole/NAME`, or `role/NAME` in the namespace of
    /// `deploy/`), and waits until the account feels it. Returns the role as it was.
    pub(crate) async fn revoke(&self, account: &Path, right: &Right) -> Value {
        let (role, resource) = (right.role, right.resource);
        let get = ["get", role, "-n", "sealane", "-o", "json"];
        let before: Value = serde_json::from_str(&output(&mut self.kubectl(&get))).unwrap();
        let mut after = before.clone();
        let mut found = false;
        for rule in after["rules"].as_array_mut().unwrap() {
            if rule["resources"]
                .as_array()
                .unwrap()
                .contains(&json!(resource))
            {
                let verbs = rule["verbs"].as_array_mut().unwrap();
                let count = verbs.len();
                verbs.retain(|verb| verb != right.verb);
                found |= verbs.len() < count;
            }
        }
        assert!(found, "{right:?} is in deploy/");
        let rules = after["rules"].as_array_mut().unwrap();
        rules.retain(|rule| {
            rule["verbs"]
                .as_array()
                .is_some_and(|verbs| !verbs.is_empty())
        });
        self.replace(&after);
        self.until_may(account, right, false).await;
        before
    }

    /// Puts a role back, and waits until the account feels it.
    pub(crate) async fn restore(&self, account: &Path, right: &Right, mut role: Value) {
        role["metadata"]["resourceVersion"].take();
        self.replace(&role);
        self.until_may(account, right, true).await;
    }

    fn replace(&self, object: &Value) {
        let file = self.plane.directory().join("replaced.json");
        std::fs::write(&file, object.to_string()).unwrap();
        output(&mut self.kubectl(&["replace", "-f", file.to_str().unwrap()]));
    }

    async fn until_may(&self, account: &Path, right: &Right, may: bool) {
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, subresource)) => (resource, format!("--subresource={subresource}")),
            None => (right.resource, "--subresource=".to_owned()),
        };
        // There are two resources of this name; the one without a group is the older form.
        let resource = match resource {
            "events" => "events.events.k8s.io",
            resource => resource,
        };
        let named = format!("{resource}/{}", right.name.unwrap_or_default());
        let what = if right.name.is_some() {
            named.as_str()
        } else {
            resource
        };
        eventually(&format!("{right:?}: {may}"), async || {
            let args = [
                "auth",
                "can-i",
                right.verb,
                what,
                &subresource,
                "-n",
                "sealane",
            ];
            let asked = self.kubectl_as(account, &args).output().unwrap();
            let answer = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
            if (answer == "yes") == may {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
    }
}

/// A right that a role gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right {
    /// `KIND/NAME` of the role.
    pub(crate) role: &'static str,
    /// The verb.
    pub(crate) verb: &'static str,
    /// The resource, with subresource.
    pub(crate) resource: &'static str,
    /// The object that it is restricted to.
    pub(crate) name: Option<&'static str>,
}

/// A network namespace that stands for a node, and namespaces of pods that are joined to it.
pub(crate) struct Node {
    network: ClusterNetwork,
}

impl Node {
    /// Makes one, if this machine lets us.
    pub(crate) fn new() -> Option<Self> {
        if let Err(error) = prove_capabilities() {
            skip(&error.to_string());
            return None;
        }
        let network = ClusterNetwork::create(ClusterNetworkOptions {
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            node_ip: NODE_IP,
            local_addresses: Vec::new(),
        });
        Some(Self {
            network: network.unwrap(),
        })
    }

    /// Runs something on a thread in the node's namespace.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let network = self.network.clone();
        let thread = std::thread::spawn(move || {
            network.enter().unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// A new pod.
    pub(crate) async fn pod(&self, name: &str) -> Pod {
        let network = PodNetwork::Namespaces(self.network.clone());
        let attached = network.attach(name, None).await.unwrap();
        Pod {
            ip: attached.ip.to_string().parse().unwrap(),
            netns: attached.netns.unwrap(),
        }
    }
}

/// A pod's namespace.
pub(crate) struct Pod {
    pub(crate) ip: Ipv4Addr,
    netns: std::os::fd::OwnedFd,
}

impl Pod {
    /// Runs something on a thread in the pod's namespace.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let netns = self.netns.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// Runs the demo workload on port 8000, under this name.
    pub(crate) fn echo(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
        command.args(["echo", "--port", "8000"]);
        let command = command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut command = std::mem::replace(command, Command::new("true"));
        let child = self.run(move || command.spawn().expect("sealane starts"));
        Process::new(child)
    }
}

/// A child process; dropping it kills it.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Process {
    fn new(mut child: Child) -> Self {
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("piped"), Arc::clone(&log));
        Self { child, log }
    }

    /// What it wrote to standard error.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("text").clone()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        output(Command::new("kill").args([&format!("-{signal}"), &pid]));
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let until = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < until, "still there\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A running mode.
pub(crate) struct Mode {
    pub(crate) process: Process,
    addresses: Value,
}

impl Mode {
    /// Starts it on ports that the kernel chooses, in the node's namespace if there is one, and waits
    /// until it has bound them.
    pub(crate) fn start(node: Option<&Node>, kubeconfig: &Path, args: &[&str]) -> Self {
        let mut command = Self::command(kubeconfig, args);
        let mut spawn = move || command.spawn().expect("sealane starts");
        Self::of(match node {
            Some(node) => node.run(spawn),
            None => spawn(),
        })
    }

    /// The command, on ports that the kernel chooses.
    pub(crate) fn command(kubeconfig: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
        command
            .args(args)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--admin", "127.0.0.1:0", "--output", "json"])
            .current_dir(root())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Waits until it has bound its ports.
    pub(crate) fn of(mut child: Child) -> Self {
        let stdout = child.stdout.take().expect("piped");
        let process = Process::new(child);
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let Ok(addresses) = serde_json::from_str(&line) else {
            panic!("no addresses: {line}\n{}", process.log());
        };
        Self { process, addresses }
    }

    /// Where it listens.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let text = self.addresses[name].as_str();
        text.unwrap_or_else(|| panic!("{name} in {}", self.addresses))
            .parse()
            .expect("an address")
    }

    /// A page of its admin listener, asked for in the namespace that it runs in.
    pub(crate) fn admin(&self, node: Option<&Node>, path: &str) -> (u16, String) {
        let (addr, path) = (self.address("admin"), path.to_owned());
        let ask = move || get(addr, "localhost", &path);
        let answer = match node {
            Some(node) => node.run(ask),
            None => ask(),
        };
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.process.log()))
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self, node: Option<&Node>) {
        eventually("ready", async || match self.admin(node, "/readyz") {
            (200, _) => Ok(()),
            (_, pending) => Err(format!("{pending}\n{}", self.process.log())),
        })
        .await;
    }

    /// Waits until its log says this.
    pub(crate) async fn says(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), async || {
            let log = self.process.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        })
        .await;
    }
}

/// A GET of its own connection from the calling thread's namespace: status and body.
pub(crate) fn get(addr: SocketAddr, host: &str, path: &str) -> Result<(u16, String), String> {
    let text = |error: std::io::Error| format!("{addr}: {error}");
    let mut stream = TcpStream::connect_timeout(&addr, DEADLINE).map_err(text)?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(text)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or("no status")?, body.to_owned()))
}
