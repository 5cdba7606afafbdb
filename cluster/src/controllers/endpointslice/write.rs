//! Carries out the writes, and remembers those that the watch has not shown yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::spread::Write;
use crate::controllers::error::{Error, during};
use crate::controllers::informer::{Key, Store};
use crate::controllers::patch::merge_diff;

/// How long own writes may stay unseen before the cache is believed again.
const UNSEEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes slices for one controller.
pub(super) struct Writer {
    client: Client,
    slices: Arc<Store<EndpointSlice>>,
    written: Arc<Written>,
}

impl Writer {
    /// A writer whose own writes are noted in `written`.
    pub(super) fn new(
        client: Client,
        slices: &Arc<Store<EndpointSlice>>,
        written: &Arc<Written>,
    ) -> Self {
        Self {
            client,
            slices: slices.clone(),
            written: written.clone(),
        }
    }

    /// Makes the writes in their order, up to the first failure. `slices` are what the plan was made of.
    pub(super) async fn execute(
        &self,
        key: &Key,
        slices: &[Arc<EndpointSlice>],
        writes: Vec<Write>,
    ) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        // The version that the previous step of the same slice left behind.
        let mut versions: HashMap<String, (Value, Option<String>)> = HashMap::new();
        for write in writes {
            match write {
                Write::Create(slice) => {
                    let created = api
                        .create(&PostParams::default(), &slice)
                        .await
                        .map_err(during("create an EndpointSlice of", key));
                    match created {
                        Ok(created) => self
                            .written
                            .note(key, &created, || has_seen(&self.slices, &created)),
                        Err(error) if error.is_namespace_terminating() => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
                Write::Update(slice) => {
                    let name = slice.name_any();
                    let before = slices.iter().find(|before| before.name_any() == name);
                    let (old, version) = versions.remove(&name).unwrap_or_else(|| {
                        let old = before.map_or(Value::Null, |before| content(before));
                        (old, slice.resource_version())
                    });
                    let updated = update(&api, &slice, &old, version).await?;
                    self.written
                        .note(key, &updated, || has_seen(&self.slices, &updated));
                    versions.insert(name, (content(&slice), updated.resource_version()));
                }
                Write::Delete(slice) => delete(&api, &slice).await?,
            }
        }
        Ok(())
    }
}

/// Whether the cache shows this version of the object or a newer one.
pub(super) fn has_seen<K: Resource>(store: &Store<K>, object: &K) -> bool {
    let Some(known) = store.get(&Key::of(object)) else {
        return false;
    };
    let (known_version, version) = (known.resource_version(), object.resource_version());
    known.uid() == object.uid()
        && known_version
            .zip(version)
            .is_some_and(|(known, version)| !is_older(&known, &version))
}

/// The fields of a slice that this controller owns.
fn content(slice: &EndpointSlice) -> Value {
    json!({
        "metadata": { "labels": slice.labels(), "annotations": slice.annotations() },
        "endpoints": slice.endpoints,
        "ports": slice.ports,
    })
}

async fn update(
    api: &Api<EndpointSlice>,
    slice: &EndpointSlice,
    old: &Value,
    version: Option<String>,
) -> Result<EndpointSlice, Error> {
    let mut patch = merge_diff(old, &content(slice)).unwrap_or_else(|| json!({}));
    patch["metadata"]["uid"] = json!(slice.uid());
    patch["metadata"]["resourceVersion"] = json!(version);
    api.patch(
        &slice.name_any(),
        &PatchParams::default(),
        &Patch::Merge(patch),
    )
    .await
    .map_err(during(
        "update",
        format!("EndpointSlice {}", Key::of(slice)),
    ))
}

async fn delete(api: &Api<EndpointSlice>, slice: &EndpointSlice) -> Result<(), Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: slice.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let deleted = api.delete(&slice.name_any(), &params).await;
    match deleted.map_err(during(
        "delete",
        format!("EndpointSlice {}", Key::of(slice)),
    )) {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Own writes that the watch has not shown: without them a stale cache would lead to a second slice
/// with the same endpoints.
#[derive(Default)]
pub(super) struct Written {
    unseen: Mutex<HashMap<Key, Unseen>>,
}

/// Unseen writes of one service.
struct Unseen {
    /// Uid → the version written.
    versions: HashMap<String, String>,
    /// The last write.
    since: Instant,
}

impl Written {
    /// Notes a write. `seen` is asked under the lock: an event that comes later finds the note.
    pub(super) fn note(&self, service: &Key, object: &impl Resource, seen: impl FnOnce() -> bool) {
        let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) else {
            return;
        };
        let mut unseen = self.lock();
        let unseen = unseen.entry(service.clone()).or_insert_with(|| Unseen {
            versions: HashMap::new(),
            since: Instant::now(),
        });
        unseen.since = Instant::now();
        if seen() {
            unseen.versions.remove(&uid);
        } else {
            unseen.versions.insert(uid, version);
        }
    }

    /// The watch shows this version, or that the object is gone.
    pub(super) fn show(&self, service: &Key, object: &impl Resource, gone: bool) {
        let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) else {
            return;
        };
        let mut unseen = self.lock();
        let Some(unseen) = unseen.get_mut(service) else {
            return;
        };
        let written = unseen.versions.get(&uid);
        if written.is_some_and(|written| gone || !is_older(&version, written)) {
            unseen.versions.remove(&uid);
        }
    }

    /// How long to wait for own writes; none if all were seen.
    pub(super) fn wait(&self, service: &Key) -> Option<Duration> {
        let mut all = self.lock();
        let unseen = all.get(service)?;
        let left = UNSEEN_TIMEOUT.saturating_sub(unseen.since.elapsed());
        if unseen.versions.is_empty() || left.is_zero() {
            all.remove(service);
            return None;
        }
        Some(left)
    }

    /// The service is gone.
    pub(super) fn forget(&self, service: &Key) {
        self.lock().remove(service);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Unseen>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one resource version is older than another (KEP-5504: they are comparable numbers).
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => version != than,
    }
}
