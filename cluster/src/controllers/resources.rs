//! The kinds that the API serves, from discovery.

use std::fmt;

use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::core::discovery::{ApiResource, Scope, verbs};
use kube::discovery::Discovery;
use kube::{Api, Client};

use super::error::{Error, during};
use super::informer::Key;

/// One kind of objects that can be listed, watched and deleted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Kind {
    /// Group, version, kind and plural.
    pub(super) resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub(super) namespaced: bool,
    /// Whether all objects of a namespace can be deleted by one request.
    pub(super) collection: bool,
}

impl Kind {
    /// The API for the objects of a namespace, or of the cluster.
    pub(super) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }

    /// The metadata of the objects of all namespaces.
    pub(super) fn metadata(&self, client: &Client) -> Api<PartialObjectMeta<DynamicObject>> {
        Api::all_with(client.clone(), &self.resource)
    }

    /// The object of this kind that an owner reference in `namespace` means.
    pub(super) fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(if self.namespaced { namespace } else { "" }, name)
    }

    /// Whether its objects define other kinds.
    pub(super) fn defines_kinds(&self) -> bool {
        matches!(
            self.resource.kind.as_str(),
            "CustomResourceDefinition" | "APIService"
        )
    }

    /// Whether this is the kind of an owner reference, whatever the version.
    pub(super) fn is(&self, api_version: &str, kind: &str) -> bool {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        self.resource.group == group && self.resource.kind == kind
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.resource.plural, self.resource.group)
    }
}

/// Asks the API which kinds it serves: each once, in its most stable version. Events are left out,
/// they own nothing and live for an hour.
pub(super) async fn discover(client: &Client) -> Result<Vec<Kind>, Error> {
    let discovery = Discovery::new(client.clone())
        .run_aggregated()
        .await
        .map_err(during("discover", "the API's kinds"))?;
    let mut kinds: Vec<Kind> = discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::resources_by_stability)
        .filter(|(resource, capabilities)| {
            resource.kind != "Event"
                && [verbs::LIST, verbs::WATCH, verbs::DELETE]
                    .iter()
                    .all(|verb| capabilities.supports_operation(verb))
        })
        .map(|(resource, capabilities)| Kind {
            resource,
            namespaced: capabilities.scope == Scope::Namespaced,
            collection: capabilities.supports_operation(verbs::DELETE_COLLECTION),
        })
        .collect();
    kinds.sort_by_key(ToString::to_string);
    Ok(kinds)
}
