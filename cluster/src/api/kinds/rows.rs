//! The rows, core group first, then by group name.

use super::Subresource::{Binding, Eviction, Exec, Finalize, Log, Scale, Status};
use super::{Resource, Subresource, View};

const ALL: &[&str] = &["all"];

const fn row(
    (group, version): (&'static str, &'static str),
    kind: &'static str,
    (plural, singular): (&'static str, &'static str),
    short_names: &'static [&'static str],
    storage: &'static str,
) -> Resource {
    Resource {
        group,
        version,
        kind,
        plural,
        singular,
        short_names,
        categories: &[],
        namespaced: true,
        subresources: &[],
        storage,
        view: View::Stored,
        generation: false,
        create_on_update: false,
        returns_deleted: false,
        fields: &[],
    }
}

impl Resource {
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }
    const fn all(mut self) -> Self {
        self.categories = ALL;
        self
    }
    const fn with(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }
    const fn generation(mut self) -> Self {
        self.generation = true;
        self
    }
    const fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }
    const fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }
    const fn fields(mut self, fields: &'static [&'static str]) -> Self {
        self.fields = fields;
        self
    }
    const fn view(mut self, view: View) -> Self {
        self.view = view;
        self
    }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const NETWORKING: (&str, &str) = ("networking.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

/// Every served resource.
pub static RESOURCES: &[Resource] = &[
    row(
        CORE,
        "ConfigMap",
        ("configmaps", "configmap"),
        &["cm"],
        "configmaps",
    ),
    row(
        CORE,
        "Endpoints",
        ("endpoints", "endpoints"),
        &["ep"],
        "endpoints",
    )
    .create_on_update(),
    row(CORE, "Event", ("events", "event"), &["ev"], "events").fields(EVENT_FIELDS),
    row(
        CORE,
        "LimitRange",
        ("limitranges", "limitrange"),
        &["limits"],
        "limitranges",
    ),
    row(
        CORE,
        "Namespace",
        ("namespaces", "namespace"),
        &["ns"],
        "namespaces",
    )
    .cluster()
    .with(&[Finalize, Status])
    .fields(&["status.phase"]),
    row(CORE, "Node", ("nodes", "node"), &["no"], "nodes")
        .cluster()
        .with(&[Status])
        .fields(&["spec.unschedulable"]),
    row(
        CORE,
        "PersistentVolumeClaim",
        ("persistentvolumeclaims", "persistentvolumeclaim"),
        &["pvc"],
        "persistentvolumeclaims",
    )
    .with(&[Status])
    .returns_deleted(),
    row(
        CORE,
        "PersistentVolume",
        ("persistentvolumes", "persistentvolume"),
        &["pv"],
        "persistentvolumes",
    )
    .cluster()
    .with(&[Status])
    .returns_deleted(),
    row(CORE, "Pod", ("pods", "pod"), &["po"], "pods")
        .all()
        .with(&[Binding, Eviction, Exec, Log, Status])
        .generation()
        .returns_deleted()
        .fields(POD_FIELDS),
    row(
        CORE,
        "ReplicationController",
        ("replicationcontrollers", "replicationcontroller"),
        &["rc"],
        "replicationcontrollers",
    )
    .all()
    .with(&[Scale, Status])
    .generation()
    .fields(&["status.replicas"]),
    row(
        CORE,
        "ResourceQuota",
        ("resourcequotas", "resourcequota"),
        &["quota"],
        "resourcequotas",
    )
    .with(&[Status])
    .returns_deleted(),
    row(CORE, "Secret", ("secrets", "secret"), &[], "secrets").fields(&["type"]),
    row(
        CORE,
        "ServiceAccount",
        ("serviceaccounts", "serviceaccount"),
        &["sa"],
        "serviceaccounts",
    )
    .returns_deleted(),
    row(
        CORE,
        "Service",
        ("services", "service"),
        &["svc"],
        "services",
    )
    .all()
    .with(&[Status])
    .returns_deleted()
    .fields(&["spec.clusterIP", "spec.type"]),
    row(
        APPS,
        "DaemonSet",
        ("daemonsets", "daemonset"),
        &["ds"],
        "daemonsets.apps",
    )
    .all()
    .with(&[Status])
    .generation(),
    row(
        APPS,
        "Deployment",
        ("deployments", "deployment"),
        &["deploy"],
        "deployments.apps",
    )
    .all()
    .with(&[Scale, Status])
    .generation(),
    row(
        APPS,
        "ReplicaSet",
        ("replicasets", "replicaset"),
        &["rs"],
        "replicasets.apps",
    )
    .all()
    .with(&[Scale, Status])
    .generation(),
    row(
        APPS,
        "StatefulSet",
        ("statefulsets", "statefulset"),
        &["sts"],
        "statefulsets.apps",
    )
    .all()
    .with(&[Scale, Status])
    .generation(),
    row(
        ("autoscaling", "v2"),
        "HorizontalPodAutoscaler",
        ("horizontalpodautoscalers", "horizontalpodautoscaler"),
        &["hpa"],
        "horizontalpodautoscalers.autoscaling",
    )
    .all()
    .with(&[Status]),
    row(
        ("autoscaling", "v1"),
        "HorizontalPodAutoscaler",
        ("horizontalpodautoscalers", "horizontalpodautoscaler"),
        &["hpa"],
        "horizontalpodautoscalers.autoscaling",
    )
    .all()
    .with(&[Status])
    .view(View::AutoscalerV1),
    row(
        BATCH,
        "CronJob",
        ("cronjobs", "cronjob"),
        &["cj"],
        "cronjobs.batch",
    )
    .all()
    .with(&[Status])
    .generation(),
    row(BATCH, "Job", ("jobs", "job"), &[], "jobs.batch")
        .all()
        .with(&[Status])
        .generation()
        .fields(&["status.successful"]),
    row(
        ("coordination.k8s.io", "v1"),
        "Lease",
        ("leases", "lease"),
        &[],
        "leases.coordination.k8s.io",
    )
    .create_on_update(),
    row(
        ("discovery.k8s.io", "v1"),
        "EndpointSlice",
        ("endpointslices", "endpointslice"),
        &[],
        "endpointslices.discovery.k8s.io",
    )
    .generation(),
    row(
        ("events.k8s.io", "v1"),
        "Event",
        ("events", "event"),
        &["ev"],
        "events",
    )
    .fields(EVENT_FIELDS)
    .view(View::EventsV1),
    row(
        NETWORKING,
        "IngressClass",
        ("ingressclasses", "ingressclass"),
        &[],
        "ingressclasses.networking.k8s.io",
    )
    .cluster()
    .generation(),
    row(
        NETWORKING,
        "Ingress",
        ("ingresses", "ingress"),
        &["ing"],
        "ingresses.networking.k8s.io",
    )
    .with(&[Status])
    .generation(),
    row(
        NETWORKING,
        "NetworkPolicy",
        ("networkpolicies", "networkpolicy"),
        &["netpol"],
        "networkpolicies.networking.k8s.io",
    )
    .generation(),
    row(
        ("policy", "v1"),
        "PodDisruptionBudget",
        ("poddisruptionbudgets", "poddisruptionbudget"),
        &["pdb"],
        "poddisruptionbudgets.policy",
    )
    .with(&[Status])
    .generation(),
    row(
        RBAC,
        "ClusterRoleBinding",
        ("clusterrolebindings", "clusterrolebinding"),
        &[],
        "clusterrolebindings.rbac.authorization.k8s.io",
    )
    .cluster(),
    row(
        RBAC,
        "ClusterRole",
        ("clusterroles", "clusterrole"),
        &[],
        "clusterroles.rbac.authorization.k8s.io",
    )
    .cluster(),
    row(
        RBAC,
        "RoleBinding",
        ("rolebindings", "rolebinding"),
        &[],
        "rolebindings.rbac.authorization.k8s.io",
    ),
    row(
        RBAC,
        "Role",
        ("roles", "role"),
        &[],
        "roles.rbac.authorization.k8s.io",
    ),
    row(
        ("scheduling.k8s.io", "v1"),
        "PriorityClass",
        ("priorityclasses", "priorityclass"),
        &["pc"],
        "priorityclasses.scheduling.k8s.io",
    )
    .cluster(),
    row(
        ("storage.k8s.io", "v1"),
        "StorageClass",
        ("storageclasses", "storageclass"),
        &["sc"],
        "storageclasses.storage.k8s.io",
    )
    .cluster()
    .returns_deleted(),
];
