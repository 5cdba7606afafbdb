//! The system's clock jumps while the state path runs.
//!
//! It runs in a process of its own (this test program again), whose clock is libfaketime's. The
//! monotonic clock is left alone, as by a real jump.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use sealane_config::watch::WatchOptions;
use serde_json::{Value, json};

use crate::plane;
use crate::world::{Operator, PATIENCE, World};

/// Tells the process which kubeconfig to use, and that it is the process.
const KUBECONFIG: &str = "SEALANE_TEST_CLOCK_KUBECONFIG";

/// A year and more forward; an hour back.
const JUMPS: [&str; 3] = ["+400d", "-1h", "+0d"];

/// Where Debian and others keep the library.
fn libfaketime() -> Option<PathBuf> {
    let mut directories = vec![PathBuf::from("/usr/lib/faketime")];
    let below = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    directories.extend(below.map(|entry| entry.path().join("faketime")));
    let libraries = directories
        .iter()
        .map(|path| path.join("libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

/// The process: prints what each snapshot has.
#[tokio::test]
#[ignore = "the process that the test of the clock starts"]
async fn state_path() {
    let Some(kubeconfig) = std::env::var_os(KUBECONFIG) else {
        return;
    };
    let mut world = World::synced(kubeconfig.into(), WatchOptions::default()).await;
    loop {
        let snapshot = world.reader.load().clone();
        let names = snapshot.services.keys().map(|key| key.name.to_string());
        let problems = snapshot.problems.iter().map(|problem| problem.kind.label());
        let state = json!({
            "seconds": jiff::Timestamp::now().as_second(),
            "services": names.collect::<Vec<_>>(),
            "problems": problems.collect::<Vec<_>>(),
            "certificate": snapshot.certificates.find("clock.test").is_some(),
            "interrupted": world.log.count(&["watch interrupted"]),
            "age": world.reader.staleness().oldest().as_secs_f64(),
        });
        let mut output = std::io::stdout().lock();
        writeln!(output, "\nstate {state}").expect("the test reads");
        drop(output);
        world.reader.changed().await;
    }
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    last: Value,
}

impl Process {
    fn start(library: &Path, kubeconfig: &Path, clock: &Path) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["--exact", "clock::state_path", "--ignored", "--nocapture"])
            .env(KUBECONFIG, kubeconfig)
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the process starts");
        let output = child.stdout.take().expect("its output");
        Self {
            child,
            lines: BufReader::new(output).lines(),
            last: Value::Null,
        }
    }

    /// Waits for a state. The process prints one with every snapshot, and what is waited for changes
    /// the snapshot.
    fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Duration {
        let begun = Instant::now();
        while !wanted(&self.last) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {}", self.last);
            let line = self.lines.next().expect("the process goes on");
            let line = line.expect("a line");
            if let Some(state) = line.strip_prefix("state ") {
                self.last = serde_json::from_str(state).expect("a state");
            }
        }
        let took = begun.elapsed();
        eprintln!("{what}: {took:?}");
        took
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has(state: &Value, name: &str) -> bool {
    let services = state["services"].as_array();
    services.is_some_and(|services| services.iter().any(|service| service == name))
}

/// A certificate for the next thirty days.
fn certificate() -> Value {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["clock.test".to_owned()]).expect("a name");
    let now = std::time::SystemTime::now();
    let day = Duration::from_secs(86_400);
    params.not_before = (now - day).into();
    params.not_after = (now + 30 * day).into();
    let certificate = params.self_signed(&key).expect("a certificate");
    json!({
        "metadata": {"name": "clock"},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": STANDARD.encode(certificate.pem()),
            "tls.key": STANDARD.encode(key.serialize_pem()),
        },
    })
}

#[tokio::test]
async fn reliability_f24_clock_jumps_while_running() {
    let Some(library) = libfaketime() else {
        let required = std::env::var("SEALANE_TEST_REQUIRE");
        assert_ne!(required.as_deref(), Ok("all"), "libfaketime is missing");
        eprintln!("skipped: libfaketime (Debian: faketime) is not installed");
        return;
    };
    let Some(plane) = plane::shared() else {
        return;
    };
    let operator = Operator::new(plane.admin().await, "clock").await;
    let class =
        json!({"metadata": {"name": "clock"}, "spec": {"controller": "sealane.dev/ingress"}});
    let networking = "networking.k8s.io/v1";
    operator.create(networking, "IngressClass", class).await;
    operator.create("v1", "Secret", certificate()).await;
    operator.service("web").await;
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let ingress = json!({
        "metadata": {"name": "clock"},
        "spec": {
            "ingressClassName": "clock",
            "rules": [{"host": "clock.test", "http": {"paths": [path]}}],
            "tls": [{"hosts": ["clock.test"], "secretName": "clock"}],
        },
    });
    operator.create(networking, "Ingress", ingress).await;

    let clock = plane.directory().join("clock");
    fs::write(&clock, "+0d").expect("a clock");
    let mut process = Process::start(&library, plane.kubeconfig(), &clock);
    process.until("synced", |state| {
        has(state, "web") && state["certificate"] == true
    });
    let before = process.last["seconds"].as_i64().expect("a time");
    for jump in JUMPS {
        // In one step, or the process reads half of it.
        let new = clock.with_extension("new");
        fs::write(&new, jump).expect("a clock");
        fs::rename(&new, &clock).expect("a clock");
        let name = format!("after{}", jump.replace('+', "-plus"));
        operator.service(&name).await;
        let took = process.until(&name, |state| has(state, &name));
        assert!(took < Duration::from_secs(2), "{jump}: {took:?}");
        let moved = process.last["seconds"].as_i64().expect("a time") - before;
        let is_valid = jump != "+400d";
        assert_eq!(
            moved > 86_400 * 300,
            !is_valid,
            "{jump}: moved by {moved} s"
        );
        // Certificates are judged by this clock, at the next look.
        process.until("certificate", |state| {
            let problems = state["problems"].as_array().expect("a list");
            let is_refused = problems.iter().any(|kind| kind == "certificate_time");
            is_refused != is_valid
        });
        let state = &process.last;
        assert_eq!(state["interrupted"], 0, "{jump}: watches go on: {state}");
        assert!(state["age"].as_f64() < Some(60.0), "{jump}: {state}");
    }
}
