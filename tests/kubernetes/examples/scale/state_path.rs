//! The state path in a process of its own: the process, and the parent's view of it.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use metrics_exporter_prometheus::PrometheusBuilder;
use sealane_config::client::{self, ClusterAddress};
use sealane_config::model::{Protocol, ServiceKey};
use sealane_config::watch::{self, WatchOptions};
use sealane_config::{Reader, Snapshot, snapshot};
use sealane_test_kubernetes::Size;
use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::{fail, now, say};

/// Changes arrive nearly in order: this many are looked for at once.
const WINDOW: usize = 256;

/// How long the last change may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process: runs the state path, tells when the first snapshot and each change is there, and
/// answers a line on standard input with its status. Ends with its standard input.
pub(crate) async fn run(kubeconfig: &Path, size: Size) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .init();
    // As the binary does at its start.
    rustix::thread::disable_transparent_huge_pages(true)?;
    let begun = Instant::now();
    let recorder = PrometheusBuilder::new().install_recorder()?;
    let address = ClusterAddress {
        kubeconfig: Some(kubeconfig.to_owned()),
        context: None,
        server: None,
    };
    let config = client::configuration(&address).await?;
    let client = client::connect(config, "scale").await?;
    let (publisher, mut reader) = snapshot::channel();
    let options = WatchOptions {
        names: true,
        ..WatchOptions::services_only()
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(watch::run(client, publisher, options, shutdown));
    while !reader.load().synced {
        reader.changed().await.context("the state path ended")?;
    }
    let first_snapshot = begun.elapsed();
    let endpoints = endpoints(&reader.load());
    say(&json!({
        "first_snapshot": first_snapshot.as_secs_f64(),
        "services": reader.load().services.size(),
        "endpoints": endpoints,
    }));
    let changes = Arc::default();
    tokio::spawn(note_changes(reader.clone(), size, Arc::clone(&changes)));
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        let text = recorder.render();
        let relists: f64 = text
            .lines()
            .filter(|line| line.starts_with("sealane_config_relists_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        let changes: &Vec<(usize, u64)> = &changes.lock().unwrap_or_else(PoisonError::into_inner);
        say(&json!({"relists": relists, "changes": changes}));
    }
    Ok(())
}

fn endpoints(snapshot: &Snapshot) -> usize {
    let ports = snapshot
        .services
        .values()
        .flat_map(|service| &service.ports);
    ports.map(|port| port.endpoints.len()).sum()
}

/// Which change was seen when. Only told when asked: writing each at once would block on a parent that
/// does not read meanwhile.
type Changes = Arc<Mutex<Vec<(usize, u64)>>>;

async fn note_changes(mut reader: Reader, size: Size, changes: Changes) {
    let mut seen = vec![false; size.services];
    let mut first = 0;
    while reader.changed().await.is_some() {
        let at = now();
        let snapshot = reader.load().clone();
        let unseen = seen.iter_mut().enumerate().skip(first).take(WINDOW);
        for (index, seen) in unseen {
            if !*seen && has_changed(&snapshot, index) {
                *seen = true;
                let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
                changes.push((index, at));
            }
        }
        while seen.get(first) == Some(&true) {
            first += 1;
        }
    }
    fail("the state path ended");
}

fn has_changed(snapshot: &Snapshot, index: usize) -> bool {
    let (namespace, name) = Size::service_name(index);
    let key = ServiceKey {
        namespace: namespace.into(),
        name: name.into(),
    };
    let service = snapshot.services.get(&key);
    let Some(port) = service.and_then(|service| service.port(80, Protocol::Tcp)) else {
        return false;
    };
    let changed = Size::changed_address(index);
    let mut endpoints = port.endpoints.iter();
    endpoints.any(|endpoint| endpoint.addr.ip() == changed)
}

/// The process as its parent sees it; it ends with this value.
pub(crate) struct StatePath {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// The first snapshot.
#[derive(Debug)]
pub(crate) struct Synced {
    pub(crate) first_snapshot: Duration,
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
}

impl StatePath {
    pub(crate) fn start(kubeconfig: &Path, size: Size) -> anyhow::Result<Self> {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(std::env::current_exe()?)
            .arg("statepath")
            .arg(kubeconfig)
            .args([size.services, size.endpoints_each].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the state path")?;
        let input = child.stdin.take().context("its input")?;
        let output = child.stdout.take().context("its output")?;
        let lines = BufReader::new(output).lines();
        Ok(Self {
            child,
            input,
            lines,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn next(&mut self) -> anyhow::Result<Value> {
        let line = self.lines.next().context("the state path has ended")??;
        let value: Value = serde_json::from_str(&line)?;
        if let Some(error) = value["error"].as_str() {
            bail!("the state path: {error}");
        }
        Ok(value)
    }

    /// Waits for the first snapshot.
    pub(crate) fn synced(&mut self) -> anyhow::Result<Synced> {
        let value = self.next()?;
        let number = |name: &str| value[name].as_u64().unwrap_or_default();
        let seconds = value["first_snapshot"].as_f64().unwrap_or_default();
        Ok(Synced {
            first_snapshot: Duration::from_secs_f64(seconds),
            services: usize::try_from(number("services"))?,
            endpoints: usize::try_from(number("endpoints"))?,
        })
    }

    fn ask(&mut self) -> anyhow::Result<Value> {
        writeln!(self.input)?;
        self.next()
    }

    /// How often kinds were listed.
    pub(crate) fn relists(&mut self) -> anyhow::Result<u64> {
        let relists = self.ask()?["relists"].as_f64().unwrap_or_default();
        Ok(relists as u64)
    }

    /// Waits until `count` changes were seen; returns when each was in the snapshot.
    pub(crate) fn seen(&mut self, count: usize) -> anyhow::Result<Vec<u64>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let changes: Vec<(usize, u64)> = serde_json::from_value(self.ask()?["changes"].take())?;
            if changes.len() >= count {
                let mut seen = vec![0; count];
                for (index, at) in changes {
                    *seen.get_mut(index).context("a change of ours")? = at;
                }
                return Ok(seen);
            }
            if Instant::now() > until {
                bail!("{} of {count} changes were seen", changes.len());
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }
}

impl Drop for StatePath {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
