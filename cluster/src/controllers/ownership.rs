//! Who controls an object: owner references with `controller: true` (API reference,
//! `OwnerReference`), adoption of orphans that a selector matches and release of those that it no
//! longer matches.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::error::{Error, during};
use super::informer::Key;

/// The reference to the controlling owner.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .as_ref()?
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// Whether the object is controlled by the owner with this uid.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// The controller's key if it is of this kind.
pub(crate) fn controller_key(meta: &ObjectMeta, kind: &str) -> Option<Key> {
    let owner = controller_of(meta).filter(|owner| owner.kind == kind)?;
    Some(Key::new(
        meta.namespace.clone().unwrap_or_default(),
        owner.name.clone(),
    ))
}

/// A controlling, blocking reference to `owner`.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an owner does with an object of its dependents' kind in its namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Claim {
    /// It is the owner's.
    Own,
    /// Nobody controls it and the selector matches: take it.
    Adopt,
    /// It was the owner's, but the selector no longer matches: let it go.
    Release,
    /// It is none of the owner's business.
    Ignore,
}

/// Decides about one object. An owner that is being deleted takes and releases nothing.
pub(crate) fn claim(owner: &ObjectMeta, selector: &Selector, object: &ObjectMeta) -> Claim {
    let owner_is_going = owner.deletion_timestamp.is_some();
    let matches = !is_empty(selector) && selector.matches(labels(object));
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) == owner.uid.as_ref() => {
            if matches {
                Claim::Own
            } else if owner_is_going || object.deletion_timestamp.is_some() {
                Claim::Ignore
            } else {
                Claim::Release
            }
        }
        Some(_) => Claim::Ignore,
        None if matches && !owner_is_going && object.deletion_timestamp.is_none() => Claim::Adopt,
        None => Claim::Ignore,
    }
}

/// An empty selector matches everything; for a workload that would be a disaster, so it matches
/// nothing.
fn is_empty(selector: &Selector) -> bool {
    selector.to_string().is_empty()
}

/// Labels of an object.
pub(crate) fn labels(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

/// The selector in a form that can be evaluated.
pub(crate) fn selector(of: &impl Resource, selector: &LabelSelector) -> Result<Selector, Error> {
    Selector::try_from(selector.clone()).map_err(|source| Error::Selector {
        object: Key::of(of).to_string(),
        source,
    })
}

/// Makes `owner` the controller of an orphan, if the object is still as it was seen.
pub(crate) async fn adopt<K, O>(api: &Api<K>, owner: &O, object: &K) -> Result<K, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    O: Resource<DynamicType = ()>,
{
    let mut owners = object.owner_references().to_vec();
    owners.push(controller_reference(owner));
    set_owners(api, object, &owners, "adopt").await
}

/// Takes `owner` off the object's owners, if the object is still as it was seen.
pub(crate) async fn release<K>(api: &Api<K>, owner_uid: &str, object: &K) -> Result<K, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut owners = object.owner_references().to_vec();
    owners.retain(|owner| owner.uid != owner_uid);
    set_owners(api, object, &owners, "release").await
}

async fn set_owners<K>(
    api: &Api<K>,
    object: &K,
    owners: &[OwnerReference],
    verb: &'static str,
) -> Result<K, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch = json!({ "metadata": {
        "uid": object.uid(),
        "resourceVersion": object.resource_version(),
        "ownerReferences": owners,
    }});
    api.patch(
        &object.name_any(),
        &PatchParams::default(),
        &Patch::Merge(patch),
    )
    .await
    .map_err(during(verb, Key::of(object)))
}

/// Whether the owner still exists as this very object and is not being deleted: asked of the API
/// before an adoption, since the cache may not have seen the deletion yet.
pub(crate) async fn still_there<O>(api: &Api<O>, owner: &O) -> Result<bool, Error>
where
    O: Resource + Clone + DeserializeOwned + Debug,
{
    let live = api
        .get_opt(&owner.name_any())
        .await
        .map_err(during("get", Key::of(owner)))?;
    Ok(live
        .is_some_and(|live| live.uid() == owner.uid() && live.meta().deletion_timestamp.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_a1_claims_by_controller_and_selector() {
        let selector: Selector = [("app".to_owned(), "web".to_owned())].into_iter().collect();
        let meta = |label: &str, owner: Option<&str>, deleting: bool| ObjectMeta {
            uid: Some("object".to_owned()),
            labels: Some([("app".to_owned(), label.to_owned())].into()),
            owner_references: owner.map(|uid| {
                vec![OwnerReference {
                    uid: uid.to_owned(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]
            }),
            deletion_timestamp: deleting.then(super::super::clock::now),
            ..ObjectMeta::default()
        };
        let owner = ObjectMeta {
            uid: Some("me".to_owned()),
            ..ObjectMeta::default()
        };
        let dying = ObjectMeta {
            deletion_timestamp: Some(super::super::clock::now()),
            ..owner.clone()
        };
        let cases = [
            (
                "mine and matching",
                &owner,
                meta("web", Some("me"), false),
                Claim::Own,
            ),
            (
                "mine, terminating",
                &owner,
                meta("web", Some("me"), true),
                Claim::Own,
            ),
            (
                "mine, label changed",
                &owner,
                meta("x", Some("me"), false),
                Claim::Release,
            ),
            (
                "mine, label changed, terminating",
                &owner,
                meta("x", Some("me"), true),
                Claim::Ignore,
            ),
            (
                "another's",
                &owner,
                meta("web", Some("you"), false),
                Claim::Ignore,
            ),
            ("orphan", &owner, meta("web", None, false), Claim::Adopt),
            (
                "terminating orphan",
                &owner,
                meta("web", None, true),
                Claim::Ignore,
            ),
            ("stranger", &owner, meta("x", None, false), Claim::Ignore),
            (
                "dying owner takes nothing",
                &dying,
                meta("web", None, false),
                Claim::Ignore,
            ),
            (
                "dying owner releases nothing",
                &dying,
                meta("x", Some("me"), false),
                Claim::Ignore,
            ),
        ];
        for (name, owner, object, expected) in cases {
            assert_eq!(claim(owner, &selector, &object), expected, "{name}");
        }
        let everything = Selector::default();
        assert_eq!(
            claim(&owner, &everything, &meta("web", None, false)),
            Claim::Ignore,
            "an empty selector takes nothing"
        );
    }
}
