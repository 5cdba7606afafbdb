//! From a container of a pod's spec to what is to be run: image, command, environment, mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::container::{ContainerSpec, Mount};
use super::context::Context;
use super::env::{self, EnvError, Sources};
use super::images::Reference;
use super::logs;
use super::pod::Sandbox;
use super::resolve::{hostname, hosts, resolv_conf};

/// Why a container cannot run with its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ImageFault {
    /// The reference breaks the grammar.
    Invalid(String),
    /// No rule, and the pod does not want it to be pulled.
    NeverPull(String),
    /// No rule.
    Missing(String),
}

/// What a container's image and command come to, without variables in place.
pub(super) fn command(ctx: &Context, container: &Container) -> Result<Vec<String>, ImageFault> {
    let image = container.image.as_deref().unwrap_or_default();
    if Reference::parse(image).is_none() {
        return Err(ImageFault::Invalid(format!(
            "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format"
        )));
    }
    if let Some(command) = container.command.as_ref().filter(|words| !words.is_empty()) {
        return Ok(command.clone());
    }
    if let Some(command) = ctx.options.images.command(image) {
        let mut command = command.to_vec();
        if command[0].contains('/') && !command[0].starts_with('/') {
            let program = ctx.working_dir.join(&command[0]);
            command[0] = program.to_string_lossy().into_owned();
        }
        return Ok(command);
    }
    if container.image_pull_policy.as_deref() == Some("Never") {
        return Err(ImageFault::NeverPull(format!(
            "Container image {image:?} is not present with pull policy of Never"
        )));
    }
    let pattern = image.split(['@']).next().unwrap_or(image);
    let name = match pattern.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => pattern,
    };
    Err(ImageFault::Missing(format!(
        "no command is known for image {image:?}; say which program it stands for: --image '{name}:*=COMMAND'"
    )))
}

/// Why the rest cannot be prepared; both are tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    /// A reference of the environment leads nowhere.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The API did not answer.
    #[error("{0}")]
    Api(#[from] kube::Error),
}

/// Everything that is needed to start a container.
///
/// # Errors
/// The environment refers to what is missing, or the API did not answer.
pub(super) async fn spec(
    ctx: &Context,
    pod: &Pod,
    sandbox: &Sandbox,
    container: &Container,
    command: &[String],
    run: u32,
) -> Result<ContainerSpec, PrepareError> {
    let sources = Box::pin(sources(&ctx.client, pod, container)).await?;
    let place = ctx.place(sandbox.ip);
    let base = base_env(pod, sandbox, container);
    let env = env::environment(base, pod, container, &place, &sources)?;
    let args = container.args.iter().flatten();
    let words = command.iter().chain(args);
    let dns = ctx.dns();
    let working_dir = container.working_dir.as_ref().filter(|dir| !dir.is_empty());
    Ok(ContainerSpec {
        command: words.map(|word| env::expand(word, &env)).collect(),
        env,
        working_dir: working_dir.map_or_else(|| ctx.working_dir.clone(), PathBuf::from),
        hostname: hostname(pod),
        resolv_conf: resolv_conf(pod, &dns),
        hosts: Some(hosts(pod, sandbox.ip, &dns)),
        mounts: mounts(ctx, pod, container),
        netns: sandbox.netns.clone(),
        scratch: ctx.scratch_dir(pod, container),
        log: logs::file(&ctx.log_dir(pod, &container.name), run),
    })
}

/// What every program gets, before what its spec says.
fn base_env(pod: &Pod, sandbox: &Sandbox, container: &Container) -> Vec<(String, String)> {
    let own = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|value| (name.to_owned(), value))
    };
    let mut env: Vec<_> = ["PATH", "HOME"].into_iter().filter_map(own).collect();
    env.push(("HOSTNAME".to_owned(), hostname(pod)));
    if let Some(image) = &container.image {
        env.push(("SEALANE_IMAGE".to_owned(), image.clone()));
    }
    if sandbox.netns.is_none() {
        // Without a namespace a program has to be told where to listen.
        env.push(("POD_IP".to_owned(), sandbox.ip.to_string()));
    }
    env
}

fn mounts(ctx: &Context, pod: &Pod, container: &Container) -> Vec<Mount> {
    let volumes = ctx.volume_dir(pod);
    let host_paths: BTreeMap<&str, &str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .filter_map(|volume| {
            let path = volume.host_path.as_ref()?.path.as_str();
            Some((volume.name.as_str(), path))
        })
        .collect();
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|mount| {
            let host = host_paths.get(mount.name.as_str()).map(PathBuf::from);
            let mut source = host.unwrap_or_else(|| volumes.join(&mount.name));
            if let Some(sub_path) = mount.sub_path.as_ref().filter(|path| !path.is_empty()) {
                source.push(sub_path);
            }
            Mount {
                source,
                target: PathBuf::from(&mount.mount_path),
                read_only: mount.read_only == Some(true),
            }
        })
        .collect()
}

/// Fetches what the environment refers to.
async fn sources(
    client: &Client,
    pod: &Pod,
    container: &Container,
) -> Result<Sources, kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let (config_maps, secrets) = env::references(container);
    let mut services = list_services(client, namespace).await?;
    if namespace != "default" {
        let api: Api<Service> = Api::namespaced(client.clone(), "default");
        services.extend(Box::pin(api.get_opt("kubernetes")).await?);
    }
    Ok(Sources {
        config_maps: fetch::<ConfigMap>(client, namespace, config_maps).await?,
        secrets: fetch::<Secret>(client, namespace, secrets).await?,
        services,
    })
}

async fn list_services(client: &Client, namespace: &str) -> Result<Vec<Service>, kube::Error> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    Ok(Box::pin(api.list(&ListParams::default())).await?.items)
}

async fn fetch<K>(
    client: &Client,
    namespace: &str,
    names: Vec<String>,
) -> Result<BTreeMap<String, Option<K>>, kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut found = BTreeMap::new();
    let names: BTreeSet<String> = names.into_iter().collect();
    for name in names {
        let object = Box::pin(api.get_opt(&name)).await?;
        found.insert(name, object);
    }
    Ok(found)
}
