//! What is known of an Ingress besides its routes: what its status says, and who wrote it.

use std::net::IpAddr;
use std::sync::Arc;

/// An Ingress whose status is ours to keep, or ours to clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressStatus {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Name of its class, from the annotation or the field.
    pub class: Option<Arc<str>>,
    /// Its class is one of ours. If not, the status is left over from when it was.
    pub is_ours: bool,
    /// `status.loadBalancer.ingress`, sorted.
    pub addresses: Arc<[PublishedAddress]>,
    /// Who wrote that.
    pub writer: StatusWriter,
    /// Names of the Services that it routes to.
    pub services: Arc<[Arc<str>]>,
}

/// Who wrote `status.loadBalancer.ingress`, as `metadata.managedFields` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum StatusWriter {
    /// The API server keeps no book of it, or nobody did.
    #[default]
    Unknown,
    /// We.
    Us,
    /// Somebody else.
    Other,
}

/// An entry of `status.loadBalancer.ingress`: where an Ingress can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PublishedAddress {
    /// By address.
    Ip(IpAddr),
    /// By name.
    Hostname(Arc<str>),
}
