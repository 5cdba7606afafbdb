//! The garbage collector: deletes what lost its owners, and carries out foreground deletion and
//! orphaning.
//!
//! It watches the metadata of every kind that discovery lists, and looks for new kinds whenever a
//! CustomResourceDefinition or an APIService changes. Nothing is deleted on the word of a cache: an
//! owner counts as absent only after the API itself said so, and a deletion names uid and version of
//! the object.

mod graph;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::{Error, chain, during};
use super::informer::{Key, Store, follow};
use super::namespace::Departures;
use super::queue::{LONGEST_BACKOFF, Queue, work};
use super::resources::{Kind, discover};

use graph::{FOREGROUND, Graph, Item, ORPHAN, Owner, Policy, Verdict, blocks, names, verdict};

/// After a definition of kinds changed, discovery is asked at once and once more after this time: a
/// kind is served a moment after it is defined. Also the delay after discovery failed.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// The collector; [`Controller::run`] it.
pub(super) struct Controller {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    kinds: RwLock<Arc<Vec<Arc<Kind>>>>,
    queue: Arc<Queue<String>>,
    departures: Departures,
    definitions: Arc<Notify>,
}

type Metadata = PartialObjectMeta<DynamicObject>;

/// The watches that run, by kind.
type Watches = HashMap<Arc<Kind>, (Arc<Store<Metadata>>, CancellationToken)>;

impl Controller {
    /// Sets the collector up. `departures` hears of every object that is gone.
    pub(super) fn new(client: Client, departures: Departures) -> Self {
        Self {
            client,
            graph: Arc::default(),
            kinds: RwLock::default(),
            queue: Queue::new(),
            departures,
            definitions: Arc::new(Notify::new()),
        }
    }

    /// Collects until shut down.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let watching = self.watch_kinds(&shutdown);
        let working = work("garbage", &self.queue, &shutdown, |uid| self.reconcile(uid));
        tokio::join!(Box::pin(watching), Box::pin(working));
    }

    /// Keeps one watch for each kind that the API serves.
    async fn watch_kinds(&self, shutdown: &CancellationToken) {
        let mut watches = Watches::new();
        let mut tasks = JoinSet::new();
        let mut failures: u32 = 0;
        let mut changed = false;
        loop {
            match discover(&self.client).await {
                Ok(kinds) => {
                    failures = 0;
                    self.adjust(kinds, &mut watches, &mut tasks, shutdown).await;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(error = %error.message(), failures, "{error}; trying again");
                }
            }
            let delay = SECOND_LOOK * (1 << failures.saturating_sub(1).min(10));
            let again = changed || failures > 0;
            changed = false;
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.definitions.notified() => changed = true,
                () = tokio::time::sleep(delay.min(LONGEST_BACKOFF)), if again => {}
            }
        }
        // Every watch ends by the same token.
        while tasks.join_next().await.is_some() {}
    }

    async fn adjust(
        &self,
        kinds: Vec<Kind>,
        watches: &mut Watches,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let kinds: Vec<Arc<Kind>> = kinds.into_iter().map(Arc::new).collect();
        watches.retain(|kind, (store, token)| {
            let stays = kinds.contains(kind);
            if !stays {
                // The kind is gone and its objects with it.
                token.cancel();
                store.replace(Vec::new());
            }
            stays
        });
        let mut started = Vec::new();
        for kind in &kinds {
            if watches.contains_key(kind) {
                continue;
            }
            let token = shutdown.child_token();
            let store = Arc::new(Store::new());
            self.listen(kind, &store);
            let events = watcher(kind.metadata(&self.client), Config::default());
            let (to, name, stop) = (store.clone(), kind.to_string(), token.clone());
            tasks.spawn(async move { follow(&name, events, &to, &stop).await });
            watches.insert(kind.clone(), (store.clone(), token));
            started.push(store);
        }
        *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(kinds);
        // Not needed for correctness, but until the owners are known every look asks the API.
        let known = join_all(started.iter().map(|store| store.synced()));
        let _ = tokio::time::timeout(SECOND_LOOK, known).await;
    }

    fn listen(&self, kind: &Arc<Kind>, store: &Arc<Store<Metadata>>) {
        let (graph, queue, kind) = (self.graph.clone(), self.queue.clone(), kind.clone());
        let departures = self.departures.clone();
        let definitions = kind.defines_kinds().then(|| self.definitions.clone());
        store.on_change(move |change| {
            let mut due = Vec::new();
            let replaced = change.old.filter(|old| {
                change
                    .new
                    .is_none_or(|new| new.metadata.uid != old.metadata.uid)
            });
            if let Some(old) = replaced {
                let uid = old.metadata.uid.as_deref().unwrap_or_default();
                due.extend(lock(&graph).remove(uid));
                departures.note(&old.namespace().unwrap_or_default());
            }
            if let Some(new) = change.new
                && let Some(item) = Item::of(&kind, Key::of(new.as_ref()), &new.metadata)
            {
                due.extend(lock(&graph).set(item));
            }
            due.into_iter().for_each(|uid| queue.add(uid));
            if let Some(definitions) = &definitions {
                definitions.notify_one();
            }
        });
    }

    async fn reconcile(&self, uid: String) -> Result<Option<Duration>, Error> {
        let Some(item) = lock(&self.graph).get(&uid).cloned() else {
            return Ok(None);
        };
        if item.orphans_dependents() {
            self.orphan(&item).await?;
        } else if item.waits_for_dependents() {
            self.delete_dependents(&item).await?;
        } else if !item.going && !item.owners.is_empty() {
            self.judge(&item).await?;
        }
        Ok(None)
    }

    /// Takes the reference off every dependent, then lets the owner go.
    async fn orphan(&self, owner: &Item) -> Result<(), Error> {
        for dependent in lock_dependents(&self.graph, &owner.uid) {
            self.disown(&dependent, std::slice::from_ref(&owner.uid))
                .await?;
        }
        self.remove_finalizer(owner, ORPHAN).await
    }

    /// Sends the dependents away; lets the owner go when none blocks it any more.
    async fn delete_dependents(&self, owner: &Item) -> Result<(), Error> {
        let dependents = lock_dependents(&self.graph, &owner.uid);
        if !dependents
            .iter()
            .any(|dependent| blocks(dependent, &owner.uid))
        {
            return self.remove_finalizer(owner, FOREGROUND).await;
        }
        for dependent in dependents.into_iter().filter(|dependent| !dependent.going) {
            self.queue.add(dependent.uid);
        }
        Ok(())
    }

    /// Looks at an object's owners and does what follows.
    async fn judge(&self, item: &Item) -> Result<(), Error> {
        let mut owners = Vec::with_capacity(item.owners.len());
        for owner in &item.owners {
            owners.push(self.owner(item, owner).await?);
        }
        let has_dependents = lock(&self.graph).has_dependents(&item.uid);
        match verdict(item, &owners, has_dependents) {
            Verdict::Keep => Ok(()),
            Verdict::Disown(lost) => self.disown(item, &lost).await,
            Verdict::Delete(policy) => self.delete(item, policy).await,
        }
    }

    async fn owner(&self, item: &Item, owner: &OwnerReference) -> Result<Owner, Error> {
        let kind = self.kind(owner);
        if let Some(kind) = &kind
            && kind.namespaced
            && !item.kind.namespaced
        {
            return Ok(Owner::Unresolvable);
        }
        let known = lock(&self.graph).get(&owner.uid).map(|known| {
            let reachable =
                known.key.namespace.is_empty() || known.key.namespace == item.key.namespace;
            (reachable, known.waits_for_dependents())
        });
        match known {
            Some((true, true)) => return Ok(Owner::Waiting),
            Some((true, false)) => return Ok(Owner::Solid),
            // Of another namespace, so the reference does not mean it.
            Some((false, _)) | None => {}
        }
        let Some(kind) = kind else {
            // The kind may be served again later; deleting for that would be final.
            return Err(Error::Waiting {
                object: format!("{} {}", item.kind, item.key),
                what: format!("its owner's kind {} {}", owner.api_version, owner.kind),
            });
        };
        let key = kind.key(&item.key.namespace, &owner.name);
        let live = kind
            .api(&self.client, &key.namespace)
            .get_metadata_opt(&key.name)
            .await
            .map_err(during("get", format!("{kind} {key}")))?;
        let found = live.is_some_and(|live| live.uid().as_ref() == Some(&owner.uid));
        Ok(if found { Owner::Solid } else { Owner::Absent })
    }

    fn kind(&self, owner: &OwnerReference) -> Option<Arc<Kind>> {
        let kinds = self
            .kinds
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        kinds
            .iter()
            .find(|kind| kind.is(&owner.api_version, &owner.kind))
            .cloned()
    }

    async fn delete(&self, item: &Item, policy: Policy) -> Result<(), Error> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(item.uid.clone()),
                resource_version: item.version.clone(),
            }),
            ..match policy {
                Policy::Background => DeleteParams::background(),
                Policy::Foreground => DeleteParams::foreground(),
                Policy::Orphan => DeleteParams::orphan(),
            }
        };
        tracing::debug!(kind = %item.kind, key = %item.key, ?policy, "deleting, its owners are gone");
        let api = item.kind.api(&self.client, &item.key.namespace);
        let deleted = api.delete(&item.key.name, &params).await.map(drop);
        gone_is_fine(deleted.map_err(during("delete", describe(item))))
    }

    async fn disown(&self, item: &Item, lost: &[String]) -> Result<(), Error> {
        if !lost.iter().any(|uid| names(&item.owners, uid)) {
            return Ok(());
        }
        let left: Vec<&OwnerReference> = item
            .owners
            .iter()
            .filter(|owner| !lost.contains(&owner.uid))
            .collect();
        self.patch(item, "ownerReferences", json!(left)).await
    }

    async fn remove_finalizer(&self, item: &Item, finalizer: &str) -> Result<(), Error> {
        let left: Vec<&String> = item
            .finalizers
            .iter()
            .filter(|own| *own != finalizer)
            .collect();
        self.patch(item, "finalizers", json!(left)).await
    }

    /// Replaces one field of the metadata, if the object is still as it was seen.
    async fn patch(&self, item: &Item, field: &str, value: serde_json::Value) -> Result<(), Error> {
        let patch = json!({ "metadata": {
            "uid": item.uid,
            "resourceVersion": item.version,
            (field): value,
        }});
        let api = item.kind.api(&self.client, &item.key.namespace);
        let patched = api
            .patch(
                &item.key.name,
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .map(drop);
        gone_is_fine(patched.map_err(during("patch", describe(item))))
    }
}

fn describe(item: &Item) -> String {
    format!("{} {}", item.kind, item.key)
}

fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => {
            tracing::debug!(error = %chain(&error), "gone already");
            Ok(())
        }
        other => other,
    }
}

fn lock(graph: &Mutex<Graph>) -> MutexGuard<'_, Graph> {
    graph.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_dependents(graph: &Mutex<Graph>, uid: &str) -> Vec<Item> {
    lock(graph).dependents(uid)
}

#[cfg(test)]
mod tests;
