//! Writes the objects, and changes them at a fixed rate.

use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::now;
use crate::size::Size;

/// Requests at once.
const PARALLEL: usize = 32;

/// Creates everything.
pub(crate) async fn objects(client: &Client, size: Size) -> anyhow::Result<()> {
    for name in Size::namespaces() {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(client, "/api/v1/namespaces", &object).await?;
    }
    let mut tasks = JoinSet::new();
    for index in 0..size.services {
        if tasks.len() == PARALLEL {
            joined(tasks.join_next().await)?;
        }
        let client = client.clone();
        tasks.spawn(async move {
            let (namespace, _) = Size::service_name(index);
            let path = format!("/api/v1/namespaces/{namespace}/services");
            create(&client, &path, &Size::service(index)).await?;
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
            create(&client, &path, &size.slice(index)).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        joined(Some(done))?;
    }
    Ok(())
}

/// Creates the Node that kube-proxy believes to be on.
pub(crate) async fn node(client: &Client, name: &str) -> anyhow::Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    create(client, "/api/v1/nodes", &object).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    let request = http::Request::patch(format!("/api/v1/nodes/{name}/status"))
        .header("content-type", "application/merge-patch+json");
    let request = request.body(status.to_string().into_bytes())?;
    client
        .request_text(request)
        .await
        .context("the node's status")?;
    Ok(())
}

async fn create(client: &Client, path: &str, object: &Value) -> anyhow::Result<()> {
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes())?;
    client
        .request_text(request)
        .await
        .context(path.to_owned())?;
    Ok(())
}

/// When a change was made, in nanoseconds of the system's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

/// Changes one endpoint of one slice after the other, beginning with `first`, at `rate` a second.
pub(crate) async fn changes(
    client: &Client,
    size: Size,
    rate: u32,
    first: usize,
) -> anyhow::Result<Vec<Change>> {
    let count = (size.seconds * rate as usize).min(size.services - first);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    let mut changes = vec![None; count];
    let late = Instant::now() + Duration::from_secs(2 * size.seconds as u64 + 10);
    for number in 0..count {
        tick.tick().await;
        if Instant::now() > late {
            bail!("the API server does not take {rate} changes a second");
        }
        let client = client.clone();
        tasks.spawn(async move { (number, change(&client, first + number).await) });
    }
    while let Some(done) = tasks.join_next().await {
        let (number, change) = done?;
        changes[number] = Some(change?);
    }
    changes
        .into_iter()
        .collect::<Option<_>>()
        .context("all changes were made")
}

async fn change(client: &Client, index: usize) -> anyhow::Result<Change> {
    let (namespace, _) = Size::service_name(index);
    let name = Size::slice_name(index);
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}");
    let patch = json!([
        {"op": "replace", "path": "/endpoints/0/addresses/0", "value": Size::changed_address(index)},
        {
            "op": "replace",
            "path": "/metadata/annotations/endpoints.kubernetes.io~1last-change-trigger-time",
            "value": jiff::Timestamp::now().to_string(),
        },
    ]);
    let request = http::Request::patch(&path).header("content-type", "application/json-patch+json");
    let request = request.body(patch.to_string().into_bytes())?;
    let sent = now();
    client.request_text(request).await.context(path)?;
    Ok(Change {
        sent,
        answered: now(),
    })
}

fn joined(done: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Result<()> {
    done.context("a task")?.context("a task")?
}
