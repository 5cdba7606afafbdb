//! The resolvers of glibc and musl, as programs in a network of their own, with a pod's
//! `resolv.conf`.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

use crate::embedded::Embedded;
use crate::objects::{NAMESPACE, external, headless, host, service, slice};
use crate::servers::{Server, Settings};
use crate::support::{program, skip};
use crate::upstream;

/// What the kubelet writes into a pod of [`NAMESPACE`].
const RESOLV_CONF: &str = "\
nameserver 127.0.0.1
search testns.svc.cluster.local svc.cluster.local cluster.local
options ndots:5 timeout:3 attempts:2
";

/// A network namespace that has loopback only.
struct Network {
    namespace: std::fs::File,
}

impl Network {
    /// Makes one, if this machine lets us.
    fn new() -> Option<Self> {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.is_ok_and(|status| status.success()), "ip link set lo up");
            Ok(std::fs::File::open("/proc/thread-self/ns/net").unwrap())
        });
        let made: nix::Result<std::fs::File> = made.join().unwrap();
        match made {
            Ok(namespace) => Some(Self { namespace }),
            Err(error) => {
                skip(&format!("network namespaces cannot be made: {error}"));
                None
            }
        }
    }

    /// Runs something on a thread in it.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Runs a program in it that sees files of its own where the resolver looks.
    fn output(&self, directory: &Path, program: &Path, names: &[&str]) -> String {
        let script = "mount --make-rprivate / && \
            mount --bind \"$1/resolv.conf\" /etc/resolv.conf && \
            mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf && shift && exec \"$@\"";
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.namespace.as_raw_fd()
        );
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={path}"))
            .args(["unshare", "--mount", "sh", "-ec", script, "sh"])
            .arg(directory)
            .arg(program)
            .args(names);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {text}{errors}");
        text
    }
}

/// Compiles the program that looks names up.
fn compile(compiler: &str, flags: &[&str], directory: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dns/resolve.c");
    let made = directory.join(format!("resolve-{compiler}"));
    let mut command = Command::new(compiler);
    command.args(["-O1", "-Wall", "-Werror"]).args(flags);
    let status = command.arg("-o").arg(&made).arg(source).status().unwrap();
    assert!(status.success(), "{compiler}: {status}");
    made
}

fn objects() -> Vec<Value> {
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let web = json!({"clusterIP": "10.96.0.80", "ports": [{"name": "http", "port": 80}]});
    let mut elsewhere = service(
        "api",
        json!({"clusterIP": "10.96.0.81", "ports": [{"port": 80}]}),
    );
    elsewhere["metadata"]["namespace"] = "default".into();
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        service("web", web),
        elsewhere,
        headless("db", &["IPv4"]),
        slice(
            "db",
            "a",
            "IPv4",
            &ports,
            &[
                host("10.244.0.1", "db-0"),
                host("10.244.0.2", "db-1"),
                host("10.244.0.3", "db-2"),
            ],
        ),
        slice("db", "b", "IPv6", &ports, &[host("fd00:244::1", "db-0")]),
        headless("empty", &["IPv4"]),
        external("shop", "www.example.com"),
        external("alias", "alias.example.com"),
    ]
}

/// A name as a program gives it, and what it gets.
const NAMES: [(&str, &str); 15] = [
    ("web", "10.96.0.80"),
    ("web.testns", "10.96.0.80"),
    ("web.testns.svc", "10.96.0.80"),
    ("web.testns.svc.cluster.local", "10.96.0.80"),
    ("web.testns.svc.cluster.local.", "10.96.0.80"),
    ("api.default", "10.96.0.81"),
    ("api", "none"),
    ("db", "10.244.0.1 10.244.0.2 10.244.0.3 fd00:244::1"),
    ("db-0.db", "10.244.0.1 fd00:244::1"),
    ("db-9.db", "none"),
    ("empty", "none"),
    ("missing", "none"),
    ("shop", "192.0.2.80 2001:db8::"),
    ("www.example.com", "192.0.2.80 2001:db8::"),
    ("missing.example.com", "none"),
];

/// Both resolvers ask for A and AAAA in parallel, and walk the search path for every name with fewer
/// than five dots.
#[tokio::test(flavor = "multi_thread")]
async fn dns_a2_resolvers_of_glibc_and_musl_find_names_through_the_search_path() {
    for needed in ["cc", "musl-gcc", "nsenter", "unshare", "ip"] {
        if !program(needed) {
            return;
        }
    }
    let Some(network) = Network::new() else {
        return;
    };
    let listener = network.run(|| TcpListener::bind("127.0.0.1:6443").unwrap());
    let embedded = Embedded::start(listener).await;
    let directory = embedded.directory.path();
    std::fs::write(directory.join("resolv.conf"), RESOLV_CONF).unwrap();
    std::fs::write(directory.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    for object in objects() {
        embedded.api.create(&object).await;
    }
    let upstream = network.run(upstream::start);
    let upstreams = [upstream];
    let settings = Settings {
        port: Some(53),
        ..Settings::new(&embedded.kubeconfig, &upstreams)
    };
    tokio::task::block_in_place(|| {
        // The thread names the namespace, so it lives until the program runs.
        let server = network.run(|| {
            let mut server = Server::sealane(directory, &settings);
            server.until_ready();
            server
        });
        let names = NAMES.map(|(name, _)| name);
        let expected: Vec<String> = NAMES.map(|(name, got)| format!("{name} {got}")).to_vec();
        for (compiler, flags) in [("musl-gcc", &["-static"][..]), ("cc", &[])] {
            let resolver = compile(compiler, flags, directory);
            let output = network.output(directory, &resolver, &names);
            let lines: Vec<&str> = output.lines().collect();
            assert_eq!(lines, expected, "{compiler}");
        }
        drop(server);
    });
}
