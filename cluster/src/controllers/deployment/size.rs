//! How many pods a rollout may have (API reference, `RollingUpdateDeployment`).
//!
//! Rules: percentages are of `spec.replicas`; `maxSurge` rounds up, `maxUnavailable` down; if both
//! come out as zero one pod may be unavailable, or nothing could ever move.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision::{MAX_REPLICAS, annotation_number};

/// The default of both bounds.
const DEFAULT_PERCENT: &str = "25%";

/// `spec.replicas`, 1 if absent.
pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// Whether the strategy is to stop all old pods first.
pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref())
        .is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"))
}

/// Pods allowed beyond `spec.replicas`.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    bounds(deployment).0
}

/// Pods that may be missing from `spec.replicas`.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    bounds(deployment).1
}

fn bounds(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let replicas = replicas(deployment);
    let rolling: Option<&RollingUpdateDeployment> = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref())
        .and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = share(
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        replicas,
        true,
    );
    let unavailable = share(
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        replicas,
        false,
    );
    let unavailable = if surge == 0 && unavailable == 0 {
        1
    } else {
        unavailable
    };
    (surge, unavailable.min(replicas))
}

fn share(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => (*number).max(0),
        Some(IntOrString::String(text)) => percent(text, of, up),
        None => percent(DEFAULT_PERCENT, of, up),
    }
}

fn percent(text: &str, of: i32, up: bool) -> i32 {
    // The API server has validated the form; anything else counts as nothing.
    let percent: i64 = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    let hundredths = percent.clamp(0, i64::from(i32::MAX)) * i64::from(of);
    let share = if up {
        (hundredths + 99) / 100
    } else {
        hundredths / 100
    };
    i32::try_from(share).unwrap_or(i32::MAX)
}

/// How large the new ReplicaSet may be now, given the sum of all `spec.replicas`.
pub(super) fn new_size(deployment: &Deployment, current: i32, total: i32) -> i32 {
    let wanted = replicas(deployment);
    if is_recreate(deployment) {
        return wanted;
    }
    let room = wanted
        .saturating_add(max_surge(deployment))
        .saturating_sub(total);
    if room <= 0 {
        return current;
    }
    current + room.min(wanted - current)
}

/// How many replicas a ReplicaSet gains (or loses) of `left`, when a deployment is scaled in the
/// middle of a rollout: its share of the size that was allowed before.
pub(super) fn proportion(deployment: &Deployment, set: &ReplicaSet, left: i32) -> i32 {
    let size = size(set);
    if size == 0 || left == 0 {
        return 0;
    }
    let share = fraction(deployment, set, size);
    if left > 0 {
        share.min(left)
    } else {
        share.max(left)
    }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet, size: i32) -> i32 {
    let wanted = replicas(deployment);
    if wanted == 0 {
        return -size;
    }
    let allowed = i64::from(wanted) + i64::from(max_surge(deployment));
    let before = annotation_number(&set.metadata, MAX_REPLICAS)
        .filter(|before| *before > 0)
        .or_else(|| {
            deployment
                .status
                .as_ref()
                .and_then(|status| status.replicas)
                .map(i64::from)
        })
        .filter(|before| *before > 0)
        .unwrap_or(allowed);
    // Rounds half away from zero; every term is positive.
    let rounded = (i64::from(size) * allowed * 2 + before) / (before * 2);
    i32::try_from(rounded)
        .unwrap_or(i32::MAX)
        .saturating_sub(size)
}

/// `spec.replicas` of a ReplicaSet.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// `status.availableReplicas` of a ReplicaSet.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// Sum of a number over ReplicaSets.
pub(super) fn sum<'a>(
    sets: impl IntoIterator<Item = &'a ReplicaSet>,
    number: impl Fn(&ReplicaSet) -> i32,
) -> i32 {
    sets.into_iter().map(number).fold(0, i32::saturating_add)
}
