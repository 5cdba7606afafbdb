//! Ingresses that are edited all the time, and how soon an edit is in force.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Request;
use http::header::LOCATION;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use crate::cluster::HOST;
use crate::rotation::SECRET;

/// Host of the connections that are held.
pub(crate) const HELD_HOST: &str = "held.soak.test";

/// Ingresses that come and go beside the two that carry traffic.
const OTHERS: u32 = 50;

/// Of the edits of those, every so many is looked at: when it is in force.
const LOOK: u32 = 5;

/// Longest wait for an edit.
const PATIENCE: Duration = Duration::from_secs(30);

const NGINX: &str = "nginx.ingress.kubernetes.io";

/// What came of the edits.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Edits that the API took.
    pub(crate) made: u32,
    /// From an edit's being answered by the API to its being in force, sorted.
    pub(crate) effects: Vec<Duration>,
}

/// Makes the Ingress of the held connections.
pub(crate) async fn publish(client: &Client) -> anyhow::Result<()> {
    put(client, "held", held(0)).await
}

/// Edits so many times, evenly over `time`; ends later if the API or the machine is slow.
pub(crate) async fn run(
    client: Client,
    gateway: SocketAddr,
    count: u32,
    time: Duration,
) -> anyhow::Result<Edits> {
    let mut edits = Edits::default();
    let mut times = tokio::time::interval(time / count.max(1));
    times.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..count {
        times.tick().await;
        match number % 3 {
            0 => put(&client, "held", held(number)).await?,
            1 => put(&client, "api", api(number)).await?,
            _ => {
                let name = format!("other-{}", number / 3 % OTHERS);
                put(&client, &name, other(&name, number)).await?;
                if (number / 3).is_multiple_of(LOOK) {
                    let effect = effect(gateway, &name, number).await;
                    edits.effects.push(effect.context("an edit of a redirect")?);
                }
            }
        }
        edits.made += 1;
    }
    edits.effects.sort_unstable();
    Ok(edits)
}

async fn put(client: &Client, name: &str, ingress: Value) -> anyhow::Result<()> {
    let ingresses: Api<Ingress> = Api::default_namespaced(client.clone());
    let params = PatchParams::apply("soak").force();
    ingresses
        .patch(name, &params, &Patch::Apply(ingress))
        .await?;
    Ok(())
}

/// Rules, paths and annotations around the held connections change, their own two paths don't.
fn held(number: u32) -> Value {
    let mut paths = vec![
        path("/socket", "held", "ws"),
        path("/held.Echo", "held", "grpc"),
    ];
    // More and fewer paths, in front of them and behind them.
    paths.extend((0..number % 4).map(|extra| path(&format!("/{extra}"), "api", "http")));
    paths.rotate_left(number as usize % 3);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "held", "annotations": {
            format!("{NGINX}/ssl-redirect"): "false",
            format!("{NGINX}/proxy-body-size"): format!("{}m", number % 9 + 1),
        }},
        "spec": {
            "ingressClassName": "sealane",
            "tls": [{"hosts": [HELD_HOST], "secretName": SECRET}],
            "rules": [{"host": HELD_HOST, "http": {"paths": paths}}],
        },
    })
}

/// The Ingress of the requests: they go on being served, by one rule or another.
fn api(number: u32) -> Value {
    let mut paths = vec![path("/", "api", "http")];
    if number.is_multiple_of(2) {
        paths.insert(0, path("/item", "api", "http"));
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "api", "annotations": {"soak.sealane.dev/edit": number.to_string()}},
        "spec": {
            "ingressClassName": "sealane",
            "rules": [{"host": HOST, "http": {"paths": paths}}],
        },
    })
}

/// A redirect whose target says which edit it is.
fn other(name: &str, number: u32) -> Value {
    let target = format!("http://edited.test/{number}");
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "annotations": {format!("{NGINX}/permanent-redirect"): target},
        },
        "spec": {
            "ingressClassName": "sealane",
            "rules": [{"host": host(name), "http": {"paths": [path("/", "api", "http")]}}],
        },
    })
}

fn path(path: &str, service: &str, port: &str) -> Value {
    let service = json!({"name": service, "port": {"name": port}});
    json!({"path": path, "pathType": "Prefix", "backend": {"service": service}})
}

fn host(name: &str) -> String {
    format!("{name}.soak.test")
}

/// How long it takes from now until the gateway answers with this edit.
async fn effect(gateway: SocketAddr, name: &str, number: u32) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let wanted = format!("http://edited.test/{number}");
    loop {
        sender.ready().await?;
        let request = Request::get("/").header("host", host(name));
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?);
        let response = response.await?;
        if response
            .headers()
            .get(LOCATION)
            .is_some_and(|to| *to == wanted)
        {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < PATIENCE, "is not in force");
        drop(response);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
