//! Objects of Gateway API. The API server in memory does not have them, and a cluster only if its
//! CRDs were installed, so they are kept as they are written until they are compiled.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use sealane_config::compile::gateway_api::{
    ApiChange, ApiRecord, GROUP, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec,
    Object, ReferenceGrantSpec, Spec,
};
use sealane_config::compile::{Change, Delta, ObjectKey};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::manifests::{Fault, Manifest, ManifestError};

/// The kinds, with the resource and the version in which a cluster is asked for them.
const KINDS: [(&str, &str, &str); 5] = [
    kind::<GatewayClassSpec>(),
    kind::<GatewaySpec>(),
    kind::<HttpRouteSpec>(),
    kind::<GrpcRouteSpec>(),
    kind::<ReferenceGrantSpec>(),
];

const fn kind<S: Spec>() -> (&'static str, &'static str, &'static str) {
    (S::KIND, S::PLURAL, S::VERSION)
}

/// The manifest is of a kind that is compiled.
pub(super) fn is_known(manifest: &Manifest) -> bool {
    let api_version = manifest.text("/apiVersion").unwrap_or_default();
    let group = api_version.split('/').next().unwrap_or_default();
    let kind = manifest.text("/kind").unwrap_or_default();
    group == GROUP && KINDS.iter().any(|(known, ..)| *known == kind)
}

/// The objects of manifests, each as old as its place, and what is wrong with the others.
pub(super) fn of_manifests(
    manifests: &[Manifest],
    namespace: &str,
) -> (Vec<Value>, Vec<ManifestError>) {
    let mut objects = Vec::new();
    let mut errors = Vec::new();
    for (place, manifest) in manifests.iter().enumerate() {
        if !is_known(manifest) {
            continue;
        }
        let mut object = manifest.object.clone();
        if manifest.text("/kind") != Some(GatewayClassSpec::KIND)
            && manifest.text("/metadata/namespace").is_none()
        {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["metadata"]["creationTimestamp"] = json!(super::files::age(place));
        match readable(&object) {
            Ok(()) => objects.push(object),
            Err(error) => errors.push(manifest.problem(Fault::BadValue, "spec", error)),
        }
    }
    (objects, errors)
}

fn readable(object: &Value) -> Result<(), String> {
    fn read<S: DeserializeOwned>(object: &Value) -> Result<(), String> {
        let read = serde_json::from_value::<Object<S>>(object.clone());
        read.map(drop).map_err(|error| error.to_string())
    }
    match object["kind"].as_str().unwrap_or_default() {
        GatewayClassSpec::KIND => read::<GatewayClassSpec>(object),
        GatewaySpec::KIND => read::<GatewaySpec>(object),
        HttpRouteSpec::KIND => read::<HttpRouteSpec>(object),
        GrpcRouteSpec::KIND => read::<GrpcRouteSpec>(object),
        _ => read::<ReferenceGrantSpec>(object),
    }
}

/// Whether a cluster has the group at all.
///
/// # Errors
/// The API does not answer.
pub(super) async fn is_served(client: &Client) -> kube::Result<bool> {
    match client.list_api_groups().await {
        Ok(list) => Ok(list.groups.iter().any(|group| group.name == GROUP)),
        Err(error) => Err(error),
    }
}

/// Paths of the lists of all kinds, each with the resource's full name.
pub(super) fn lists(
    namespace: Option<&str>,
) -> impl Iterator<Item = (&'static str, String, String)> {
    let namespace = namespace.map(|name| format!("namespaces/{name}/"));
    KINDS.into_iter().map(move |(kind, plural, version)| {
        let within = match (&namespace, kind) {
            (Some(within), _) if kind != GatewayClassSpec::KIND => within,
            _ => "",
        };
        let path = format!("/apis/{GROUP}/{version}/{within}{plural}");
        (kind, format!("{plural}.{GROUP}"), path)
    })
}

/// The items of a list; `None` if the resource is not served in this version.
///
/// # Errors
/// The API does not answer, or refuses.
pub(super) async fn list(
    client: &Client,
    kind: &str,
    path: String,
) -> kube::Result<Option<Vec<Value>>> {
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    let mut list: Value = match client.request(request).await {
        Ok(list) => list,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error),
    };
    let Value::Array(mut items) = list["items"].take() else {
        return Ok(None);
    };
    for item in &mut items {
        // The items of a list do not say what they are.
        item["kind"] = json!(kind);
    }
    Ok(Some(items))
}

/// The change that brings an object into a compiler; `None` if it has no name.
pub(super) fn change(object: &Value) -> Option<Change> {
    let change = match object["kind"].as_str()? {
        GatewayClassSpec::KIND => ApiChange::Classes(set(object)?),
        GatewaySpec::KIND => ApiChange::Gateways(set(object)?),
        HttpRouteSpec::KIND => ApiChange::HttpRoutes(set(object)?),
        GrpcRouteSpec::KIND => ApiChange::GrpcRoutes(set(object)?),
        ReferenceGrantSpec::KIND => ApiChange::Grants(set(object)?),
        _ => return None,
    };
    Some(Change::GatewayApi(change))
}

fn set<S: DeserializeOwned>(object: &Value) -> Option<Delta<ApiRecord<S>>> {
    let metadata = serde_json::from_value::<ObjectMeta>(object["metadata"].clone()).ok()?;
    let key = ObjectKey::new(&metadata.namespace.unwrap_or_default(), &metadata.name?);
    let read = serde_json::from_value::<Object<S>>(object.clone());
    let record = read.map(|object| Some(ApiRecord::read(object)));
    Some(Delta::Set(key, record.map_err(|error| error.to_string())))
}
