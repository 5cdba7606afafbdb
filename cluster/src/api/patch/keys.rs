//! Which lists a strategic merge patch merges, and by which key (the `patchStrategy` and
//! `patchMergeKey` of the API reference). All other lists are replaced.

/// How a field is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Maps are merged, lists replaced.
    Usual,
    /// Always replaced.
    Replace,
    /// A list of scalars that is merged as a set.
    Set,
    /// A list of objects that is merged by this key.
    Merge(&'static str),
}

/// How a field of a type is patched.
pub(super) fn strategy(type_: &str, field: &str) -> Strategy {
    match (type_, field) {
        ("ObjectMeta", "finalizers") | ("NodeSpec", "podCIDRs") => Strategy::Set,
        ("PodDisruptionBudgetSpec", "selector") => Strategy::Replace,
        ("ObjectMeta", "ownerReferences") => Strategy::Merge("uid"),
        ("Container" | "EphemeralContainer", field) => container(field),
        ("PodSpec", field) => pod(field),
        ("PodStatus", "hostIPs" | "podIPs") => Strategy::Merge("ip"),
        ("PodStatus", "resourceClaimStatuses") => Strategy::Merge("name"),
        ("ContainerStatus", "allocatedResourcesStatus") => Strategy::Merge("name"),
        ("ContainerStatus", "volumeMounts") => Strategy::Merge("mountPath"),
        ("ServiceSpec", "ports") => Strategy::Merge("port"),
        ("NodeStatus", "addresses") => Strategy::Merge("type"),
        ("ServiceAccount", "secrets") => Strategy::Merge("name"),
        ("CSINodeSpec", "drivers") => Strategy::Merge("name"),
        ("JSONSchemaProps", "x-kubernetes-validations") => Strategy::Merge("rule"),
        ("ValidatingAdmissionPolicySpec", "matchConditions" | "variables")
        | ("ValidatingWebhook" | "MutatingWebhook", "matchConditions")
        | ("ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration", "webhooks") => {
            Strategy::Merge("name")
        }
        (
            "PodStatus"
            | "ServiceStatus"
            | "NamespaceStatus"
            | "NodeStatus"
            | "ReplicationControllerStatus"
            | "PersistentVolumeClaimStatus"
            | "ComponentStatus"
            | "DeploymentStatus"
            | "ReplicaSetStatus"
            | "StatefulSetStatus"
            | "DaemonSetStatus"
            | "JobStatus"
            | "HorizontalPodAutoscalerStatus"
            | "PodDisruptionBudgetStatus"
            | "ServiceCIDRStatus",
            "conditions",
        ) => Strategy::Merge("type"),
        _ => Strategy::Usual,
    }
}

fn container(field: &str) -> Strategy {
    match field {
        "env" => Strategy::Merge("name"),
        "ports" => Strategy::Merge("containerPort"),
        "volumeDevices" => Strategy::Merge("devicePath"),
        "volumeMounts" => Strategy::Merge("mountPath"),
        _ => Strategy::Usual,
    }
}

fn pod(field: &str) -> Strategy {
    match field {
        "hostAliases" => Strategy::Merge("ip"),
        "topologySpreadConstraints" => Strategy::Merge("topologyKey"),
        "containers"
        | "ephemeralContainers"
        | "imagePullSecrets"
        | "initContainers"
        | "resourceClaims"
        | "schedulingGates"
        | "volumes" => Strategy::Merge("name"),
        _ => Strategy::Usual,
    }
}
