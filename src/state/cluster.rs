//! The state of a cluster: each kind listed once, Secrets one by one and only those that are named.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Api, ListParams};
use kube::{Client, Config, Resource, ResourceExt as _};
use sealane_config::client::{self, ClientError, ClusterAddress};
use sealane_config::compile::ServedClasses;
use serde::de::DeserializeOwned;

use super::{Objects, Origin, Places, Scope, SourceOptions, State, compile, gateway_api};
use crate::exit::{Failure, chain};

/// How long the API may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Takes the state of the cluster that a kubeconfig leads to.
///
/// # Errors
/// There is no kubeconfig or no such context; the API does not answer or refuses.
pub(super) async fn load(
    options: &SourceOptions,
    classes: ServedClasses,
    scope: &Scope,
) -> Result<State, Failure> {
    let config = config(options).await?;
    let url = config.cluster_url.to_string();
    let namespace = match scope {
        Scope::All => None,
        Scope::One(Some(name)) => Some(name.clone()),
        Scope::One(None) => Some(config.default_namespace.clone()),
    };
    let client = client::connect(config, "check").await;
    let client = client.map_err(|error| Failure::Machine(error.to_string()))?;
    let mut objects = fetch(&client, namespace.as_deref(), &url).await?;
    objects.served = classes;
    objects.settings.clone_from(&options.configmap);
    let default_service = &options.default_backend_service;
    objects.default_service.clone_from(default_service);
    objects.ssl_passthrough = options.enable_ssl_passthrough;
    fetch_referred(&client, &mut objects, &url).await?;
    Ok(State {
        snapshot: compile::compile(&objects),
        objects,
        origin: Origin::Cluster { url, namespace },
        places: Places::default(),
    })
}

async fn config(options: &SourceOptions) -> Result<Config, Failure> {
    if let Some(file) = options.kubeconfig.as_ref().filter(|file| !file.exists()) {
        let text = format!("{}: no such file", file.display());
        return Err(Failure::NotFound(text));
    }
    let address = ClusterAddress {
        kubeconfig: options.kubeconfig.clone(),
        context: options.context.clone(),
        server: None,
    };
    let read = client::configuration(&address).await;
    let mut config = read.map_err(|error| match (&error, &options.context) {
        (_, Some(context)) => Failure::NotFound(format!("context {context}: {error}")),
        (ClientError::Kubeconfig { .. }, None) => Failure::Input(vec![error.to_string()]),
        (ClientError::NoCluster(_) | ClientError::Unusable { .. }, None) => {
            Failure::Machine(format!("{error}, or give manifests with -f PATH"))
        }
    })?;
    config.connect_timeout = Some(TIMEOUT);
    config.read_timeout = Some(TIMEOUT);
    Ok(config)
}

/// Lists what routing follows from, without Secrets.
///
/// # Errors
/// The API does not answer, or refuses: which verb on which resource is missing.
pub(super) async fn fetch(
    client: &Client,
    namespace: Option<&str>,
    url: &str,
) -> Result<Objects, Failure> {
    let all = ListParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let classes: Api<IngressClass> = Api::all(client.clone());
    let services = scoped::<Service>(client, namespace);
    let slices = scoped::<EndpointSlice>(client, namespace);
    let ingresses = scoped::<Ingress>(client, namespace);
    // One after the other: the first that fails is named, and it fails soon.
    let names = match namespace {
        Some(name) => {
            let found = ask(url, "get", "namespaces", namespaces.get_opt(name)).await?;
            if found.is_none() {
                let text = format!("namespace {name} does not exist in {url}");
                return Err(Failure::NotFound(text));
            }
            vec![name.to_owned()]
        }
        None => ask(url, "list", "namespaces", namespaces.list(&all))
            .await?
            .iter()
            .map(|namespace| namespace.name_any())
            .collect(),
    };
    let mut objects = Objects {
        namespaces: names,
        services: ask(url, "list", "services", services.list(&all))
            .await?
            .items,
        slices: ask(
            url,
            "list",
            "endpointslices.discovery.k8s.io",
            slices.list(&all),
        )
        .await?
        .items,
        ingresses: ask(
            url,
            "list",
            "ingresses.networking.k8s.io",
            ingresses.list(&all),
        )
        .await?
        .items,
        classes: ask(
            url,
            "list",
            "ingressclasses.networking.k8s.io",
            classes.list(&all),
        )
        .await?
        .items,
        ..Objects::default()
    };
    let served = gateway_api::is_served(client);
    if ask(url, "get", "the list of API groups", served).await? {
        for (kind, resource, path) in gateway_api::lists(namespace) {
            let items = gateway_api::list(client, kind, path);
            let items = ask(url, "list", &resource, items).await?;
            objects.gateway_api.extend(items.into_iter().flatten());
        }
    }
    Ok(objects)
}

/// Reads the Secrets and ConfigMaps that are named, and no other.
///
/// # Errors
/// As [`fetch`].
pub(super) async fn fetch_referred(
    client: &Client,
    objects: &mut Objects,
    url: &str,
) -> Result<(), Failure> {
    let (secrets, config_maps) = compile::referred(objects);
    for (namespace, name) in secrets {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let secret = ask(url, "get", "secrets", secrets.get_opt(&name)).await?;
        objects.secrets.insert((namespace, name), secret);
    }
    for (namespace, name) in config_maps {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        let map = ask(url, "get", "configmaps", maps.get_opt(&name)).await?;
        objects.config_maps.insert((namespace, name), map);
    }
    Ok(())
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// One question to the API; an error says what was asked, and what to do about it.
async fn ask<T>(
    url: &str,
    verb: &str,
    resource: &str,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    let error = match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_elapsed) => {
            let seconds = TIMEOUT.as_secs();
            return Err(Failure::Machine(format!(
                "the Kubernetes API at {url} did not answer within {seconds} seconds"
            )));
        }
    };
    Err(Failure::Machine(match &error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "the Kubernetes API at {url} refuses to {verb} {resource}: {}; the role needs the verb \
             {verb} on {resource}",
            status.message
        ),
        kube::Error::Api(status) if status.code == 401 => format!(
            "the Kubernetes API at {url} does not accept these credentials: {}",
            status.message
        ),
        kube::Error::Api(status) => {
            format!(
                "the Kubernetes API at {url} cannot {verb} {resource}: {}",
                status.message
            )
        }
        _ => format!(
            "the Kubernetes API at {url} cannot be reached: {}; check --kubeconfig and --context",
            chain(&error.into())
        ),
    }))
}
