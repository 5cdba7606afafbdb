//! A certificate that is replaced every second, and clients that look which one is served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::edits::HELD_HOST;
use crate::tls;

/// The Secret with the certificate.
pub(crate) const SECRET: &str = "held-tls";

/// From one certificate to the next.
const EVERY: Duration = Duration::from_secs(1);

/// From one handshake to the next.
const LOOK: Duration = Duration::from_millis(50);

/// How long a replaced certificate may still be shown (ingress I20).
const LATE: Duration = Duration::from_secs(1);

/// The certificates so far, each with the time at which the API had taken it.
type Issued = Arc<Mutex<Vec<(CertificateDer<'static>, Instant)>>>;

/// What clients were shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Certificates that there were.
    pub(crate) rotations: usize,
    /// Handshakes.
    pub(crate) handshakes: usize,
    /// Those that failed, or got a certificate that is none of ours, by what happened.
    pub(crate) failed: BTreeMap<String, usize>,
    /// For how long the certificate had been replaced, sorted.
    pub(crate) stale: Vec<Duration>,
}

impl Shown {
    /// Nothing but our certificates, nearly always in time: this machine is busy.
    pub(crate) fn passed(&self) -> bool {
        let late = self.stale.iter().filter(|stale| **stale > LATE).count();
        self.failed.is_empty() && self.handshakes > 0 && late * 100 <= self.handshakes
    }
}

/// Rotates and looks; ends with [`Self::stop`].
pub(crate) struct Rotation {
    stop: CancellationToken,
    rotating: tokio::task::JoinHandle<anyhow::Result<()>>,
    looking: tokio::task::JoinHandle<Shown>,
    issued: Issued,
}

impl Rotation {
    /// Publishes the first certificate, waits until the gateway shows it, and goes on from there.
    pub(crate) async fn start(client: Client, gateway: SocketAddr) -> anyhow::Result<Self> {
        let issued = Issued::default();
        issue(&client, &issued).await?;
        let looker = tls::Client::new("http/1.1")?;
        let until = Instant::now() + crate::cluster::DEADLINE;
        while look(&looker, gateway, &issued).await.is_err() {
            ensure!(
                Instant::now() < until,
                "the first certificate is not served"
            );
            tokio::time::sleep(LOOK).await;
        }
        let stop = CancellationToken::new();
        let rotating = {
            let (stop, issued) = (stop.clone(), Arc::clone(&issued));
            tokio::spawn(async move {
                let mut times = tokio::time::interval(EVERY);
                while stop.run_until_cancelled(times.tick()).await.is_some() {
                    issue(&client, &issued).await?;
                }
                Ok(())
            })
        };
        let looking = {
            let (stop, issued) = (stop.clone(), Arc::clone(&issued));
            tokio::spawn(watch(looker, gateway, issued, stop))
        };
        Ok(Self {
            stop,
            rotating,
            looking,
            issued,
        })
    }

    /// Stops, and says what clients were shown.
    pub(crate) async fn stop(self) -> anyhow::Result<Shown> {
        self.stop.cancel();
        self.rotating.await?.context("a rotation failed")?;
        let mut shown = self.looking.await?;
        shown.rotations = self.issued.lock().map_or(0, |issued| issued.len());
        shown.stale.sort_unstable();
        Ok(shown)
    }
}

async fn watch(
    client: tls::Client,
    gateway: SocketAddr,
    issued: Issued,
    stop: CancellationToken,
) -> Shown {
    let mut shown = Shown::default();
    let mut times = tokio::time::interval(LOOK);
    while stop.run_until_cancelled(times.tick()).await.is_some() {
        shown.handshakes += 1;
        match look(&client, gateway, &issued).await {
            Ok(stale) => shown.stale.push(stale),
            Err(error) => *shown.failed.entry(format!("{error:#}")).or_default() += 1,
        }
    }
    shown
}

/// Makes a handshake; says how long before it the certificate had been replaced.
async fn look(
    client: &tls::Client,
    gateway: SocketAddr,
    issued: &Issued,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let stream = client.connect(gateway, HELD_HOST).await?;
    let shown = tls::shown(&stream).context("no certificate")?;
    // What is not listed yet may be on its way.
    let until = Instant::now() + LATE;
    loop {
        {
            let issued = issued.lock().ok().context("a thread panicked")?;
            if let Some(place) = issued.iter().position(|(one, _)| *one == shown) {
                let next = issued.get(place + 1);
                let replaced = next.map(|(_, at)| started.saturating_duration_since(*at));
                return Ok(replaced.unwrap_or_default());
            }
        }
        ensure!(Instant::now() < until, "a certificate that is none of ours");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn issue(client: &Client, issued: &Issued) -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed([HELD_HOST.to_owned()])?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": BASE64_STANDARD.encode(made.cert.pem()),
            "tls.key": BASE64_STANDARD.encode(made.signing_key.serialize_pem()),
        },
    });
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let params = PatchParams::apply("soak").force();
    secrets
        .patch(SECRET, &params, &Patch::Apply(secret))
        .await?;
    if let Ok(mut issued) = issued.lock() {
        issued.push((made.cert.der().clone(), Instant::now()));
    }
    Ok(())
}
