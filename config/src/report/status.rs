//! `status.loadBalancer.ingress` of the Ingresses that are ours.
//!
//! - Written only if it differs from what it should be, right after the Ingress was read anew, with
//!   its `resourceVersion`: a writer that was overtaken gets 409 and writes nothing.
//! - Cleared when the Ingress ceases to be ours, and then only if the API server's book of field
//!   owners (`metadata.managedFields`) says that we wrote it; where there is no such book, if it says
//!   what we would say.
//! - The same value goes to the same Ingress once a minute at most: if another controller keeps
//!   changing it, that is told in an Event and not made a fight.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::plan::{Plan, Write};
use super::addresses::Found;
use super::bucket::Bucket;
use super::lease::Leadership;
use super::notices::{self, Notice};
use super::refusal;
use crate::compile::StatusRecord;
use crate::defaults::FIELD_MANAGER;
use crate::model::{ObjectRef, PublishedAddress, StatusWriter};
use crate::{Reader, Snapshot};

/// Changes are gathered for this long.
const GATHER: Duration = Duration::from_millis(200);

/// Writes at once, and the pace afterwards.
const BURST: u32 = 20;
const PERIOD: Duration = Duration::from_millis(100);

/// After this long a plan is made anew.
const FRESH: Duration = Duration::from_secs(2);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// First and longest pause after a failure: of one object's write, or of the API server.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Status codes.
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was written.
    Written,
    /// There was nothing to write: it is so already, or gone.
    Same,
    /// It is not as the snapshot has it: wait for the next one.
    Stale,
    /// We do not lead any more.
    Lost,
}

/// Keeps the statuses while leading.
pub(super) struct Keeper {
    client: Client,
    leadership: Leadership,
    contested: watch::Sender<Arc<[Notice]>>,
    plan: Plan,
    bucket: Bucket,
    /// Objects whose write failed: when to try again, and the pause after that.
    failing: HashMap<ObjectRef, (Instant, Duration)>,
    pause: Duration,
    is_refused: bool,
}

impl Keeper {
    pub(super) fn new(
        client: Client,
        leadership: Leadership,
        contested: watch::Sender<Arc<[Notice]>>,
    ) -> Self {
        Self {
            client,
            leadership,
            contested,
            plan: Plan::default(),
            bucket: Bucket::full(BURST, PERIOD, Instant::now()),
            failing: HashMap::new(),
            pause: *PAUSE.start(),
            is_refused: false,
        }
    }

    /// Runs until nothing is published any more.
    pub(super) async fn run(mut self, mut reader: Reader, mut addresses: watch::Receiver<Found>) {
        let mut leadership = self.leadership.clone();
        let mut next: Option<Instant> = None;
        loop {
            let later = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_open = reader.changed() => if is_open.is_none() { return },
                is_open = leadership.changed() => if !is_open { return },
                // Fixed addresses do not change any more.
                Ok(()) = addresses.changed() => {}
                () = later => {}
            }
            tokio::time::sleep(GATHER).await;
            next = None;
            let wanted = addresses.borrow_and_update().clone();
            if let Some(wanted) = wanted
                && self.leadership.holds()
            {
                next = self.pass(&reader, &wanted).await;
            }
        }
    }

    /// Writes what differs; returns when to look again even if nothing changes.
    async fn pass(&mut self, reader: &Reader, wanted: &Arc<[PublishedAddress]>) -> Option<Instant> {
        let snapshot = Arc::clone(&reader.load());
        if !snapshot.synced {
            return None;
        }
        let now = Instant::now();
        let (writes, mut next) = self.plan.make(&snapshot, wanted, now);
        self.tell_contested(&snapshot);
        self.failing
            .retain(|object, _| snapshot.ingresses.contains_key(object));
        drop(snapshot);
        let mut wake = |at: Instant| next = Some(next.map_or(at, |next: Instant| next.min(at)));
        for write in writes {
            if let Some((again, _)) = self.failing.get(&write.object)
                && Instant::now() < *again
            {
                wake(*again);
                continue;
            }
            if now.elapsed() > FRESH {
                return Some(Instant::now());
            }
            while let Err(pause) = self.bucket.take(Instant::now()) {
                tokio::time::sleep(pause).await;
            }
            let ended = timeout(PATIENCE, self.write(&write)).await;
            match ended {
                Ok(Ok(Outcome::Lost)) => return None,
                Ok(Ok(outcome)) => {
                    self.done(&write, outcome);
                    if outcome == Outcome::Stale {
                        wake(Instant::now() + *PAUSE.start());
                    }
                }
                Ok(Err(kube::Error::Api(status))) if status.code < 500 => {
                    wake(self.refused(&write, &kube::Error::Api(status)));
                }
                Ok(Err(_)) | Err(_) => {
                    count("failed");
                    let pause = self.pause;
                    self.pause = (pause * 2).min(*PAUSE.end());
                    return Some(Instant::now() + pause);
                }
            }
        }
        next
    }

    fn done(&mut self, write: &Write, outcome: Outcome) {
        self.pause = *PAUSE.start();
        self.is_refused = false;
        self.failing.remove(&write.object);
        if outcome == Outcome::Written {
            count("written");
            self.plan.written(write, Instant::now());
        }
    }

    /// One object that the API server does not take; the others go on. Returns when to try again.
    fn refused(&mut self, write: &Write, error: &kube::Error) -> Instant {
        count("refused");
        if !std::mem::replace(&mut self.is_refused, true) {
            let why = refusal(error, "get on ingresses and patch", "ingresses/status");
            tracing::warn!(object = %write.object, "status cannot be written, trying again: {why}");
        }
        let entry = self.failing.entry(write.object.clone());
        let (again, pause) = entry.or_insert((Instant::now(), *PAUSE.start()));
        *again = Instant::now() + *pause;
        *pause = (*pause * 2).min(*PAUSE.end());
        *again
    }

    /// Reads the Ingress and writes its status if that is still right.
    async fn write(&self, write: &Write) -> Result<Outcome, kube::Error> {
        let object = &write.object;
        let ingresses: Api<Ingress> = Api::namespaced(self.client.clone(), &object.namespace);
        let Some(found) = ingresses.get_opt(&object.name).await? else {
            return Ok(Outcome::Same);
        };
        let current = StatusRecord::read(&found);
        let class = crate::compile::ingress_class(&found);
        if (&current.uid, class) != (&write.status.uid, write.status.class.as_deref()) {
            return Ok(Outcome::Stale);
        }
        if current.addresses == write.target {
            return Ok(Outcome::Same);
        }
        if write.target.is_empty() && current.writer == StatusWriter::Other {
            return Ok(Outcome::Stale);
        }
        if !self.leadership.holds() {
            return Ok(Outcome::Lost);
        }
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "status": {"loadBalancer": {"ingress": entries(&write.target)}},
        }));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match ingresses.patch_status(&object.name, &params, &patch).await {
            Ok(_) => Ok(Outcome::Written),
            // Changed or deleted in between: the watch will say how it is now.
            Err(kube::Error::Api(status)) if [CONFLICT, NOT_FOUND].contains(&status.code) => {
                Ok(Outcome::Stale)
            }
            Err(error) => Err(error),
        }
    }

    fn tell_contested(&self, snapshot: &Snapshot) {
        let uid = |object: &ObjectRef| {
            let status = snapshot.ingresses.get(object)?;
            Some((object.clone(), Arc::clone(&status.uid)))
        };
        let contested: Arc<[Notice]> = self
            .plan
            .contested()
            .filter_map(uid)
            .map(|(object, uid)| notices::contested(object, uid))
            .collect();
        self.contested.send_if_modified(|known| {
            let is_new = *known != contested;
            *known = contested;
            is_new
        });
    }
}

fn count(result: &'static str) {
    metrics::counter!("sealane_report_status_writes_total", "result" => result).increment(1);
}

/// Addresses as the API has them; `null` removes the list.
fn entries(addresses: &[PublishedAddress]) -> Value {
    if addresses.is_empty() {
        return Value::Null;
    }
    let entry = |address: &PublishedAddress| match address {
        PublishedAddress::Ip(ip) => json!({"ip": ip.to_string()}),
        PublishedAddress::Hostname(name) => json!({"hostname": name}),
    };
    addresses.iter().map(entry).collect()
}
