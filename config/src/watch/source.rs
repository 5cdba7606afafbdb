//! What to list and watch: where it is, and its names.

use crate::compile::ObjectKey;

/// What to list and watch.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) kind: &'static str,
    pub(super) path: String,
    /// As RBAC and kubectl name it: `endpointslices.discovery.k8s.io`.
    resource: String,
    pub(super) field_selector: Option<String>,
    /// Whether the server begins a watch with what there is; unless it refuses, it does.
    pub(super) streams: bool,
}

impl Source {
    /// All objects of a kind, in all namespaces.
    pub(super) fn all<K: kube::Resource<DynamicType = ()>>(kind: &'static str) -> Self {
        Self {
            kind,
            path: K::url_path(&(), None),
            resource: resource::<K>(),
            field_selector: None,
            streams: true,
        }
    }

    /// One object.
    pub(super) fn one<K: kube::Resource<DynamicType = ()>>(
        kind: &'static str,
        key: &ObjectKey,
    ) -> Self {
        Self {
            kind,
            path: K::url_path(&(), Some(&*key.namespace).filter(|name| !name.is_empty())),
            resource: resource::<K>(),
            field_selector: Some(format!("metadata.name={}", key.name)),
            streams: true,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn resource(&self) -> &str {
        &self.resource
    }
}

fn resource<K: kube::Resource<DynamicType = ()>>() -> String {
    let (plural, group) = (K::plural(&()), K::group(&()));
    if group.is_empty() {
        plural.into_owned()
    } else {
        format!("{plural}.{group}")
    }
}
