//! The table of served resources. Adding a kind is one row.
//!
//! A row is one group, version and resource. Two rows may share a `storage` name: they are views of
//! the same objects (`autoscaling/v1` and `v2`, `v1` and `events.k8s.io/v1` Events); the row with
//! `View::Stored` gives the form on disk.

mod rows;

pub use rows::RESOURCES;

/// How a row presents the stored objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As they are stored.
    Stored,
    /// `autoscaling/v1` of a stored `autoscaling/v2` object.
    AutoscalerV1,
    /// `events.k8s.io/v1` of a stored core Event.
    EventsV1,
}

/// A subresource that a resource serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`
    Status,
    /// `/scale`
    Scale,
    /// `/log`
    Log,
    /// `/exec`
    Exec,
    /// `/binding`
    Binding,
    /// `/eviction`
    Eviction,
    /// `/finalize`
    Finalize,
}

impl Subresource {
    /// The last path segment.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Finalize => "finalize",
        }
    }

    /// Group, version and kind of what it answers; `None` where it is the parent's own kind.
    pub fn kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Status | Self::Log | Self::Finalize => None,
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
        }
    }

    /// Verbs for discovery.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale => &["get", "patch", "update"],
            Self::Log => &["get"],
            Self::Exec => &["create", "get"],
            Self::Binding | Self::Eviction => &["create"],
            Self::Finalize => &["update"],
        }
    }
}

/// One served group, version and resource.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version of this row.
    pub version: &'static str,
    /// Kind, such as `Deployment`.
    pub kind: &'static str,
    /// Plural, the path segment.
    pub plural: &'static str,
    /// Singular, as in `kubectl get pod`.
    pub singular: &'static str,
    /// Short names that kubectl understands.
    pub short_names: &'static [&'static str],
    /// Categories such as `all`.
    pub categories: &'static [&'static str],
    /// Objects live in namespaces.
    pub namespaced: bool,
    /// Subresources served.
    pub subresources: &'static [Subresource],
    /// Group resource under which the objects are stored.
    pub storage: &'static str,
    /// Form of this row.
    pub view: View,
    /// `metadata.generation` counts changes of the desired state (W2).
    pub generation: bool,
    /// PUT to a missing object creates it (Lease and Endpoints, W1).
    pub create_on_update: bool,
    /// DELETE answers with the object instead of a Status (pods, services).
    pub returns_deleted: bool,
    /// Field selectors besides `metadata.name` and `metadata.namespace`.
    pub fields: &'static [&'static str],
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `Pod` or `Deployment.apps`, as in the messages of 422 answers.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// `pods` or `deployments.apps`, as in the messages of 404 answers.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The row that defines the stored form of the same objects.
    pub fn stored(&'static self) -> &'static Self {
        if self.view == View::Stored {
            return self;
        }
        RESOURCES
            .iter()
            .find(|row| row.storage == self.storage && row.view == View::Stored)
            .expect("every view has a stored row, as a test checks")
    }

    /// Whether the subresource is served.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Verbs of the main resource for discovery.
    pub fn verbs(&self) -> &'static [&'static str] {
        if self.plural == "namespaces" {
            &[
                "create", "delete", "get", "list", "patch", "update", "watch",
            ]
        } else {
            &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ]
        }
    }
}

/// The row for a path's group, version and resource.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|row| row.plural == plural && row.group == group && row.version == version)
}

/// The row for an object's `apiVersion` and kind.
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    RESOURCES
        .iter()
        .find(|row| row.kind == kind && row.group == group && row.version == version)
}

/// The row in which objects of this storage name are kept.
pub fn find_storage(storage: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|row| row.storage == storage && row.view == View::Stored)
}

/// Whether any row has this group and version.
pub fn serves(group: &str, version: &str) -> bool {
    RESOURCES
        .iter()
        .any(|row| row.group == group && row.version == version)
}

/// The served groups with their versions, preferred version first.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in RESOURCES {
        match groups.iter_mut().find(|(group, _)| *group == row.group) {
            Some((_, versions)) => {
                if !versions.contains(&row.version) {
                    versions.push(row.version);
                }
            }
            None => groups.push((row.group, vec![row.version])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_t6_every_view_has_a_stored_row_and_rows_are_unique() {
        for row in RESOURCES {
            assert_eq!(row.stored().view, View::Stored, "{}", row.plural);
            assert_eq!(row.stored().namespaced, row.namespaced, "{}", row.plural);
            let same = RESOURCES
                .iter()
                .filter(|r| (r.group, r.version, r.plural) == (row.group, row.version, row.plural));
            assert_eq!(same.count(), 1, "{}", row.plural);
        }
    }

    #[test]
    fn cluster_t6_stub_kinds_and_both_autoscaler_versions_are_served() {
        for (group, version, plural) in [
            ("", "v1", "persistentvolumeclaims"),
            ("", "v1", "persistentvolumes"),
            ("", "v1", "replicationcontrollers"),
            ("batch", "v1", "jobs"),
            ("batch", "v1", "cronjobs"),
            ("apps", "v1", "daemonsets"),
            ("apps", "v1", "statefulsets"),
            ("autoscaling", "v1", "horizontalpodautoscalers"),
            ("autoscaling", "v2", "horizontalpodautoscalers"),
        ] {
            assert!(find(group, version, plural).is_some(), "{plural}");
        }
    }
}
