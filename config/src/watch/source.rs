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
    pub(super) label_selector: Option<String>,
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
            label_selector: None,
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
            label_selector: None,
            streams: true,
        }
    }

    /// Only those of them that the label selector matches, if there is one.
    pub(super) fn labelled(mut self, selector: &Option<String>) -> Self {
        self.label_selector.clone_from(selector);
        self
    }

    /// Only those of them that the field selector matches.
    pub(super) fn with_fields(mut self, selector: &str) -> Self {
        self.field_selector = Some(selector.to_owned());
        self
    }

    /// Not all objects of the kind: servers do not count the rest.
    pub(super) fn is_selective(&self) -> bool {
        self.field_selector.is_some() || self.label_selector.is_some()
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
