//! A Service's port with its endpoints, for each family that the Service has an address in.

use std::net::IpAddr;
use std::sync::Arc;

use super::endpoints::PortEndpoints;
use super::service::{PortRecord, ServiceRecord};
use crate::model::{Scope, ServiceKey, ServicePort};

/// A port with the endpoints of either family.
pub(super) struct CompiledPort {
    /// The family that the Service prefers, or the other if that one has no endpoints.
    pub(super) any: Arc<ServicePort>,
    any_is_v4: bool,
    /// The other family, if the Service has an address in it.
    other: Option<Arc<ServicePort>>,
}

impl CompiledPort {
    /// `endpoints` gives those of a family, and those on this node if it is asked to.
    pub(super) fn new(
        service: &ServiceKey,
        record: &ServiceRecord,
        port: &PortRecord,
        mut endpoints: impl FnMut(bool, bool) -> PortEndpoints,
    ) -> Self {
        let policy = &record.policy;
        let with_local = [policy.internal, policy.external].contains(&Scope::Local);
        let with = |endpoints: PortEndpoints| {
            Arc::new(ServicePort {
                service: service.clone(),
                name: Arc::clone(&port.name),
                port: port.port,
                protocol: port.protocol,
                node_port: port.node_port,
                app_protocol: port.app_protocol,
                endpoints: endpoints.cluster,
                local: endpoints.local,
                everywhere: endpoints.everywhere,
                policy: Arc::clone(policy),
                http: Arc::clone(&record.http),
            })
        };
        let (v4, v6) = (endpoints(true, with_local), endpoints(false, with_local));
        let prefers_v4 = record.cluster_ips.first().is_none_or(IpAddr::is_ipv4);
        let any_is_v4 = if prefers_v4 {
            !v4.cluster.is_empty() || v6.cluster.is_empty()
        } else {
            v6.cluster.is_empty() && !v4.cluster.is_empty()
        };
        let (any, other) = if any_is_v4 { (v4, v6) } else { (v6, v4) };
        let has_other = record.addresses().any(|ip| ip.is_ipv4() != any_is_v4);
        Self {
            any: with(any),
            any_is_v4,
            other: has_other.then(|| with(other)),
        }
    }

    pub(super) fn family(&self, addr: IpAddr) -> Option<&Arc<ServicePort>> {
        if addr.is_ipv4() == self.any_is_v4 {
            Some(&self.any)
        } else {
            self.other.as_ref()
        }
    }
}
