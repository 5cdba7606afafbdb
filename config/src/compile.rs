//! Kubernetes objects to the model: the only place that knows both.
//!
//! Objects become compact records at the edge (`read` of each record), where fields that are not
//! used are dropped and bad ones become problems. The [`Compiler`] keeps the records and the working
//! snapshot, and redoes only what an event touches: a changed slice one Service, a changed Ingress
//! its hosts. Bad input is partly used or skipped and never affects other objects.

mod annotations;
mod canaries;
mod claims;
mod classes;
mod client_auth;
mod config_maps;
pub mod endpoint_slice;
mod endpoints;
mod error_pages;
mod further_names;
mod gateway;
pub mod gateway_api;
mod gateway_settings;
mod header_maps;
mod host;
mod host_backends;
mod host_certificate;
mod host_routes;
mod ingress;
mod ingress_status;
mod names;
mod node;
mod passthrough;
mod path;
mod pod;
mod port;
mod problems;
mod rank;
mod referred;
mod route_policy;
mod secret;
mod secrets;
mod served;
mod service;
mod services;
mod slice;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod upstream_tls;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

pub use annotations::is_without_effect;
pub use classes::{ClassRecord, ServedClasses};
pub use config_maps::ConfigMapRecord;
pub use gateway::GatewayOptions;
pub use ingress::{IngressRecord, ingress_class};
pub use ingress_status::StatusRecord;
pub use names::Names;
pub use node::{NodeIdentity, NodeRecord};
pub use pod::PodRecord;
pub use secret::SecretRecord;
pub use service::ServiceRecord;
pub use slice::SliceRecord;
pub use store::{Decoded, Delta, ObjectKey};

use crate::Snapshot;
use gateway::Gateway;
use problems::Problems;
use services::Services;

/// A change of watched objects.
#[derive(Debug)]
pub enum Change {
    /// Services.
    Services(Delta<ServiceRecord>),
    /// EndpointSlices.
    Slices(Delta<SliceRecord>),
    /// The Node that this process runs on.
    Nodes(Delta<NodeRecord>),
    /// Namespaces; all that counts is that they exist.
    Namespaces(Delta<()>),
    /// Pods, by their addresses.
    Pods(Delta<PodRecord>),
    /// Ingresses.
    Ingresses(Delta<IngressRecord>),
    /// IngressClasses.
    Classes(Delta<ClassRecord>),
    /// Objects of Gateway API.
    GatewayApi(gateway_api::ApiChange),
    /// One Secret that is referred to.
    Secret(ObjectKey, Delta<SecretRecord>),
    /// One ConfigMap that is referred to.
    ConfigMap(ObjectKey, Delta<ConfigMapRecord>),
}

/// How much a [`Compiler::build`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Services compiled.
    pub services: usize,
    /// EndpointSlices read for them.
    pub slices: usize,
    /// Endpoints in these slices.
    pub endpoints: usize,
    /// Hosts compiled.
    pub hosts: usize,
}

/// What [`Compiler::build`] made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The state of the world; shares its tables with the one before.
    pub snapshot: Snapshot,
    /// How much was done for it.
    pub work: Work,
    /// Whether it differs from the one before.
    pub is_changed: bool,
}

/// Compiles watched objects into snapshots.
#[derive(Debug)]
pub struct Compiler {
    services: Services,
    gateway: Gateway,
    namespaces: store::Store<()>,
    pods: pod::PodTable,
    problems: Problems,
    snapshot: Snapshot,
    /// Namespaces or addresses of pods came or went since the last snapshot.
    tables_changed: bool,
}

impl Compiler {
    /// A compiler that knows no objects yet. `node` says where this process runs, if that matters:
    /// without it no endpoint is local and topology hints are ignored.
    pub fn new(gateway: GatewayOptions, node: Option<NodeIdentity>) -> Self {
        Self {
            services: Services::new(node),
            gateway: Gateway::new(gateway),
            namespaces: store::Store::new("Namespace"),
            pods: pod::PodTable::new(),
            problems: Problems::default(),
            snapshot: Snapshot::default(),
            tables_changed: false,
        }
    }

    /// The same, but what is compiled says only which names and addresses there are, not where
    /// connections go: no ports of Services, no table of dialled addresses.
    pub fn without_traffic(mut self) -> Self {
        self.services.has_traffic = false;
        self
    }

    /// The same, but nobody asks for names: which Services have an address as an endpoint is not noted.
    pub fn without_names(mut self) -> Self {
        self.services.has_names = false;
        self
    }

    /// Takes a change in. Nothing is compiled before [`Self::build`].
    pub fn apply(&mut self, change: Change, now: Instant) {
        let problems = &mut self.problems;
        match change {
            Change::Services(delta) => {
                for service in self.services.apply_services(delta, problems) {
                    self.gateway.service_changed(&service);
                }
            }
            Change::Slices(delta) => self.services.apply_slices(delta, now, problems),
            Change::Nodes(delta) => self.services.apply_nodes(delta, problems),
            Change::Namespaces(delta) => {
                for changed in self.namespaces.apply(delta, problems) {
                    self.tables_changed = true;
                    let name = changed.key.name.clone();
                    if changed.old.is_some() {
                        self.snapshot.namespaces.remove_mut(&name);
                    } else {
                        self.snapshot.namespaces.insert_mut(name, ());
                    }
                }
            }
            Change::Pods(delta) => {
                let table = &mut self.snapshot.pods;
                self.tables_changed |= self.pods.apply(delta, problems, table);
            }
            Change::Ingresses(delta) => self.gateway.apply_ingresses(delta, problems),
            Change::Classes(delta) => self.gateway.apply_classes(delta, problems),
            Change::GatewayApi(change) => self.gateway.apply_gateway_api(change, problems),
            Change::Secret(key, delta) => self.gateway.apply_secret(&key, delta),
            Change::ConfigMap(key, delta) => {
                self.gateway.apply_config_map(&key, delta, problems);
            }
        }
    }

    /// When [`Self::build`] has to run even if nothing changes: an endpoint that is held because it
    /// may be on its way from one slice to another has to go.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.services.next_deadline()
    }

    /// The Secrets that are referred to and therefore have to be watched, each with the number of
    /// its reference. A Secret whose number changed was forgotten in between and has to be read anew.
    pub fn secrets(&self) -> impl Iterator<Item = (&ObjectKey, u64)> {
        self.gateway.secrets().references()
    }

    /// Changes whenever the answer of [`Self::secrets`] does.
    pub fn secrets_version(&self) -> u64 {
        self.gateway.secrets().version()
    }

    /// The same for ConfigMaps.
    pub fn config_maps(&self) -> impl Iterator<Item = (&ObjectKey, u64)> {
        self.gateway.config_maps().references()
    }

    /// Changes whenever the answer of [`Self::config_maps`] does.
    pub fn config_maps_version(&self) -> u64 {
        self.gateway.config_maps().version()
    }

    /// Whether each object of [`Self::secrets`] and [`Self::config_maps`] was heard of.
    pub fn references_known(&self) -> bool {
        self.gateway.secrets().all_known() && self.gateway.config_maps().all_known()
    }

    /// Lets time pass for certificates, which begin and cease to be valid without an event. Returns
    /// whether [`Self::build`] has something to do.
    pub fn check_validity(&mut self, epoch_seconds: i64) -> bool {
        self.gateway.check_validity(epoch_seconds)
    }

    /// Compiles what changed. `epoch_seconds` is the time since the Unix epoch.
    pub fn build(&mut self, now: Instant, epoch_seconds: i64) -> Built {
        let (snapshot, problems) = (&mut self.snapshot, &mut self.problems);
        let services = self.services.build(now, snapshot, problems);
        let gateway = self
            .gateway
            .build(&self.services, epoch_seconds, snapshot, problems);
        let found = problems.take_changed(&snapshot.problems);
        let is_leaving = self.services.node_is_leaving;
        let node_changed =
            std::mem::replace(&mut snapshot.node_is_leaving, is_leaving) != is_leaving;
        let is_changed = services.services > 0
            || node_changed
            || gateway.is_changed
            || std::mem::take(&mut self.tables_changed)
            || found.is_some();
        if let Some(problems) = found {
            snapshot.problems = problems;
        }
        if is_changed {
            // The serial of DNS zones must not go back, even if the clock does.
            snapshot.changed_at = snapshot.changed_at.max(epoch_seconds);
        }
        Built {
            snapshot: snapshot.clone(),
            work: Work {
                services: services.services,
                slices: services.slices,
                endpoints: services.endpoints,
                hosts: gateway.hosts,
            },
            is_changed,
        }
    }
}

/// `metadata.creationTimestamp` in seconds since the Unix epoch; an object without one counts as
/// the youngest.
fn created(time: Option<&Time>) -> i64 {
    time.map_or(i64::MAX, |time| time.0.as_second())
}
