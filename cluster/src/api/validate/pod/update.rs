//! Changes to a pod: nearly nothing of its spec may change.

use serde_json::{Value, json};

use crate::api::json::{integer, list, text};
use crate::api::validate::errors::{Errors, Path};

const FIELDS: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(in crate::api::validate) fn check(errors: &mut Errors, old: &Value, new: &Value) {
    let spec = Path::new("spec");
    for kind in ["containers", "initContainers"] {
        let pointer = format!("/spec/{kind}");
        if list(old, &pointer).len() != list(new, &pointer).len() {
            let detail = "pod updates may not add or remove containers";
            return errors.forbidden(&spec.child(kind), detail);
        }
    }
    deadline(errors, old, new, &spec);
    for toleration in list(old, "/spec/tolerations") {
        let same = |other: &Value| {
            let mut other = other.clone();
            other["tolerationSeconds"] = toleration["tolerationSeconds"].clone();
            let mut toleration = toleration.clone();
            // Absent and null are the same here.
            toleration["tolerationSeconds"] = other["tolerationSeconds"].clone();
            other == toleration
        };
        if !list(new, "/spec/tolerations").iter().any(same) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            errors.forbidden(&spec.child("tolerations"), detail);
        }
    }
    if fixed(old, old) != fixed(new, old) {
        errors.forbidden(&spec, FIELDS);
    }
}

/// A deadline may be set or shortened, not lengthened or removed.
fn deadline(errors: &mut Errors, old: &Value, new: &Value, spec: &Path) {
    let of = |pod: &Value| integer(pod, "/spec/activeDeadlineSeconds");
    let path = spec.child("activeDeadlineSeconds");
    match (of(old), of(new)) {
        (Some(old), Some(new)) if new > old => {
            let detail = "must be less than or equal to previous value";
            errors.invalid(&path, &json!(new), detail);
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            errors.invalid(&path, &Value::Null, detail);
        }
        _ => {}
    }
}

/// A pod's spec without what may change.
fn fixed(pod: &Value, old: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for kind in ["containers", "initContainers"] {
        let containers = spec.get_mut(kind).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    if let Some(fields) = spec.as_object_mut() {
        // Ephemeral containers and gates have rules of their own elsewhere.
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "schedulingGates",
            "ephemeralContainers",
        ] {
            fields.remove(field);
        }
        let grace = |pod: &Value| integer(pod, "/spec/terminationGracePeriodSeconds");
        if grace(old).is_some_and(|seconds| seconds < 0) && grace(pod) == Some(1) {
            fields.insert(
                "terminationGracePeriodSeconds".to_owned(),
                json!(grace(old)),
            );
        }
        if text(old, "/spec/nodeName").is_empty() && !list(old, "/spec/schedulingGates").is_empty()
        {
            // While a pod is gated, where it may run can still be narrowed.
            fields.remove("nodeSelector");
            fields.remove("affinity");
        }
    }
    spec
}
