//! Controllers, written on `kube::Client` alone: they work against any Kubernetes API.
//!
//! Each controller has a pure part that says what to do about one object, a queue of objects to look
//! at, and handlers that fill the queue from watched stores. Nothing polls.

pub(crate) mod clock;
mod deployment;
mod endpointslice;
mod error;
pub(crate) mod events;
mod garbage;
mod informer;
mod namespace;
mod ownership;
mod patch;
mod pods;
mod provision;
mod queue;
mod replicaset;
mod resources;
mod scheduler;

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, watcher as watch_kind};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use endpointslice::{preview_slices, withdraw_endpoints};
use informer::{Store, follow};

/// What the controllers need to know besides the API.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The certificate that verifies the API server, PEM: goes into the ConfigMap `kube-root-ca.crt`
    /// of every namespace.
    pub root_ca_pem: String,
}

/// The watched objects.
struct Stores {
    deployments: Arc<Store<Deployment>>,
    replica_sets: Arc<Store<ReplicaSet>>,
    pods: Arc<Store<Pod>>,
    services: Arc<Store<Service>>,
    slices: Arc<Store<EndpointSlice>>,
    endpoints: Arc<Store<Endpoints>>,
    nodes: Arc<Store<Node>>,
    namespaces: Arc<Store<Namespace>>,
    accounts: Arc<Store<ServiceAccount>>,
    root_cas: Arc<Store<ConfigMap>>,
}

impl Stores {
    fn new() -> Self {
        Self {
            deployments: Arc::new(Store::new()),
            replica_sets: Arc::new(Store::new()),
            pods: Arc::new(Store::new()),
            services: Arc::new(Store::new()),
            slices: Arc::new(Store::new()),
            endpoints: Arc::new(Store::new()),
            nodes: Arc::new(Store::new()),
            namespaces: Arc::new(Store::new()),
            accounts: Arc::new(Store::new()),
            root_cas: Arc::new(Store::new()),
        }
    }

    /// Starts the watches.
    fn watch(&self, client: &Client, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let everything = watcher::Config::default;
        let named =
            |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        watch(tasks, client, &self.deployments, everything(), shutdown);
        watch(tasks, client, &self.replica_sets, everything(), shutdown);
        watch(tasks, client, &self.pods, everything(), shutdown);
        watch(tasks, client, &self.services, everything(), shutdown);
        watch(tasks, client, &self.slices, everything(), shutdown);
        watch(tasks, client, &self.endpoints, everything(), shutdown);
        watch(tasks, client, &self.nodes, everything(), shutdown);
        watch(tasks, client, &self.namespaces, everything(), shutdown);
        watch(
            tasks,
            client,
            &self.accounts,
            named(provision::SERVICE_ACCOUNT),
            shutdown,
        );
        watch(
            tasks,
            client,
            &self.root_cas,
            named(provision::ROOT_CA),
            shutdown,
        );
    }

    async fn synced(&self) {
        tokio::join!(
            self.deployments.synced(),
            self.replica_sets.synced(),
            self.pods.synced(),
            self.services.synced(),
            self.slices.synced(),
            self.endpoints.synced(),
            self.nodes.synced(),
            self.namespaces.synced(),
            self.accounts.synced(),
            self.root_cas.synced(),
        );
    }
}

fn watch<K>(
    tasks: &mut JoinSet<()>,
    client: &Client,
    store: &Arc<Store<K>>,
    config: watcher::Config,
    shutdown: &CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = watch_kind(Api::<K>::all(client.clone()), config);
    let (store, shutdown) = (store.clone(), shutdown.clone());
    tasks.spawn(async move { follow(&K::plural(&()), events, &store, &shutdown).await });
}

/// Runs the deployment, ReplicaSet, EndpointSlice, namespace and garbage controllers, the scheduler,
/// and what provides every namespace with its ServiceAccount and root certificate.
///
/// Returns when shut down. Errors of the API are logged with the object and tried again, with
/// back-off up to 30 s; conflicts at once. The controllers begin when the first lists have arrived.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) {
    let stores = Stores::new();
    let (recorder, writer) = events::channel("sealane");
    let Stores {
        deployments,
        replica_sets,
        pods,
        services,
        slices,
        endpoints,
        nodes,
        namespaces,
        ..
    } = &stores;
    let namespace = namespace::Controller::new(client.clone(), namespaces);
    let garbage = garbage::Controller::new(client.clone(), namespace.departures());
    let provision = provision::Controller::new(
        client.clone(),
        options.root_ca_pem,
        namespaces,
        &stores.accounts,
        &stores.root_cas,
    );
    let deployment =
        deployment::Controller::new(client.clone(), deployments, replica_sets, pods, &recorder);
    let replicaset = replicaset::Controller::new(client.clone(), replica_sets, pods, &recorder);
    let endpointslice =
        endpointslice::Controller::new(client.clone(), services, pods, nodes, slices, endpoints);
    let mirror =
        endpointslice::mirror::Controller::new(client.clone(), services, endpoints, slices);
    let scheduler = scheduler::Controller::new(client.clone(), pods, nodes, &recorder);

    let mut tasks = JoinSet::new();
    stores.watch(&client, &mut tasks, &shutdown);
    tasks.spawn(writer.run(client, shutdown.clone()));
    let synced = tokio::select! {
        () = stores.synced() => true,
        () = shutdown.cancelled() => false,
    };
    if synced {
        tracing::debug!("controllers begin: the first lists have arrived");
        tasks.spawn(namespace.run(shutdown.clone()));
        tasks.spawn(garbage.run(shutdown.clone()));
        tasks.spawn(provision.run(shutdown.clone()));
        tasks.spawn(deployment.run(shutdown.clone()));
        tasks.spawn(replicaset.run(shutdown.clone()));
        tasks.spawn(endpointslice.run(shutdown.clone()));
        tasks.spawn(mirror.run(shutdown.clone()));
        tasks.spawn(scheduler.run(shutdown.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended");
        }
    }
}

#[cfg(test)]
mod tests;
