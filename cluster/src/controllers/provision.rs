//! What every namespace has: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`, made
//! with the namespace and made again when someone deletes or changes them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::error::{Error, during};
use super::informer::{Key, Store};
use super::queue::{Queue, work};

/// Name of the ConfigMap with the certificate that verifies the API server.
pub(super) const ROOT_CA: &str = "kube-root-ca.crt";
/// Name of the ServiceAccount that pods get unless they name another.
pub(super) const SERVICE_ACCOUNT: &str = "default";
/// Key of the certificate.
const CA_KEY: &str = "ca.crt";

/// The controller; [`Controller::run`] it after its stores were filled.
pub(super) struct Controller {
    client: Client,
    root_ca_pem: String,
    namespaces: Arc<Store<Namespace>>,
    accounts: Arc<Store<ServiceAccount>>,
    maps: Arc<Store<ConfigMap>>,
    queue: Arc<Queue<Key>>,
}

impl Controller {
    /// Sets the controller up and listens to the stores. `accounts` and `maps` need to hold only
    /// the objects with the two names.
    pub(super) fn new(
        client: Client,
        root_ca_pem: String,
        namespaces: &Arc<Store<Namespace>>,
        accounts: &Arc<Store<ServiceAccount>>,
        maps: &Arc<Store<ConfigMap>>,
    ) -> Self {
        let queue: Arc<Queue<Key>> = Queue::new();
        let to = queue.clone();
        namespaces.on_change(move |change| {
            if let Some(namespace) = change.new {
                to.add(Key::of(namespace.as_ref()));
            }
        });
        let to = queue.clone();
        accounts.on_change(move |change| {
            if let (None, Some(account)) = (change.new, change.old) {
                to.add(Key::new("", Key::of(account.as_ref()).namespace));
            }
        });
        let to = queue.clone();
        maps.on_change(move |change| {
            if let Some(map) = change.latest() {
                to.add(Key::new("", Key::of(map.as_ref()).namespace));
            }
        });
        Self {
            client,
            root_ca_pem,
            namespaces: namespaces.clone(),
            accounts: accounts.clone(),
            maps: maps.clone(),
            queue,
        }
    }

    /// Reconciles until shut down.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        work("provision", &self.queue, &shutdown, |key| {
            self.reconcile(key)
        })
        .await;
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.namespaces.get(&key) else {
            return Ok(None);
        };
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let account = Key::new(key.name.clone(), SERVICE_ACCOUNT);
        if self.accounts.get(&account).is_none() {
            self.create_account(&account).await?;
        }
        let map = Key::new(key.name, ROOT_CA);
        match self.maps.get(&map) {
            None => self.create_map(&map).await?,
            Some(known) => {
                let data = known.data.as_ref().and_then(|data| data.get(CA_KEY));
                if data != Some(&self.root_ca_pem) {
                    self.repair_map(&map).await?;
                }
            }
        }
        Ok(None)
    }

    async fn create_account(&self, key: &Key) -> Result<(), Error> {
        let account = ServiceAccount {
            metadata: meta(key),
            ..ServiceAccount::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.namespace);
        made(
            api.create(&PostParams::default(), &account).await,
            "ServiceAccount",
            key,
        )
    }

    async fn create_map(&self, key: &Key) -> Result<(), Error> {
        let map = ConfigMap {
            metadata: ObjectMeta {
                annotations: Some(
                    [(
                        "kubernetes.io/description".to_owned(),
                        "The certificate that verifies the Kubernetes API server.".to_owned(),
                    )]
                    .into(),
                ),
                ..meta(key)
            },
            data: Some([(CA_KEY.to_owned(), self.root_ca_pem.clone())].into()),
            ..ConfigMap::default()
        };
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        made(
            api.create(&PostParams::default(), &map).await,
            "ConfigMap",
            key,
        )
    }

    async fn repair_map(&self, key: &Key) -> Result<(), Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = json!({ "data": { (CA_KEY): self.root_ca_pem } });
        let patched = api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        made(patched, "ConfigMap", key)
    }
}

fn meta(key: &Key) -> ObjectMeta {
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        ..ObjectMeta::default()
    }
}

/// What exists already, or went away with its namespace, is as good as made.
fn made<K>(result: Result<K, kube::Error>, kind: &str, key: &Key) -> Result<(), Error> {
    match result.map_err(during("create", format!("{kind} {key}"))) {
        Ok(_) => Ok(()),
        Err(error)
            if error.is_already_exists()
                || error.is_not_found()
                || error.is_namespace_terminating() =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
