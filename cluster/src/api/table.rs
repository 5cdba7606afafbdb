//! Tables (`meta.k8s.io/v1 Table`): the columns and cells that `kubectl get` shows.
//!
//! The server always fills every cell; clients leave out columns with priority 1 unless asked
//! for more (`-o wide`).

mod age;
mod columns;
mod core;
mod format;
mod network;
mod pod;
#[cfg(test)]
mod tests;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::json::{present, text};

/// A `TableColumnDefinition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type of the cells: string, integer, boolean or date.
    pub type_: &'static str,
    /// OpenAPI format; `name` marks the column that names the object.
    pub format: &'static str,
    /// Description for people.
    pub description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

type Row = fn(&Value, Timestamp) -> Vec<Value>;

/// The columns of a resource. `group` is empty for the core group.
///
/// Custom resources have the name and the age; the columns that a CustomResourceDefinition adds
/// are not known here.
pub fn columns(group: &str, resource: &str) -> &'static [Column] {
    printer(group, resource).0
}

/// The cells of an object, one per column.
pub fn cells(group: &str, resource: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    printer(group, resource).1(object, now)
}

/// The conditions of an object's row: pods that have ended are marked `Completed`.
pub fn conditions(group: &str, resource: &str, object: &Value) -> Vec<Value> {
    match (group, resource) {
        ("", "pods") => pod::conditions(object),
        _ => Vec::new(),
    }
}

fn printer(group: &str, resource: &str) -> (&'static [Column], Row) {
    match (group, resource) {
        ("", "pods") => (columns::PODS, pod::cells),
        ("", "services") => (columns::SERVICES, network::service),
        ("", "endpoints") => (columns::ENDPOINTS, network::endpoints),
        ("discovery.k8s.io", "endpointslices") => {
            (columns::ENDPOINT_SLICES, network::endpoint_slice)
        }
        ("networking.k8s.io", "ingresses") => (columns::INGRESSES, network::ingress),
        ("networking.k8s.io", "ingressclasses") => {
            (columns::INGRESS_CLASSES, network::ingress_class)
        }
        ("networking.k8s.io", "networkpolicies") => {
            (columns::NETWORK_POLICIES, network::network_policy)
        }
        ("", "configmaps") => (columns::CONFIG_MAPS, core::config_map),
        ("", "secrets") => (columns::SECRETS, core::secret),
        ("", "namespaces") => (columns::NAMESPACES, core::namespace),
        ("", "nodes") => (columns::NODES, core::node),
        ("" | "events.k8s.io", "events") => (columns::EVENTS, core::event),
        ("", "serviceaccounts") => (columns::SERVICE_ACCOUNTS, core::service_account),
        ("", "resourcequotas") => (columns::RESOURCE_QUOTAS, core::resource_quota),
        ("", "persistentvolumeclaims") => (columns::VOLUME_CLAIMS, core::volume_claim),
        ("", "persistentvolumes") => (columns::VOLUMES, core::volume),
        ("coordination.k8s.io", "leases") => (columns::LEASES, core::lease),
        ("scheduling.k8s.io", "priorityclasses") => {
            (columns::PRIORITY_CLASSES, core::priority_class)
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            (columns::ROLE_BINDINGS, core::role_binding)
        }
        _ => workload(group, resource),
    }
}

fn workload(group: &str, resource: &str) -> (&'static [Column], Row) {
    match (group, resource) {
        ("apps", "deployments") => (columns::DEPLOYMENTS, workloads::deployment),
        ("apps", "replicasets") => (columns::REPLICA_SETS, workloads::replica_set),
        ("", "replicationcontrollers") => {
            (columns::REPLICA_SETS, workloads::replication_controller)
        }
        ("apps", "statefulsets") => (columns::STATEFUL_SETS, workloads::stateful_set),
        ("apps", "daemonsets") => (columns::DAEMON_SETS, workloads::daemon_set),
        ("apps", "controllerrevisions") => (
            columns::CONTROLLER_REVISIONS,
            workloads::controller_revision,
        ),
        ("batch", "jobs") => (columns::JOBS, workloads::job),
        ("batch", "cronjobs") => (columns::CRON_JOBS, workloads::cron_job),
        ("autoscaling", "horizontalpodautoscalers") => {
            (columns::AUTOSCALERS, workloads::autoscaler)
        }
        ("policy", "poddisruptionbudgets") => {
            (columns::DISRUPTION_BUDGETS, workloads::disruption_budget)
        }
        _ if built_in(group) => (columns::PLAIN, plain),
        _ => (columns::CUSTOM, custom),
    }
}

/// Whether a group belongs to Kubernetes itself: groups without a dot, and `*.k8s.io` except the
/// projects that live there with custom resources.
fn built_in(group: &str) -> bool {
    !group.contains('.')
        || matches!(
            group,
            "rbac.authorization.k8s.io"
                | "apiextensions.k8s.io"
                | "admissionregistration.k8s.io"
                | "storage.k8s.io"
                | "node.k8s.io"
                | "certificates.k8s.io"
                | "flowcontrol.apiserver.k8s.io"
        )
}

fn plain(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "/metadata/creationTimestamp")),
    ]
}

fn custom(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

fn age(object: &Value, now: Timestamp) -> Value {
    json!(age::since(object, "/metadata/creationTimestamp", now))
}

fn deleting(object: &Value) -> bool {
    present(object, "/metadata/deletionTimestamp").is_some()
}
