//! Deletion of namespaces: everything in them goes first, then the finalizer `kubernetes`.
//!
//! Rules: pods go before everything else, so that what they use outlives them; a namespace is
//! finalized (`PUT …/finalize`) only after a listing of every kind came back empty; until then the
//! conditions say what is left (API reference, `NamespaceCondition`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt, api::DynamicObject};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::error::{Error, during};
use super::informer::{Key, Store};
use super::queue::{Queue, work};
use super::resources::{Kind, discover};

/// The finalizer in `spec.finalizers` that this controller removes.
const FINALIZER: &str = "kubernetes";
/// How many kinds are emptied at a time.
const KINDS_AT_ONCE: usize = 16;

/// The controller; [`Controller::run`] it after its store was filled.
pub(super) struct Controller {
    client: Client,
    namespaces: Arc<Store<Namespace>>,
    queue: Arc<Queue<Key>>,
}

/// Tells the controller that an object of a namespace is gone, so that it looks again at once.
#[derive(Clone)]
pub(super) struct Departures {
    namespaces: Arc<Store<Namespace>>,
    queue: Arc<Queue<Key>>,
}

impl Departures {
    /// An object of this namespace is gone.
    pub(super) fn note(&self, namespace: &str) {
        let key = Key::new("", namespace);
        if self
            .namespaces
            .get(&key)
            .is_some_and(|namespace| is_going(&namespace))
        {
            self.queue.add(key);
        }
    }
}

/// What is left in a namespace after a round of deletions.
#[derive(Debug, Default, Eq, PartialEq)]
struct Remaining {
    /// Kind → number of objects.
    objects: BTreeMap<String, usize>,
    /// Finalizer → number of objects that it holds.
    finalizers: BTreeMap<String, usize>,
}

impl Remaining {
    fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn add(&mut self, kind: &Kind, objects: &[PartialObjectMeta<DynamicObject>]) {
        if objects.is_empty() {
            return;
        }
        let name = format!("{}.{}", kind.resource.plural, kind.resource.group);
        *self.objects.entry(name).or_default() += objects.len();
        for finalizer in objects.iter().flat_map(|object| object.finalizers()) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
}

impl Controller {
    /// Sets the controller up and listens to the store.
    pub(super) fn new(client: Client, namespaces: &Arc<Store<Namespace>>) -> Self {
        let queue: Arc<Queue<Key>> = Queue::new();
        let to = queue.clone();
        namespaces.on_change(move |change| {
            if let Some(namespace) = change.new.filter(|namespace| is_going(namespace)) {
                to.add(Key::of(namespace.as_ref()));
            }
        });
        Self {
            client,
            namespaces: namespaces.clone(),
            queue,
        }
    }

    /// Where departures of objects are to be told.
    pub(super) fn departures(&self) -> Departures {
        Departures {
            namespaces: self.namespaces.clone(),
            queue: self.queue.clone(),
        }
    }

    /// Reconciles until shut down.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        work("namespace", &self.queue, &shutdown, |key| {
            self.reconcile(key)
        })
        .await;
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.namespaces.get(&key).filter(|n| is_going(n)) else {
            return Ok(None);
        };
        if !finalizers(&namespace)
            .iter()
            .any(|finalizer| finalizer == FINALIZER)
        {
            return Ok(None);
        }
        let kinds = discover(&self.client).await.map(|mut kinds| {
            kinds.retain(|kind| kind.namespaced);
            kinds
        });
        let remaining = match &kinds {
            Ok(kinds) => Some(self.empty(&key.name, kinds).await),
            Err(_) => None,
        };
        let content = remaining
            .as_ref()
            .and_then(|remaining| remaining.as_ref().ok());
        let failure = remaining
            .as_ref()
            .and_then(|remaining| remaining.as_ref().err());
        let conditions = conditions(&namespace, kinds.as_ref().err(), failure, content);
        let version = self.write_conditions(&namespace, conditions).await?;
        kinds?;
        match remaining.transpose()? {
            Some(remaining) if remaining.is_empty() => {
                self.finalize(&namespace, version).await?;
                Ok(None)
            }
            _ => Err(Error::Waiting {
                object: format!("namespace {key}"),
                what: "its objects to go".to_owned(),
            }),
        }
    }

    /// Deletes what is there, pods before the rest, and tells what is left.
    async fn empty(&self, namespace: &str, kinds: &[Kind]) -> Result<Remaining, Error> {
        let (pods, others): (Vec<&Kind>, Vec<&Kind>) =
            kinds.iter().partition(|kind| kind.is("v1", "Pod"));
        let remaining = self.empty_kinds(namespace, pods).await?;
        if !remaining.is_empty() {
            return Ok(remaining);
        }
        self.empty_kinds(namespace, others).await
    }

    async fn empty_kinds(&self, namespace: &str, kinds: Vec<&Kind>) -> Result<Remaining, Error> {
        let mut remaining = Remaining::default();
        for some in kinds.chunks(KINDS_AT_ONCE) {
            let left =
                try_join_all(some.iter().map(|kind| self.empty_kind(namespace, kind))).await?;
            for (kind, objects) in some.iter().zip(left) {
                remaining.add(kind, &objects);
            }
        }
        Ok(remaining)
    }

    async fn empty_kind(
        &self,
        namespace: &str,
        kind: &Kind,
    ) -> Result<Vec<PartialObjectMeta<DynamicObject>>, Error> {
        let api = kind.api(&self.client, namespace);
        let what = format!("{kind} in {namespace}");
        let list = || async {
            let listed = api.list_metadata(&ListParams::default()).await;
            listed.map(|list| list.items).map_err(during("list", &what))
        };
        let objects = list().await?;
        let waiting = objects
            .iter()
            .filter(|object| object.metadata.deletion_timestamp.is_none());
        if waiting.clone().next().is_none() {
            return Ok(objects);
        }
        if kind.collection {
            api.delete_collection(&DeleteParams::background(), &ListParams::default())
                .await
                .map_err(during("delete all", &what))?;
        } else {
            for object in waiting {
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: object.uid(),
                        resource_version: None,
                    }),
                    ..DeleteParams::background()
                };
                match api
                    .delete(&object.name_any(), &params)
                    .await
                    .map_err(during("delete", &what))
                {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        list().await
    }

    async fn write_conditions(
        &self,
        namespace: &Namespace,
        conditions: Vec<NamespaceCondition>,
    ) -> Result<Option<String>, Error> {
        let known = namespace
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        if known == Some(&conditions) {
            return Ok(namespace.resource_version());
        }
        let patch = json!({
            "metadata": { "uid": namespace.uid() },
            "status": { "conditions": conditions },
        });
        let api: Api<Namespace> = Api::all(self.client.clone());
        let name = namespace.name_any();
        let written = api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(during("write status of namespace", &name));
        match written {
            Ok(written) => Ok(written.resource_version()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn finalize(&self, namespace: &Namespace, version: Option<String>) -> Result<(), Error> {
        let mut finalized = namespace.clone();
        finalized.metadata.resource_version = version;
        if let Some(spec) = &mut finalized.spec {
            let mut left = finalizers(namespace);
            left.retain(|finalizer| finalizer != FINALIZER);
            spec.finalizers = Some(left);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let name = namespace.name_any();
        let done = api
            .replace_subresource("finalize", &name, &PostParams::default(), &finalized)
            .await;
        match done.map_err(during("finalize namespace", &name)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_going(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

fn finalizers(namespace: &Namespace) -> Vec<String> {
    namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.clone())
        .unwrap_or_default()
}

/// The five conditions of a namespace that is being deleted.
fn conditions(
    namespace: &Namespace,
    discovery: Option<&Error>,
    failure: Option<&Error>,
    remaining: Option<&Remaining>,
) -> Vec<NamespaceCondition> {
    let known = namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let known = known.unwrap_or_default();
    let condition = |kind: &str, bad: Option<(&str, String)>, good: (&str, &str)| {
        let status = if bad.is_some() { "True" } else { "False" };
        let (reason, message) = bad.unwrap_or_else(|| (good.0, good.1.to_owned()));
        let since = known
            .iter()
            .find(|known| known.type_ == kind && known.status == status)
            .and_then(|known| known.last_transition_time.clone());
        NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or_else(clock::now)),
        }
    };
    let objects = remaining
        .filter(|remaining| !remaining.objects.is_empty())
        .map(|remaining| {
            let list = listing(&remaining.objects, |name, count| {
                format!("{name} has {count} resource instances")
            });
            (
                "SomeResourcesRemain",
                format!("Some resources are remaining: {list}"),
            )
        });
    let held = remaining
        .filter(|remaining| !remaining.finalizers.is_empty())
        .map(|remaining| {
            let list = listing(&remaining.finalizers, |name, count| {
                format!("{name} in {count} resource instances")
            });
            (
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {list}"),
            )
        });
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            discovery.map(|error| ("DiscoveryFailed", error.message())),
            (
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            (
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            failure.map(|error| ("ContentDeletionFailed", error.message())),
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        condition(
            "NamespaceContentRemaining",
            objects,
            ("ContentRemoved", "All content successfully removed"),
        ),
        condition(
            "NamespaceFinalizersRemaining",
            held,
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ),
    ]
}

fn listing(counts: &BTreeMap<String, usize>, text: impl Fn(&str, usize) -> String) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| text(name, *count))
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests;
