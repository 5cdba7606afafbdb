//! From a deployment's pod template to its ReplicaSet.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::Value;

use crate::controllers::ownership::controller_reference;

/// The label that tells the pods of one ReplicaSet from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// Letters and digits of a hash: no vowels, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of a hash.
const HASH_LENGTH: usize = 10;

/// Whether two templates are the same but for the hash label.
pub(super) fn same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    canonical(one) == canonical(other)
}

/// The template of a ReplicaSet.
pub(super) fn of_set(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref()?.template.as_ref()
}

/// A stable hash of the template; a collision count above zero gives another one.
pub(super) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut text = canonical(template).to_string();
    if collisions > 0 {
        text.push_str(&collisions.to_string());
    }
    let mut hash = fnv1a(text.as_bytes());
    let mut letters = String::with_capacity(HASH_LENGTH);
    for _ in 0..HASH_LENGTH {
        letters.push(char::from(ALPHABET[(hash % 27) as usize]));
        hash /= 27;
    }
    letters
}

/// FNV-1a, 64 bits: the same on every machine and in every version of this program.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The template as JSON without the hash label, nulls and empty lists: the API does not tell
/// those from absent fields.
fn canonical(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template
        .metadata
        .as_mut()
        .and_then(|meta| meta.labels.as_mut())
    {
        labels.remove(HASH_LABEL);
    }
    // A typed API object always serialises.
    let mut value = serde_json::to_value(&template).unwrap_or_default();
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, field| {
                !field.is_null() && !field.as_array().is_some_and(Vec::is_empty)
            });
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The ReplicaSet for the deployment's template, of size zero.
pub(super) fn replica_set(deployment: &Deployment) -> Option<ReplicaSet> {
    let spec = deployment.spec.as_ref()?;
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = hash(&spec.template, collisions.unwrap_or(0));
    let mut template = spec.template.clone();
    let meta = template.metadata.get_or_insert_with(ObjectMeta::default);
    meta.labels
        .get_or_insert_with(BTreeMap::new)
        .insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_with(BTreeMap::new)
        .insert(HASH_LABEL.to_owned(), hash.clone());
    Some(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels,
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    })
}
