//! Changes of one Service's endpoints among very many Services, and how long each takes until new
//! connections follow.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::sleep;

use super::{Served, block_on, client, pause_before_look};
use crate::cluster::{CHANGED, who};
use crate::stage::BACKENDS;

/// Between one change's effect and the next change.
const REST: Duration = Duration::from_millis(10);

/// Changes in a round at least, however long they take.
const LEAST: usize = 5;

/// A change that has no effect in this time never will.
const EFFECT: Duration = Duration::from_secs(120);

/// A connection that takes longer is tried anew.
const CONNECT: Duration = Duration::from_secs(1);

/// The endpoint that a connection gets to, once one gets anywhere.
fn served() -> std::io::Result<u8> {
    let begun = Instant::now();
    loop {
        match who(CONNECT) {
            Err(_) if begun.elapsed() < EFFECT => pause_before_look(begun),
            answer => return answer,
        }
    }
}

/// Gives the Service the one endpoint and the other in turn, for `time` or longer. The first change does
/// not count: the proxy may have to catch up with changes that others were measured by.
///
/// # Errors
/// A change failed or had no effect.
pub(crate) fn changes(kubeconfig: &Path, time: Duration) -> anyhow::Result<Served> {
    block_on(async {
        let slices: kube::Api<EndpointSlice> =
            kube::Api::namespaced(client(kubeconfig).await?, "default");
        // The endpoint that an earlier round left is not known, and a proxy may still be at it.
        let mut now = served().context("the Service is not served")?;
        change(&slices, &mut now).await?;
        let mut taken = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < time || taken.len() < LEAST {
            sleep(REST).await;
            taken.push(change(&slices, &mut now).await?);
        }
        Ok(Served::of(taken, begun.elapsed()))
    })
}

/// Gives the Service the endpoint that is not the one of `now`. Returns the time from the API server's word
/// that it has it to the first connection that gets there.
async fn change(slices: &kube::Api<EndpointSlice>, now: &mut u8) -> anyhow::Result<Duration> {
    let other = BACKENDS.iter().find(|it| it.octets()[3] != *now);
    let other = other.context("two endpoints")?;
    let change = json!([{"op": "replace", "path": "/endpoints/0/addresses/0", "value": other}]);
    let change: Patch<()> = Patch::Json(serde_json::from_value(change)?);
    slices
        .patch(CHANGED, &PatchParams::default(), &change)
        .await?;
    let changed = Instant::now();
    *now = other.octets()[3];
    // A connection in mid-change may fail; it has not followed, then.
    while who(CONNECT).ok() != Some(*now) {
        ensure!(changed.elapsed() < EFFECT, "a change had no effect");
        pause_before_look(changed);
    }
    Ok(changed.elapsed())
}
