//! What is kept of an Ingress' status, to know whether it has to be written.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::ingress::IngressRecord;
use crate::defaults::FIELD_MANAGER;
use crate::model::{IngressStatus, PublishedAddress, StatusWriter};

/// The fields that are used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusRecord {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `status.loadBalancer.ingress`, sorted.
    pub addresses: Arc<[PublishedAddress]>,
    /// Who wrote that.
    pub writer: StatusWriter,
}

impl StatusRecord {
    /// Reads an Ingress.
    pub fn read(ingress: &Ingress) -> Self {
        let balancer = ingress
            .status
            .as_ref()
            .and_then(|s| s.load_balancer.as_ref());
        let entries = balancer.and_then(|balancer| balancer.ingress.as_deref());
        let mut addresses: Vec<PublishedAddress> = entries
            .unwrap_or_default()
            .iter()
            .filter_map(address)
            .collect();
        addresses.sort_unstable();
        let managed = ingress.metadata.managed_fields.as_deref();
        Self {
            uid: ingress.metadata.uid.as_deref().unwrap_or_default().into(),
            addresses: addresses.into(),
            writer: writer(managed.unwrap_or_default()),
        }
    }

    /// The status in the model, if it is any concern of ours.
    ///
    /// One that we may have written is kept in sight after the Ingress ceased to be ours.
    pub(super) fn build(&self, record: &IngressRecord, is_ours: bool) -> Option<IngressStatus> {
        let left_over = !self.addresses.is_empty() && self.writer != StatusWriter::Other;
        (is_ours || left_over).then(|| IngressStatus {
            uid: Arc::clone(&self.uid),
            class: record.class.clone(),
            is_ours,
            addresses: Arc::clone(&self.addresses),
            writer: self.writer,
            services: record.service_names(),
        })
    }
}

fn address(entry: &IngressLoadBalancerIngress) -> Option<PublishedAddress> {
    let ip = entry.ip.as_deref().and_then(|ip| ip.parse().ok());
    let name = entry.hostname.as_deref().filter(|name| !name.is_empty());
    ip.map(PublishedAddress::Ip)
        .or_else(|| Some(PublishedAddress::Hostname(name?.into())))
}

/// Who owns `status.loadBalancer.ingress`. Several can own it only with the same value, and then we
/// have a part in it.
fn writer(managed: &[ManagedFieldsEntry]) -> StatusWriter {
    let owns = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| {
            fields.0["f:status"]["f:loadBalancer"]
                .get("f:ingress")
                .is_some()
        })
    };
    let ours = |entry: &ManagedFieldsEntry| entry.manager.as_deref() == Some(FIELD_MANAGER);
    let mut owners = managed.iter().filter(owns).peekable();
    if owners.peek().is_none() {
        StatusWriter::Unknown
    } else if owners.any(ours) {
        StatusWriter::Us
    } else {
        StatusWriter::Other
    }
}
