//! Events (`events.k8s.io/v1`, which Kubernetes recommends to new reporters) about what cannot be
//! served as written.
//!
//! What there is to tell is a state, not a stream: the notices of the current snapshot. One that is
//! new is told once. One that went away and came back raises the count of the same Event (`series`).
//! What may not be told yet, because of the pace or because the API server is away, is told later if
//! it still holds then; so nothing queues up.
//!
//! An Event's name comes from what it says, so that the next leader, or this one after a restart,
//! finds what was told before (409) and does not repeat it as long as the API server remembers it,
//! which is an hour.
//!
//! The pace is that of client-go: 25 Events for one object at once, then one every five minutes; and
//! five a second over all objects.

mod ledger;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::ledger::{Due, Ledger};
use super::lease::Leadership;
use super::notices::{self, Notice};
use super::{refusal, shorten};
use crate::defaults::{FIELD_MANAGER, GATEWAY_CONTROLLER};
use crate::model::ObjectRef;
use crate::{Reader, Snapshot};

/// `action` of our Events: what we were about to do.
const ACTION: &str = "Configure";

/// Changes are gathered for this long.
const GATHER: Duration = Duration::from_millis(500);

/// How often is looked again at what may not be told yet.
const AGAIN: Duration = Duration::from_secs(1);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// First and longest pause after a failure of the API server.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

/// Longest note that the API takes, bytes.
const NOTE: usize = 1024;

/// Longest `reportingInstance` that the API takes, bytes.
const INSTANCE: usize = 128;

/// Longest name of an object, bytes.
const NAME: usize = 253;

/// Status codes.
const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
const TOO_MANY: u16 = 429;

/// Notices that do not come from the snapshot.
pub(super) type Fights = watch::Receiver<Arc<[Notice]>>;

/// Writes Events while leading.
pub(super) struct Writer {
    client: Client,
    leadership: Leadership,
    instance: String,
    ledger: Ledger,
    /// What there was to tell of the snapshot of this generation: finding out is a walk over all routes.
    found: (u64, Vec<Notice>),
    pause: Duration,
    is_refused: bool,
}

impl Writer {
    pub(super) fn new(client: Client, leadership: Leadership, instance: String) -> Self {
        Self {
            client,
            leadership,
            instance: shorten(&instance, INSTANCE).to_owned(),
            ledger: Ledger::new(Instant::now()),
            found: (0, Vec::new()),
            pause: *PAUSE.start(),
            is_refused: false,
        }
    }

    /// Runs until nothing is published any more.
    pub(super) async fn run(mut self, mut reader: Reader, mut fights: Fights) {
        let mut leadership = self.leadership.clone();
        let mut again = None;
        loop {
            let later = async {
                match again {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_open = reader.changed() => if is_open.is_none() { return },
                is_open = leadership.changed() => if !is_open { return },
                // No fights any more are no reason to end.
                Ok(()) = fights.changed() => {}
                () = later => {}
            }
            tokio::time::sleep(GATHER).await;
            again = None;
            if self.leadership.holds() {
                let snapshot = Arc::clone(&reader.load());
                if snapshot.synced {
                    let fights = Arc::clone(&fights.borrow_and_update());
                    again = self.pass(&snapshot, &fights).await;
                }
            }
        }
    }

    /// Tells what is new; returns when to look again even if nothing changes.
    async fn pass(&mut self, snapshot: &Snapshot, fights: &[Notice]) -> Option<Duration> {
        if self.found.0 != snapshot.generation {
            self.found = (snapshot.generation, notices::of(snapshot));
        }
        let notices = [&self.found.1, fights].concat();
        for due in self.ledger.update(notices, Instant::now()) {
            if !self.ledger.may(&due, Instant::now()) {
                continue;
            }
            if !self.leadership.holds() {
                return None;
            }
            let written = timeout(PATIENCE, self.write(&due)).await;
            match written {
                Ok(Ok(())) => {
                    self.pause = *PAUSE.start();
                    self.is_refused = false;
                    self.ledger.told(&due);
                    count("written");
                }
                Ok(Err(kube::Error::Api(status))) if is_final(status.code) => {
                    self.refused(&due, &kube::Error::Api(status));
                }
                Ok(Err(_)) | Err(_) => {
                    count("failed");
                    let pause = self.pause;
                    self.pause = (pause * 2).min(*PAUSE.end());
                    return Some(pause);
                }
            }
        }
        self.ledger.has_pending().then_some(AGAIN)
    }

    /// The API server will never take this one: forget it, and say so once.
    fn refused(&mut self, due: &Due, error: &kube::Error) {
        count("refused");
        if !std::mem::replace(&mut self.is_refused, true) {
            let why = refusal(error, "create and patch", "events.events.k8s.io");
            tracing::warn!(object = %due.notice.object, "an Event is refused: {why}");
        }
        self.ledger.told(due);
    }

    async fn write(&self, due: &Due) -> Result<(), kube::Error> {
        let regarding = self.regarding(&due.notice).await?;
        // The API keeps Events about objects without a namespace in `default`.
        let namespace = match &*due.notice.object.namespace {
            "" => "default",
            namespace => namespace,
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let name = event_name(&due.notice, regarding.uid.as_deref().unwrap_or_default());
        let now = MicroTime(jiff::Timestamp::now());
        if due.before > 0 {
            let series = json!({"count": due.before + 1, "lastObservedTime": now});
            let patch = Patch::Merge(json!({"series": series}));
            let patched = events.patch(&name, &PatchParams::default(), &patch).await;
            match patched {
                // It is so long ago that the API server has forgotten it.
                Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
                patched => return patched.map(drop),
            }
        }
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(now),
            reporting_controller: Some(GATEWAY_CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            action: Some(ACTION.to_owned()),
            reason: Some(due.notice.reason.clone()),
            regarding: Some(regarding),
            note: Some(shorten(&due.notice.note, NOTE).to_owned()),
            type_: Some("Warning".to_owned()),
            ..Event::default()
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match events.create(&params, &event).await {
            // Told before, by us or by the leader before us.
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(()),
            created => created.map(drop),
        }
    }

    /// The object of a notice; `kubectl describe` finds Events by its uid.
    async fn regarding(&self, notice: &Notice) -> Result<ObjectReference, kube::Error> {
        let object = &notice.object;
        let resource = resource(object);
        let namespace = Some(&*object.namespace).filter(|namespace| !namespace.is_empty());
        let mut reference = ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(object.kind.to_owned()),
            name: Some(object.name.to_string()),
            namespace: namespace.map(ToOwned::to_owned),
            uid: notice.uid.as_deref().map(ToOwned::to_owned),
            ..ObjectReference::default()
        };
        // Secrets are not ours to get by name just for this.
        if reference.uid.is_none() && object.kind != "Secret" {
            let client = self.client.clone();
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            };
            reference.uid = match api.get_metadata_opt(&object.name).await {
                Ok(found) => found.and_then(|found| found.uid()),
                Err(kube::Error::Api(status)) if status.code == FORBIDDEN => None,
                Err(error) => return Err(error),
            };
        }
        Ok(reference)
    }
}

fn count(result: &'static str) {
    metrics::counter!("sealane_report_events_total", "result" => result).increment(1);
}

/// Whether the API server would answer the same again.
fn is_final(code: u16) -> bool {
    (400..500).contains(&code) && code != TOO_MANY && code != 401 && code != 408
}

pub(super) fn resource(object: &ObjectRef) -> ApiResource {
    let (group, version) = match object.kind {
        "Ingress" | "IngressClass" => ("networking.k8s.io", "v1"),
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        "GatewayClass" | "Gateway" | "HTTPRoute" | "GRPCRoute" => {
            ("gateway.networking.k8s.io", "v1")
        }
        "ReferenceGrant" => ("gateway.networking.k8s.io", "v1beta1"),
        _ => ("", "v1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, object.kind))
}

/// The same for the same message about the same object.
fn event_name(notice: &Notice, uid: &str) -> String {
    let suffix = format!(".{:016x}", ledger::identity(notice, uid));
    let name = shorten(&notice.object.name, NAME - suffix.len());
    // A DNS label cannot end where a long name happened to be cut.
    format!("{}{suffix}", name.trim_end_matches(['-', '.']))
}
