//! Pods to the table of their addresses.
//!
//! A pod that is about to end keeps its addresses until it is gone, whatever is said of it meanwhile:
//! its connections still come from there. One that had begun to end when it was first heard of has
//! none, since they may be another's by now.

use std::net::IpAddr;

use k8s_openapi::api::core::v1;

use super::problems::Problems;
use super::store::{Changed, Delta, ObjectKey, Store};
use crate::model::{Pod, Pods};

/// The fields of a pod that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRecord {
    ips: Box<[IpAddr]>,
    host_network: bool,
    is_ending: bool,
}

impl PodRecord {
    /// Reads a pod; `None` if it has ended, so that its addresses are free.
    pub fn read(pod: v1::Pod) -> Option<Self> {
        let status = pod.status.unwrap_or_default();
        if let Some("Succeeded" | "Failed" | "Unknown") = status.phase.as_deref() {
            return None;
        }
        let all = status.pod_ips.unwrap_or_default();
        let texts = all
            .iter()
            .map(|ip| ip.ip.as_str())
            .chain(status.pod_ip.as_deref());
        let mut ips: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        ips.sort_unstable();
        ips.dedup();
        Some(Self {
            ips: ips.into(),
            host_network: pod
                .spec
                .and_then(|spec| spec.host_network)
                .unwrap_or_default(),
            is_ending: pod.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// The pods half of the compiler.
#[derive(Debug)]
pub(super) struct PodTable {
    records: Store<PodRecord>,
}

impl PodTable {
    pub(super) fn new() -> Self {
        Self {
            records: Store::new("Pod"),
        }
    }

    /// Takes changed pods in; returns whether an address came or went.
    pub(super) fn apply(
        &mut self,
        delta: Delta<PodRecord>,
        problems: &mut Problems,
        table: &mut Pods,
    ) -> bool {
        let mut is_changed = false;
        for Changed { key, old } in self.records.apply(delta, problems) {
            let new = self.records.get_mut(&key);
            if let Some(new) = new
                && new.is_ending
            {
                // As it was, or nothing.
                match old {
                    Some(old) => new.ips = old.ips,
                    None => new.ips = Box::default(),
                }
                continue;
            }
            let new = self.records.get(&key);
            let (before, after) = (old.as_deref(), new);
            for ip in before.iter().flat_map(|old| &old.ips) {
                table.take(*ip, &pod(&key, before));
            }
            for ip in after.iter().flat_map(|new| &new.ips) {
                table.add(*ip, &pod(&key, after));
            }
            is_changed = true;
        }
        is_changed
    }
}

fn pod(key: &ObjectKey, record: Option<&PodRecord>) -> Pod {
    Pod {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        host_network: record.is_some_and(|record| record.host_network),
    }
}
