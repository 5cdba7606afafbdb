//! Edits of one host's path among many hosts, and how long each takes to show, while other clients go
//! on with their requests on connections that they keep.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Served, block_on, pause_before_look};
use crate::stage::write;

/// The host that is edited, and the Ingress of that name.
pub(crate) const EDITED: &str = "edited";

/// Clients beside the edits, and the pause between their requests.
const BESIDE: usize = 16;
const PAUSE: Duration = Duration::from_millis(5);

/// Between one edit's effect and the next edit.
const REST: Duration = Duration::from_millis(50);

/// An edit that has no effect in this time never will.
const EFFECT: Duration = Duration::from_secs(60);

/// How a proxy's configuration is edited.
pub(crate) enum Editor {
    /// The Ingress is changed at the API server.
    Kubernetes { kubeconfig: PathBuf },
    /// The file `edited.conf` is written anew and nginx told to read its configuration, as an ingress
    /// controller on nginx does.
    Nginx { dir: PathBuf, addr: SocketAddr },
}

/// An editor at work.
enum Work<'a> {
    Kubernetes(Box<kube::Api<Ingress>>),
    Nginx(&'a Editor),
}

impl Editor {
    /// Writes the first form of nginx's file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn nginx(dir: PathBuf, addr: SocketAddr) -> anyhow::Result<Self> {
        let editor = Self::Nginx { dir, addr };
        editor.write("/edit-0")?;
        Ok(editor)
    }

    async fn open(&self) -> anyhow::Result<Work<'_>> {
        let Self::Kubernetes { kubeconfig } = self else {
            return Ok(Work::Nginx(self));
        };
        let client = super::client(kubeconfig).await?;
        let ingresses = kube::Api::namespaced(client, "default");
        Ok(Work::Kubernetes(Box::new(ingresses)))
    }

    fn write(&self, path: &str) -> anyhow::Result<()> {
        if let Self::Nginx { dir, addr } = self {
            let text = format!(
                "server {{ listen {addr}; server_name {EDITED}.test; \
                 location {path} {{ proxy_pass http://backend; }} location / {{ return 404; }} }}\n"
            );
            write(dir, "edited.conf", &text)?;
        }
        Ok(())
    }

    fn reload(&self) -> anyhow::Result<()> {
        if let Self::Nginx { dir, .. } = self {
            let text = std::fs::read_to_string(dir.join("nginx.pid")).context("no nginx.pid")?;
            let pid = Pid::from_raw(text.trim().parse()?).context("not the id of a process")?;
            kill_process(pid, Signal::HUP)?;
        }
        Ok(())
    }
}

impl Work<'_> {
    async fn edit(&self, path: &str) -> anyhow::Result<()> {
        match self {
            Self::Kubernetes(ingresses) => {
                let edit = json!([{"op": "replace", "path": "/spec/rules/0/http/paths/0/path", "value": path}]);
                let edit: Patch<()> = Patch::Json(serde_json::from_value(edit)?);
                ingresses
                    .patch(EDITED, &PatchParams::default(), &edit)
                    .await?;
                Ok(())
            }
            Self::Nginx(editor) => {
                editor.write(path)?;
                editor.reload()
            }
        }
    }
}

/// Edits, one after the other; what takes time is from the API server's word that it has an edit, or from
/// the signal to nginx, to the first answer that shows it.
///
/// # Errors
/// An edit failed or had no effect, or an answer beside was not a good one.
pub(crate) fn edits(addr: SocketAddr, editor: &Editor, time: Duration) -> anyhow::Result<Served> {
    static EDITS: AtomicU64 = AtomicU64::new(1);
    block_on(async {
        let work = editor.open().await?;
        let is_over = Rc::new(Cell::new(false));
        let mut beside = JoinSet::new();
        for _ in 0..BESIDE {
            beside.spawn_local(ask(addr, Rc::clone(&is_over)));
        }
        let mut looking = Kept::new(addr);
        let mut taken = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < time {
            let path = format!("/edit-{}", EDITS.fetch_add(1, Relaxed));
            work.edit(&path).await?;
            let edited = Instant::now();
            while looking.get(EDITED, &path).await? != 200 {
                ensure!(edited.elapsed() < EFFECT, "an edit had no effect");
                pause_before_look(edited);
            }
            taken.push(edited.elapsed());
            sleep(REST).await;
        }
        is_over.set(true);
        let mut served = Served::of(taken, begun.elapsed());
        while let Some(closed) = beside.join_next().await {
            served.closed += closed??;
        }
        Ok(served)
    })
}

/// Asks over and over; returns how often the connection was closed.
async fn ask(addr: SocketAddr, is_over: Rc<Cell<bool>>) -> anyhow::Result<u64> {
    let mut kept = Kept::new(addr);
    while !is_over.get() {
        let status = kept.get("host-0", "/").await?;
        ensure!(status == 200, "an answer of {status} beside an edit");
        sleep(PAUSE).await;
    }
    Ok(kept.closed)
}

/// A connection that is kept, and made anew when the server closes it.
struct Kept {
    addr: SocketAddr,
    stream: Option<TcpStream>,
    closed: u64,
}

impl Kept {
    fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            stream: None,
            closed: 0,
        }
    }

    /// The status of an answer.
    async fn get(&mut self, host: &str, path: &str) -> anyhow::Result<u16> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}.test\r\n\r\n");
        loop {
            let is_kept = self.stream.is_some();
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => TcpStream::connect(self.addr).await?,
            };
            match exchange(&mut stream, &request).await {
                Ok(status) => {
                    self.stream = Some(stream);
                    return Ok(status);
                }
                Err(error) if is_kept => {
                    // The server may close a connection that is idle, but that is what is counted.
                    drop(error);
                    self.closed += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

async fn exchange(stream: &mut TcpStream, request: &str) -> anyhow::Result<u16> {
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            bail!("closed in mid-answer");
        }
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.context("an answer without Content-Length")? {
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            return status.context("an answer without a status");
        }
    }
}
