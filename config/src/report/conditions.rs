//! Status of Gateway API's objects that are ours: what became of them, as conditions.
//!
//! - A GatewayClass is `Accepted`.
//! - A Gateway is `Accepted` and `Programmed`, and has the gateway's addresses.
//! - A route has an entry for each Gateway of ours that it names: `Accepted` or why not, and
//!   `ResolvedRefs` or what is wrong with its backends. Entries of other controllers stay, and ours go
//!   when the route has no Gateway of ours any more.
//!
//! What should be said is compared with what was said last, so that an object is read only when that
//! changed, and written, with the version just read, only if it says something else. Listeners have no
//! status of their own yet.

mod wanted;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::wanted::Wanted;
use super::addresses::Found;
use super::bucket::Bucket;
use super::events::resource;
use super::lease::Leadership;
use super::refusal;
use crate::Reader;
use crate::compile::gateway_api::GROUP;
use crate::defaults::FIELD_MANAGER;
use crate::model::ObjectRef;

/// Changes are gathered for this long.
const GATHER: Duration = Duration::from_millis(300);

/// Objects at once, and the pace afterwards.
const BURST: u32 = 20;
const PERIOD: Duration = Duration::from_millis(100);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// First and longest pause after a failure.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

const CONFLICT: u16 = 409;

/// Writes conditions while leading.
pub(super) struct Writer {
    client: Client,
    leadership: Leadership,
    /// What was said last about each object.
    said: HashMap<ObjectRef, Wanted>,
    bucket: Bucket,
    pause: Duration,
    is_failing: bool,
}

impl Writer {
    pub(super) fn new(client: Client, leadership: Leadership) -> Self {
        Self {
            client,
            leadership,
            said: HashMap::new(),
            bucket: Bucket::full(BURST, PERIOD, Instant::now()),
            pause: *PAUSE.start(),
            is_failing: false,
        }
    }

    /// Runs until nothing is published any more.
    pub(super) async fn run(mut self, mut reader: Reader, mut addresses: watch::Receiver<Found>) {
        let mut leadership = self.leadership.clone();
        let mut again: Option<Duration> = None;
        loop {
            let later = async {
                match again {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_open = reader.changed() => if is_open.is_none() { return },
                is_open = leadership.changed() => {
                    if !is_open {
                        return;
                    }
                    // Another leader may have said something else meanwhile.
                    self.said.clear();
                }
                // Fixed addresses do not change any more.
                Ok(()) = addresses.changed() => {}
                () = later => {}
            }
            tokio::time::sleep(GATHER).await;
            let addresses = addresses.borrow_and_update().clone();
            again = self.pass(&reader, &addresses).await;
        }
    }

    /// Says what changed; returns when to try again what failed.
    async fn pass(&mut self, reader: &Reader, addresses: &Found) -> Option<Duration> {
        let snapshot = Arc::clone(&reader.load());
        if !snapshot.synced || !self.leadership.holds() {
            return None;
        }
        let mut wanted = wanted::of(&snapshot, addresses.as_deref());
        // A route that was ours and is not any more loses its entries.
        for (object, said) in &self.said {
            if !wanted.contains_key(object) && said.is_route() {
                wanted.insert(object.clone(), Wanted::Parents(Vec::new()));
            }
        }
        self.said.retain(|object, _| wanted.contains_key(object));
        let mut changed: Vec<(ObjectRef, Wanted)> = wanted
            .into_iter()
            .filter(|(object, wanted)| self.said.get(object) != Some(wanted))
            .collect();
        changed.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (object, wanted) in changed {
            while let Err(pause) = self.bucket.take(Instant::now()) {
                tokio::time::sleep(pause).await;
            }
            if !self.leadership.holds() {
                return None;
            }
            let written = timeout(PATIENCE, self.write(&object, &wanted)).await;
            match written {
                Ok(Ok(())) => {
                    self.pause = *PAUSE.start();
                    self.is_failing = false;
                    self.said.insert(object, wanted);
                }
                Ok(Err(error)) => return Some(self.failed(&object, &error)),
                Err(_elapsed) => return Some(self.next_pause()),
            }
        }
        None
    }

    fn failed(&mut self, object: &ObjectRef, error: &kube::Error) -> Duration {
        let is_conflict = matches!(error, kube::Error::Api(status) if status.code == CONFLICT);
        if !is_conflict && !std::mem::replace(&mut self.is_failing, true) {
            let plural = resource(object).plural;
            let which = format!("{plural} and {plural}/status of {GROUP}");
            let why = refusal(error, "get and patch", &which);
            tracing::warn!(%object, "conditions cannot be written, trying again: {why}");
        }
        self.next_pause()
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(*PAUSE.end());
        pause
    }

    async fn write(&self, object: &ObjectRef, wanted: &Wanted) -> Result<(), kube::Error> {
        let resource = resource(object);
        let client = self.client.clone();
        let api: Api<DynamicObject> = match &*object.namespace {
            "" => Api::all_with(client, &resource),
            namespace => Api::namespaced_with(client, namespace, &resource),
        };
        let Some(found) = api.get_opt(&object.name).await? else {
            return Ok(());
        };
        let before = found.data.get("status").unwrap_or(&Value::Null);
        let now = jiff::Timestamp::now();
        let status = wanted.status(before, &format!("{now:.0}"));
        let is_same = |(field, value): (&String, &Value)| before.get(field) == Some(value);
        if status.iter().all(is_same) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "status": status,
        }));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        api.patch_status(&object.name, &params, &patch)
            .await
            .map(drop)
    }
}
