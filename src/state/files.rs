//! The state that manifests come to, by an API server in memory.

use std::collections::BTreeSet;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use sealane_cluster::api::{ApiOptions, ApiServer, Store};
use sealane_config::compile::ServedClasses;

use super::{
    Objects, Origin, Places, SourceOptions, State, Template, cluster, compile, gateway_api, planned,
};
use crate::exit::Failure;
use crate::manifests::{self, Manifest};
use crate::up::apply::{ApplyError, apply_in};
use crate::up::settings::{ControlPlane, PodNetworkMode};
use crate::up::system;

/// What messages call the API server in memory.
const IN_MEMORY: &str = "memory";

/// Takes the state that the files come to. `namespace` is that of objects which name none.
///
/// # Errors
/// A path that is not there. Anything else that is wrong with the files is part of the state.
pub(super) async fn load(
    options: &SourceOptions,
    classes: ServedClasses,
    namespace: &str,
) -> Result<State, Failure> {
    let paths = options.filename.as_slice();
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        let text = format!("{}: no such file or directory", missing.display());
        return Err(Failure::NotFound(text));
    }
    let (manifests, mut errors) = manifests::load_good(paths);
    let server = ApiServer::new(Store::ephemeral(), ApiOptions::default());
    let prepare = "cannot prepare an API server in memory";
    server.bootstrap().await.context(prepare)?;
    let client = server.client();
    let addresses = PodNetworkMode::Namespaces.addresses();
    system::install(
        &client,
        &addresses,
        &ControlPlane::Embedded { ephemeral: true },
    )
    .await
    .context(prepare)?;
    let implied_namespaces = make_namespaces(&client, &manifests, namespace)
        .await
        .context(prepare)?;
    let (gateway_api, unreadable) = gateway_api::of_manifests(&manifests, namespace);
    errors.extend(unreadable);
    let others = manifests
        .iter()
        .filter(|manifest| !gateway_api::is_known(manifest));
    let others: Vec<Manifest> = others.cloned().collect();
    match apply_in(&client, namespace, &others).await {
        Ok(_applied) => {}
        Err(ApplyError::Refused(refused)) => errors.extend(refused),
        Err(error @ ApplyError::Discovery(_)) => return Err(Failure::Other(error.into())),
    }
    let mut objects = cluster::fetch(&client, None, IN_MEMORY).await?;
    objects.gateway_api = gateway_api;
    objects.served = classes;
    objects.settings.clone_from(&options.configmap);
    let default_service = &options.default_backend_service;
    objects.default_service.clone_from(default_service);
    objects.ssl_passthrough = options.enable_ssl_passthrough;
    cluster::fetch_referred(&client, &mut objects, IN_MEMORY).await?;
    let templates = Template::all(&manifests, namespace);
    let places = Places::new(manifests, namespace);
    order_by_file(&mut objects, &places);
    plan_pods(&mut objects, &templates);
    Ok(State {
        snapshot: compile::compile(&objects),
        objects,
        origin: Origin::Files {
            errors,
            implied_namespaces,
            templates,
        },
        places,
    })
}

/// Makes the namespaces that objects are in and that no manifest makes; returns their names.
async fn make_namespaces(
    client: &Client,
    manifests: &[Manifest],
    default: &str,
) -> kube::Result<Vec<String>> {
    let made: BTreeSet<&str> = manifests
        .iter()
        .filter(|manifest| manifest.text("/kind") == Some("Namespace"))
        .filter_map(|manifest| manifest.text("/metadata/name"))
        .collect();
    let used = manifests
        .iter()
        .filter_map(|manifest| manifest.text("/metadata/namespace"));
    let used: BTreeSet<&str> = used.chain([default]).collect();
    let api: Api<Namespace> = Api::all(client.clone());
    let mut implied = Vec::new();
    for name in used {
        if made.contains(name) || api.get_opt(name).await?.is_some() {
            continue;
        }
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        // A name that cannot be one is reported with the objects that are in it.
        if api.create(&PostParams::default(), &namespace).await.is_ok() {
            implied.push(name.to_owned());
        }
    }
    Ok(implied)
}

/// The creation time of the object in this place of the files.
pub(super) fn age(place: usize) -> Time {
    let seconds = i64::try_from(place).unwrap_or_default();
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Where age decides between objects, the one that comes first in the files is the older one.
fn order_by_file(objects: &mut Objects, places: &Places) {
    let set_age = |kind: &str, metadata: &mut ObjectMeta| {
        let is_it = |manifest: &Manifest| {
            let name = manifest.text("/metadata/name");
            manifest.text("/kind") == Some(kind) && name == metadata.name.as_deref()
        };
        let place = places.manifests().iter().position(is_it);
        metadata.creation_timestamp = Some(age(place.unwrap_or_default()));
    };
    for service in &mut objects.services {
        set_age("Service", service.meta_mut());
    }
    for ingress in &mut objects.ingresses {
        set_age("Ingress", ingress.meta_mut());
    }
}

/// Gives the Services that select pods the endpoints that they would have.
fn plan_pods(objects: &mut Objects, templates: &[Template]) {
    let mut numbers = planned::Numbers::default();
    let pods: Vec<_> = templates
        .iter()
        .map(|template| (template, template.pods(&mut numbers)))
        .collect();
    let node = k8s_openapi::api::core::v1::Node::default();
    let mut slices = Vec::new();
    for service in objects.services.iter().filter(|service| selects(service)) {
        let selected = pods
            .iter()
            .filter(|(template, _)| template.is_selected_by(service))
            .flat_map(|(_, pods)| pods.iter().cloned());
        let selected: Vec<_> = selected.collect();
        slices.extend(sealane_cluster::controllers::preview_slices(
            service, &selected, &node,
        ));
    }
    objects.slices.append(&mut slices);
}

fn selects(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.selector.as_ref())
        .is_some_and(|selector| !selector.is_empty())
        && service.namespace().is_some()
}
