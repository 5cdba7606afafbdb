//! Revisions: the numbers and annotations that `kubectl rollout history` and `undo` read.
//!
//! Rules: the ReplicaSet of the current template carries the highest revision; one that is used again
//! gets a new number and keeps the earlier ones in `revision-history`; the deployment carries the
//! number of its current ReplicaSet; other annotations of the deployment are copied to it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::size;

/// The revision of a ReplicaSet, and the current one of a deployment.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a ReplicaSet that was used again, separated by commas.
pub(super) const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// `spec.replicas` of the deployment when the ReplicaSet was last sized.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods that were allowed then.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the deployment that say nothing about its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The number in an annotation.
pub(super) fn annotation_number(meta: &ObjectMeta, name: &str) -> Option<i64> {
    meta.annotations.as_ref()?.get(name)?.parse().ok()
}

/// The revision of an object, 0 if it has none.
pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    annotation_number(meta, REVISION).unwrap_or(0)
}

/// The number that the current ReplicaSet has to carry at least.
pub(super) fn next_revision(old: &[ReplicaSet]) -> i64 {
    old.iter()
        .map(|set| revision(&set.metadata))
        .max()
        .unwrap_or(0)
        + 1
}

/// Brings the annotations of the current ReplicaSet up to date.
pub(super) fn annotate(deployment: &Deployment, set: &mut ReplicaSet, next: i64, exists: bool) {
    let own = deployment.metadata.annotations.iter().flatten();
    let annotations = set.metadata.annotations.get_or_insert_with(BTreeMap::new);
    for (name, value) in own.filter(|(name, _)| !NOT_COPIED.contains(&name.as_str())) {
        annotations.insert(name.clone(), value.clone());
    }
    let current: i64 = annotations
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if current >= next {
        return;
    }
    let before = annotations.insert(REVISION.to_owned(), next.to_string());
    if let (true, Some(before)) = (exists, before) {
        let history = annotations.entry(HISTORY.to_owned()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&before);
    }
}

/// Notes on a ReplicaSet for which size of the deployment it was last sized.
pub(super) fn annotate_size(deployment: &Deployment, set: &mut ReplicaSet) {
    let wanted = size::replicas(deployment);
    let most = wanted.saturating_add(size::max_surge(deployment));
    let annotations = set.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(DESIRED.to_owned(), wanted.to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), most.to_string());
}
