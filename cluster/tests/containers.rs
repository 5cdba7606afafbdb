//! Containers with real processes and namespaces. This program is its own init: it is executed again
//! for each container, so it has a `main` of its own.

#![allow(
    clippy::print_stdout,
    reason = "a test program reports on standard output"
)]

use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rustix::process::Signal;
use sealane_cluster::network::userns::become_root_in_user_namespace;
use sealane_cluster::network::{ClusterNetwork, ClusterNetworkOptions, PodNetwork};
use sealane_cluster::runtime::container::{
    Container, ContainerSpec, ExecOutcome, InitCommand, Mount, StartError,
};
use sealane_cluster::runtime::{init, logs};
use sealane_cluster::streams::{ExecOptions, LogOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

type Case = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Where containers run.
struct World {
    dir: tempfile::TempDir,
    network: Option<PodNetwork>,
    number: std::cell::Cell<u32>,
}

impl World {
    fn new(network: Option<PodNetwork>) -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            network,
            number: std::cell::Cell::new(0),
        }
    }

    async fn spec(&self, command: &[&str]) -> ContainerSpec {
        let number = self.number.get();
        self.number.set(number + 1);
        let dir = self.dir.path().join(number.to_string());
        let netns = match &self.network {
            None => None,
            Some(network) => {
                let attached = network.attach(&format!("pod-{number}"), None).await;
                attached.expect("a pod's network").netns.map(Arc::new)
            }
        };
        ContainerSpec {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            working_dir: PathBuf::from("/"),
            hostname: "web-1".to_owned(),
            resolv_conf: Some("nameserver 10.96.0.10\n".to_owned()),
            hosts: Some("127.0.0.1 localhost\n10.244.0.9 web-1\n".to_owned()),
            mounts: Vec::new(),
            netns,
            log: logs::file(&dir, 0),
            scratch: dir.join("scratch"),
        }
    }

    async fn start(&self, command: &[&str]) -> Container {
        let spec = self.spec(command).await;
        Container::start(&InitCommand::default(), spec)
            .await
            .expect("it starts")
    }
}

async fn log(path: &Path) -> String {
    let lines = logs::read(path.to_owned(), LogOptions::default(), None)
        .await
        .expect("a log");
    let lines: Vec<_> = lines.collect().await;
    String::from_utf8(lines.concat()).expect("text")
}

async fn logged(world: &World, command: &[&str]) -> (i32, String) {
    let mut spec = world.spec(command).await;
    spec.env
        .push(("GREETING".to_owned(), "hello there".to_owned()));
    let path = spec.log.clone();
    let container = Container::start(&InitCommand::default(), spec)
        .await
        .expect("it starts");
    let exit = container.wait().await;
    let tail = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let all = logs::read(path.clone(), tail, Some(container.log()))
        .await
        .expect("a log");
    let _: Vec<_> = all.collect().await;
    (exit.code, log(&path).await)
}

/// Exit codes, and 128 + signal for signals.
async fn cluster_b2_exit_codes_and_signals(world: &World) {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        assert_eq!(
            logged(world, &["sh", "-c", script]).await.0,
            code,
            "{script}"
        );
    }
    let container = world.start(&["sleep", "60"]).await;
    container.signal(Signal::TERM);
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.signal), (143, Some(15)));
    let trapping = world
        .start(&[
            "sh",
            "-c",
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done",
        ])
        .await;
    let mut tail = None;
    while tail.is_none() {
        tail = std::fs::read_to_string(
            world
                .dir
                .path()
                .join(format!("{}/0.log", world.number.get() - 1)),
        )
        .ok()
        .filter(|text| text.contains("up"));
        tokio::task::yield_now().await;
    }
    trapping.signal(Signal::TERM);
    assert_eq!(trapping.wait().await.code, 3);
}

/// A program that is not there is another failure than a program that fails.
async fn cluster_b2_a_missing_program_is_named(world: &World) {
    for (command, text) in [
        (
            "no-such-program",
            "exec: \"no-such-program\": executable file not found in $PATH",
        ),
        ("/no/such", "exec: \"/no/such\": no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let spec = world.spec(&[command]).await;
        match Container::start(&InitCommand::default(), spec).await {
            Err(StartError::Program(message)) => assert_eq!(message, text),
            other => panic!("{command}: {other:?}"),
        }
    }
}

async fn cluster_b9_the_environment_is_what_the_spec_says(world: &World) {
    let (_, text) = logged(world, &["sh", "-c", "env | sort; pwd; echo oops >&2"]).await;
    assert!(
        text.contains("GREETING=hello there\nPATH=/usr/bin:/bin\n"),
        "{text}"
    );
    assert!(text.contains("\n/\n") && text.contains("oops\n"), "{text}");
    assert!(!text.contains("CARGO"), "nothing is inherited: {text}");
}

async fn a_container_has_its_own_name_files_and_processes(world: &World) {
    if world.network.is_none() {
        return;
    }
    let script =
        "hostname; cat /etc/resolv.conf /etc/hosts; ls /proc | grep -c '^[0-9]'; ls /sys/class/net";
    let (code, text) = logged(world, &["sh", "-c", script]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("web-1\nnameserver 10.96.0.10\n"), "{text}");
    assert!(text.contains("10.244.0.9 web-1\n"), "{text}");
    let here = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    assert!(!here.contains("10.244.0.9"), "the machine's own files stay");
    let processes = text.lines().find_map(|line| line.parse::<u32>().ok());
    assert!(processes.is_some_and(|count| count < 10), "{text}");
}

async fn cluster_c13_exec_joins_the_container(world: &World) {
    let container = world.start(&["sleep", "60"]).await;
    let command = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let outcome = container
        .run_probe(
            &command(&["sh", "-c", "echo here; exit 4"]),
            Duration::from_secs(5),
        )
        .await;
    assert_eq!(outcome, ExecOutcome::Exited(4, "here\n".to_owned()));
    let late = container
        .run_probe(&command(&["sleep", "60"]), Duration::from_millis(100))
        .await;
    assert_eq!(late, ExecOutcome::TimedOut);
    let missing = container
        .run_probe(&command(&["nothing"]), Duration::from_secs(5))
        .await;
    assert!(
        matches!(&missing, ExecOutcome::Failed(text) if text.contains("not found")),
        "{missing:?}"
    );

    let mut session = container
        .exec(ExecOptions {
            command: command(&["sh", "-c", "hostname; cat; exit 9"]),
            stdin: true,
            stdout: true,
            ..ExecOptions::default()
        })
        .await
        .expect("a session");
    let mut stdin = session.stdin.take().expect("an input");
    stdin.write_all(b"typed\n").await.expect("it reads");
    drop(stdin);
    let mut text = String::new();
    session
        .stdout
        .take()
        .expect("an output")
        .read_to_string(&mut text)
        .await
        .expect("text");
    if world.network.is_some() {
        assert_eq!(text, "web-1\ntyped\n");
    } else {
        assert!(text.ends_with("typed\n"), "{text}");
    }
    assert_eq!(session.exit.await, Ok(9));

    let mut session = container
        .exec(ExecOptions {
            command: command(&["sh", "-c", "tty; stty size; exit 0"]),
            tty: true,
            stdout: true,
            ..ExecOptions::default()
        })
        .await
        .expect("a session");
    let mut text = String::new();
    session
        .stdout
        .take()
        .expect("an output")
        .read_to_string(&mut text)
        .await
        .expect("text");
    assert!(text.starts_with("/dev/pts/"), "{text:?}");
    assert_eq!(session.exit.await, Ok(0));
    container.kill();
    assert_eq!(container.wait().await.code, 137);
}

async fn nothing_is_left_when_a_container_ends(world: &World) {
    // A process that leaves the program's group and session.
    let marker = format!("7{:05}", std::process::id() % 100_000);
    let script = format!("setsid sleep {marker} & sleep {marker}");
    let killed = world.start(&["sh", "-c", &script]).await;
    until("both run", || count(&marker) >= 2).await;
    killed.kill();
    killed.wait().await;
    until("none is left", || count(&marker) == 0).await;
    let dropped = world.start(&["sh", "-c", &script]).await;
    until("both run", || count(&marker) >= 2).await;
    drop(dropped);
    until("none is left", || count(&marker) == 0).await;
}

async fn cluster_c13_dropping_a_session_ends_its_command(world: &World) {
    let container = world.start(&["sleep", "60"]).await;
    let marker = format!("9{:05}", std::process::id() % 100_000);
    for tty in [false, true] {
        let script = format!("sleep {marker} & sleep {marker}");
        let options = ExecOptions {
            command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
            stdin: true,
            stdout: true,
            tty,
            ..ExecOptions::default()
        };
        let session = container.exec(options).await.expect("a session");
        until("it runs", || count(&marker) == 2).await;
        drop(session);
        until("it has ended", || count(&marker) == 0).await;
    }
    assert_eq!(container.exit(), None, "the container goes on");
}

async fn cluster_z1_a_terminal_is_typed_to_and_resized(world: &World) {
    let container = world.start(&["sleep", "60"]).await;
    let script = "stty size; read line; stty size; echo \"got $line\"";
    let mut session = container
        .exec(ExecOptions {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            stdin: true,
            stdout: true,
            tty: true,
            ..ExecOptions::default()
        })
        .await
        .expect("a session");
    let mut stdout = session.stdout.take().expect("an output");
    let mut shown = String::new();
    let mut buffer = [0; 256];
    while !shown.contains("\r\n") {
        let count = stdout.read(&mut buffer).await.expect("output");
        assert_ne!(count, 0, "{shown}");
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    session.resize.send((101, 42)).await.expect("it is taken");
    let resize = session.resize.clone();
    until("the size is set", || {
        resize.capacity() == resize.max_capacity()
    })
    .await;
    let mut stdin = session.stdin.take().expect("an input");
    stdin.write_all(b"typed\n").await.expect("it reads");
    stdout.read_to_string(&mut shown).await.expect("text");
    assert!(shown.contains("42 101\r\ngot typed\r\n"), "{shown:?}");
    assert_eq!(session.exit.await, Ok(0));
}

/// Ctrl-C in the agent's terminal goes to its process group, and must not end pods.
async fn cluster_b4_containers_are_out_of_reach_of_the_terminal(world: &World) {
    let container = world.start(&["sleep", "60"]).await;
    let pid = i32::try_from(container.pid()).expect("a number");
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).expect("a group");
    assert_eq!(group.as_raw(), pid);
}

async fn cluster_b10_volumes_where_the_machine_has_nothing(world: &World) {
    if world.network.is_none() {
        return;
    }
    let mut spec = world
        .spec(&[
            "sh",
            "-c",
            "cat /sealane-test/a/key /etc/sealane-test/key /sealane-test/one.conf; \
             echo no > /sealane-test/a/key; echo yes > /etc/sealane-test/new; \
             cat /etc/resolv.conf; head -c 4 /proc/self/stat; sleep 60",
        ])
        .await;
    let volume = world.dir.path().join("volume");
    std::fs::create_dir(&volume).expect("a directory");
    std::fs::write(volume.join("key"), "value\n").expect("a file");
    let mount = |source: &Path, target: &str, read_only| Mount {
        source: source.to_owned(),
        target: target.into(),
        read_only,
    };
    spec.mounts = vec![
        mount(&volume, "/sealane-test/a", true),
        mount(&volume, "/etc/sealane-test", false),
        mount(&volume.join("key"), "/sealane-test/one.conf", true),
    ];
    let path = spec.log.clone();
    let container = Container::start(&InitCommand::default(), spec)
        .await
        .expect("it starts");
    let ls = ["ls", "/sealane-test"].map(str::to_owned);
    let inside = container.run_probe(&ls, Duration::from_secs(5)).await;
    assert_eq!(inside, ExecOutcome::Exited(0, "a\none.conf\n".to_owned()));
    until("it wrote to the volume", || volume.join("new").exists()).await;
    let logged = || std::fs::read_to_string(&path).unwrap_or_default();
    until("its last line is logged", || {
        logged().contains("nameserver")
    })
    .await;
    let value = std::fs::read_to_string(volume.join("key")).expect("a file");
    assert_eq!(value, "value\n", "a read-only volume was written to");
    container.kill();
    container.wait().await;
    let text = log(&path).await;
    assert!(text.starts_with("value\nvalue\nvalue\n"), "{text}");
    assert!(text.contains("nameserver 10.96.0.10\n"), "{text}");
    for target in ["/sealane-test", "/etc/sealane-test"] {
        assert!(!Path::new(target).exists(), "{target} is on the machine");
    }
}

/// The agent dies by `kill -9`: neither the program nor what it started elsewhere goes on.
async fn cluster_b12_nothing_outlives_a_killed_agent(world: &World) {
    let marker = format!("8{:05}", std::process::id() % 100_000);
    let kind = if world.network.is_some() {
        "own"
    } else {
        "none"
    };
    let mut agent = std::process::Command::new("/proc/self/exe")
        .args([VICTIM, kind, &marker])
        .spawn()
        .expect("a process");
    until("both run", || count(&marker) >= 2).await;
    agent.kill().expect("it runs");
    agent.wait().expect("it ended");
    until("none is left", || count(&marker) == 0).await;
}

/// First argument of the process that the case above kills.
const VICTIM: &str = "__victim";

fn victim(mut args: impl Iterator<Item = String>) -> ExitCode {
    let network = args.next().filter(|kind| kind == "own").map(|_| network());
    let script = args
        .next()
        .map(|marker| format!("setsid sleep {marker} & sleep {marker}"));
    let world = World::new(network);
    runtime().block_on(async {
        let container = world.start(&["sh", "-c", &script.expect("a marker")]).await;
        container.wait().await;
    });
    ExitCode::SUCCESS
}

/// Processes `sleep MARKER`.
fn count(marker: &str) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines =
        entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| *line == format!("sleep\0{marker}\0"))
        .count()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), (|world| Box::pin($name(world))) as Case)),*]
    };
}

/// First argument of the process that runs the cases as an ordinary user.
const ROOTLESS: &str = "__rootless";

/// Runs the cases as nobody, in a user namespace.
fn again_without_root(filter: &str) -> ExitCode {
    println!("the same as an ordinary user");
    let status = std::process::Command::new("/proc/self/exe")
        .args([ROOTLESS, filter])
        .uid(65534)
        .gid(65534)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn network() -> PodNetwork {
    let cidr = |text: &str| text.parse().expect("a network");
    ClusterNetwork::create(ClusterNetworkOptions {
        pod_cidr: cidr("10.244.0.0/16"),
        service_cidr: cidr("10.96.0.0/16"),
        node_ip: "10.244.0.1".parse().expect("an address"),
        local_addresses: Vec::new(),
    })
    .map(PodNetwork::Namespaces)
    .expect("a cluster network")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn main() -> ExitCode {
    if let Some(code) = init::main(std::env::args_os()) {
        return code;
    }
    let mut args = std::env::args().skip(1);
    let mut rootless = false;
    match args.next().as_deref() {
        Some(VICTIM) => return victim(args),
        Some(ROOTLESS) => {
            become_root_in_user_namespace().expect("a user namespace");
            rootless = true;
        }
        _ => {}
    }
    let cases = cases![
        cluster_b2_exit_codes_and_signals,
        cluster_b2_a_missing_program_is_named,
        cluster_b9_the_environment_is_what_the_spec_says,
        a_container_has_its_own_name_files_and_processes,
        cluster_c13_exec_joins_the_container,
        nothing_is_left_when_a_container_ends,
        cluster_c13_dropping_a_session_ends_its_command,
        cluster_z1_a_terminal_is_typed_to_and_resized,
        cluster_b4_containers_are_out_of_reach_of_the_terminal,
        cluster_b10_volumes_where_the_machine_has_nothing,
        cluster_b12_nothing_outlives_a_killed_agent,
    ];
    let filter = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-') && arg != ROOTLESS)
        .unwrap_or_default();
    let root = rustix::process::geteuid().is_root();
    let network = root.then(network);
    let mut run = 0;
    for (kind, network) in [("in namespaces", network), ("without namespaces", None)] {
        if kind == "in namespaces" && network.is_none() {
            assert_ne!(
                std::env::var("SEALANE_TEST_REQUIRE").as_deref(),
                Ok("all"),
                "not root"
            );
            println!("skipped in namespaces: not root");
            continue;
        }
        let runtime = runtime();
        let world = World::new(network);
        for (name, case) in cases.iter().filter(|(name, _)| name.contains(&filter)) {
            println!("test {name} ({kind}) ...");
            let limit = Duration::from_secs(60);
            let done = runtime.block_on(async { tokio::time::timeout(limit, case(&world)).await });
            done.expect("in time");
            run += 1;
        }
    }
    println!("test result: ok. {run} passed; 0 failed");
    if root && !rootless {
        return again_without_root(&filter);
    }
    ExitCode::SUCCESS
}
