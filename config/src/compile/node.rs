//! The node that this process runs on, as far as traffic depends on it.

use std::sync::Arc;

use k8s_openapi::api::core::v1;

use super::names::Names;
use super::store::ObjectKey;
use crate::model::EndpointInfo;

/// The label with the zone of a Node.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The taint with which the cluster autoscaler marks a Node that it is about to remove.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// The node that this process runs on. Without one nothing is local and no hint is for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// `metadata.name` of the Node.
    pub name: Arc<str>,
}

/// The fields of a Node that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    pub(super) zone: Option<Arc<str>>,
    /// It is being deleted, or about to be.
    pub(super) is_leaving: bool,
}

impl NodeRecord {
    /// Reads a Node.
    pub fn read(_: &ObjectKey, node: v1::Node, names: &mut Names) -> Self {
        let is_deleted = node.metadata.deletion_timestamp.is_some();
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let labels = node.metadata.labels.unwrap_or_default();
        let zone = labels.get(ZONE).filter(|zone| !zone.is_empty());
        Self {
            zone: zone.map(|zone| names.get(zone)),
            is_leaving: is_deleted || taints.iter().any(|taint| taint.key == LEAVING),
        }
    }
}

/// Where this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Here {
    pub(super) node: Arc<str>,
    /// Not known before the Node was read, or if it is in no zone.
    pub(super) zone: Option<Arc<str>>,
}

impl Here {
    pub(super) fn is_local(&self, endpoint: &EndpointInfo) -> bool {
        endpoint.location.node.as_ref() == Some(&self.node)
    }
}

/// Which of the ready endpoints topology hints leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preference {
    /// All of them.
    None,
    /// Those with a hint for this node.
    Node,
    /// Those with a hint for this node's zone.
    Zone,
}

impl Preference {
    /// Reads the hints of all ready endpoints of a port. One without a hint switches the mode off,
    /// and so do hints among which we are not: hints never leave nothing.
    pub(super) fn of<'a>(
        ready: impl Iterator<Item = &'a EndpointInfo> + Clone,
        here: Option<&Here>,
    ) -> Self {
        let Some(here) = here else {
            return Self::None;
        };
        let all = |hints: fn(&EndpointInfo) -> &[Arc<str>]| {
            ready.clone().all(|endpoint| !hints(endpoint).is_empty())
        };
        let any = |preference: Self| ready.clone().any(|it| preference.admits(it, Some(here)));
        if all(|endpoint| &endpoint.location.for_nodes) && any(Self::Node) {
            Self::Node
        } else if all(|endpoint| &endpoint.location.for_zones) && any(Self::Zone) {
            Self::Zone
        } else {
            Self::None
        }
    }

    pub(super) fn admits(self, endpoint: &EndpointInfo, here: Option<&Here>) -> bool {
        let location = &endpoint.location;
        match (self, here) {
            (Self::None, _) | (_, None) => true,
            (Self::Node, Some(here)) => location.for_nodes.contains(&here.node),
            (Self::Zone, Some(here)) => {
                let zone = here.zone.as_ref();
                zone.is_some_and(|zone| location.for_zones.contains(zone))
            }
        }
    }
}
