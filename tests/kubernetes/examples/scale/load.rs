//! Changes the objects at a fixed rate.

use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use sealane_test_kubernetes::Size;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::now;

/// When a change was made, in nanoseconds of the system's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

/// Changes one endpoint of one slice after the other, beginning with `first`, at `rate` a second for so
/// many seconds.
pub(crate) async fn changes(
    client: &Client,
    size: Size,
    seconds: usize,
    rate: u32,
    first: usize,
) -> anyhow::Result<Vec<Change>> {
    let count = (seconds * rate as usize).min(size.services - first);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    let mut changes = vec![None; count];
    let late = Instant::now() + Duration::from_secs(2 * seconds as u64 + 10);
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
