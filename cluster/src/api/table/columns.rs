//! Column definitions, in the order of the cells.

use super::Column;

const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name, description)
    }
}

const fn column(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        type_: "string",
        format: "",
        description,
        priority: 0,
    }
}

const fn of(type_: &'static str, column: Column) -> Column {
    Column { type_, ..column }
}

const NAME: Column = Column {
    format: "name",
    ..column("Name", "Name of the object, unique in its namespace.")
};
const AGE: Column = column("Age", "Time since the object was created.");
const CREATED_AT: Column = of("date", column("Created At", "Time of creation."));
const CONTAINERS: Column = wide("Containers", "Names of the containers in the template.");
const IMAGES: Column = wide("Images", "Images of the containers in the template.");
const SELECTOR: Column = wide("Selector", "Labels of the pods that are selected.");
const STATUS: Column = column("Status", "State of the object.");
const DESIRED: Column = of("integer", column("Desired", "Pods wanted."));
const CURRENT: Column = of("integer", column("Current", "Pods that exist."));
const READY: Column = of("integer", column("Ready", "Pods that are ready."));

/// Built-in kinds without a printer of their own.
pub(super) const PLAIN: &[Column] = &[NAME, CREATED_AT];
/// Custom resources without `additionalPrinterColumns`.
pub(super) const CUSTOM: &[Column] = &[NAME, of("date", AGE)];

pub(super) const PODS: &[Column] = &[
    NAME,
    column("Ready", "Containers that are ready, of all."),
    column(
        "Status",
        "Phase of the pod, or what keeps it from the next.",
    ),
    column("Restarts", "Container restarts, and when the last one was."),
    AGE,
    wide("IP", "Address of the pod."),
    wide("Node", "Node that the pod is bound to."),
    wide(
        "Nominated Node",
        "Node where room is being made for the pod.",
    ),
    wide("Readiness Gates", "Readiness gates that are true, of all."),
];

pub(super) const SERVICES: &[Column] = &[
    NAME,
    column("Type", "ClusterIP, NodePort, LoadBalancer or ExternalName."),
    column("Cluster-IP", "Virtual address of the service."),
    column(
        "External-IP",
        "Addresses that reach the service from outside.",
    ),
    column(
        "Port(s)",
        "Ports of the service, with the node port if any.",
    ),
    AGE,
    SELECTOR,
];

pub(super) const ENDPOINTS: &[Column] = &[
    NAME,
    column("Endpoints", "Addresses and ports that serve."),
    AGE,
];

pub(super) const ENDPOINT_SLICES: &[Column] = &[
    NAME,
    column("AddressType", "IPv4, IPv6 or FQDN."),
    column("Ports", "Ports of the endpoints."),
    column("Endpoints", "Addresses of the endpoints."),
    AGE,
];

pub(super) const CONFIG_MAPS: &[Column] = &[NAME, column("Data", "Number of keys."), AGE];

pub(super) const SECRETS: &[Column] = &[
    NAME,
    column("Type", "What the secret is for."),
    column("Data", "Number of keys."),
    AGE,
];

pub(super) const NAMESPACES: &[Column] = &[NAME, STATUS, AGE];

pub(super) const NODES: &[Column] = &[
    NAME,
    STATUS,
    column("Roles", "Roles from the node's labels."),
    AGE,
    column("Version", "Version of the node agent."),
    wide("Internal-IP", "Address inside the cluster."),
    wide("External-IP", "Address outside the cluster."),
    wide("OS-Image", "Operating system."),
    wide("Kernel-Version", "Kernel."),
    wide("Container-Runtime", "Container runtime and version."),
];

pub(super) const EVENTS: &[Column] = &[
    column("Last Seen", "Time since it last happened."),
    column("Type", "Normal or Warning."),
    column("Reason", "Reason in one word."),
    column("Object", "Object that it is about."),
    wide("Subobject", "Part of the object."),
    wide("Source", "Who reported it."),
    column("Message", "What happened."),
    wide("First Seen", "Time since it first happened."),
    wide("Count", "How often it happened."),
    Column {
        priority: 1,
        ..NAME
    },
];

pub(super) const SERVICE_ACCOUNTS: &[Column] =
    &[NAME, column("Secrets", "Number of secrets."), AGE];

pub(super) const RESOURCE_QUOTAS: &[Column] = &[
    NAME,
    column("Request", "Used of what may be requested."),
    column("Limit", "Used of the limits."),
    AGE,
];

pub(super) const REPLICA_SETS: &[Column] = &[
    NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR,
];

pub(super) const DEPLOYMENTS: &[Column] = &[
    NAME,
    column("Ready", "Ready pods of those wanted."),
    column("Up-to-date", "Pods with the newest template."),
    column("Available", "Pods ready for at least minReadySeconds."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const STATEFUL_SETS: &[Column] = &[
    NAME,
    column("Ready", "Ready pods of those wanted."),
    AGE,
    CONTAINERS,
    IMAGES,
];

pub(super) const DAEMON_SETS: &[Column] = &[
    NAME,
    DESIRED,
    CURRENT,
    READY,
    of(
        "integer",
        column("Up-to-date", "Pods with the newest template."),
    ),
    of("integer", column("Available", "Pods that are available.")),
    column("Node Selector", "Labels of the nodes that get a pod."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const CONTROLLER_REVISIONS: &[Column] = &[
    NAME,
    column("Controller", "Owner of the revision."),
    column("Revision", "Number of the revision."),
    AGE,
];

pub(super) const AUTOSCALERS: &[Column] = &[
    NAME,
    column("Reference", "What is scaled."),
    column("Targets", "Measured and wanted value of each metric."),
    column("MinPods", "Fewest pods."),
    column("MaxPods", "Most pods."),
    column("Replicas", "Pods now."),
    AGE,
];

pub(super) const INGRESSES: &[Column] = &[
    NAME,
    column("Class", "Ingress class."),
    column("Hosts", "Hosts of the rules."),
    column("Address", "Addresses of the gateway."),
    column("Ports", "Ports that are served."),
    AGE,
];

pub(super) const INGRESS_CLASSES: &[Column] = &[
    NAME,
    column("Controller", "Controller of this class."),
    column("Parameters", "Kind and name of further parameters."),
    AGE,
];

pub(super) const NETWORK_POLICIES: &[Column] = &[
    NAME,
    column("Pod-Selector", "Pods that the policy is about."),
    AGE,
];

pub(super) const JOBS: &[Column] = &[
    NAME,
    STATUS,
    column("Completions", "Pods that succeeded, of those wanted."),
    column("Duration", "Time from start to completion."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const CRON_JOBS: &[Column] = &[
    NAME,
    column("Schedule", "When it runs, in cron format."),
    column("Timezone", "Time zone of the schedule."),
    of("boolean", column("Suspend", "Whether it is suspended.")),
    of("integer", column("Active", "Jobs that run now.")),
    column("Last Schedule", "Time since the last run was started."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const LEASES: &[Column] = &[NAME, column("Holder", "Who holds the lease."), AGE];

pub(super) const DISRUPTION_BUDGETS: &[Column] = &[
    NAME,
    column("Min Available", "Fewest pods that must stay."),
    column("Max Unavailable", "Most pods that may be missing."),
    of(
        "integer",
        column("Allowed Disruptions", "Pods that may go now."),
    ),
    AGE,
];

pub(super) const PRIORITY_CLASSES: &[Column] = &[
    NAME,
    of("integer", column("Value", "Higher goes first.")),
    of(
        "boolean",
        column("Global-Default", "Whether it is the default."),
    ),
    AGE,
    column("PreemptionPolicy", "Whether lower pods may be evicted."),
];

pub(super) const VOLUME_CLAIMS: &[Column] = &[
    NAME,
    STATUS,
    column("Volume", "Bound volume."),
    column("Capacity", "Size of the bound volume."),
    column("Access Modes", "How the volume may be mounted."),
    column("StorageClass", "Storage class."),
    column("VolumeAttributesClass", "Volume attributes class."),
    AGE,
    wide("VolumeMode", "File system or block device."),
];

pub(super) const VOLUMES: &[Column] = &[
    NAME,
    column("Capacity", "Size of the volume."),
    column("Access Modes", "How the volume may be mounted."),
    column("Reclaim Policy", "What happens when the claim goes."),
    STATUS,
    column("Claim", "Claim that the volume is bound to."),
    column("StorageClass", "Storage class."),
    column("VolumeAttributesClass", "Volume attributes class."),
    column("Reason", "Reason of the state."),
    AGE,
    wide("VolumeMode", "File system or block device."),
];

pub(super) const ROLE_BINDINGS: &[Column] = &[
    NAME,
    column("Role", "Kind and name of the role."),
    AGE,
    wide("Users", "Users that are bound."),
    wide("Groups", "Groups that are bound."),
    wide("ServiceAccounts", "Service accounts that are bound."),
];
